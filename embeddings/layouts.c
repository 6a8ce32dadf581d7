#include "embeddings/layouts_internal.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/user_model_internal.h"

/* Follows the tables of layout_tables.c: finds sizes in the shapes, checks them as settings, then
 * reads every tensor into one block of memory and points the weights' structs into it. Nothing is
 * guessed: a tensor that is missing or has another shape than the layout gives it is an error,
 * because a model that is read almost right answers plausibly and wrongly.
 *
 * The number of blocks is the highest number that any tensor of the layout's blocks has, so that a
 * block with a tensor missing is an error, not one block fewer.
 *
 * Rejected: recognising the layout from the names. Two programs share names and differ in what the
 * names do not say (the end from which positions count). */

enum { NAME_BYTES = 192, NUMBER_DIGITS = 4 };

struct reading {
    const struct safetensors *file;
    const struct layout *layout;
    const struct layout_config *config;
    struct layout_model *model;
    size_t sizes[N_LAYOUT_SIZES];
    size_t n_blocks;
    size_t n_values; /* of the block of memory; planned first, then filled */
    bool *used;      /* [tensors of the file] */
};

/* ---- names ---- */

static size_t common_prefix(const struct safetensors *file)
{
    static const char *const PREFIXES[] = {"model.", "module."};
    const size_t n = safetensors_count(file);
    size_t len = 0;
    for (size_t p = 0; p < 2 && n > 0; p++) {
        const size_t prefix_len = strlen(PREFIXES[p]);
        size_t n_having = 0;
        while (n_having < n &&
               strncmp(safetensors_at(file, n_having)->name + len, PREFIXES[p], prefix_len) == 0) {
            n_having++;
        }
        if (n_having == n) {
            len += prefix_len;
            p = SIZE_MAX; /* wrappers may be nested in either order: from the first again */
        }
    }
    return len;
}

/* '#' of a table's name replaced; false when it does not fit. */
static bool expand_name(const char *name, size_t block, char out[NAME_BYTES])
{
    const char *mark = strchr(name, '#');
    int n = mark == NULL
                ? snprintf(out, NAME_BYTES, "%s", name)
                : snprintf(out, NAME_BYTES, "%.*s%zu%s", (int)(mark - name), name, block, mark + 1);
    return n > 0 && n < NAME_BYTES;
}

/* Index of a tensor by its name without the common prefix; SIZE_MAX: not there. */
static size_t find_tensor(const struct reading *reading, const char *name)
{
    const size_t n = safetensors_count(reading->file);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(safetensors_at(reading->file, i)->name + reading->model->prefix_bytes, name) ==
            0) {
            return i;
        }
    }
    return SIZE_MAX;
}

static enum status missing(const struct reading *reading, const char *name, struct error *err)
{
    return error_set(err, STATUS_NOT_FOUND, "no tensor \"%.96s\", which layout %s has", name,
                     reading->layout->name);
}

/* The block number in name if it is that of a row of the layout's blocks, else SIZE_MAX. */
static size_t block_of(const struct layout *layout, const char *name)
{
    for (size_t r = 0; r < layout->n_block_tensors; r++) {
        const char *pattern = layout->block_tensors[r].name;
        const size_t before = (size_t)(strchr(pattern, '#') - pattern);
        if (strncmp(name, pattern, before) != 0) {
            continue;
        }
        const size_t n_digits = strspn(name + before, "0123456789");
        if (n_digits == 0 || n_digits > NUMBER_DIGITS ||
            strcmp(name + before + n_digits, pattern + before + 1) != 0) {
            continue;
        }
        size_t number = 0;
        for (size_t d = 0; d < n_digits; d++) {
            number = number * 10 + (size_t)(name[before + d] - '0');
        }
        return number;
    }
    return SIZE_MAX;
}

/* ---- sizes and settings ---- */

static enum status count_blocks(struct reading *reading, struct error *err)
{
    reading->n_blocks = 1;
    for (size_t i = 0; i < safetensors_count(reading->file); i++) {
        const char *name = safetensors_at(reading->file, i)->name + reading->model->prefix_bytes;
        const size_t block = block_of(reading->layout, name);
        if (block != SIZE_MAX && block >= reading->n_blocks) {
            reading->n_blocks = block + 1;
        }
    }
    if (reading->n_blocks > reading->layout->n_blocks_max) {
        return error_set(err, STATUS_UNSUPPORTED, "%zu blocks or layers; at most %zu can be served",
                         reading->n_blocks, reading->layout->n_blocks_max);
    }
    return STATUS_OK;
}

static enum status read_sizes(struct reading *reading, struct error *err)
{
    size_t *sizes = reading->sizes;
    sizes[SIZE_ONE] = 1;
    for (size_t i = 0; i < reading->layout->n_sources; i++) {
        const struct layout_source *source = &reading->layout->sources[i];
        const size_t found = find_tensor(reading, source->name);
        if (found == SIZE_MAX) {
            return missing(reading, source->name, err);
        }
        const struct tensor *tensor = safetensors_at(reading->file, found);
        if (tensor->rank < 2) {
            return error_set(err, STATUS_MISMATCH, "tensor \"%.96s\" has rank %zu, wanted a matrix",
                             source->name, tensor->rank);
        }
        if (tensor->shape[source->axis] == 0) {
            return error_set(err, STATUS_MISMATCH, "tensor \"%.96s\" is empty", source->name);
        }
        sizes[source->size] = (size_t)tensor->shape[source->axis];
    }
    return STATUS_OK;
}

/* Own message: the generic one of shapes would not say what the two extra rows are. */
static enum status check_items(struct reading *reading, struct error *err)
{
    const struct layout *layout = reading->layout;
    const char *name = layout->tensors[0].name;
    const size_t n_wanted = reading->config->n_items + layout->n_special_rows;
    const size_t n_rows =
        (size_t)safetensors_at(reading->file, find_tensor(reading, name))->shape[0];
    reading->sizes[SIZE_ITEMS] = n_wanted;
    if (n_rows != n_wanted) {
        return error_set(err, STATUS_MISMATCH,
                         "tensor \"%.64s\" has %zu rows; %zu item ids and %zu row%s of padding%s "
                         "want %zu",
                         name, n_rows, reading->config->n_items, layout->n_special_rows,
                         layout->n_special_rows == 1 ? "" : "s",
                         layout->n_special_rows == 1 ? "" : " and mask", n_wanted);
    }
    return STATUS_OK;
}

static enum status apply_activation(struct reading *reading, struct error *err)
{
    const char *activation = reading->config->activation;
    if (activation == NULL) {
        return STATUS_OK;
    }
    if (strcmp(activation, "relu") == 0) {
        reading->model->sasrec.activation = SASREC_RELU;
    } else if (strcmp(activation, "gelu") == 0) {
        reading->model->sasrec.activation = SASREC_GELU;
    } else {
        return error_set_field(err, STATUS_INVALID, "--activation",
                               "--activation: %.32s is not known; known: relu, gelu", activation);
    }
    return STATUS_OK;
}

static enum status make_sasrec(struct reading *reading, struct error *err)
{
    struct sasrec_settings *settings = &reading->model->sasrec;
    const size_t *sizes = reading->sizes;
    *settings = reading->layout->sasrec;
    settings->dim = sizes[SIZE_DIM];
    settings->item_dim = sizes[SIZE_DIM];
    settings->n_blocks = reading->n_blocks;
    settings->ffn_dim = sizes[SIZE_FFN];
    settings->history_max = sizes[SIZE_POSITIONS] - reading->layout->n_padding_positions;
    if (reading->layout->scales_by_root) {
        settings->input_scale = sqrt((double)settings->dim);
    }
    if (reading->config->n_heads != 0) {
        settings->n_heads = reading->config->n_heads;
    }
    if (settings->dim % settings->n_heads != 0) {
        return error_set_field(err, STATUS_INVALID, "--heads",
                               "--heads: %zu dimensions are not divisible by %zu heads",
                               settings->dim, settings->n_heads);
    }
    const enum status status = apply_activation(reading, err);
    return status == STATUS_OK ? sasrec_settings_check(settings, err) : status;
}

static enum status make_gru4rec(struct reading *reading, struct error *err)
{
    struct gru4rec_settings *settings = &reading->model->gru4rec;
    *settings = reading->layout->gru4rec;
    settings->dim = reading->sizes[SIZE_DIM];
    settings->item_dim = reading->sizes[SIZE_DIM];
    settings->hidden_dim = reading->sizes[SIZE_HIDDEN];
    settings->n_layers = reading->n_blocks;
    if (reading->config->history_max != 0) {
        settings->history_max = reading->config->history_max;
    }
    return gru4rec_settings_check(settings, err);
}

static enum status make_settings(struct reading *reading, struct error *err)
{
    const enum status status = reading->layout->architecture == LAYOUT_SASREC
                                   ? make_sasrec(reading, err)
                                   : make_gru4rec(reading, err);
    reading->sizes[SIZE_DIM_3] = 3 * reading->sizes[SIZE_DIM];
    reading->sizes[SIZE_HIDDEN_3] = 3 * reading->sizes[SIZE_HIDDEN];
    return status;
}

/* ---- tensors ---- */

typedef enum status tensor_visit(struct reading *reading, const struct layout_tensor *row,
                                 size_t block, struct error *err);

static enum status for_each_tensor(struct reading *reading, tensor_visit *visit, struct error *err)
{
    const struct layout *layout = reading->layout;
    enum status status = STATUS_OK;
    reading->n_values = 0;
    for (size_t i = 0; i < layout->n_tensors && status == STATUS_OK; i++) {
        status = visit(reading, &layout->tensors[i], 0, err);
    }
    for (size_t block = 0; block < reading->n_blocks; block++) {
        reading->sizes[SIZE_INPUT] = reading->sizes[block == 0 ? SIZE_DIM : SIZE_HIDDEN];
        for (size_t i = 0; i < layout->n_block_tensors && status == STATUS_OK; i++) {
            status = visit(reading, &layout->block_tensors[i], block, err);
        }
    }
    return status;
}

/* Expected shape; returns its rank. */
static size_t row_shape(const struct reading *reading, const struct layout_tensor *row,
                        uint64_t shape[LAYOUT_RANK_MAX], size_t *n_values)
{
    size_t rank = 0;
    *n_values = 1;
    while (row->shape[rank] != SIZE_NONE) {
        shape[rank] = reading->sizes[row->shape[rank]];
        *n_values *= (size_t)shape[rank];
        rank++;
    }
    return rank;
}

static enum status plan_tensor(struct reading *reading, const struct layout_tensor *row,
                               size_t block, struct error *err)
{
    char name[NAME_BYTES];
    uint64_t shape[LAYOUT_RANK_MAX];
    size_t n_values = 0;
    if (!expand_name(row->name, block, name) ||
        (find_tensor(reading, name) == SIZE_MAX && !row->is_optional)) {
        return missing(reading, name, err);
    }
    /* No overflow: sizes passed the settings' check, and the items' rows are those of the file. */
    (void)row_shape(reading, row, shape, &n_values);
    reading->n_values += n_values;
    return STATUS_OK;
}

static void point_slots(struct reading *reading, const struct layout_tensor *row, size_t block,
                        const float *values, size_t n_values)
{
    const size_t n_rows = reading->sizes[row->shape[0]];
    const size_t skipped = n_values / n_rows * row->n_skipped;
    const size_t part = (n_values - skipped) / row->n_slots;
    for (size_t s = 0; s < row->n_slots; s++) {
        const float *start = values + skipped + s * part;
        memcpy((char *)reading->model + row->slots[s] + block * reading->layout->stride, &start,
               sizeof(start));
    }
}

static void add_note(struct layout_model *model, const char *text)
{
    const size_t len = strlen(model->notes);
    (void)snprintf(model->notes + len, sizeof(model->notes) - len, "%s%s", len > 0 ? "; " : "",
                   text);
}

static void check_padding(struct reading *reading, const struct layout_tensor *row,
                          const float *values, size_t n_values)
{
    char note[NAME_BYTES + 64];
    const size_t n_skipped = n_values / reading->sizes[row->shape[0]] * row->n_skipped;
    for (size_t i = 0; i < n_skipped; i++) {
        if (values[i] != 0.0F) {
            (void)snprintf(note, sizeof(note), "row 0 of %s (padding) is not zero, taken as zero",
                           row->name);
            add_note(reading->model, note);
            return;
        }
    }
}

static enum status read_tensor(struct reading *reading, const struct layout_tensor *row,
                               size_t block, struct error *err)
{
    char name[NAME_BYTES];
    uint64_t shape[LAYOUT_RANK_MAX];
    size_t n_values = 0;
    const size_t rank = row_shape(reading, row, shape, &n_values);
    float *values = reading->model->values + reading->n_values;
    (void)expand_name(row->name, block, name);
    const size_t found = find_tensor(reading, name);
    if (found != SIZE_MAX) { /* else optional: the zeros that are there */
        const enum status status = safetensors_read_f32(
            reading->file, safetensors_at(reading->file, found)->name, shape, rank, values, err);
        if (status != STATUS_OK) {
            return status;
        }
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) status is not OK then */
        reading->used[found] = true;
    }
    if (reading->layout->is_padding_zero) {
        check_padding(reading, row, values, n_values);
    }
    point_slots(reading, row, block, values, n_values);
    reading->n_values += n_values;
    return STATUS_OK;
}

static void note_unused(struct reading *reading)
{
    enum { SHOWN_MAX = 4 };
    char note[LAYOUT_NOTES_BYTES / 2] = "not used: ";
    size_t len = strlen(note);
    for (size_t i = 0; i < safetensors_count(reading->file); i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) status is not OK then */
        if (reading->used[i]) {
            continue;
        }
        if (reading->model->n_unused < SHOWN_MAX && len < sizeof(note)) {
            const int n = snprintf(note + len, sizeof(note) - len, "%s%.48s",
                                   reading->model->n_unused > 0 ? ", " : "",
                                   safetensors_at(reading->file, i)->name);
            len += n > 0 ? (size_t)n : 0;
        }
        reading->model->n_unused++;
    }
    if (reading->model->n_unused > SHOWN_MAX && len < sizeof(note)) {
        (void)snprintf(note + len, sizeof(note) - len, " and %zu more",
                       reading->model->n_unused - SHOWN_MAX);
    }
    if (reading->model->n_unused > 0) {
        add_note(reading->model, note);
    }
}

static enum status read_tensors(struct reading *reading, struct error *err)
{
    enum status status = for_each_tensor(reading, plan_tensor, err);
    if (status != STATUS_OK) {
        return status;
    }
    reading->model->values = mem_calloc(reading->n_values, sizeof(float));
    reading->used = mem_calloc(safetensors_count(reading->file), sizeof(*reading->used));
    if (reading->model->values == NULL || reading->used == NULL) {
        status = error_set(err, STATUS_NOMEM, "%zu weights: no memory", reading->n_values);
    }
    if (status == STATUS_OK) {
        status = for_each_tensor(reading, read_tensor, err);
    }
    if (status == STATUS_OK) {
        note_unused(reading);
        reading->model->vectors = (struct vectors){.data = reading->model->items,
                                                   .n = reading->config->n_items,
                                                   .dim = reading->sizes[SIZE_DIM],
                                                   .type = VECTOR_F32};
    }
    mem_free(reading->used);
    return status;
}

/* ---- the native layout ---- */

#define NATIVE_ITEMS "item_vectors"

/* What the file's architecture wants is checked where it is opened (user_model_open). */
static enum status read_native(struct reading *reading, struct error *err)
{
    struct layout_model *model = reading->model;
    const struct layout_config *config = reading->config;
    enum status status = STATUS_OK;
    if (safetensors_metadata(reading->file, USER_MODEL_METADATA_ARCHITECTURE) == NULL ||
        safetensors_metadata(reading->file, USER_MODEL_METADATA_SETTINGS) == NULL) {
        return error_set(err, STATUS_NOT_FOUND,
                         "no metadata \"%s\" and \"%s\": not a file of layout "
                         "aisle",
                         USER_MODEL_METADATA_ARCHITECTURE, USER_MODEL_METADATA_SETTINGS);
    }
    if (config->vectors != NULL) {
        model->vectors = *config->vectors;
    } else {
        const size_t found = find_tensor(reading, NATIVE_ITEMS);
        if (found == SIZE_MAX) {
            return missing(reading, NATIVE_ITEMS, err);
        }
        status = safetensors_vectors(reading->file, safetensors_at(reading->file, found)->name,
                                     &model->vectors, err);
    }
    if (status == STATUS_OK && model->vectors.n != config->n_items) {
        status = error_set(err, STATUS_MISMATCH, "%zu item vectors, but %zu item ids",
                           model->vectors.n, config->n_items);
    }
    return status;
}

static enum status write_native(const char *path, const struct layout_model *model,
                                struct error *err)
{
    static const char *const KEYS[] = {USER_MODEL_METADATA_ARCHITECTURE,
                                       USER_MODEL_METADATA_SETTINGS};
    struct metadata_entry metadata[2];
    const size_t n_tensors = safetensors_count(model->file);
    size_t n = 0;
    struct tensor_to_write *tensors = mem_calloc(n_tensors, sizeof(*tensors));
    if (tensors == NULL) {
        return error_set(err, STATUS_NOMEM, "%zu tensors: no memory", n_tensors);
    }
    for (size_t i = 0; i < n_tensors; i++) {
        const struct tensor *tensor = safetensors_at(model->file, i);
        const char *name = tensor->name + model->prefix_bytes;
        if (strcmp(name, NATIVE_ITEMS) == 0) {
            continue;
        }
        tensors[n] = (struct tensor_to_write){
            .name = name, .type = tensor->type, .rank = tensor->rank, .data = tensor->data};
        memcpy(tensors[n].shape, tensor->shape, sizeof(tensor->shape));
        n++;
    }
    for (size_t i = 0; i < 2; i++) {
        metadata[i] = (struct metadata_entry){KEYS[i], safetensors_metadata(model->file, KEYS[i])};
    }
    const enum status status = safetensors_write(path, tensors, n, metadata, 2, err);
    mem_free(tensors);
    return status;
}

/* ---- the public side ---- */

static enum status check_config(const struct layout *layout, const struct layout_config *config,
                                struct error *err)
{
    const struct {
        const char *flag;
        bool is_given;
        enum layout_architecture wanted;
    } options[] = {
        {"--heads", config->n_heads != 0, LAYOUT_SASREC},
        {"--activation", config->activation != NULL, LAYOUT_SASREC},
        {"--history-max", config->history_max != 0, LAYOUT_GRU4REC},
        {"--vectors", config->vectors != NULL, LAYOUT_NATIVE},
    };
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if (options[i].is_given && layout->architecture != options[i].wanted) {
            return error_set_field(err, STATUS_INVALID, options[i].flag,
                                   "%s has no meaning for layout %s", options[i].flag,
                                   layout->name);
        }
    }
    return config->n_items > 0 ? STATUS_OK : error_set(err, STATUS_INVALID, "no item ids");
}

enum status layout_read(const struct safetensors *file, const struct layout_config *config,
                        struct layout_model *out, struct error *err)
{
    *out = (struct layout_model){.file = file};
    const struct layout *layout = layout_find(config->layout);
    if (layout == NULL) {
        return error_set_field(err, STATUS_INVALID, "--layout",
                               "--layout: %.48s is not known; known: " LAYOUT_NAMES,
                               config->layout);
    }
    struct reading reading = {.file = file, .layout = layout, .config = config, .model = out};
    out->architecture = layout->architecture;
    out->prefix_bytes = common_prefix(file);
    static enum status (*const STEPS[])(struct reading *, struct error *) = {
        read_sizes, check_items, count_blocks, make_settings, read_tensors};
    const bool is_native = layout->architecture == LAYOUT_NATIVE;
    const size_t n_steps = is_native ? 0 : sizeof(STEPS) / sizeof(STEPS[0]);
    enum status status = check_config(layout, config, err);
    if (status == STATUS_OK && is_native) {
        status = read_native(&reading, err);
    }
    for (size_t i = 0; i < n_steps && status == STATUS_OK; i++) {
        status = STEPS[i](&reading, err);
    }
    if (status != STATUS_OK) {
        layout_model_free(out);
    }
    return status;
}

void layout_model_free(struct layout_model *model)
{
    mem_free(model->values);
    *model = (struct layout_model){.values = NULL};
}

enum status layout_model_write(const char *path, const struct layout_model *model,
                               struct error *err)
{
    switch (model->architecture) {
    case LAYOUT_SASREC:
        return sasrec_model_write(path, &model->sasrec, &model->sasrec_weights, err);
    case LAYOUT_GRU4REC:
        return gru4rec_model_write(path, &model->gru4rec, &model->gru4rec_weights, err);
    case LAYOUT_NATIVE:
        break;
    }
    return write_native(path, model, err);
}
