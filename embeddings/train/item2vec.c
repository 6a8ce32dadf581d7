#include "embeddings/train/item2vec.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/vectors.h"

/* Skip-gram with negative sampling over item sequences. Legend: N items, D dimension, S stride (D
 * rounded up to whole cache lines, so that rows are aligned and the inner loops have no tail).
 *
 * For each event the row of its item in `input` is moved towards the rows in `output` of the items
 * around it and away from those of randomly drawn ones (Mikolov et al., "Distributed
 * Representations of Words and Phrases and their Compositionality", NIPS 2013, section 2.2); the
 * window shrinks at random as there, so that near neighbours count more. What differs from text:
 * a repeated view of one item says nothing about other items, so runs of one item count once and an
 * item is never its own context; the exponent of the negatives' distribution is a setting, because
 * the value that is best for text is not for shops (Caselles-Dupré et al., RecSys 2018).
 *
 * The step is divided by 1 + rate × (|input|² + |output|²) / 4, a quarter being the logistic loss'
 * largest curvature: an implicit step (P. Toulis, E. Airoldi, "Asymptotic and finite-sample
 * properties of estimators based on stochastic gradients", Annals of Statistics 2017) that cannot
 * overshoot. Rare items need a rate ten times that of text to be learnt in a few epochs; with the
 * plain step such a rate made frequent items overflow.
 *
 * Threads claim chunks of the shuffled sequences and write to the two tables without locks (Niu et
 * al., "Hogwild!", NIPS 2011): rows rarely collide, and a lost update is noise like any other. With
 * one thread the result depends only on data, settings and seed (and the CPU's instruction set,
 * which decides the order of float sums). A softmax over all items was rejected: O(N) a pair;
 * OpenMP was, because a plain pool of threads is as short and a thread checker sees through it. */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

/* The races of Hogwild are the algorithm: only the functions that touch the tables are exempt from
 * the thread checker. CPU variants are chosen by a resolver that runs before a sanitizer's runtime
 * is up, so a function has one attribute or the other. */
#if defined(SANITIZED)
#define DELIBERATE_RACES __attribute__((no_sanitize("thread")))
#define KERNEL_VARIANTS
#define SIMD_LOOP
#define SIMD_SUMS
#define SIMD_SQUARE
#elif defined(__x86_64__)
#define DELIBERATE_RACES
#define KERNEL_VARIANTS __attribute__((target_clones("arch=haswell", "default")))
#else
#define DELIBERATE_RACES
#define KERNEL_VARIANTS
#endif
/* Instrumented loops cannot be vectorised, and clang warns of each pragma it cannot follow. */
#if !defined(SANITIZED)
#define PRAGMA(text) _Pragma(#text)
#define SIMD_LOOP PRAGMA(omp simd)
/* Sums into variables dot and square, or square alone. */
#define SIMD_SUMS PRAGMA(omp simd reduction(+ : dot, square))
#define SIMD_SQUARE PRAGMA(omp simd reduction(+ : square))
#endif

enum {
    DIM_MAX = 1024,
    EPOCHS_MAX = 10000,
    WINDOW_MAX = 10000,
    NEGATIVES_MAX = 1000,
    THREADS_MAX = 1024,
    /* Longer sequences are trained in pieces: bounds a thread's memory and balances the threads.
     * Contexts do not reach over the cut, one of thousands of events. */
    SEGMENT_EVENTS_MAX = 8192,
    /* Contexts of an event with window 0; more are sampled, so that cost stays linear. */
    WHOLE_CONTEXTS_MAX = 40,
    CHUNK_SEGMENTS = 32,
    LINE_FLOATS = 16, /* 64 bytes */
};
#define FINAL_RATE_FACTOR 1e-4

struct segment {
    uint64_t first; /* event of the log */
    uint32_t n;
};

struct trainer;

struct worker {
    struct trainer *trainer;
    struct rng rng;
    uint32_t *rows; /* [SEGMENT_EVENTS_MAX] what is left of a segment after sub-sampling */
};

struct trainer {
    const struct event_log *log;
    const struct item2vec_settings *settings;
    size_t n_items;
    size_t stride;
    float *input;     /* [N × S] */
    float *output;    /* [N × S] */
    float *keep;      /* [N] chance of an event of this item to stay */
    uint8_t *trained; /* [N] had a context at least once */
    struct alias_table negatives;
    struct segment *segments;
    size_t n_segments;
    struct worker *workers;
    size_t n_workers;
    pthread_t *threads;  /* [n_workers] */
    uint32_t *row_space; /* [n_workers × SEGMENT_EVENTS_MAX] */
    size_t epoch;
    uint64_t n_events; /* in all segments */
    atomic_size_t cursor;
    atomic_uint_fast64_t n_done; /* events over all epochs */
    struct progress progress;
};

void item2vec_settings_default(struct item2vec_settings *settings)
{
    *settings = (struct item2vec_settings){
        .dim = 64,
        .n_epochs = 20,
        .window = 5,
        .n_negatives = 10,
        .negative_exponent = 0.5,
        .subsample = 1e-3,
        .learning_rate = 0.3,
        .n_threads = 0,
        .seed = 1,
        .show_progress = 0,
    };
}

static enum status check_settings(const struct item2vec_settings *settings, struct error *err)
{
    const struct {
        const char *name;
        double value, min, max;
    } rows[] = {
        {"dim", (double)settings->dim, 1, DIM_MAX},
        {"n_epochs", (double)settings->n_epochs, 1, EPOCHS_MAX},
        {"window", (double)settings->window, 0, WINDOW_MAX},
        {"n_negatives", (double)settings->n_negatives, 1, NEGATIVES_MAX},
        {"negative_exponent", settings->negative_exponent, -2, 2},
        {"subsample", settings->subsample, 0, 1},
        {"learning_rate", settings->learning_rate, 1e-9, 10},
        {"n_threads", (double)settings->n_threads, 0, THREADS_MAX},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (!(rows[i].value >= rows[i].min && rows[i].value <= rows[i].max)) {
            return error_set_field(err, STATUS_INVALID, rows[i].name,
                                   "%s is %g, must be within %g and %g", rows[i].name,
                                   rows[i].value, rows[i].min, rows[i].max);
        }
    }
    return STATUS_OK;
}

/* Moves input and one row of the output table, both [S] and aligned, towards each other (label 1)
 * or apart (label 0). input_square is |input|², kept up to date. */
DELIBERATE_RACES
static inline void update_target(float *restrict input, float *restrict output, size_t stride,
                                 float label, float rate, float *input_square)
{
    float *in = __builtin_assume_aligned(input, 64);
    float *out = __builtin_assume_aligned(output, 64);
    float dot = 0.0F;
    float square = 0.0F;
    SIMD_SUMS
    for (size_t i = 0; i < stride; i++) {
        dot += in[i] * out[i];
        square += out[i] * out[i];
    }
    const float error = label - 1.0F / (1.0F + expf(-dot));
    const float step = error * rate / (1.0F + 0.25F * rate * (*input_square + square));
    SIMD_LOOP
    for (size_t i = 0; i < stride; i++) {
        const float old = in[i];
        in[i] += step * out[i];
        out[i] += step * old;
    }
    *input_square += 2.0F * step * dot + step * step * square;
}

DELIBERATE_RACES KERNEL_VARIANTS static void
train_pair(struct trainer *trainer, struct rng *rng, uint32_t centre, uint32_t context, float rate)
{
    const size_t stride = trainer->stride;
    float *input = trainer->input + centre * stride;
    float square = 0.0F;
    SIMD_SQUARE
    for (size_t i = 0; i < stride; i++) {
        square += input[i] * input[i];
    }
    update_target(input, trainer->output + context * stride, stride, 1.0F, rate, &square);
    for (size_t k = 0; k < trainer->settings->n_negatives; k++) {
        const uint32_t negative = alias_table_draw(&trainer->negatives, rng);
        if (negative != context) {
            update_target(input, trainer->output + negative * stride, stride, 0.0F, rate, &square);
        }
    }
    trainer->trained[centre] = 1;
}

/* Events of a segment that survive sub-sampling, runs of one item as one, to worker->rows. */
static size_t sample_segment(const struct trainer *trainer, struct worker *worker,
                             const struct segment *segment)
{
    const struct history_event *events = trainer->log->events + segment->first;
    size_t n = 0;
    for (uint32_t i = 0; i < segment->n; i++) {
        const uint32_t row = events[i].row;
        if (n > 0 && worker->rows[n - 1] == row) {
            continue;
        }
        if (trainer->keep[row] < 1.0F && rng_float(&worker->rng) >= trainer->keep[row]) {
            continue;
        }
        worker->rows[n++] = row;
    }
    return n;
}

static void train_whole_sequence(struct trainer *trainer, struct worker *worker, size_t n,
                                 size_t position, float rate)
{
    const uint32_t centre = worker->rows[position];
    const bool sampled = n - 1 > WHOLE_CONTEXTS_MAX;
    const size_t n_contexts = sampled ? WHOLE_CONTEXTS_MAX : n;
    for (size_t i = 0; i < n_contexts; i++) {
        const uint32_t context = worker->rows[sampled ? rng_below(&worker->rng, n) : i];
        if (context != centre) {
            train_pair(trainer, &worker->rng, centre, context, rate);
        }
    }
}

static void train_segment(struct trainer *trainer, struct worker *worker,
                          const struct segment *segment, float rate)
{
    const size_t n = sample_segment(trainer, worker, segment);
    const size_t window = trainer->settings->window;
    for (size_t i = 0; i < n; i++) {
        if (window == 0) {
            train_whole_sequence(trainer, worker, n, i, rate);
            continue;
        }
        const size_t reach = 1 + (size_t)rng_below(&worker->rng, window);
        const size_t first = i > reach ? i - reach : 0;
        const size_t end = n - i > reach ? i + reach + 1 : n;
        for (size_t j = first; j < end; j++) {
            if (worker->rows[j] != worker->rows[i]) {
                train_pair(trainer, &worker->rng, worker->rows[i], worker->rows[j], rate);
            }
        }
    }
}

static float learning_rate(const struct trainer *trainer, uint64_t n_done)
{
    const double planned = (double)trainer->n_events * (double)trainer->settings->n_epochs;
    const double left = 1.0 - (double)n_done / planned;
    return (float)(trainer->settings->learning_rate * fmax(left, FINAL_RATE_FACTOR));
}

static void show_progress(struct trainer *trainer, uint64_t n_done)
{
    char detail[48];
    (void)snprintf(detail, sizeof(detail), "epoch=%zu/%zu", trainer->epoch + 1,
                   trainer->settings->n_epochs);
    progress_show(&trainer->progress, "item vectors: events", n_done,
                  trainer->n_events * trainer->settings->n_epochs, detail);
}

/* One thread's part of an epoch; argument is its struct worker. */
static void *run_worker(void *argument)
{
    struct worker *worker = argument;
    struct trainer *trainer = worker->trainer;
    const bool shows = worker == trainer->workers && trainer->settings->show_progress;
    for (;;) {
        const size_t first = atomic_fetch_add(&trainer->cursor, CHUNK_SEGMENTS);
        if (first >= trainer->n_segments) {
            return NULL;
        }
        size_t end = first + CHUNK_SEGMENTS;
        end = end < trainer->n_segments ? end : trainer->n_segments;
        uint64_t n_done = atomic_load(&trainer->n_done);
        const float rate = learning_rate(trainer, n_done);
        uint64_t n_events = 0;
        for (size_t i = first; i < end; i++) {
            train_segment(trainer, worker, &trainer->segments[i], rate);
            n_events += trainer->segments[i].n;
        }
        n_done = atomic_fetch_add(&trainer->n_done, n_events) + n_events;
        if (shows) {
            show_progress(trainer, n_done);
        }
    }
}

/* The calling thread is the first worker. A thread that the system refuses is no failure: those
 * there are claim its chunks too. */
static void run_epoch(struct trainer *trainer)
{
    size_t n_started = 0;
    atomic_store(&trainer->cursor, 0);
    while (n_started + 1 < trainer->n_workers &&
           pthread_create(&trainer->threads[n_started], NULL, run_worker,
                          &trainer->workers[n_started + 1]) == 0) {
        n_started++;
    }
    (void)run_worker(&trainer->workers[0]);
    for (size_t t = 0; t < n_started; t++) {
        (void)pthread_join(trainer->threads[t], NULL);
    }
}

static void run_epochs(struct trainer *trainer, struct rng *rng)
{
    for (trainer->epoch = 0; trainer->epoch < trainer->settings->n_epochs; trainer->epoch++) {
        for (size_t i = trainer->n_segments; i > 1; i--) {
            const size_t j = (size_t)rng_below(rng, i);
            const struct segment other = trainer->segments[j];
            trainer->segments[j] = trainer->segments[i - 1];
            trainer->segments[i - 1] = other;
        }
        run_epoch(trainer);
    }
    if (trainer->settings->show_progress) {
        progress_end(&trainer->progress, "item vectors: events", atomic_load(&trainer->n_done),
                     NULL);
    }
}

/* Calls with segments NULL only count. Sequences of one event teach nothing and are left out. */
static size_t cut_segments(const struct event_log *log, struct segment *segments,
                           uint64_t *n_events)
{
    size_t n = 0;
    *n_events = 0;
    for (size_t s = 0; s < log->n_sequences; s++) {
        const uint64_t end = log->offsets[s + 1];
        for (uint64_t first = log->offsets[s]; end - first >= 2;) {
            const uint64_t left = end - first;
            const uint32_t length = left < SEGMENT_EVENTS_MAX ? (uint32_t)left : SEGMENT_EVENTS_MAX;
            if (segments != NULL) {
                segments[n] = (struct segment){.first = first, .n = length};
            }
            n++;
            *n_events += length;
            first += length;
        }
    }
    return n;
}

/* Popularity decides the sub-sampling (Mikolov et al., section 2.3, in the form of their program)
 * and the negatives. */
static enum status count_items(struct trainer *trainer, struct error *err)
{
    const struct item2vec_settings *settings = trainer->settings;
    double *weights = mem_calloc(trainer->n_items, sizeof(double));
    if (weights == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for %zu items", trainer->n_items);
    }
    for (size_t s = 0; s < trainer->n_segments; s++) {
        const struct history_event *events = trainer->log->events + trainer->segments[s].first;
        for (uint32_t i = 0; i < trainer->segments[s].n; i++) {
            weights[events[i].row] += 1.0;
        }
    }
    for (size_t i = 0; i < trainer->n_items; i++) {
        trainer->keep[i] = 1.0F;
        if (!(weights[i] > 0.0)) {
            continue;
        }
        if (settings->subsample > 0.0) {
            const double ratio = settings->subsample * (double)trainer->n_events / weights[i];
            trainer->keep[i] = (float)fmin(1.0, sqrt(ratio) + ratio);
        }
        weights[i] = pow(weights[i], settings->negative_exponent);
    }
    const enum status status =
        alias_table_init(&trainer->negatives, weights, trainer->n_items, err);
    mem_free(weights);
    return status;
}

static size_t count_cores(void)
{
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof(cores), &cores) != 0) {
        return 1;
    }
    return (size_t)CPU_COUNT(&cores);
}

static enum status trainer_init(struct trainer *trainer, struct rng *rng, struct error *err)
{
    const struct item2vec_settings *settings = trainer->settings;
    trainer->stride = (settings->dim + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
    trainer->n_segments = cut_segments(trainer->log, NULL, &trainer->n_events);
    if (trainer->n_segments == 0) {
        return error_set(err, STATUS_INVALID, "no sequence with two events to learn from");
    }
    trainer->n_workers = settings->n_threads != 0 ? settings->n_threads : count_cores();
    trainer->segments = mem_alloc_array(trainer->n_segments, sizeof(struct segment));
    trainer->input = mem_alloc_vectors(trainer->n_items, trainer->stride * sizeof(float));
    trainer->output = mem_alloc_vectors(trainer->n_items, trainer->stride * sizeof(float));
    trainer->keep = mem_alloc_array(trainer->n_items, sizeof(float));
    trainer->trained = mem_calloc(trainer->n_items, 1);
    trainer->workers = mem_alloc_array(trainer->n_workers, sizeof(struct worker));
    trainer->threads = mem_alloc_array(trainer->n_workers, sizeof(pthread_t));
    trainer->row_space = mem_alloc_array(trainer->n_workers, SEGMENT_EVENTS_MAX * sizeof(uint32_t));
    if (trainer->segments == NULL || trainer->input == NULL || trainer->output == NULL ||
        trainer->keep == NULL || trainer->trained == NULL || trainer->workers == NULL ||
        trainer->threads == NULL || trainer->row_space == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for vectors of %zu items",
                         trainer->n_items);
    }
    (void)cut_segments(trainer->log, trainer->segments, &trainer->n_events);
    memset(trainer->output, 0, trainer->n_items * trainer->stride * sizeof(float));
    memset(trainer->input, 0, trainer->n_items * trainer->stride * sizeof(float));
    for (size_t i = 0; i < trainer->n_items; i++) {
        for (size_t d = 0; d < settings->dim; d++) {
            trainer->input[i * trainer->stride + d] =
                (rng_float(rng) - 0.5F) / (float)settings->dim;
        }
    }
    for (size_t w = 0; w < trainer->n_workers; w++) {
        struct worker *worker = &trainer->workers[w];
        worker->trainer = trainer;
        rng_init(&worker->rng, rng_next(rng));
        worker->rows = trainer->row_space + w * SEGMENT_EVENTS_MAX;
    }
    return count_items(trainer, err);
}

static void trainer_free(struct trainer *trainer)
{
    alias_table_free(&trainer->negatives);
    mem_free(trainer->row_space);
    mem_free(trainer->threads);
    mem_free(trainer->workers);
    mem_free(trainer->trained);
    mem_free(trainer->keep);
    mem_free(trainer->output);
    mem_free(trainer->input);
    mem_free(trainer->segments);
}

/* Adds row [D], scaled to unit length, to out. */
static void add_direction(float *out, const float *row, size_t dim)
{
    const float norm = vector_norm(row, dim);
    for (size_t d = 0; norm > 0.0F && d < dim; d++) {
        out[d] += row[d] / norm;
    }
}

/* An item's vector is the mean of its directions as a centre and as a context. The input table
 * alone, which is what is usually kept, makes items similar that occur in the same company; the
 * output table adds those that occur together, which is what a shop asks for (hit rate at 20 of the
 * next item on held-out sessions of a shop with 36,968 items: 46.0 % against 43.0 %, at 10 epochs
 * and plain steps of rate 0.2; no difference on baskets). */
static void write_vectors(const struct trainer *trainer, float *vectors)
{
    const size_t dim = trainer->settings->dim;
    assert(trainer->input != NULL && trainer->output != NULL && trainer->trained != NULL);
    memset(vectors, 0, trainer->n_items * dim * sizeof(float));
    for (size_t i = 0; i < trainer->n_items; i++) {
        if (!trainer->trained[i]) {
            continue;
        }
        float *vector = vectors + i * dim;
        add_direction(vector, trainer->input + i * trainer->stride, dim);
        add_direction(vector, trainer->output + i * trainer->stride, dim);
        const float norm = vector_norm(vector, dim);
        for (size_t d = 0; norm > 0.0F && d < dim; d++) {
            vector[d] /= norm;
        }
    }
}

enum status item2vec_train(const struct event_log *log, size_t n_items,
                           const struct item2vec_settings *settings, float *vectors,
                           struct error *err)
{
    enum status status = check_settings(settings, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct trainer trainer = {.log = log, .settings = settings, .n_items = n_items};
    struct rng rng;
    rng_init(&rng, settings->seed);
    status = trainer_init(&trainer, &rng, err);
    if (status == STATUS_OK) {
        run_epochs(&trainer, &rng);
        write_vectors(&trainer, vectors);
    }
    trainer_free(&trainer);
    return status;
}
