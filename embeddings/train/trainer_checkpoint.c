/* Checkpoints: all weights, moments and counters of a training in one safetensors file, replaced
 * atomically. Only counters are needed besides the weights, as all that is random comes from them.
 *
 * Tensors: "memory" [n], all tables as they lie in memory; "network" [n], the network's weights;
 * "state" [8 i64]; "state_f64" [3 + notes]; "curve" [points × 8]. Metadata "aisle.checkpoint" is
 * the fingerprint of settings and data: another training's checkpoint is refused. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "embeddings/safetensors.h"
#include "embeddings/train/trainer_internal.h"

#define METADATA_KEY "aisle.checkpoint"

enum { N_COUNTERS = 8, N_NUMBERS = 3 + TRAINER_NOTES, POINT_FLOATS = 8 };

static void pack_points(const struct trainer *trainer, float *out)
{
    for (size_t i = 0; i < trainer->curve.n; i++) {
        const struct trainer_point *p = &trainer->curve.points[i];
        const float row[POINT_FLOATS] = {(float)p->epoch, p->loss, p->learning_rate, p->ndcg10,
                                         p->hr10,         p->hr20, p->mrr20,         p->seconds};
        memcpy(out + i * POINT_FLOATS, row, sizeof(row));
    }
}

static void pack_network(struct trainer *trainer, float *out)
{
    size_t at = 0;
    for (size_t p = 0; p < trainer->settings.architecture->n_parameters(trainer->network); p++) {
        const struct network_parameter *parameter =
            trainer->settings.architecture->parameter(trainer->network, p);
        memcpy(out + at, parameter->value, parameter->n * sizeof(float));
        at += parameter->n;
    }
}

enum status trainer_checkpoint_write(struct trainer *trainer, struct error *err)
{
    float *network = mem_alloc_array(trainer->n_network, sizeof(float));
    float *points = mem_calloc((trainer->curve.n + 1) * POINT_FLOATS, sizeof(float));
    enum status status = STATUS_OK;
    if (network == NULL || points == NULL) {
        status = error_set(err, STATUS_NOMEM, "a checkpoint: no memory");
        goto out;
    }
    pack_network(trainer, network);
    pack_points(trainer, points);
    const int64_t counters[N_COUNTERS] = {
        (int64_t)trainer->step,
        (int64_t)trainer->epoch,
        (int64_t)trainer->at,
        (int64_t)trainer->epoch_targets,
        (int64_t)trainer->epochs_since_best,
        (int64_t)trainer->curve.best,
        trainer->refitting ? 1 : 0,
        (int64_t)trainer->curve.n_cases,
    };
    const double numbers[N_NUMBERS] = {trainer->epoch_loss, trainer->best_ndcg,
                                       trainer->seconds_before +
                                           (double)(clock_monotonic_us() - trainer->start_us) / 1e6,
                                       trainer->notes[0], trainer->notes[1]};
    const struct tensor_to_write tensors[] = {
        {"memory", TENSOR_F32, 1, {trainer->n_memory}, trainer->memory},
        {"network", TENSOR_F32, 1, {trainer->n_network}, network},
        {"state", TENSOR_I64, 1, {N_COUNTERS}, counters},
        {"state_f64", TENSOR_F64, 1, {N_NUMBERS}, numbers},
        {"curve", TENSOR_F32, 2, {trainer->curve.n + 1, POINT_FLOATS}, points},
    };
    const struct metadata_entry metadata = {METADATA_KEY, trainer->settings.fingerprint};
    status = safetensors_write(trainer->settings.checkpoint_path, tensors,
                               sizeof(tensors) / sizeof(tensors[0]), &metadata, 1, err);
    trainer->checkpoint_us = clock_monotonic_us();
out:
    mem_free(network);
    mem_free(points);
    return status;
}

static const struct tensor *find(const struct safetensors *file, const char *name,
                                 enum tensor_type type, size_t n)
{
    const struct tensor *tensor = safetensors_find(file, name);
    return tensor != NULL && tensor->type == type && tensor->n_values == n ? tensor : NULL;
}

static void unpack_network(struct trainer *trainer, const struct tensor *network)
{
    size_t at = 0;
    for (size_t p = 0; p < trainer->settings.architecture->n_parameters(trainer->network); p++) {
        struct network_parameter *parameter =
            trainer->settings.architecture->parameter(trainer->network, p);
        memcpy(parameter->value, (const char *)network->data + at * sizeof(float),
               parameter->n * sizeof(float));
        at += parameter->n;
    }
}

static void unpack_points(struct trainer *trainer, const struct tensor *curve)
{
    size_t n = curve->n_values / POINT_FLOATS - 1;
    for (size_t i = 0; i < n && i < TRAINER_CURVE_MAX; i++) {
        float row[POINT_FLOATS];
        memcpy(row, (const char *)curve->data + i * sizeof(row), sizeof(row));
        trainer->curve.points[i] = (struct trainer_point){(uint32_t)row[0], row[1], row[2], row[3],
                                                          row[4],           row[5], row[6], row[7]};
    }
    trainer->curve.n = n < TRAINER_CURVE_MAX ? n : TRAINER_CURVE_MAX;
}

/* Points [n × POINT_FLOATS] of the file hold what unpack_points may convert. */
static bool points_are_sound(const struct tensor *curve)
{
    size_t n = curve->n_values / POINT_FLOATS - 1;
    for (size_t i = 0; i < n; i++) {
        float epoch;
        memcpy(&epoch, (const char *)curve->data + i * POINT_FLOATS * sizeof(float), sizeof(epoch));
        if (!(epoch >= 1.0F && epoch <= (float)TRAINER_CURVE_MAX)) {
            return false;
        }
    }
    return n <= TRAINER_CURVE_MAX;
}

/* Counters of the file within what this training can have reached; n_points of its curve. */
static bool counters_are_sound(const struct trainer *trainer, const int64_t *counters,
                               size_t n_points)
{
    const int64_t largest = (int64_t)1 << 48;
    for (size_t i = 0; i < N_COUNTERS; i++) {
        if (counters[i] < 0 || counters[i] > largest) {
            return false;
        }
    }
    bool refitting = counters[6] != 0;
    size_t epoch = (size_t)counters[1];
    size_t best = (size_t)counters[5];
    return counters[6] <= 1 && epoch < trainer->settings.n_epochs &&
           (refitting ? best < n_points : epoch == n_points && best <= n_points);
}

static enum status restore(struct trainer *trainer, const struct safetensors *file,
                           struct error *err)
{
    const char *path = trainer->settings.checkpoint_path;
    const struct tensor *state = find(file, "state", TENSOR_I64, N_COUNTERS);
    const struct tensor *numbers = find(file, "state_f64", TENSOR_F64, N_NUMBERS);
    const struct tensor *curve = safetensors_find(file, "curve");
    const struct tensor *network = find(file, "network", TENSOR_F32, trainer->n_network);
    const struct tensor *memory = find(file, "memory", TENSOR_F32, trainer->n_memory);
    if (state == NULL || numbers == NULL || network == NULL || memory == NULL || curve == NULL ||
        curve->type != TENSOR_F32 || curve->n_values < POINT_FLOATS || !points_are_sound(curve)) {
        return error_set(err, STATUS_FORMAT, "%.150s is no checkpoint of this training", path);
    }
    int64_t counters[N_COUNTERS];
    double values[N_NUMBERS];
    memcpy(counters, state->data, sizeof(counters));
    memcpy(values, numbers->data, sizeof(values));
    if (!counters_are_sound(trainer, counters, curve->n_values / POINT_FLOATS - 1)) {
        return error_set(err, STATUS_FORMAT, "%.150s: damaged counters", path);
    }
    unpack_points(trainer, curve);
    trainer->curve.best = (size_t)counters[5];
    trainer->curve.n_cases = (size_t)counters[7];
    if (counters[6] != 0) {
        enum status status = trainer_begin_refit(trainer, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    if ((size_t)counters[2] > trainer->data.n_windows) {
        return error_set(err, STATUS_FORMAT, "%.150s: damaged counters", path);
    }
    trainer->step = (uint64_t)counters[0];
    trainer->epoch = (size_t)counters[1];
    trainer->at = (size_t)counters[2];
    trainer->epoch_targets = (uint64_t)counters[3];
    trainer->epochs_since_best = (size_t)counters[4];
    trainer->epoch_loss = values[0];
    trainer->best_ndcg = values[1];
    trainer->seconds_before = values[2];
    memcpy(trainer->notes, values + 3, sizeof(trainer->notes));
    memcpy(trainer->memory, memory->data, trainer->n_memory * sizeof(float));
    unpack_network(trainer, network);
    trainer_refresh_rows(trainer);
    return STATUS_OK;
}

enum status trainer_checkpoint_read(struct trainer *trainer, struct error *err)
{
    const char *path = trainer->settings.checkpoint_path;
    if (!file_exists(path)) {
        return STATUS_NOT_FOUND;
    }
    struct safetensors *file = NULL;
    enum status status = safetensors_open(path, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    const char *fingerprint = safetensors_metadata(file, METADATA_KEY);
    if (fingerprint == NULL || strcmp(fingerprint, trainer->settings.fingerprint) != 0) {
        status = error_set(err, STATUS_MISMATCH,
                           "%.120s is of a training with other settings or data: go on with those, "
                           "or remove it to begin anew",
                           path);
    } else {
        status = restore(trainer, file, err);
    }
    safetensors_close(file);
    return status;
}
