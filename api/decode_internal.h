#ifndef AISLE_API_DECODE_INTERNAL_H
#define AISLE_API_DECODE_INTERNAL_H

#include <cjson/cJSON.h>

#include "api/decode.h"

/* Shared by the two decoders. A decoder is a table of members; each row reads one member of the
 * object into the target. */
struct decoder {
    struct arena *arena;
    void *target;
    enum body_kind kind; /* of requests; 0 for events */
    struct error *err;
    int64_t now_ms; /* of events */
};

struct decoder_member {
    const char *name;
    unsigned kinds; /* bodies that may have it; 0: every one */
    enum status (*read)(struct decoder *decoder, const char *name, const cJSON *value);
};

/* Reads all members of object by the table: an unknown, repeated or malformed one is INVALID. At
 * most 32 rows. */
enum status decode_object(struct decoder *decoder, const cJSON *object,
                          const struct decoder_member *members, size_t n_members) STATUS_CHECKED;

/* Values of one type, copied into the arena where they are texts. */
enum status decode_id(struct decoder *decoder, const char *name, const cJSON *value,
                      const char **out) STATUS_CHECKED;
enum status decode_text(struct decoder *decoder, const char *name, const cJSON *value,
                        const char **out) STATUS_CHECKED;
enum status decode_bool(struct decoder *decoder, const char *name, const cJSON *value,
                        bool *out) STATUS_CHECKED;
struct decode_range {
    double min, max;
};
enum status decode_number(struct decoder *decoder, const char *name, const cJSON *value,
                          struct decode_range range, double *out) STATUS_CHECKED;
/* A whole number; 20.0 is one. */
enum status decode_integer(struct decoder *decoder, const char *name, const cJSON *value,
                           struct decode_range range, int64_t *out) STATUS_CHECKED;

#endif
