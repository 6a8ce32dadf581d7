/* One step: embed, forward, loss, backward, clip, update.
 *
 * With unit-length item vectors the tables are kept twice: as they are learned and as the network
 * sees them; gradients belong to the second and are carried over to the first before the update.
 * Losses over the whole catalogue update every row, sampled ones only the rows they touched.
 *
 * Legend: T events of the batch, N items, d dimension. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "embeddings/train/kernels.h"
#include "embeddings/train/trainer_internal.h"

enum { PARALLEL_ROWS = 1024, AVERAGE_EVERY = 8 };

uint64_t trainer_seed(const struct trainer *trainer, uint64_t use, uint64_t step)
{
    const uint64_t parts[] = {trainer->settings.seed, use, step, trainer->refitting ? 1U : 0U};
    return hash_bytes(parts, sizeof(parts), 0);
}

static void scale_to_unit(const float *row, size_t dim, float *out)
{
    float squares = 0.0F;
#pragma omp simd reduction(+ : squares)
    for (size_t c = 0; c < dim; c++) {
        squares += row[c] * row[c];
    }
    float inverse = 1.0F / sqrtf(squares + 1e-12F);
#pragma omp simd
    for (size_t c = 0; c < dim; c++) {
        out[c] = row[c] * inverse;
    }
}

void trainer_refresh_rows(struct trainer *trainer)
{
    if (trainer->settings.normalised_scale <= 0.0) {
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < trainer->n_items; i++) {
        scale_to_unit(trainer->now.items + i * trainer->dim, trainer->dim,
                      trainer->rows + i * trainer->dim);
    }
}

/* Inputs of unit vectors are scaled back to components of about one. */
static float input_scale(const struct trainer *trainer)
{
    return trainer->settings.normalised_scale > 0.0 ? sqrtf((float)trainer->dim) : 1.0F;
}

void trainer_embed(struct trainer *trainer)
{
    const struct sequence_batch *batch = &trainer->batch;
    size_t dim = trainer->dim;
    float scale = input_scale(trainer);
#pragma omp parallel for schedule(static) if (batch->n_tokens > PARALLEL_ROWS)
    for (size_t i = 0; i < batch->n_tokens; i++) {
        const float *row = trainer->rows + batch->events[i].row * dim;
#pragma omp simd
        for (size_t c = 0; c < dim; c++) {
            trainer->inputs[i * dim + c] = row[c] * scale;
        }
    }
}

/* hidden → unit length × scale, 1 / |h| kept. */
static void normalise_hidden(struct trainer *trainer, const float *hidden, size_t n)
{
    size_t dim = trainer->dim;
    float scale = (float)trainer->settings.normalised_scale;
#pragma omp parallel for schedule(static) if (n > PARALLEL_ROWS)
    for (size_t i = 0; i < n; i++) {
        const float *h = hidden + i * dim;
        float squares = 0.0F;
#pragma omp simd reduction(+ : squares)
        for (size_t c = 0; c < dim; c++) {
            squares += h[c] * h[c];
        }
        float inverse = 1.0F / sqrtf(squares + 1e-12F);
        trainer->inverse[i] = inverse;
#pragma omp simd
        for (size_t c = 0; c < dim; c++) {
            trainer->hidden[i * dim + c] = h[c] * inverse * scale;
        }
    }
}

/* Gradient of a unit vector u (times scale) → of the vector it was made from, in place. */
static void unit_gradient(const float *scaled, float scale, float inverse, size_t dim,
                          float *gradient)
{
    float dot = 0.0F;
#pragma omp simd reduction(+ : dot)
    for (size_t c = 0; c < dim; c++) {
        dot += gradient[c] * scaled[c];
    }
    dot /= scale * scale;
    float factor = scale * inverse;
#pragma omp simd
    for (size_t c = 0; c < dim; c++) {
        gradient[c] = factor * (gradient[c] - dot * scaled[c]);
    }
}

static void scatter_inputs(struct trainer *trainer)
{
    const struct sequence_batch *batch = &trainer->batch;
    size_t dim = trainer->dim;
    float scale = input_scale(trainer);
    for (size_t i = 0; i < batch->n_tokens; i++) {
        uint32_t row = batch->events[i].row;
        float *out = trainer->item_gradient + row * dim;
        const float *gradient = trainer->input_gradient + i * dim;
#pragma omp simd
        for (size_t c = 0; c < dim; c++) {
            out[c] += scale * gradient[c];
        }
        if (trainer->touched != NULL) {
            trainer->touched[row] = 1;
        }
    }
}

/* Rows to be updated: all (NULL) or those touched. */
static size_t collect_touched(struct trainer *trainer)
{
    size_t n = 0;
    for (size_t i = 0; trainer->touched != NULL && i < trainer->n_items; i++) {
        if (trainer->touched[i] != 0) {
            trainer->touched_rows[n++] = (uint32_t)i;
            trainer->touched[i] = 0;
        }
    }
    return trainer->touched != NULL ? n : trainer->n_items;
}

static size_t row_at(const struct trainer *trainer, size_t i)
{
    return trainer->touched != NULL ? trainer->touched_rows[i] : i;
}

static void carry_item_gradients(struct trainer *trainer, size_t n_rows)
{
    size_t dim = trainer->dim;
    if (trainer->settings.normalised_scale <= 0.0) {
        return;
    }
#pragma omp parallel for schedule(static) if (n_rows > PARALLEL_ROWS)
    for (size_t i = 0; i < n_rows; i++) {
        size_t at = row_at(trainer, i) * dim;
        float squares = 0.0F;
        for (size_t c = 0; c < dim; c++) {
            squares += trainer->now.items[at + c] * trainer->now.items[at + c];
        }
        unit_gradient(trainer->rows + at, 1.0F, 1.0F / sqrtf(squares + 1e-12F), dim,
                      trainer->item_gradient + at);
    }
}

static double gradient_norm(struct trainer *trainer, size_t n_rows)
{
    double sum = 0.0;
    for (size_t p = 0; p < trainer->settings.architecture->n_parameters(trainer->network); p++) {
        const struct network_parameter *parameter =
            trainer->settings.architecture->parameter(trainer->network, p);
        sum += squared_norm(parameter->gradient, parameter->n);
    }
    if (trainer->bias_gradient != NULL) {
        sum += squared_norm(trainer->bias_gradient, trainer->n_items);
    }
    sum += trainer->touched == NULL
               ? squared_norm(trainer->item_gradient, trainer->n_items * trainer->dim)
               : squared_norm_rows(trainer->item_gradient, trainer->dim, trainer->touched_rows,
                                   n_rows);
    return sqrt(sum);
}

static void update_items(struct trainer *trainer, const struct adamw *adamw, size_t n_rows)
{
    size_t dim = trainer->dim;
    struct weights *now = &trainer->now;
    if (trainer->touched == NULL) {
        adamw_update(adamw, now->items, trainer->item_gradient, trainer->mean.items,
                     trainer->square.items, trainer->n_items * dim);
    } else {
        adamw_update_rows(adamw, now->items, trainer->item_gradient, trainer->mean.items,
                          trainer->square.items, dim, trainer->touched_rows, n_rows);
    }
    if (now->bias != NULL) {
        struct adamw plain = *adamw;
        plain.decay = 0.0;
        adamw_update(&plain, now->bias, trainer->bias_gradient, trainer->mean.bias,
                     trainer->square.bias, trainer->n_items);
    }
    if (trainer->settings.normalised_scale > 0.0) {
#pragma omp parallel for schedule(static) if (n_rows > PARALLEL_ROWS)
        for (size_t i = 0; i < n_rows; i++) {
            size_t at = row_at(trainer, i) * dim;
            scale_to_unit(now->items + at, dim, trainer->rows + at);
        }
    }
}

static void update_network(struct trainer *trainer, const struct adamw *adamw)
{
    size_t at = 0;
    for (size_t p = 0; p < trainer->settings.architecture->n_parameters(trainer->network); p++) {
        struct network_parameter *parameter =
            trainer->settings.architecture->parameter(trainer->network, p);
        struct adamw mine = *adamw;
        mine.decay = parameter->is_decayed ? trainer->settings.weight_decay : 0.0;
        adamw_update(&mine, parameter->value, parameter->gradient, trainer->mean.network + at,
                     trainer->square.network + at, parameter->n);
        at += parameter->n;
    }
}

/* average += (1 - decay) (now - average), every few steps with the decay of as many. */
static void blend(float *average, const float *now, size_t n, float share)
{
#pragma omp parallel for simd schedule(static) if (n > 65536)
    for (size_t i = 0; i < n; i++) {
        average[i] += share * (now[i] - average[i]);
    }
}

static void update_average(struct trainer *trainer)
{
    if (trainer->average.items == NULL || trainer->step % AVERAGE_EVERY != 0) {
        return;
    }
    /* Early on the average follows closely: it must not remember the initial weights. */
    double decay = fmin(trainer->settings.average,
                        (1.0 + (double)trainer->step) / (10.0 + (double)trainer->step));
    float share = (float)(1.0 - pow(decay, AVERAGE_EVERY));
    blend(trainer->average.items, trainer->now.items, trainer->n_items * trainer->dim, share);
    if (trainer->now.bias != NULL) {
        blend(trainer->average.bias, trainer->now.bias, trainer->n_items, share);
    }
    size_t at = 0;
    for (size_t p = 0; p < trainer->settings.architecture->n_parameters(trainer->network); p++) {
        const struct network_parameter *parameter =
            trainer->settings.architecture->parameter(trainer->network, p);
        blend(trainer->average.network + at, parameter->value, parameter->n, share);
        at += parameter->n;
    }
}

static void backward(struct trainer *trainer, const struct network_batch *batch, uint64_t drop_seed)
{
    size_t n = trainer->batch.n_tokens;
    size_t dim = trainer->dim;
    const struct trainer_settings *s = &trainer->settings;
    if (s->normalised_scale > 0.0) {
#pragma omp parallel for schedule(static) if (n > PARALLEL_ROWS)
        for (size_t i = 0; i < n; i++) {
            unit_gradient(trainer->hidden + i * dim, (float)s->normalised_scale,
                          trainer->inverse[i], dim, trainer->hidden_gradient + i * dim);
        }
    }
    s->architecture->backward(trainer->network, batch, trainer->hidden_gradient,
                              trainer->input_gradient);
    dropout_apply(trainer->input_gradient, n * dim, s->input_dropout, drop_seed);
    scatter_inputs(trainer);
}

double trainer_step(struct trainer *trainer, double rate)
{
    const struct trainer_settings *s = &trainer->settings;
    size_t n = trainer->batch.n_tokens;
    trainer->step++;
    uint64_t drop_seed = trainer_seed(trainer, SEED_INPUT_DROPOUT, trainer->step);
    trainer_embed(trainer);
    dropout_apply(trainer->inputs, n * trainer->dim, s->input_dropout, drop_seed);
    const struct network_batch batch = {
        .n_sequences = trainer->batch.n_sequences,
        .offsets = trainer->batch.offsets,
        .events = trainer->batch.events,
        .inputs = trainer->inputs,
        .dropout = s->dropout,
        .dropout_seed = trainer_seed(trainer, SEED_DROPOUT, trainer->step),
    };
    const float *hidden = s->architecture->forward(trainer->network, &batch);
    if (s->normalised_scale > 0.0) {
        normalise_hidden(trainer, hidden, n);
        hidden = trainer->hidden;
    }
    const struct loss_batch loss_batch = {n,
                                          hidden,
                                          trainer->batch.targets,
                                          trainer->rows,
                                          trainer->now.bias,
                                          trainer_seed(trainer, SEED_NEGATIVES, trainer->step)};
    const struct loss_gradients gradients = {trainer->hidden_gradient, trainer->item_gradient,
                                             trainer->bias_gradient, trainer->touched};
    double loss = loss_compute(trainer->loss, &loss_batch, &gradients);
    backward(trainer, &batch, drop_seed);
    size_t n_rows = collect_touched(trainer);
    carry_item_gradients(trainer, n_rows);
    struct adamw adamw = {rate, 0.9, 0.98, 1e-8, s->item_weight_decay, 1.0, trainer->step};
    if (s->clip_norm > 0.0) {
        double norm = gradient_norm(trainer, n_rows);
        adamw.scale = norm > s->clip_norm ? s->clip_norm / norm : 1.0;
    }
    update_items(trainer, &adamw, n_rows);
    update_network(trainer, &adamw);
    update_average(trainer);
    return loss;
}

/* ---- sets of weights ---- */

static void swap_floats(float *a, float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float value = a[i];
        a[i] = b[i];
        b[i] = value;
    }
}

void trainer_swap(struct trainer *trainer, struct weights *other)
{
    swap_floats(trainer->now.items, other->items, trainer->n_items * trainer->dim);
    if (other->bias != NULL) {
        swap_floats(trainer->now.bias, other->bias, trainer->n_items);
    }
    size_t at = 0;
    for (size_t p = 0; p < trainer->settings.architecture->n_parameters(trainer->network); p++) {
        struct network_parameter *parameter =
            trainer->settings.architecture->parameter(trainer->network, p);
        swap_floats(parameter->value, other->network + at, parameter->n);
        at += parameter->n;
    }
    trainer_refresh_rows(trainer);
}

void trainer_copy(struct trainer *trainer, struct weights *out)
{
    memcpy(out->items, trainer->now.items, trainer->n_items * trainer->dim * sizeof(float));
    if (out->bias != NULL) {
        memcpy(out->bias, trainer->now.bias, trainer->n_items * sizeof(float));
    }
    size_t at = 0;
    for (size_t p = 0; p < trainer->settings.architecture->n_parameters(trainer->network); p++) {
        struct network_parameter *parameter =
            trainer->settings.architecture->parameter(trainer->network, p);
        memcpy(out->network + at, parameter->value, parameter->n * sizeof(float));
        at += parameter->n;
    }
}
