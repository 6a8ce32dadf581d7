#ifndef AISLE_BASE_LOG_H
#define AISLE_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

/* One line an event on stderr (or log_init's descriptor), as key=value or JSON:
 *   ts=2026-11-24T10:15:00.123Z level=info msg="listening" addr=127.0.0.1:8080 workers=2
 * The level is tested before any argument is evaluated. A line is written with one write(2), so
 * that lines of several threads do not mix. User ids and vectors only at debug. */
enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR, LOG_LEVEL_OFF };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

enum log_field_type { LOG_FIELD_TEXT, LOG_FIELD_INT, LOG_FIELD_DOUBLE };

struct log_field {
    const char *key;
    enum log_field_type type;
    union {
        const char *text;
        int64_t integer;
        double number;
    } value;
};

#define LOG_S(name, v) ((struct log_field){(name), LOG_FIELD_TEXT, {.text = (v)}})
#define LOG_I(name, v) ((struct log_field){(name), LOG_FIELD_INT, {.integer = (int64_t)(v)}})
#define LOG_F(name, v) ((struct log_field){(name), LOG_FIELD_DOUBLE, {.number = (v)}})

/* At least one field: LOG_AT(LOG_LEVEL_INFO, "listening", LOG_S("addr", a), LOG_I("workers", n)) */
#define LOG_AT(level, message, ...)                                                                \
    do {                                                                                           \
        if (log_enabled(level)) {                                                                  \
            const struct log_field log_fields_[] = {__VA_ARGS__};                                  \
            log_write((level), (message), log_fields_,                                             \
                      sizeof(log_fields_) / sizeof(log_fields_[0]));                               \
        }                                                                                          \
    } while (0)
#define LOG_DEBUG(message, ...) LOG_AT(LOG_LEVEL_DEBUG, message, __VA_ARGS__)
#define LOG_INFO(message, ...) LOG_AT(LOG_LEVEL_INFO, message, __VA_ARGS__)
#define LOG_WARN(message, ...) LOG_AT(LOG_LEVEL_WARN, message, __VA_ARGS__)
#define LOG_ERROR(message, ...) LOG_AT(LOG_LEVEL_ERROR, message, __VA_ARGS__)

/* Process-wide, before threads start. Defaults: info, text, descriptor 2. */
void log_init(enum log_level level, enum log_format format, int descriptor);
/* "debug" … "off", "text"/"json"; false and *out unchanged for another word. */
bool log_level_parse(const char *text, enum log_level *out);
bool log_format_parse(const char *text, enum log_format *out);
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *message, const struct log_field *fields,
               unsigned long n_fields);

/* Progress of long work on stderr: on a terminal one line rewritten at most 10 times a second, else
 * a plain line every 5 seconds, and always a last one. Zero-initialise; one thread. */
struct progress {
    int64_t last_us;
    int64_t start_us;
    bool drawn;
};
/* done of total (0 = unknown) units; `detail` is put after ("loss=0.31"), may be NULL. Shows rate
 * and, with a total, the ETA. */
void progress_show(struct progress *progress, const char *what, uint64_t done, uint64_t total,
                   const char *detail);
void progress_end(struct progress *progress, const char *what, uint64_t done, const char *detail);

#endif
