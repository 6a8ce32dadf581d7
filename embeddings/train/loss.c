/* Losses with gradients. The work is three products: scores = hidden itemsᵀ, and from their
 * gradient G those of hidden (G items) and of items (Gᵀ hidden). All else is one pass over the
 * scores of an event.
 *
 * Full softmax: events in tiles of TILE rows; threads take its rows for scores, softmax and the
 * gradient of hidden, then blocks of items for the gradient of items, which sums over rows: no two
 * threads add to one place. Sampled losses: a thread takes a chunk of events with its negatives
 * gathered into a small table that stays in its cache; the chunk's item gradients are scattered in
 * the chunks' order. Either way results do not depend on the number of threads.
 *
 * Legend: T events, d dimension, N items, S negatives, G gradient of scores. */
#include "embeddings/train/loss.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/vector_math.h"

enum { TILE = 256, TILE_ROWS = 32, ITEM_BLOCK = 512 };

static const char *const KIND_NAMES[N_LOSS_KINDS] = {"full", "sampled", "gbce"};

struct loss {
    struct loss_settings settings;
    size_t n_items, dim, n_threads;
    double beta;              /* gbce */
    struct alias_table draws; /* of negatives; n 0: uniform */
    float *log_q;             /* [N] log(S q), 0 where not corrected; or NULL */
    float *scores;            /* full: [TILE × N]; sampled: [threads × LOSS_CHUNK × S] */
    /* sampled, of each thread */
    float *rows;     /* [threads × S × d] the negatives' vectors, later their gradients */
    float *shift;    /* [threads × S] bias - correction, later gradients of the biases */
    uint32_t *drawn; /* [threads × S] */
};

const char *loss_kind_name(enum loss_kind kind)
{
    return KIND_NAMES[kind];
}

bool loss_kind_parse(const char *text, enum loss_kind *out)
{
    for (int i = 0; i < N_LOSS_KINDS; i++) {
        if (strcmp(text, KIND_NAMES[i]) == 0) {
            *out = (enum loss_kind)i;
            return true;
        }
    }
    return false;
}

static size_t negatives_of(const struct loss_settings *settings)
{
    return settings->in_batch ? LOSS_CHUNK : settings->n_negatives;
}

size_t loss_bytes(const struct loss_settings *settings, size_t n_items, size_t dim)
{
    if (settings->kind == LOSS_FULL) {
        return TILE * n_items * sizeof(float);
    }
    size_t n = negatives_of(settings);
    return (size_t)omp_get_max_threads() * n * (LOSS_CHUNK + dim + 2) * sizeof(float) +
           n_items * 3 * sizeof(float);
}

static enum status make_sampler(struct loss *loss, const double *counts, struct error *err)
{
    size_t n = loss->n_items;
    double exponent = loss->settings.in_batch ? 1.0 : loss->settings.negative_exponent;
    double n_negatives = (double)negatives_of(&loss->settings);
    bool corrects = loss->settings.log_q && loss->settings.kind == LOSS_SAMPLED;
    double *weights = mem_alloc_array(n, sizeof(*weights));
    loss->log_q = mem_alloc_array(n, sizeof(*loss->log_q));
    enum status status = STATUS_OK;
    if (weights == NULL || loss->log_q == NULL) {
        status = error_set(err, STATUS_NOMEM, "negatives of %zu items: no memory", n);
        goto out;
    }
    double total = 0.0;
    for (size_t i = 0; i < n; i++) {
        weights[i] = counts[i] > 0.0 ? pow(counts[i], exponent) : 0.0;
        total += weights[i];
    }
    for (size_t i = 0; i < n; i++) {
        loss->log_q[i] =
            corrects && weights[i] > 0.0 ? (float)log(n_negatives * weights[i] / total) : 0.0F;
    }
    status = alias_table_init(&loss->draws, weights, n, err);
out:
    mem_free(weights);
    return status;
}

static enum status check(const struct loss_settings *settings, struct error *err)
{
    if (!(settings->label_smoothing >= 0.0 && settings->label_smoothing < 1.0)) {
        return error_set_field(err, STATUS_INVALID, "label_smoothing",
                               "label_smoothing must be at least 0 and below 1");
    }
    if (settings->kind != LOSS_FULL && !settings->in_batch &&
        (settings->n_negatives < 1 || settings->n_negatives > LOSS_NEGATIVES_MAX)) {
        return error_set_field(err, STATUS_INVALID, "negatives",
                               "negatives must be within 1 and %d", LOSS_NEGATIVES_MAX);
    }
    if (!(settings->gbce_t >= 0.0 && settings->gbce_t <= 1.0)) {
        return error_set_field(err, STATUS_INVALID, "gbce_t", "gbce_t must be within 0 and 1");
    }
    return STATUS_OK;
}

enum status loss_open(const struct loss_settings *settings, const double *counts, size_t n_items,
                      size_t dim, struct loss **out, struct error *err)
{
    *out = NULL;
    enum status status = check(settings, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct loss *loss = mem_calloc(1, sizeof(*loss));
    if (loss == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a loss");
    }
    loss->settings = *settings;
    loss->n_items = n_items;
    loss->dim = dim;
    loss->n_threads = (size_t)omp_get_max_threads();
    if (settings->kind == LOSS_FULL) {
        loss->scores = mem_alloc_vectors(TILE * n_items, sizeof(float));
    } else {
        size_t n = negatives_of(settings);
        double alpha = (double)n / ((double)n_items - 1.0);
        loss->beta = alpha * (settings->gbce_t * (1.0 - 1.0 / alpha) + 1.0 / alpha);
        loss->scores = mem_alloc_vectors(loss->n_threads * LOSS_CHUNK * n, sizeof(float));
        loss->rows = mem_alloc_vectors(loss->n_threads * n * dim, sizeof(float));
        loss->shift = mem_alloc_array(loss->n_threads * n, sizeof(float));
        loss->drawn = mem_alloc_array(loss->n_threads * n, sizeof(uint32_t));
        status = make_sampler(loss, counts, err);
    }
    if (status == STATUS_OK &&
        (loss->scores == NULL ||
         (settings->kind != LOSS_FULL &&
          (loss->rows == NULL || loss->shift == NULL || loss->drawn == NULL)))) {
        status = error_set(err, STATUS_NOMEM, "scores of %zu items: no memory", n_items);
    }
    if (status != STATUS_OK) {
        loss_close(loss);
        return status;
    }
    *out = loss;
    return STATUS_OK;
}

void loss_close(struct loss *loss)
{
    if (loss == NULL) {
        return;
    }
    alias_table_free(&loss->draws);
    mem_free(loss->log_q);
    mem_free(loss->scores);
    mem_free(loss->rows);
    mem_free(loss->shift);
    mem_free(loss->drawn);
    mem_free(loss);
}

/* ---- passes over the scores of one event ---- */

CPU_VARIANTS
static float row_add_max(float *restrict scores, const float *restrict shift, size_t n)
{
    float largest = -INFINITY;
    if (shift != NULL) {
#pragma omp simd reduction(max : largest)
        for (size_t i = 0; i < n; i++) {
            scores[i] += shift[i];
            largest = scores[i] > largest ? scores[i] : largest;
        }
        return largest;
    }
#pragma omp simd reduction(max : largest)
    for (size_t i = 0; i < n; i++) {
        largest = scores[i] > largest ? scores[i] : largest;
    }
    return largest;
}

CPU_VARIANTS
static float row_exp(float *scores, size_t n, float largest)
{
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        float e = exp_fast(scores[i] - largest);
        scores[i] = e;
        sum += e;
    }
    return sum;
}

CPU_VARIANTS
static void row_scale_shift(float *scores, size_t n, float scale, float shift)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        scores[i] = scores[i] * scale - shift;
    }
}

CPU_VARIANTS
static float row_sum(const float *scores, size_t n)
{
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        sum += scores[i];
    }
    return sum;
}

/* ---- full softmax ---- */

/* Scores [N] of one event → gradient of scores × weight; returns the event's loss. */
static double full_row(const struct loss *loss, float *scores, const float *bias, uint32_t target,
                       float weight)
{
    size_t n = loss->n_items;
    double smoothing = loss->settings.label_smoothing;
    float largest = row_add_max(scores, bias, n);
    double wanted = (double)scores[target];
    double mean = smoothing > 0.0 ? (double)row_sum(scores, n) / (double)n : 0.0;
    float sum = row_exp(scores, n, largest);
    row_scale_shift(scores, n, weight / sum, weight * (float)(smoothing / (double)n));
    scores[target] -= weight * (float)(1.0 - smoothing);
    return log((double)sum) + (double)largest - (1.0 - smoothing) * wanted - smoothing * mean;
}

static double full_rows(struct loss *loss, const struct loss_batch *batch, size_t first, size_t n,
                        float *scores, float *dhidden)
{
    size_t dim = loss->dim;
    double total = 0.0;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)loss->n_items, (int)dim, 1.0F,
                batch->hidden + first * dim, (int)dim, batch->items, (int)dim, 0.0F, scores,
                (int)loss->n_items);
    for (size_t i = 0; i < n; i++) {
        total += full_row(loss, scores + i * loss->n_items, batch->bias, batch->targets[first + i],
                          1.0F / (float)batch->n);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)dim, (int)loss->n_items,
                1.0F, scores, (int)loss->n_items, batch->items, (int)dim, 0.0F,
                dhidden + first * dim, (int)dim);
    return total;
}

static void full_items(const struct loss *loss, const struct loss_batch *batch, size_t first,
                       size_t n, const struct loss_gradients *out)
{
    size_t dim = loss->dim;
    size_t n_blocks = (loss->n_items + ITEM_BLOCK - 1) / ITEM_BLOCK;
#pragma omp parallel for schedule(dynamic, 4)
    for (size_t block = 0; block < n_blocks; block++) {
        size_t item = block * ITEM_BLOCK;
        size_t n_block = loss->n_items - item < ITEM_BLOCK ? loss->n_items - item : ITEM_BLOCK;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n_block, (int)dim, (int)n, 1.0F,
                    loss->scores + item, (int)loss->n_items, batch->hidden + first * dim, (int)dim,
                    1.0F, out->items + item * dim, (int)dim);
        for (size_t i = 0; out->bias != NULL && i < n; i++) {
            const float *g = loss->scores + i * loss->n_items + item;
            for (size_t c = 0; c < n_block; c++) {
                out->bias[item + c] += g[c];
            }
        }
    }
}

static double full_compute(struct loss *loss, const struct loss_batch *batch,
                           const struct loss_gradients *out)
{
    double total = 0.0;
    for (size_t first = 0; first < batch->n; first += TILE) {
        size_t n = batch->n - first < TILE ? batch->n - first : TILE;
        double parts[TILE / TILE_ROWS] = {0.0};
#pragma omp parallel for schedule(dynamic, 1)
        for (size_t row = 0; row < n; row += TILE_ROWS) {
            size_t n_rows = n - row < TILE_ROWS ? n - row : TILE_ROWS;
            parts[row / TILE_ROWS] = full_rows(loss, batch, first + row, n_rows,
                                               loss->scores + row * loss->n_items, out->hidden);
        }
        for (size_t i = 0; i < TILE / TILE_ROWS; i++) {
            total += parts[i];
        }
        full_items(loss, batch, first, n, out);
    }
    return total;
}

/* ---- sampled losses ---- */

/* One chunk's work in a thread. */
struct chunk {
    size_t first, n; /* events */
    size_t n_drawn;  /* S */
    float *scores;   /* [n × S] */
    float *rows;     /* [S × d] */
    float *shift;
    uint32_t *drawn;
    float *positive_gradient; /* [n] of the positives' scores */
};

static void draw(const struct loss *loss, const struct loss_batch *batch, struct chunk *chunk)
{
    struct rng rng;
    rng_init(&rng, batch->seed + chunk->first);
    chunk->n_drawn = loss->settings.in_batch ? chunk->n : loss->settings.n_negatives;
    /* log_q is of S = LOSS_CHUNK; the last chunk has fewer. */
    float missing =
        loss->settings.in_batch && loss->settings.log_q && loss->settings.kind == LOSS_SAMPLED
            ? logf((float)chunk->n / (float)LOSS_CHUNK)
            : 0.0F;
    for (size_t i = 0; i < chunk->n_drawn; i++) {
        uint32_t item = loss->settings.in_batch ? batch->targets[chunk->first + i]
                                                : alias_table_draw(&loss->draws, &rng);
        chunk->drawn[i] = item;
        chunk->shift[i] =
            (batch->bias != NULL ? batch->bias[item] : 0.0F) - loss->log_q[item] - missing;
        memcpy(chunk->rows + i * loss->dim, batch->items + item * loss->dim,
               loss->dim * sizeof(float));
    }
}

static float dot(const float *a, const float *b, size_t n)
{
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* Adds the shift and hides negatives that are the positive: they do not count. Returns the largest.
 */
CPU_VARIANTS
static float row_shift_hide(float *restrict scores, const float *restrict shift,
                            const uint32_t *restrict drawn, uint32_t target, size_t n)
{
    float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (size_t i = 0; i < n; i++) {
        float score = drawn[i] == target ? -INFINITY : scores[i] + shift[i];
        scores[i] = score;
        largest = score > largest ? score : largest;
    }
    return largest;
}

/* row_exp with 0 for what is hidden. */
CPU_VARIANTS
static float row_exp_hidden(float *scores, size_t n, float largest)
{
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        float e = scores[i] == -INFINITY ? 0.0F : exp_fast(scores[i] - largest);
        scores[i] = e;
        sum += e;
    }
    return sum;
}

static double sampled_row(const struct chunk *chunk, float *scores, float positive, uint32_t target,
                          float weight, float *positive_gradient)
{
    size_t n = chunk->n_drawn;
    float largest = fmaxf(row_shift_hide(scores, chunk->shift, chunk->drawn, target, n), positive);
    float mine = expf(positive - largest);
    float sum = row_exp_hidden(scores, n, largest) + mine;
    row_scale_shift(scores, n, weight / sum, 0.0F);
    *positive_gradient = weight * (mine / sum - 1.0F);
    return log((double)sum) + (double)largest - (double)positive;
}

static double softplus(double x)
{
    return x > 0.0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

/* n ≤ GBCE_BLOCK scores → gradients; Σ log(1 + e^s) = Σ max(s, 0) + log Π (1 + e^-|s|): the sum is
 * returned, the product (at most 2^n) written, so that a block needs one logarithm. */
enum { GBCE_BLOCK = 64 };
CPU_VARIANTS
static float gbce_block(float *scores, float weight, size_t n, float *product)
{
    float sum = 0.0F;
    float factors = 1.0F;
#pragma omp simd reduction(+ : sum) reduction(* : factors)
    for (size_t i = 0; i < n; i++) {
        float s = scores[i];
        float e = s == -INFINITY ? 0.0F : exp_fast(s > 0.0F ? -s : s);
        sum += s > 0.0F ? s : 0.0F;
        factors *= 1.0F + e;
        scores[i] = weight * (s > 0.0F ? 1.0F : e) / (1.0F + e);
    }
    *product = factors;
    return sum;
}

/* β log σ(s⁺) and Σ log(1 - σ(s⁻)) */
/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static double gbce_row(const struct chunk *chunk, float *scores, float positive, uint32_t target,
                       float weight, double beta, float *positive_gradient)
{
    size_t n = chunk->n_drawn;
    double loss = beta * softplus(-(double)positive);
    *positive_gradient = (float)((double)weight * -beta / (1.0 + exp((double)positive)));
    (void)row_shift_hide(scores, chunk->shift, chunk->drawn, target, n);
    for (size_t first = 0; first < n; first += GBCE_BLOCK) {
        size_t n_block = n - first < GBCE_BLOCK ? n - first : GBCE_BLOCK;
        float product;
        float sum = gbce_block(scores + first, weight, n_block, &product);
        loss += (double)sum + log((double)product);
    }
    return loss;
}

/* The bias gradients of a chunk's negatives take the place of their shifts. */
CPU_VARIANTS
static void sum_columns(const float *restrict scores, size_t n_rows, size_t n, float *restrict sums)
{
    for (size_t s = 0; s < n; s++) {
        sums[s] = 0.0F;
    }
    for (size_t i = 0; i < n_rows; i++) {
#pragma omp simd
        for (size_t s = 0; s < n; s++) {
            sums[s] += scores[i * n + s];
        }
    }
}

static double sampled_chunk(const struct loss *loss, const struct loss_batch *batch,
                            struct chunk *chunk, float *dhidden)
{
    size_t dim = loss->dim;
    size_t n = chunk->n;
    size_t s = chunk->n_drawn;
    const float *hidden = batch->hidden + chunk->first * dim;
    float weight = 1.0F / (float)batch->n;
    double total = 0.0;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)s, (int)dim, 1.0F, hidden,
                (int)dim, chunk->rows, (int)dim, 0.0F, chunk->scores, (int)s);
    for (size_t i = 0; i < n; i++) {
        uint32_t target = batch->targets[chunk->first + i];
        float positive = dot(hidden + i * dim, batch->items + target * dim, dim) +
                         (batch->bias != NULL ? batch->bias[target] : 0.0F);
        float *scores = chunk->scores + i * s;
        total += loss->settings.kind == LOSS_GBCE
                     ? gbce_row(chunk, scores, positive, target, weight, loss->beta,
                                &chunk->positive_gradient[i])
                     : sampled_row(chunk, scores, positive, target, weight,
                                   &chunk->positive_gradient[i]);
    }
    float *out = dhidden + chunk->first * dim;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)dim, (int)s, 1.0F,
                chunk->scores, (int)s, chunk->rows, (int)dim, 0.0F, out, (int)dim);
    for (size_t i = 0; i < n; i++) {
        const float *item = batch->items + batch->targets[chunk->first + i] * dim;
        float g = chunk->positive_gradient[i];
#pragma omp simd
        for (size_t c = 0; c < dim; c++) {
            out[i * dim + c] += g * item[c];
        }
    }
    if (batch->bias != NULL) {
        sum_columns(chunk->scores, n, s, chunk->shift);
    }
    /* The negatives' vectors have served: their gradients take the place. */
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)s, (int)dim, (int)n, 1.0F,
                chunk->scores, (int)s, hidden, (int)dim, 0.0F, chunk->rows, (int)dim);
    return total;
}

static void add_scaled(float *restrict out, const float *restrict x, float scale, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        out[i] += scale * x[i];
    }
}

static void touch(const struct loss_gradients *out, uint32_t row)
{
    if (out->touched != NULL) {
        out->touched[row] = 1;
    }
}

static void scatter(const struct loss *loss, const struct loss_batch *batch,
                    const struct chunk *chunk, const struct loss_gradients *out)
{
    size_t dim = loss->dim;
    for (size_t s = 0; s < chunk->n_drawn; s++) {
        add_scaled(out->items + chunk->drawn[s] * dim, chunk->rows + s * dim, 1.0F, dim);
        touch(out, chunk->drawn[s]);
    }
    for (size_t i = 0; i < chunk->n; i++) {
        uint32_t target = batch->targets[chunk->first + i];
        add_scaled(out->items + target * dim, batch->hidden + (chunk->first + i) * dim,
                   chunk->positive_gradient[i], dim);
        touch(out, target);
        if (out->bias != NULL) {
            out->bias[target] += chunk->positive_gradient[i];
        }
    }
    for (size_t s = 0; out->bias != NULL && s < chunk->n_drawn; s++) {
        out->bias[chunk->drawn[s]] += chunk->shift[s];
    }
}

static double sampled_compute(struct loss *loss, const struct loss_batch *batch,
                              const struct loss_gradients *out)
{
    size_t n_chunks = (batch->n + LOSS_CHUNK - 1) / LOSS_CHUNK;
    size_t s = negatives_of(&loss->settings);
    double total = 0.0;
#pragma omp parallel for ordered schedule(static, 1) num_threads((int)loss->n_threads)
    for (size_t c = 0; c < n_chunks; c++) {
        size_t thread = (size_t)omp_get_thread_num();
        float positive_gradient[LOSS_CHUNK];
        struct chunk chunk = {
            .first = c * LOSS_CHUNK,
            .n = batch->n - c * LOSS_CHUNK < LOSS_CHUNK ? batch->n - c * LOSS_CHUNK : LOSS_CHUNK,
            .scores = loss->scores + thread * LOSS_CHUNK * s,
            .rows = loss->rows + thread * s * loss->dim,
            .shift = loss->shift + thread * s,
            .drawn = loss->drawn + thread * s,
            .positive_gradient = positive_gradient,
        };
        draw(loss, batch, &chunk);
        double part = sampled_chunk(loss, batch, &chunk, out->hidden);
#pragma omp ordered
        {
            scatter(loss, batch, &chunk, out);
            total += part;
        }
    }
    return total;
}

double loss_compute(struct loss *loss, const struct loss_batch *batch,
                    const struct loss_gradients *out)
{
    if (batch->n == 0) {
        return 0.0;
    }
    double total = loss->settings.kind == LOSS_FULL ? full_compute(loss, batch, out)
                                                    : sampled_compute(loss, batch, out);
    return total / (double)batch->n;
}
