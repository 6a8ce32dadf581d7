#ifndef AISLE_CORE_TRAINING_INTERNAL_H
#define AISLE_CORE_TRAINING_INTERNAL_H

#include "base/file.h"
#include "base/hash.h"
#include "base/idmap.h"
#include "base/json_write.h"
#include "core/model_folder_write.h"
#include "core/train_model.h"
#include "core/train_search.h"
#include "embeddings/neighbors.h"
#include "embeddings/train/item2vec.h"
#include "embeddings/train/trainer.h"
#include "store/event_file.h"

/* A training under way; shared by train_model.c (reading, writing), train_sequence.c and
 * train_neighbors.c. Legend: N items, D dimension of the written vectors. */
struct training {
    const struct train_config *config;
    struct train_result *result;
    int64_t start_us;
    struct model_folder_writer writer;
    char checkpoint[PATH_BYTES_MAX]; /* beside out; sequence models */

    bool is_sequence;   /* sasrec, gru4rec, attention */
    bool has_neighbors; /* beside the model, or as the model */
    struct item2vec_settings item2vec;
    struct trainer_settings sequence;
    enum event_grouping grouping; /* of sequences */
    bool refit;
    struct neighbors_settings neighbors;
    struct neighbors_blend blend;

    struct idmap *rows;
    struct event_log_counts counts;
    struct event_log log;
    bool is_loaded; /* log, grouped as loaded says */
    enum event_grouping loaded;
    struct trainer *trainer;
    struct train_search_report *search; /* NULL: none */
    float *vectors;                     /* [N × D] */
    size_t dim;                         /* D */
    float *item_counts;
    char fingerprint[SHA256_HEX_BYTES]; /* of the events file */
    char settings_hash[SHA256_HEX_BYTES];
};

/* train_model.c: training->log in this grouping; reads the file unless it is that already. */
enum status training_load_events(struct training *training, enum event_grouping grouping,
                                 struct error *err) STATUS_CHECKED;
/* Path of a file of the temporary folder. */
enum status training_path(const struct training *training, const char *name,
                          char out[PATH_BYTES_MAX], struct error *err) STATUS_CHECKED;

/* train_sequence.c: defaults and overrides of a sequence model. */
enum status train_sequence_check(struct training *training, struct error *err) STATUS_CHECKED;
/* Events → vectors and weights; tunes the blend with neighbours on the way. */
enum status train_sequence_learn(struct training *training, struct error *err) STATUS_CHECKED;
/* training.svg of the temporary folder. */
enum status train_sequence_draw(const struct training *training, struct error *err) STATUS_CHECKED;
void train_sequence_encode(const struct training *training, struct json_writer *json);

/* train_neighbors.c */
enum status train_neighbors_check(struct training *training, struct error *err) STATUS_CHECKED;
/* Weight and floor of the blend by nDCG@20 on the trainer's held-out cases, with neighbours of the
 * other events alone. */
enum status train_neighbors_tune(struct training *training, struct error *err) STATUS_CHECKED;
/* neighbors.safetensors of the temporary folder, from all events. */
enum status train_neighbors_write(struct training *training, struct error *err) STATUS_CHECKED;
void train_neighbors_encode(const struct training *training, struct json_writer *json);

#endif
