/* Files of gru4rec and attention, and what every user model promises of its forward pass: damaged
 * files refused by name, half precision, histories cut at history_max, no allocation, other users
 * in the batch. Values themselves are compared in test_recurrent.c. */
#include "embeddings/user_model.h"

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
#include "base/file.h"
#include "base/rng.h"
#include "embeddings/attention.h"
#include "embeddings/gru4rec.h"
#include "embeddings/safetensors.h"

enum { N_ITEMS = 30, DIM = 33, ITEM_DIM = 34, HISTORY = 6, N_USERS = 12, VALUES = 3 * DIM * DIM };
enum { TENSORS_MAX = 16 };

static float items_f32[N_ITEMS * ITEM_DIM]; /* exactly as half precision holds them */
static uint16_t items_f16[N_ITEMS * ITEM_DIM];
static float weights[VALUES + DIM]; /* pieces of it are every tensor */
static struct history_event events[N_USERS * 2 * HISTORY];
static uint32_t offsets[N_USERS + 1];
static char path[64];
static char damaged_path[80];

static const struct vectors table_f32 = {items_f32, N_ITEMS, ITEM_DIM, VECTOR_F32};
static const struct vectors table_f16 = {items_f16, N_ITEMS, ITEM_DIM, VECTOR_F16};

static int setup(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 17);
    for (size_t i = 0; i < N_ITEMS * ITEM_DIM; i++) {
        items_f16[i] = half_from_float((float)(0.3 * rng_normal(&rng)));
        items_f32[i] = half_to_float(items_f16[i]);
    }
    for (size_t i = 0; i < VALUES + DIM; i++) {
        weights[i] = (float)(0.2 * rng_normal(&rng));
    }
    for (size_t u = 0; u < N_USERS; u++) { /* lengths 0 … 11: below, at and over history_max */
        offsets[u + 1] = offsets[u] + (uint32_t)(u * 5 % N_USERS);
        for (size_t e = offsets[u]; e < offsets[u + 1]; e++) {
            events[e] = (struct history_event){(uint32_t)rng_below(&rng, N_ITEMS),
                                               (enum event_type)rng_below(&rng, N_EVENT_TYPES),
                                               EVENT_TIME_UNKNOWN};
        }
    }
    (void)snprintf(path, sizeof(path), "/tmp/aisle-recurrent-files-%ld", (long)getpid());
    (void)snprintf(damaged_path, sizeof(damaged_path), "%s-damaged", path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(path);
    (void)unlink(damaged_path);
    return 0;
}

static struct gru4rec_settings gru(void)
{
    struct gru4rec_settings s;
    gru4rec_settings_default(&s);
    s.dim = DIM;
    s.hidden_dim = DIM;
    s.item_dim = ITEM_DIM;
    s.n_layers = 2;
    s.history_max = HISTORY;
    s.output_scale = 2.0;
    s.has_output = true;
    s.has_bias = true;
    return s;
}

static struct gru4rec_weights gru_weights(void)
{
    const struct gru4rec_layer layer = {weights, weights + 1, weights + 2, weights + 3};
    return (struct gru4rec_weights){
        .layers = {layer, layer}, .output_weight = weights + 4, .output_bias = weights + 5};
}

static struct attention_settings attention(void)
{
    struct attention_settings s;
    attention_settings_default(&s);
    s.dim = DIM;
    s.item_dim = ITEM_DIM;
    s.history_max = HISTORY;
    s.output_scale = 2.0;
    s.has_bias = true;
    return s;
}

static const struct attention_weights attention_all = {weights,     weights + 1, weights + 2,
                                                       weights + 3, weights + 4, weights + 5};

static void write_gru(void)
{
    const struct gru4rec_settings s = gru();
    const struct gru4rec_weights w = gru_weights();
    assert_int_equal(gru4rec_model_write(path, &s, &w, NULL), STATUS_OK);
}

static void write_attention(void)
{
    const struct attention_settings s = attention();
    assert_int_equal(attention_model_write(path, &s, &attention_all, NULL), STATUS_OK);
}

static void (*const writers[])(void) = {write_gru, write_attention};
enum { N_MODELS = 2 };

struct opened {
    struct user_model *model;
    struct user_model_workspace *workspace;
};

static struct opened open_model(const struct vectors *items, size_t n_users_max)
{
    struct opened opened = {NULL, NULL};
    assert_int_equal(user_model_open(path, items, &opened.model, NULL), STATUS_OK);
    assert_int_equal(user_model_workspace_open(opened.model, n_users_max, &opened.workspace, NULL),
                     STATUS_OK);
    return opened;
}

static void close_model(struct opened *opened)
{
    user_model_workspace_close(opened->workspace);
    user_model_close(opened->model);
}

static void assert_near(const float *got, const float *wanted)
{
    for (size_t c = 0; c < ITEM_DIM; c++) {
        assert_true(fabsf(got[c] - wanted[c]) <= 1e-5F);
    }
}

static void embed_half_precision_items_give_same_bits_as_their_floats(void **state)
{
    (void)state;
    const struct history_batch batch = {N_USERS, offsets, events, 0};
    for (size_t m = 0; m < N_MODELS; m++) {
        float out[2][N_USERS * ITEM_DIM];
        writers[m]();
        for (int half = 0; half < 2; half++) {
            struct opened o = open_model(half != 0 ? &table_f16 : &table_f32, N_USERS);
            memset(out[half], 0x7f, sizeof(out[half]));
            const uint64_t n_allocations = mem_count();
            user_model_embed(o.model, o.workspace, &batch, out[half]);
            assert_int_equal(mem_count(), n_allocations);
            close_model(&o);
        }
        assert_memory_equal(out[0], out[1], sizeof(out[0]));
    }
}

/* Also: the length that output_scale says, the bias component, zeros for an empty history. */
static void embed_user_alone_equals_user_in_batch(void **state)
{
    (void)state;
    const struct history_batch batch = {N_USERS, offsets, events, 0};
    for (size_t m = 0; m < N_MODELS; m++) {
        float together[N_USERS * ITEM_DIM];
        float alone[ITEM_DIM];
        writers[m]();
        struct opened o = open_model(&table_f32, N_USERS);
        user_model_embed(o.model, o.workspace, &batch, together);
        for (size_t u = 0; u < N_USERS; u++) {
            const float *mine = together + u * ITEM_DIM;
            const struct history_batch one = {1, offsets + u, events, 0};
            user_model_embed(o.model, o.workspace, &one, alone);
            assert_near(alone, mine);
            const bool is_empty = offsets[u] == offsets[u + 1];
            assert_true(fabsf(vector_norm(mine, DIM) - (is_empty ? 0.0F : 2.0F)) <= 1e-5F);
            assert_true(mine[DIM] == (is_empty ? 0.0F : 1.0F));
        }
        close_model(&o);
    }
}

static void embed_events_over_history_max_change_nothing(void **state)
{
    (void)state;
    const uint32_t whole[] = {0, 2 * HISTORY};
    const uint32_t cut[] = {0, HISTORY};
    const uint32_t shorter[] = {0, HISTORY - 1};
    for (size_t m = 0; m < N_MODELS; m++) {
        float out[3][ITEM_DIM];
        writers[m]();
        struct opened o = open_model(&table_f32, 1);
        assert_int_equal(user_model_info(o.model).history_max, HISTORY);
        const uint32_t *const ends[] = {whole, cut, shorter};
        for (size_t i = 0; i < 3; i++) {
            const struct history_batch batch = {1, ends[i], events, 0};
            user_model_embed(o.model, o.workspace, &batch, out[i]);
        }
        assert_memory_equal(out[0], out[1], sizeof(out[0]));
        assert_memory_not_equal(out[1], out[2], sizeof(out[1]));
        close_model(&o);
    }
}

/* More users than a group holds, most of them with one event, some without. */
static void embed_large_batch_equals_its_users(void **state)
{
    (void)state;
    enum { MANY = 2500 };
    uint32_t *ends = mem_calloc(MANY + 1, sizeof(*ends));
    struct history_event *many = mem_calloc(MANY * HISTORY, sizeof(*many));
    float *out = mem_calloc(MANY * ITEM_DIM, sizeof(*out));
    assert_true(ends != NULL && many != NULL && out != NULL);
    for (size_t u = 0; u < MANY; u++) {
        const size_t n = u % 97 == 0 ? HISTORY : (u % 13 != 0);
        for (size_t e = ends[u]; e < ends[u] + n; e++) {
            many[e].row = (uint32_t)(e * 7 % N_ITEMS);
        }
        ends[u + 1] = ends[u] + (uint32_t)n;
    }
    const struct history_batch batch = {MANY, ends, many, 0};
    for (size_t m = 0; m < N_MODELS; m++) {
        writers[m]();
        struct opened o = open_model(&table_f32, MANY);
        user_model_embed(o.model, o.workspace, &batch, out);
        for (size_t u = 0; u < MANY; u += 31) {
            float alone[ITEM_DIM];
            const struct history_batch one = {1, ends + u, many, 0};
            user_model_embed(o.model, o.workspace, &one, alone);
            assert_near(out + u * ITEM_DIM, alone);
        }
        close_model(&o);
    }
    mem_free(out);
    mem_free(many);
    mem_free(ends);
}

/* Copies the model without tensor `left_out` (or with its first value not a number); false when it
 * has no such tensor. name [48] tells which. */
static bool damage(size_t left_out, bool is_spoiled, char *name)
{
    struct safetensors *file = NULL;
    static float spoiled[VALUES];
    struct tensor_to_write tensors[TENSORS_MAX];
    size_t n = 0;
    assert_int_equal(safetensors_open(path, &file, NULL), STATUS_OK);
    const size_t count = safetensors_count(file);
    assert_true(count <= TENSORS_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct tensor *t = safetensors_at(file, i);
        const void *data = t->data;
        if (i == left_out) {
            (void)snprintf(name, 48, "%s", t->name);
            if (!is_spoiled) {
                continue;
            }
            memcpy(spoiled, t->data, t->n_bytes);
            spoiled[0] = NAN;
            data = spoiled;
        }
        tensors[n] = (struct tensor_to_write){
            .name = t->name, .type = t->type, .rank = t->rank, .data = data};
        memcpy(tensors[n++].shape, t->shape, sizeof(t->shape));
    }
    const struct metadata_entry metadata[] = {
        {"aisle.architecture", safetensors_metadata(file, "aisle.architecture")},
        {"aisle.settings", safetensors_metadata(file, "aisle.settings")},
    };
    assert_int_equal(safetensors_write(damaged_path, tensors, n, metadata, 2, NULL), STATUS_OK);
    safetensors_close(file);
    return left_out < count;
}

static void open_damaged_tensor_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t m = 0; m < N_MODELS; m++) {
        char name[48];
        size_t n = 0;
        writers[m]();
        for (; damage(n, false, name); n++) {
            struct user_model *model = NULL;
            struct error err = {.message = ""};
            assert_int_equal(user_model_open(damaged_path, &table_f32, &model, &err),
                             STATUS_NOT_FOUND);
            assert_non_null(strstr(err.message, name));
            assert_null(model);
            assert_true(damage(n, true, name));
            assert_int_equal(user_model_open(damaged_path, &table_f32, &model, &err),
                             STATUS_INVALID);
            assert_non_null(strstr(err.message, name));
            assert_null(model);
        }
        assert_int_equal(n, m == 0 ? 10 : 6);
    }
}

static void open_bad_settings_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *architecture, *settings, *field;
    } cases[] = {
        {"gru4rec", "{\"version\":1,\"dim\":34,\"layers\":1}", "layers"},
        {"gru4rec", "{\"version\":1,\"dim\":34,\"input_dim\":33,\"n_layers\":5}", "n_layers"},
        {"gru4rec", "{\"version\":1,\"dim\":34,\"input_dim\":33,\"has_output\":1}", "has_output"},
        {"gru4rec", "{\"version\":1,\"dim\":34,\"input_dim\":33}", "hidden_dim"},
        {"gru4rec", "{\"version\":1,\"dim\":34,\"input_dim\":64}", "dim"},
        {"attention", "{\"version\":1,\"dim\":34,\"hidden_dim\":34,\"has_bias\":true}", "dim"},
        {"attention", "{\"version\":1,\"dim\":34,\"hidden_dim\":33,\"history_max\":0}",
         "history_max"},
        {"attention", "{\"version\":1,\"dim\":34,\"hidden_dim\":33,\"output_scale\":-1}",
         "output_scale"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct metadata_entry metadata[] = {{"aisle.architecture", cases[i].architecture},
                                                  {"aisle.settings", cases[i].settings}};
        struct user_model *model = NULL;
        struct error err = {.message = ""};
        assert_int_equal(safetensors_write(damaged_path, NULL, 0, metadata, 2, NULL), STATUS_OK);
        assert_int_equal(user_model_open(damaged_path, &table_f32, &model, &err), STATUS_FORMAT);
        assert_string_equal(err.field, cases[i].field);
        assert_null(model);
    }
}

static void model_write_bad_input_writes_nothing(void **state)
{
    (void)state;
    struct gru4rec_settings g = gru();
    struct attention_settings t = attention();
    struct gru4rec_weights w = gru_weights();
    struct error err = {.message = ""};
    static float spoiled[VALUES];
    spoiled[2 * DIM] = INFINITY;
    w.layers[1].hidden_bias = spoiled;
    (void)unlink(path);
    assert_int_equal(gru4rec_model_write(path, &g, &w, &err), STATUS_INVALID);
    assert_string_equal(err.field, "layers.1.hidden.bias");
    w = gru_weights();
    g.item_dim = DIM; /* no room for the bias */
    assert_int_equal(gru4rec_model_write(path, &g, &w, &err), STATUS_INVALID);
    assert_string_equal(err.field, "item_dim");
    t.input_scale = (double)NAN;
    assert_int_equal(attention_model_write(path, &t, &attention_all, &err), STATUS_INVALID);
    assert_string_equal(err.field, "input_scale");
    assert_false(file_exists(path));
}

static void open_out_of_memory_fails_cleanly(void **state)
{
    (void)state;
    for (size_t m = 0; m < N_MODELS; m++) {
        enum status status = STATUS_NOMEM;
        writers[m]();
        for (int64_t nth = 1; status != STATUS_OK && nth < 1000; nth++) {
            struct user_model *model = NULL;
            struct user_model_workspace *workspace = NULL;
            mem_fail_nth(nth);
            status = user_model_open(path, &table_f32, &model, NULL);
            if (status == STATUS_OK) {
                status = user_model_workspace_open(model, N_USERS, &workspace, NULL);
            }
            mem_fail_nth(0);
            assert_true(status == STATUS_OK || status == STATUS_NOMEM);
            assert_true((status == STATUS_OK) == (workspace != NULL));
            user_model_workspace_close(workspace);
            user_model_close(model);
        }
        assert_int_equal(status, STATUS_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embed_half_precision_items_give_same_bits_as_their_floats),
        cmocka_unit_test(embed_user_alone_equals_user_in_batch),
        cmocka_unit_test(embed_events_over_history_max_change_nothing),
        cmocka_unit_test(embed_large_batch_equals_its_users),
        cmocka_unit_test(open_damaged_tensor_is_refused_by_name),
        cmocka_unit_test(open_bad_settings_are_refused_by_name),
        cmocka_unit_test(model_write_bad_input_writes_nothing),
        cmocka_unit_test(open_out_of_memory_fails_cleanly),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
