#include "embeddings/sasrec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "embeddings/safetensors.h"
#include "embeddings/user_model.h"

/* The forward pass against the definition in sasrec.h read literally, in double and with every
 * position computed, on random weights. Legend as there. */
enum {
    N_ITEMS = 60,
    DIM_LARGEST = 96,
    FFN_LARGEST = 128,
    HISTORY_LARGEST = 260,
    USERS_MAX = 400,
    FLOATS_MAX = 1 << 20,
    EVENTS_MAX = 16384,
    PATH_BYTES = 64,
};
static const double tolerance = 1e-5;
static const int64_t now_ms = 1700000000000;

static float weight_space[FLOATS_MAX];
static float item_space[N_ITEMS * DIM_LARGEST];
static uint16_t half_space[N_ITEMS * DIM_LARGEST];
static struct history_event event_space[EVENTS_MAX];

struct fixture {
    char path[PATH_BYTES];
    struct sasrec_settings settings;
    struct sasrec_weights weights;
    struct vectors items;
    struct user_model *model;
    struct user_model_workspace *workspace;
    struct rng rng;
    size_t n_floats; /* of weight_space */
};

static const float *random_values(struct fixture *f, size_t n, double mean, double deviation)
{
    float *values = weight_space + f->n_floats;
    f->n_floats += n;
    assert_true(f->n_floats <= FLOATS_MAX);
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)(mean + deviation * rng_normal(&f->rng));
    }
    return values;
}

static struct sasrec_norm random_norm(struct fixture *f)
{
    const size_t dim = f->settings.dim;
    struct sasrec_norm norm = {.weight = random_values(f, dim, 1.0, 0.2)};
    norm.bias = random_values(f, dim, 0.0, 0.2);
    return norm;
}

static struct sasrec_linear random_linear(struct fixture *f, size_t n_out, size_t n_in)
{
    struct sasrec_linear linear = {
        .weight = random_values(f, n_out * n_in, 0.0, 1.0 / sqrt((double)n_in))};
    linear.bias = random_values(f, n_out, 0.0, 0.3);
    return linear;
}

static void random_weights(struct fixture *f)
{
    const struct sasrec_settings *s = &f->settings;
    f->n_floats = 0;
    f->weights =
        (struct sasrec_weights){.positions = random_values(f, s->history_max * s->dim, 0.0, 0.3)};
    if (s->has_types) {
        f->weights.types = random_values(f, N_EVENT_TYPES * s->dim, 0.0, 0.3);
    }
    if (s->n_gap_buckets > 0) {
        f->weights.gaps = random_values(f, s->n_gap_buckets * s->dim, 0.0, 0.3);
    }
    f->weights.embedding_norm = random_norm(f);
    f->weights.final_norm = random_norm(f);
    for (size_t b = 0; b < s->n_blocks; b++) {
        struct sasrec_block *block = &f->weights.blocks[b];
        block->attention_norm = random_norm(f);
        block->query = random_linear(f, s->dim, s->dim);
        block->key = random_linear(f, s->dim, s->dim);
        block->value = random_linear(f, s->dim, s->dim);
        block->output = random_linear(f, s->dim, s->dim);
        block->ffn_norm = random_norm(f);
        block->up = random_linear(f, s->ffn_dim, s->dim);
        block->down = random_linear(f, s->dim, s->ffn_dim);
    }
}

/* In memory where there is such a place: thousands of models are written, each to the disk. */
static void make_path(char path[PATH_BYTES])
{
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(path, PATH_BYTES, "%s/aisle-sasrec-XXXXXX", folder);
    const int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    (void)close(descriptor);
}

/* Random weights and items, written and opened. */
static void fixture_open(struct fixture *f, const struct sasrec_settings *settings,
                         enum vector_type type)
{
    struct error err = {.message = ""};
    *f = (struct fixture){.settings = *settings};
    rng_init(&f->rng, 11);
    random_weights(f);
    for (size_t i = 0; i < N_ITEMS * settings->item_dim; i++) {
        item_space[i] = (float)rng_normal(&f->rng);
    }
    half_from_floats(item_space, N_ITEMS * settings->item_dim, half_space);
    f->items = (struct vectors){type == VECTOR_F16 ? (const void *)half_space : item_space, N_ITEMS,
                                settings->item_dim, type};
    make_path(f->path);
    if (sasrec_model_write(f->path, settings, &f->weights, &err) != STATUS_OK ||
        user_model_open(f->path, &f->items, &f->model, &err) != STATUS_OK ||
        user_model_workspace_open(f->model, USERS_MAX, &f->workspace, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static void fixture_close(struct fixture *f)
{
    user_model_workspace_close(f->workspace);
    user_model_close(f->model);
    (void)unlink(f->path);
}

/* Newest first, times falling, some unknown. */
static void random_events(struct rng *rng, struct history_event *events, size_t n)
{
    int64_t time_ms = now_ms;
    for (size_t i = 0; i < n; i++) {
        const double gap_ms = exp(rng_double(rng) * 22.0);
        time_ms -= (int64_t)gap_ms;
        events[i] = (struct history_event){
            .row = (uint32_t)rng_below(rng, N_ITEMS),
            .type = (enum event_type)rng_below(rng, N_EVENT_TYPES),
            .time_ms = rng_below(rng, 8) == 0 ? EVENT_TIME_UNKNOWN : time_ms,
        };
    }
}

/* --- the definition, read literally --- */

struct naive {
    const struct sasrec_settings *s;
    size_t n;     /* positions, with padding */
    size_t first; /* first one that is an event */
    double x[HISTORY_LARGEST][DIM_LARGEST];
    double q_in[HISTORY_LARGEST][DIM_LARGEST];
    double kv_in[HISTORY_LARGEST][DIM_LARGEST];
    double q[HISTORY_LARGEST][DIM_LARGEST];
    double k[HISTORY_LARGEST][DIM_LARGEST];
    double v[HISTORY_LARGEST][DIM_LARGEST];
};
static struct naive naive;

static void naive_linear(const struct sasrec_linear *linear, size_t n_out, size_t n_in,
                         const double *x, double *y)
{
    for (size_t o = 0; o < n_out; o++) {
        y[o] = (double)linear->bias[o];
        for (size_t i = 0; i < n_in; i++) {
            y[o] += (double)linear->weight[o * n_in + i] * x[i];
        }
    }
}

static void naive_norm(const struct sasrec_norm *norm, const double *x, double *y)
{
    const size_t dim = naive.s->dim;
    double mean = 0.0;
    double variance = 0.0;
    for (size_t c = 0; c < dim; c++) {
        mean += x[c] / (double)dim;
    }
    for (size_t c = 0; c < dim; c++) {
        variance += (x[c] - mean) * (x[c] - mean) / (double)dim;
    }
    for (size_t c = 0; c < dim; c++) {
        y[c] = (x[c] - mean) / sqrt(variance + naive.s->norm_epsilon) * (double)norm->weight[c] +
               (double)norm->bias[c];
    }
}

static void naive_attention(size_t i, double *out)
{
    const size_t width = naive.s->dim / naive.s->n_heads;
    for (size_t head = 0; head < naive.s->n_heads; head++) {
        const size_t at = head * width;
        double p[HISTORY_LARGEST];
        double sum = 0.0;
        for (size_t j = 0; j <= i; j++) {
            double dot = 0.0;
            for (size_t c = at; c < at + width; c++) {
                dot += naive.q[i][c] * naive.k[j][c];
            }
            p[j] = exp(dot / sqrt((double)width));
            sum += p[j];
        }
        for (size_t c = at; c < at + width; c++) {
            out[c] = 0.0;
            for (size_t j = 0; j <= i; j++) {
                out[c] += p[j] / sum * naive.v[j][c];
            }
        }
    }
}

static void naive_ffn(const struct sasrec_block *block, const double *x, double *y)
{
    double hidden[FFN_LARGEST] = {0.0};
    naive_linear(&block->up, naive.s->ffn_dim, naive.s->dim, x, hidden);
    for (size_t i = 0; i < naive.s->ffn_dim; i++) {
        hidden[i] = naive.s->activation == SASREC_RELU
                        ? fmax(hidden[i], 0.0)
                        : 0.5 * hidden[i] * (1.0 + erf(hidden[i] / sqrt(2.0)));
    }
    naive_linear(&block->down, naive.s->dim, naive.s->ffn_dim, hidden, y);
}

static void naive_position(const struct sasrec_block *block, size_t i)
{
    const struct sasrec_settings *s = naive.s;
    double context[DIM_LARGEST] = {0.0};
    double attended[DIM_LARGEST];
    double y[DIM_LARGEST] = {0.0};
    double z[DIM_LARGEST] = {0.0};
    double fed[DIM_LARGEST] = {0.0};
    naive_attention(i, context);
    naive_linear(&block->output, s->dim, s->dim, context, attended);
    for (size_t c = 0; c < s->dim; c++) {
        const bool normed = s->residual_normed && !s->post_norm;
        y[c] = (normed ? naive.q_in[i][c] : naive.x[i][c]) + attended[c];
    }
    if (s->post_norm) {
        naive_norm(&block->attention_norm, y, y);
        naive_ffn(block, y, fed);
    } else {
        naive_norm(&block->ffn_norm, y, z);
        naive_ffn(block, z, fed);
    }
    for (size_t c = 0; c < s->dim; c++) {
        naive.x[i][c] = (s->residual_normed && !s->post_norm ? z[c] : y[c]) + fed[c];
    }
    if (s->post_norm) {
        naive_norm(&block->ffn_norm, naive.x[i], naive.x[i]);
    }
}

static void naive_block(const struct sasrec_block *block)
{
    const struct sasrec_settings *s = naive.s;
    for (size_t i = 0; i < naive.n; i++) {
        memcpy(naive.q_in[i], naive.x[i], sizeof(naive.x[i]));
        if (!s->post_norm) {
            naive_norm(&block->attention_norm, naive.x[i], naive.q_in[i]);
        }
        memcpy(naive.kv_in[i], s->norm_keys ? naive.q_in[i] : naive.x[i], sizeof(naive.x[i]));
        naive_linear(&block->query, s->dim, s->dim, naive.q_in[i], naive.q[i]);
        naive_linear(&block->key, s->dim, s->dim, naive.kv_in[i], naive.k[i]);
        naive_linear(&block->value, s->dim, s->dim, naive.kv_in[i], naive.v[i]);
    }
    for (size_t i = 0; i < naive.n; i++) { /* padded ones begin at zero, but do not stay there */
        naive_position(block, i);
    }
}

static void naive_embed(const struct fixture *f, const struct history_event *events, size_t n,
                        size_t i)
{
    const struct sasrec_settings *s = &f->settings;
    const size_t j = n - 1 - i;
    const size_t position = s->positions_right ? s->history_max - n + j : j;
    double *x = naive.x[naive.first + j];
    float row[DIM_LARGEST] = {0.0F};
    vectors_row(&f->items, events[i].row, row);
    size_t bucket = 0;
    if (s->n_gap_buckets > 0 && j > 0 && events[i].time_ms != EVENT_TIME_UNKNOWN &&
        events[i + 1].time_ms != EVENT_TIME_UNKNOWN) {
        const double seconds = (double)(events[i].time_ms - events[i + 1].time_ms) / 1000.0;
        bucket = 1 + (size_t)floor(log2(1.0 + fmax(seconds, 0.0)));
        bucket = bucket < s->n_gap_buckets ? bucket : s->n_gap_buckets - 1;
    }
    for (size_t c = 0; c < s->dim; c++) {
        x[c] =
            s->input_scale * (double)row[c] + (double)f->weights.positions[position * s->dim + c];
        x[c] += s->has_types ? (double)f->weights.types[(size_t)events[i].type * s->dim + c] : 0.0;
        x[c] += s->n_gap_buckets > 0 ? (double)f->weights.gaps[bucket * s->dim + c] : 0.0;
    }
    if (s->has_embedding_norm) {
        naive_norm(&f->weights.embedding_norm, x, x);
    }
}

static void naive_user(const struct fixture *f, const struct history_event *events, size_t n,
                       double *out)
{
    const struct sasrec_settings *s = &f->settings;
    memset(out, 0, s->item_dim * sizeof(*out));
    n = n < s->history_max ? n : s->history_max;
    if (n == 0) {
        return;
    }
    naive.s = s;
    naive.n = s->attend_padding ? s->history_max : n;
    naive.first = naive.n - n;
    assert_true(naive.n <= HISTORY_LARGEST);
    memset(naive.x, 0, sizeof(naive.x));
    for (size_t i = 0; i < n; i++) {
        naive_embed(f, events, n, i);
    }
    for (size_t b = 0; b < s->n_blocks; b++) {
        naive_block(&f->weights.blocks[b]);
    }
    double *h = naive.x[naive.n - 1];
    if (s->has_final_norm) {
        naive_norm(&f->weights.final_norm, h, h);
    }
    double squares = 0.0;
    for (size_t c = 0; c < s->dim; c++) {
        squares += h[c] * h[c];
    }
    for (size_t c = 0; c < s->dim; c++) {
        out[c] = s->output_scale > 0.0 ? h[c] / sqrt(squares) * s->output_scale : h[c];
    }
    if (s->has_bias) {
        out[s->dim] = 1.0;
    }
}

/* Largest difference over the largest magnitude. */
static double difference(const float *got, const double *wanted, size_t n)
{
    double largest = 0.0;
    double magnitude = 1e-30;
    for (size_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)got[i] - wanted[i]));
        magnitude = fmax(magnitude, fabs(wanted[i]));
    }
    return isfinite(largest) ? largest / magnitude : HUGE_VAL;
}

/* Users of the given lengths in one batch against the definition; the largest difference. */
static double compare(struct fixture *f, const size_t *lengths, size_t n_users)
{
    static float out[USERS_MAX * DIM_LARGEST];
    uint32_t offsets[USERS_MAX + 1] = {0};
    double wanted[DIM_LARGEST];
    double worst = 0.0;
    assert_true(n_users <= USERS_MAX);
    for (size_t b = 0; b < n_users; b++) {
        offsets[b + 1] = offsets[b] + (uint32_t)lengths[b];
    }
    assert_true(offsets[n_users] <= EVENTS_MAX);
    random_events(&f->rng, event_space, offsets[n_users]);
    const struct history_batch batch = {n_users, offsets, event_space, now_ms};
    memset(out, 0xff, sizeof(out));
    user_model_embed(f->model, f->workspace, &batch, out);
    for (size_t b = 0; b < n_users; b++) {
        naive_user(f, event_space + offsets[b], lengths[b], wanted);
        worst =
            fmax(worst, difference(out + b * f->settings.item_dim, wanted, f->settings.item_dim));
    }
    return worst;
}

/* Settings number i of all combinations of what has few values; depth and the outer norms, which
 * do not touch the rest, change along with i. */
static bool combination(size_t i, struct sasrec_settings *s)
{
    static const size_t heads[] = {1, 2, 6};
    sasrec_settings_default(s);
    s->dim = 12;
    s->ffn_dim = 20;
    s->history_max = 7;
    s->input_scale = 1.5;
    s->n_blocks = 1 + i % 5 % 3;
    s->has_embedding_norm = i % 7 < 3;
    s->has_final_norm = i % 11 < 6;
    s->n_heads = heads[i % 3];
    i /= 3;
    s->positions_right = i % 3 > 0;
    s->attend_padding = i % 3 == 2;
    i /= 3;
    s->activation = i & 1U ? SASREC_GELU : SASREC_RELU;
    s->post_norm = (i & 2U) != 0;
    s->norm_keys = (i & 4U) != 0;
    s->residual_normed = (i & 8U) != 0;
    s->has_types = (i & 16U) != 0;
    s->n_gap_buckets = i & 32U ? 9 : 0;
    s->output_scale = i & 64U ? 2.5 : 0.0;
    s->has_bias = (i & 128U) != 0;
    s->item_dim = i & 128U ? 15 : 12;
    return i < 256;
}

static void embed_all_combinations_match_definition(void **state)
{
    (void)state;
    static const size_t lengths[] = {3, 0, 7, 1, 12, 6, 2};
    struct sasrec_settings settings;
    struct fixture f;
    double worst = 0.0;
    size_t n = 0;
    for (; combination(n, &settings); n++) {
        fixture_open(&f, &settings, n % 2 == 0 ? VECTOR_F32 : VECTOR_F16);
        const double found = compare(&f, lengths, sizeof(lengths) / sizeof(lengths[0]));
        if (!(found <= tolerance)) {
            fail_msg("combination %zu: relative difference %.3g", n, found);
        }
        worst = fmax(worst, found);
        fixture_close(&f);
    }
    print_message("%zu combinations, largest relative difference %.3g\n", n, worst);
}

/* Widths that are no multiple of anything, more users than a group holds, histories longer than a
 * group: everything that is cut into pieces. */
static void embed_large_and_odd_shapes_match_definition(void **state)
{
    (void)state;
    static const struct {
        size_t dim, heads, ffn_dim, history_max, type;
    } shapes[] = {
        {64, 1, 64, 50, VECTOR_F32},  {64, 4, 128, 200, VECTOR_F16}, {37, 1, 53, 33, VECTOR_F32},
        {95, 5, 101, 17, VECTOR_F32}, {1, 1, 1, 1, VECTOR_F32},      {48, 3, 128, 260, VECTOR_F16},
    };
    static size_t lengths[USERS_MAX];
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct sasrec_settings settings;
        struct fixture f;
        sasrec_settings_default(&settings);
        settings.dim = shapes[i].dim;
        settings.item_dim = shapes[i].dim;
        settings.n_heads = shapes[i].heads;
        settings.ffn_dim = shapes[i].ffn_dim;
        settings.history_max = shapes[i].history_max;
        settings.activation = i % 2 == 0 ? SASREC_RELU : SASREC_GELU;
        settings.positions_right = i % 3 > 0;
        settings.attend_padding = i % 3 == 2;
        fixture_open(&f, &settings, (enum vector_type)shapes[i].type);
        const size_t n_users = i < 2 ? 40 : 12;
        for (size_t b = 0; b < n_users; b++) {
            lengths[b] = (size_t)rng_below(&f.rng, 2 * settings.history_max + 2);
        }
        const double found = compare(&f, lengths, n_users);
        print_message("d %zu, heads %zu, F %zu, L %zu: relative difference %.3g\n", settings.dim,
                      settings.n_heads, settings.ffn_dim, settings.history_max, found);
        assert_true(found <= tolerance);
        fixture_close(&f);
    }
}

/* Hundreds of users with one event each: more than a group may hold of users. */
static void embed_many_short_histories_match_definition(void **state)
{
    (void)state;
    static size_t lengths[USERS_MAX];
    struct sasrec_settings settings;
    struct fixture f;
    sasrec_settings_default(&settings);
    settings.history_max = 200;
    fixture_open(&f, &settings, VECTOR_F32);
    for (size_t b = 0; b < USERS_MAX; b++) {
        lengths[b] = b % 5 == 4 ? 0 : 1;
    }
    assert_true(compare(&f, lengths, USERS_MAX) <= tolerance);
    fixture_close(&f);
}

static void embed_empty_histories_gives_zero_without_bias_component(void **state)
{
    (void)state;
    struct sasrec_settings settings;
    struct fixture f;
    enum { USERS = 3, DIM = 65 };
    float out[USERS * DIM];
    const uint32_t offsets[4] = {0};
    const struct history_batch batch = {3, offsets, event_space, now_ms};
    sasrec_settings_default(&settings);
    settings.has_bias = true;
    settings.item_dim = 65;
    fixture_open(&f, &settings, VECTOR_F32);
    memset(out, 0xff, sizeof(out));
    user_model_embed(f.model, f.workspace, &batch, out);
    for (size_t i = 0; i < (size_t)USERS * DIM; i++) {
        assert_true(out[i] == 0.0F);
    }
    fixture_close(&f);
}

/* One user's vector by itself and among others; the same batch again gives the same bits. */
static void embed_other_users_in_batch_change_nothing(void **state)
{
    (void)state;
    enum { USERS = 30 };
    static float together[USERS * 64];
    static float again[USERS * 64];
    struct sasrec_settings settings;
    struct fixture f;
    uint32_t offsets[USERS + 1] = {0};
    sasrec_settings_default(&settings);
    fixture_open(&f, &settings, VECTOR_F32);
    for (size_t b = 0; b < USERS; b++) {
        offsets[b + 1] = offsets[b] + (uint32_t)rng_below(&f.rng, 60);
    }
    random_events(&f.rng, event_space, offsets[USERS]);
    const struct history_batch batch = {USERS, offsets, event_space, now_ms};
    user_model_embed(f.model, f.workspace, &batch, together);
    user_model_embed(f.model, f.workspace, &batch, again);
    assert_memory_equal(together, again, sizeof(together));
    double worst = 0.0;
    for (size_t b = 0; b < USERS; b++) {
        double wanted[64];
        float alone[64];
        const struct history_batch one = {1, offsets + b, event_space, now_ms};
        user_model_embed(f.model, f.workspace, &one, alone);
        for (size_t c = 0; c < 64; c++) {
            wanted[c] = (double)alone[c];
        }
        worst = fmax(worst, difference(together + b * 64, wanted, 64));
    }
    print_message("alone and in a batch: relative difference %.3g\n", worst);
    assert_true(worst <= tolerance);
    fixture_close(&f);
}

static void embed_any_batch_allocates_nothing(void **state)
{
    (void)state;
    struct sasrec_settings settings;
    struct fixture f;
    float out[2 * 64];
    const uint32_t offsets[3] = {0, 20, 90};
    const struct history_batch batch = {2, offsets, event_space, now_ms};
    sasrec_settings_default(&settings);
    fixture_open(&f, &settings, VECTOR_F16);
    random_events(&f.rng, event_space, 90);
    const uint64_t before = mem_count();
    user_model_embed(f.model, f.workspace, &batch, out);
    assert_int_equal(mem_count(), before);
    fixture_close(&f);
}

static void open_good_model_tells_settings(void **state)
{
    (void)state;
    struct sasrec_settings settings;
    struct fixture f;
    sasrec_settings_default(&settings);
    settings.history_max = 23;
    settings.item_dim = 70;
    fixture_open(&f, &settings, VECTOR_F32);
    const struct user_model_info info = user_model_info(f.model);
    assert_string_equal(info.architecture, "sasrec");
    assert_int_equal(info.dim, 70);
    assert_int_equal(info.history_max, 23);
    assert_non_null(strstr(info.settings_json, "\"hidden_dim\":64"));
    fixture_close(&f);
}

static void open_out_of_memory_fails_clean_until_it_succeeds(void **state)
{
    (void)state;
    struct sasrec_settings settings;
    struct fixture f;
    sasrec_settings_default(&settings);
    settings.attend_padding = true;
    settings.positions_right = true;
    fixture_open(&f, &settings, VECTOR_F32);
    int64_t nth = 1;
    for (;; nth++) {
        struct error err = {.message = ""};
        struct user_model *model = f.model;
        struct user_model_workspace *workspace = NULL;
        mem_fail_nth(nth);
        enum status status = user_model_open(f.path, &f.items, &model, &err);
        if (status == STATUS_OK) {
            status = user_model_workspace_open(model, 3, &workspace, &err);
        } else {
            assert_null(model);
        }
        mem_fail_nth(0);
        user_model_workspace_close(workspace);
        user_model_close(model);
        if (status == STATUS_OK) {
            break;
        }
        assert_int_equal(status, STATUS_NOMEM);
        assert_null(workspace);
        assert_true(nth < 1000);
    }
    assert_true(nth > 5);
    fixture_close(&f);
}

enum damage { DAMAGE_MISSING, DAMAGE_SHAPE, DAMAGE_NAN };

/* Opens a copy of the fixture's file in which the named tensor is damaged. */
static enum status open_damaged(const struct fixture *f, const char *name, enum damage damage,
                                struct error *err)
{
    static struct tensor_to_write tensors[64];
    static float spoilt[64 * 64 * 3];
    char path[PATH_BYTES];
    struct safetensors *file = NULL;
    struct user_model *model = f->model;
    size_t n = 0;
    assert_int_equal(safetensors_open(f->path, &file, NULL), STATUS_OK);
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct tensor *from = safetensors_at(file, i);
        struct tensor_to_write to = {
            from->name, from->type, from->rank, {from->shape[0], from->shape[1]}, from->data};
        if (strcmp(from->name, name) == 0 && damage == DAMAGE_MISSING) {
            continue;
        }
        if (strcmp(from->name, name) == 0) {
            assert_true(from->n_bytes <= sizeof(spoilt));
            memcpy(spoilt, from->data, from->n_bytes);
            to.data = spoilt;
            if (damage == DAMAGE_SHAPE) {
                to.shape[0]--;
            } else {
                spoilt[from->n_values - 1] = NAN;
            }
        }
        tensors[n++] = to;
    }
    const struct metadata_entry metadata[] = {
        {"aisle.architecture", safetensors_metadata(file, "aisle.architecture")},
        {"aisle.settings", safetensors_metadata(file, "aisle.settings")},
    };
    make_path(path);
    assert_int_equal(safetensors_write(path, tensors, n, metadata, 2, NULL), STATUS_OK);
    safetensors_close(file);
    const enum status status = user_model_open(path, &f->items, &model, err);
    assert_null(model);
    (void)unlink(path);
    return status;
}

static void open_damaged_tensor_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const names[] = {"positions", "blocks.1.attention.key.weight",
                                        "blocks.0.ffn.down.bias", "final_norm.weight"};
    static const enum status wanted[] = {[DAMAGE_MISSING] = STATUS_NOT_FOUND,
                                         [DAMAGE_SHAPE] = STATUS_MISMATCH,
                                         [DAMAGE_NAN] = STATUS_INVALID};
    struct sasrec_settings settings;
    struct fixture f;
    sasrec_settings_default(&settings);
    fixture_open(&f, &settings, VECTOR_F32);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        for (int damage = DAMAGE_MISSING; damage <= DAMAGE_NAN; damage++) {
            struct error err = {.message = ""};
            assert_int_equal(open_damaged(&f, names[i], (enum damage)damage, &err), wanted[damage]);
            assert_non_null(strstr(err.message, names[i]));
        }
    }
    fixture_close(&f);
}

static void model_write_bad_input_writes_nothing(void **state)
{
    (void)state;
    struct sasrec_settings settings;
    struct fixture f;
    struct error err = {.message = ""};
    sasrec_settings_default(&settings);
    fixture_open(&f, &settings, VECTOR_F32);
    (void)unlink(f.path);
    struct sasrec_weights weights = f.weights;
    weights.blocks[1].up.bias = NULL;
    assert_int_equal(sasrec_model_write(f.path, &settings, &weights, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "blocks.1.ffn.up.bias"));
    float positions[50 * 64] = {0.0F};
    positions[77] = INFINITY;
    weights = f.weights;
    weights.positions = positions;
    assert_int_equal(sasrec_model_write(f.path, &settings, &weights, &err), STATUS_INVALID);
    assert_string_equal(err.field, "positions");
    settings.n_heads = 0;
    assert_int_equal(sasrec_model_write(f.path, &settings, &f.weights, &err), STATUS_INVALID);
    assert_string_equal(err.field, "n_heads");
    assert_int_not_equal(access(f.path, F_OK), 0);
    fixture_close(&f);
}

static size_t read_bytes(const char *path, char *bytes, size_t n_max)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    const size_t n = fread(bytes, 1, n_max, file);
    assert_true(n > 0 && n < n_max);
    (void)fclose(file);
    return n;
}

static void model_write_same_input_gives_same_bytes(void **state)
{
    (void)state;
    enum { BYTES_MAX = 1 << 19 };
    static char first[BYTES_MAX];
    static char second[BYTES_MAX];
    struct sasrec_settings settings;
    struct fixture f;
    sasrec_settings_default(&settings);
    fixture_open(&f, &settings, VECTOR_F32);
    const size_t n = read_bytes(f.path, first, BYTES_MAX);
    assert_int_equal(sasrec_model_write(f.path, &settings, &f.weights, NULL), STATUS_OK);
    assert_int_equal(read_bytes(f.path, second, BYTES_MAX), n);
    assert_memory_equal(first, second, n);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embed_all_combinations_match_definition),
        cmocka_unit_test(embed_large_and_odd_shapes_match_definition),
        cmocka_unit_test(embed_many_short_histories_match_definition),
        cmocka_unit_test(embed_empty_histories_gives_zero_without_bias_component),
        cmocka_unit_test(embed_other_users_in_batch_change_nothing),
        cmocka_unit_test(embed_any_batch_allocates_nothing),
        cmocka_unit_test(open_good_model_tells_settings),
        cmocka_unit_test(open_out_of_memory_fails_clean_until_it_succeeds),
        cmocka_unit_test(open_damaged_tensor_is_refused_by_name),
        cmocka_unit_test(model_write_bad_input_writes_nothing),
        cmocka_unit_test(model_write_same_input_gives_same_bytes),
    };
    return cmocka_run_group_tests_name("sasrec", tests, NULL, NULL);
}
