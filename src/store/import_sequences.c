#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/parse.h"
#include "store/import_internal.h"

/* Plain sequence files of recommender research: ids separated by blanks or tabs, a user's or a
 * session's items a line, no times. "-" stands for "nothing" in some of them and is passed over.
 * Times are made up by one clock for the whole file, as such files are written in the order in
 * which the users or sessions came: a split by time then separates later ones from earlier ones. */

enum { SEQUENCE_LINE_MAX_BYTES = 16 << 20, SESSION_ID_BYTES = 32 };

/* Copies the next word of *text to out and moves *text behind it. False at the end; a word that
 * does not fit becomes "", which no id is. */
static bool next_word(const char **text, char out[ID_BYTES_MAX + 1])
{
    static const char blanks[] = " \t";
    const char *begin = *text + strspn(*text, blanks);
    size_t len = strcspn(begin, blanks);
    *text = begin + len;
    if (len == 0) {
        return false;
    }
    if (len > ID_BYTES_MAX) {
        len = 0;
    }
    memcpy(out, begin, len);
    out[len] = '\0';
    return true;
}

static enum status add_items(struct import_sink *sink, const char *text, const char *user,
                             const char *session, struct error *err)
{
    char item[ID_BYTES_MAX + 1];
    while (next_word(&text, item)) {
        if (strcmp(item, "-") == 0) {
            import_drop(sink, "placeholder");
            continue;
        }
        const struct import_event event = {
            .user = user,
            .item = item,
            .session = session,
            .time_ms = import_made_up_time(sink),
            .type = EVENT_VIEW,
            .value = (double)NAN,
        };
        enum status status = import_add_event(sink, &event, NULL, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status add_line(struct import_sink *sink, const char *line, bool with_user,
                            struct error *err)
{
    char user[ID_BYTES_MAX + 1];
    char session[SESSION_ID_BYTES];
    import_count_row(sink);
    if (with_user) {
        return next_word(&line, user) ? add_items(sink, line, user, NULL, err) : STATUS_OK;
    }
    (void)snprintf(session, sizeof session, "s%llu", (unsigned long long)sink->counts->n_rows);
    return add_items(sink, line, session, session, err);
}

static enum status read_file(struct import_sink *sink, const char *path, bool with_user,
                             struct error *err)
{
    struct line_reader *reader = NULL;
    const char *line = NULL;
    size_t len = 0;
    enum status status = line_reader_open(path, SEQUENCE_LINE_MAX_BYTES, &reader, err);
    while (status == STATUS_OK) {
        status = line_reader_next(reader, &line, &len, err);
        if (status == STATUS_OK && !utf8_valid(line, len)) {
            status = error_set(err, STATUS_INVALID, "%s:%llu: not valid UTF-8 text", path,
                               (unsigned long long)line_reader_number(reader));
        }
        if (status == STATUS_OK) {
            status = add_line(sink, line, with_user, err);
        }
    }
    if (reader != NULL) {
        line_reader_close(reader);
        status = status == STATUS_NOT_FOUND ? STATUS_OK : status;
    }
    return status;
}

enum status import_session_file(struct import_sink *sink, const char *path, struct error *err)
{
    return read_file(sink, path, false, err);
}

enum status import_sequences(struct import_sink *sink, const struct import_config *config,
                             struct error *err)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < config->n_paths; i++) {
        status = read_file(sink, config->paths[i], true, err);
    }
    return status;
}

enum status import_sessions(struct import_sink *sink, const struct import_config *config,
                            struct error *err)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < config->n_paths; i++) {
        status = read_file(sink, config->paths[i], false, err);
    }
    return status;
}
