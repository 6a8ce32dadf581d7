/* What does a forward pass cost over its bare matrix products? bench_forward [ROUNDS]: SASRec with
 * random weights, 2 blocks, d = 64, histories of 50 events, F = 64 and 256, batches of 1 and 16
 * users, one thread. Compared with every product the pass asks of BLAS, same shapes, same strides,
 * on as much memory, in the same order and nothing between them:
 *   block 1 by group of users: query, key and value in one, output, feed-forward up and down; by
 *   user: attention's scores and values, in blocks of 16 query rows;
 *   block 2 by group, one row a user: query, key (absorbed into the query), value, output, up,
 * down. Not among them, since they are kernels of ours: embedding, norms, softmax, activations,
 * turning the keys, and the inner products and weighted mean of the second block's attention. Both
 * are taken in turns in short rounds, so that a noisy machine is noisy for both; the ratio is the
 * median over rounds. One JSON line a setting on stdout. */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/parse.h"
#include "base/rng.h"
#include "bench_shop.h"
#include "embeddings/sasrec.h"
#include "embeddings/user_model.h"

enum {
    DIM = 64,
    WIDE = 3 * DIM, /* of a row of queries, keys and values */
    EVENTS = 50,
    N_ITEMS = 100000,
    BATCH_MAX = 16,
    FFN_MAX = 256,
    ROUNDS_MAX = 10000,
    ROUND_USERS = 64,
    /* As in embeddings/sasrec.c. */
    GROUP_TOKENS = 64,
    QUERY_ROWS = 16,
    SCORES_LD = 64,
    TOKENS_MAX = 1024,
};

/* Factors and results of the bare products, each where the pass has it too: a memory of its own. */
struct bare {
    float *weights;           /* of all products, one after the other */
    float *x, *wide;          /* [T × d], [T × max(3d, F)] */
    float *context, *product; /* [T × d] */
    float *keys, *scores;     /* [d × SCORES_LD], [QUERY_ROWS × SCORES_LD] */
};

struct bench {
    struct sasrec_settings settings;
    struct vectors items;
    struct user_model *model;
    struct user_model_workspace *workspace;
    float *weights;
    struct bare bare;
    struct history_event *events;
    float *out;
    size_t n_users; /* in a batch */
};

static void die(const char *what, const struct error *error)
{
    (void)fprintf(stderr, "bench_forward: %s: %s\n", what, error != NULL ? error->message : "");
    exit(1);
}

static float *random_floats(size_t n, double deviation, struct rng *rng)
{
    float *values = mem_alloc_vectors(n, sizeof(*values));
    if (values == NULL) {
        die("memory", NULL);
    }
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)(deviation * rng_normal(rng));
    }
    return values;
}

/* All tensors lie in one array of random numbers: overlaps do not change the work. */
static void write_model(struct bench *bench, const char *path)
{
    const float *w = bench->weights;
    const struct sasrec_norm norm = {w, w};
    const struct sasrec_linear linear = {w, w};
    struct sasrec_weights weights = {.positions = w, .embedding_norm = norm, .final_norm = norm};
    for (size_t b = 0; b < bench->settings.n_blocks; b++) {
        weights.blocks[b] =
            (struct sasrec_block){norm, linear, linear, linear, linear, norm, linear, linear};
    }
    struct error error;
    if (sasrec_model_write(path, &bench->settings, &weights, &error) != STATUS_OK) {
        die("writing the model", &error);
    }
}

static void open_model(struct bench *bench, size_t ffn_dim)
{
    char path[] = "/tmp/aisle-bench-forward-XXXXXX";
    int descriptor = mkstemp(path);
    if (descriptor < 0) {
        die("temporary file", NULL);
    }
    (void)close(descriptor);
    sasrec_settings_default(&bench->settings);
    bench->settings.ffn_dim = ffn_dim;
    write_model(bench, path);
    struct error error;
    if (user_model_open(path, &bench->items, &bench->model, &error) != STATUS_OK ||
        user_model_workspace_open(bench->model, BATCH_MAX, &bench->workspace, &error) !=
            STATUS_OK) {
        die("opening the model", &error);
    }
    (void)unlink(path);
}

static void close_model(struct bench *bench)
{
    user_model_workspace_close(bench->workspace);
    user_model_close(bench->model);
}

static int64_t run_forward(struct bench *bench, size_t n_batches)
{
    uint32_t offsets[BATCH_MAX + 1];
    for (size_t b = 0; b <= bench->n_users; b++) {
        offsets[b] = (uint32_t)(b * EVENTS);
    }
    const struct history_batch batch = {bench->n_users, offsets, bench->events, 0};
    const int64_t start = clock_thread_cpu_ns();
    for (size_t i = 0; i < n_batches; i++) {
        user_model_embed(bench->model, bench->workspace, &batch, bench->out);
    }
    return clock_thread_cpu_ns() - start;
}

/* One product, a [m × k] times b [k × n], rows lda, ldb, ldc apart. */
struct product {
    const float *a, *b;
    float *c;
    size_t m, n, k, lda, ldb, ldc;
};

static void multiply(const struct product *p)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)p->m, (blasint)p->n,
                (blasint)p->k, 1.0F, p->a, (blasint)p->lda, p->b, (blasint)p->ldb, 0.0F, p->c,
                (blasint)p->ldc);
}

/* A dense product with the next weights in line. */
static const float *multiply_weights(const float *a, const float *weights, float *c, size_t m,
                                     size_t n, size_t k)
{
    multiply(&(struct product){a, weights, c, m, n, k, k, n, n});
    return weights + k * n;
}

static void bare_attention(const struct bench *bench, size_t n_users)
{
    const struct bare *bare = &bench->bare;
    for (size_t u = 0; u < n_users; u++) {
        const float *query = bare->wide + u * EVENTS * WIDE;
        float *context = bare->context + u * EVENTS * (size_t)DIM;
        for (size_t first = 0; first < EVENTS; first += QUERY_ROWS) {
            const size_t n = EVENTS - first < QUERY_ROWS ? EVENTS - first : QUERY_ROWS;
            const size_t width = first + n;
            multiply(&(struct product){query + first * WIDE, bare->keys, bare->scores, n, width,
                                       DIM, WIDE, SCORES_LD, SCORES_LD});
            multiply(&(struct product){bare->scores, query + (size_t)2 * DIM, context + first * DIM,
                                       n, DIM, width, SCORES_LD, WIDE, DIM});
        }
    }
}

static void bare_group(const struct bench *bench, size_t n_users)
{
    const struct bare *bare = &bench->bare;
    const size_t n_tokens = n_users * EVENTS;
    const size_t ffn = bench->settings.ffn_dim;
    const size_t rows[] = {n_tokens, n_users}; /* of block 1 and 2 */
    const float *weights = bare->weights;
    weights = multiply_weights(bare->x, weights, bare->wide, n_tokens, WIDE, DIM);
    bare_attention(bench, n_users);
    for (size_t block = 0; block < 2; block++) {
        for (size_t i = 0; block == 1 && i < 3; i++) {
            weights = multiply_weights(bare->x, weights, bare->wide, n_users, DIM, DIM);
        }
        weights = multiply_weights(bare->context, weights, bare->product, rows[block], DIM, DIM);
        weights = multiply_weights(bare->x, weights, bare->wide, rows[block], ffn, DIM);
        weights = multiply_weights(bare->wide, weights, bare->product, rows[block], DIM, ffn);
    }
}

static int64_t run_bare(struct bench *bench, size_t n_batches)
{
    const size_t group = GROUP_TOKENS / EVENTS > 1 ? GROUP_TOKENS / EVENTS : 1;
    const int64_t start = clock_thread_cpu_ns();
    for (size_t i = 0; i < n_batches; i++) {
        for (size_t first = 0; first < bench->n_users; first += group) {
            const size_t left = bench->n_users - first;
            bare_group(bench, left < group ? left : group);
        }
    }
    return clock_thread_cpu_ns() - start;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(struct bench *bench, size_t n_rounds)
{
    static double ratios[ROUNDS_MAX];
    static double forward_us[ROUNDS_MAX];
    static double bare_us[ROUNDS_MAX];
    const size_t n_batches = ROUND_USERS / bench->n_users;
    (void)run_forward(bench, n_batches);
    (void)run_bare(bench, n_batches);
    for (size_t r = 0; r < n_rounds; r++) {
        bare_us[r] = (double)run_bare(bench, n_batches) / 1e3 / ROUND_USERS;
        forward_us[r] = (double)run_forward(bench, n_batches) / 1e3 / ROUND_USERS;
        ratios[r] = forward_us[r] / bare_us[r];
    }
    qsort(ratios, n_rounds, sizeof(double), compare_doubles);
    qsort(forward_us, n_rounds, sizeof(double), compare_doubles);
    qsort(bare_us, n_rounds, sizeof(double), compare_doubles);
    (void)printf("{\"bench\": \"forward\", %s, \"blas\": \"%s\", \"model\": \"sasrec\", "
                 "\"blocks\": %zu, \"dim\": %d, \"ffn_dim\": %zu, \"history\": %d, \"batch\": %zu, "
                 "\"rounds\": %zu, \"forward_us_per_user\": %.2f, \"bare_us_per_user\": %.2f, "
                 "\"ratio\": %.3f}\n",
                 bench_machine(), openblas_get_corename(), bench->settings.n_blocks, DIM,
                 bench->settings.ffn_dim, EVENTS, bench->n_users, n_rounds,
                 forward_us[n_rounds / 2], bare_us[n_rounds / 2], ratios[n_rounds / 2]);
}

int main(int argc, char **argv)
{
    static const size_t ffn_dims[] = {64, FFN_MAX};
    static const size_t batches[] = {1, BATCH_MAX};
    uint64_t n_rounds = 400;
    if (argc > 2 || (argc == 2 && !parse_uint64(argv[1], strlen(argv[1]), &n_rounds)) ||
        n_rounds < 1 || n_rounds > ROUNDS_MAX) {
        (void)fprintf(stderr, "usage: bench_forward [ROUNDS]\n");
        return 2;
    }
    openblas_set_num_threads(1);
    struct rng rng;
    struct bench bench = {0};
    rng_init(&rng, 1);
    bench.weights = random_floats((size_t)DIM * FFN_MAX, 1.0 / sqrt(DIM), &rng);
    bench.bare = (struct bare){
        .weights = random_floats((size_t)DIM * (8 * DIM + 4 * FFN_MAX), 1.0, &rng),
        .x = random_floats((size_t)TOKENS_MAX * DIM, 1.0, &rng),
        .wide = random_floats((size_t)TOKENS_MAX * FFN_MAX, 1.0, &rng),
        .context = random_floats((size_t)TOKENS_MAX * DIM, 1.0, &rng),
        .product = random_floats((size_t)TOKENS_MAX * DIM, 1.0, &rng),
        .keys = random_floats((size_t)DIM * SCORES_LD, 1.0, &rng),
        .scores = random_floats((size_t)QUERY_ROWS * SCORES_LD, 1.0, &rng),
    };
    bench.items = (struct vectors){random_floats((size_t)N_ITEMS * DIM, 1.0 / sqrt(DIM), &rng),
                                   N_ITEMS, DIM, VECTOR_F32};
    bench.out = random_floats((size_t)BATCH_MAX * DIM, 1.0, &rng);
    bench.events = mem_alloc_array((size_t)BATCH_MAX * EVENTS, sizeof(*bench.events));
    if (bench.events == NULL) {
        die("memory", NULL);
    }
    for (size_t i = 0; i < (size_t)BATCH_MAX * EVENTS; i++) {
        bench.events[i] = (struct history_event){(uint32_t)rng_below(&rng, N_ITEMS), EVENT_VIEW, 0};
    }
    for (size_t f = 0; f < sizeof(ffn_dims) / sizeof(ffn_dims[0]); f++) {
        open_model(&bench, ffn_dims[f]);
        for (size_t b = 0; b < sizeof(batches) / sizeof(batches[0]); b++) {
            bench.n_users = batches[b];
            measure(&bench, n_rounds);
        }
        close_model(&bench);
    }
    return 0;
}
