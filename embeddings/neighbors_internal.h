#ifndef AISLE_EMBEDDINGS_NEIGHBORS_INTERNAL_H
#define AISLE_EMBEDDINGS_NEIGHBORS_INTERNAL_H

#include "base/buf.h"
#include "embeddings/json_read.h"
#include "embeddings/neighbors.h"
#include "embeddings/safetensors.h"

/* Shared by the files neighbors_*.c. Legend: N items, S sessions. */
#define NEIGHBORS_METADATA "aisle.neighbors"

enum { NEIGHBORS_VERSION = 1, NEIGHBORS_SETTINGS_BYTES_MAX = 4096 };

/* The arrays of a file, sessions or rules; borrowed. */
struct neighbors_tables {
    size_t n_items, n_sessions;
    const int64_t *posting_offsets; /* [N + 1] */
    const int32_t *postings;        /* sessions, newest first */
    const int64_t *session_offsets; /* [S + 1] */
    const int32_t *session_items;
    const int64_t *session_times;   /* [S] */
    const int32_t *session_lengths; /* [S] */
    const int32_t *counts;          /* [N] */
    const int64_t *rule_offsets;    /* [N + 1] */
    const int32_t *rule_items;
    const float *rule_scores;
};
bool neighbors_has_rules(enum neighbors_kind kind);

struct neighbors {
    struct safetensors *file;
    struct neighbors_info info;
    struct neighbors_tables tables;
};

/* Settings and blend as JSON, and back. FORMAT, UNSUPPORTED. */
void neighbors_settings_encode(const struct neighbors_info *info, struct buf *out);
enum status neighbors_settings_decode(const char *text, struct neighbors_info *info,
                                      struct error *err) STATUS_CHECKED;
enum status neighbors_file_write(const char *path, const struct neighbors_info *info,
                                 const struct neighbors_tables *tables,
                                 struct error *err) STATUS_CHECKED;
/* The tables of sessions; frees what *tables borrows in any case through blocks. */
enum status neighbors_build_rules(const struct event_log *sessions, size_t n_items,
                                  const struct neighbors_info *info, const char *path,
                                  struct error *err) STATUS_CHECKED;

#endif
