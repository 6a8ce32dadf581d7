/* GRU4Rec and attention pooling as served, against the trainer's networks: the file that a network
 * writes gives the same user vectors (PyTorch's parity stands in test_golden_training.c). */
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
#include "embeddings/attention.h"
#include "embeddings/gru4rec.h"
#include "embeddings/safetensors.h"
#include "embeddings/train/network.h"
#include "embeddings/user_model.h"

enum { N_ITEMS = 20, DIM = 12, HIDDEN = 10, LENGTH_MAX = 7, N_USERS = 9, ITEM_DIM = 16, SEED = 3 };

static float items[N_ITEMS * ITEM_DIM];
static struct history_event oldest_first[N_USERS * LENGTH_MAX];
static struct history_event newest_first[N_USERS * LENGTH_MAX];
static uint32_t offsets[N_USERS + 1];
static char path[64];
static const struct vectors table = {items, N_ITEMS, ITEM_DIM, VECTOR_F32};

static int setup(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, SEED);
    for (size_t i = 0; i < N_ITEMS * ITEM_DIM; i++) {
        items[i] = i % ITEM_DIM < DIM ? (float)rng_normal(&rng) : 0.0F;
    }
    for (size_t u = 0; u < N_USERS; u++) { /* lengths 1 … 7, mixed */
        size_t n = 1 + u * 5 % LENGTH_MAX;
        for (size_t j = 0; j < n; j++) {
            struct history_event event = {(uint32_t)rng_below(&rng, N_ITEMS),
                                          (enum event_type)rng_below(&rng, N_EVENT_TYPES), 0};
            oldest_first[offsets[u] + j] = event;
            newest_first[offsets[u] + n - 1 - j] = event;
        }
        offsets[u + 1] = offsets[u] + (uint32_t)n;
    }
    (void)snprintf(path, sizeof(path), "/tmp/aisle-recurrent-%ld.safetensors", (long)getpid());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(path);
    return 0;
}

/* Writes a network's file and compares all users. */
static void compare(const struct network_architecture *architecture, const void *settings,
                    float scale)
{
    struct error err = {0};
    struct network *net = NULL;
    struct user_model *model = NULL;
    struct user_model_workspace *workspace = NULL;
    const struct network_config config = {DIM, N_USERS * LENGTH_MAX, N_USERS, SEED, settings};
    static float inputs[N_USERS * LENGTH_MAX * DIM];
    float users[N_USERS * ITEM_DIM];
    assert_int_equal(architecture->open(&config, &net, &err), STATUS_OK);
    for (size_t i = 0; i < architecture->n_parameters(net); i++) { /* no weight is zero */
        struct network_parameter *p = architecture->parameter(net, i);
        struct rng rng;
        rng_init(&rng, i);
        for (size_t c = 0; c < p->n; c++) {
            p->value[c] += (float)(0.3 * rng_normal(&rng));
        }
    }
    for (size_t e = 0; e < offsets[N_USERS]; e++) {
        for (size_t c = 0; c < DIM; c++) {
            inputs[e * DIM + c] = scale * items[oldest_first[e].row * ITEM_DIM + c];
        }
    }
    const struct network_batch batch = {
        .n_sequences = N_USERS, .offsets = offsets, .events = oldest_first, .inputs = inputs};
    const float *hidden = architecture->forward(net, &batch);
    assert_int_equal(architecture->write(net, path, ITEM_DIM, &err), STATUS_OK);
    assert_int_equal(user_model_open(path, &table, &model, &err), STATUS_OK);
    assert_int_equal(user_model_workspace_open(model, N_USERS, &workspace, &err), STATUS_OK);
    const struct history_batch histories = {N_USERS, offsets, newest_first, 0};
    user_model_embed(model, workspace, &histories, users);
    for (size_t u = 0; u < N_USERS; u++) {
        const float *wanted = hidden + (offsets[u + 1] - 1) * DIM;
        for (size_t c = 0; c < DIM; c++) {
            assert_true(fabsf(users[u * ITEM_DIM + c] - wanted[c]) <=
                        1e-5F * (1.0F + fabsf(wanted[c])));
        }
        assert_true(users[u * ITEM_DIM + DIM] == 1.0F); /* has_bias */
        assert_true(users[u * ITEM_DIM + DIM + 1] == 0.0F);
    }
    user_model_workspace_close(workspace);
    user_model_close(model);
    architecture->close(net);
}

static struct gru4rec_settings gru(size_t n_layers, bool has_output)
{
    struct gru4rec_settings s;
    gru4rec_settings_default(&s);
    s.dim = DIM;
    s.hidden_dim = has_output ? HIDDEN : DIM;
    s.item_dim = ITEM_DIM;
    s.n_layers = n_layers;
    s.history_max = LENGTH_MAX;
    s.input_scale = 1.5;
    s.has_output = has_output;
    s.has_bias = true;
    return s;
}

static void user_model_gru4rec_equals_its_network(void **state)
{
    (void)state;
    for (size_t n_layers = 1; n_layers <= 3; n_layers++) {
        struct gru4rec_settings plain = gru(n_layers, false);
        struct gru4rec_settings with_output = gru(n_layers, true);
        compare(&network_gru4rec, &plain, 1.5F);
        compare(&network_gru4rec, &with_output, 1.5F);
    }
}

static void user_model_attention_equals_its_network(void **state)
{
    (void)state;
    struct attention_settings s;
    attention_settings_default(&s);
    s.dim = DIM;
    s.item_dim = ITEM_DIM;
    s.history_max = LENGTH_MAX;
    s.input_scale = 0.7;
    s.has_bias = true;
    compare(&network_attention, &s, 0.7F);
}

static void user_model_advance_equals_a_whole_pass(void **state)
{
    (void)state;
    struct error err = {0};
    struct gru4rec_settings s = gru(2, true);
    struct user_model *model = NULL;
    struct user_model_workspace *workspace = NULL;
    compare(&network_gru4rec, &s, 1.5F); /* leaves its file */
    assert_int_equal(user_model_open(path, &table, &model, &err), STATUS_OK);
    assert_int_equal(user_model_workspace_open(model, N_USERS, &workspace, &err), STATUS_OK);
    assert_int_equal(user_model_state_floats(model), 2 * HIDDEN);
    const struct history_batch histories = {N_USERS, offsets, newest_first, 0};
    float users[N_USERS * ITEM_DIM];
    user_model_embed(model, workspace, &histories, users);
    for (size_t u = 0; u < N_USERS; u++) {
        float kept[2 * HIDDEN] = {0.0F};
        float user[ITEM_DIM];
        for (size_t e = offsets[u]; e < offsets[u + 1]; e++) {
            user_model_advance(model, workspace, &oldest_first[e], kept, user);
        }
        for (size_t c = 0; c < ITEM_DIM; c++) {
            assert_true(fabsf(user[c] - users[u * ITEM_DIM + c]) <=
                        1e-5F * (1.0F + fabsf(user[c])));
        }
    }
    user_model_workspace_close(workspace);
    user_model_close(model);
}

static void user_model_empty_and_long_histories_are_handled(void **state)
{
    (void)state;
    struct error err = {0};
    struct gru4rec_settings s = gru(1, false);
    struct user_model *model = NULL;
    struct user_model_workspace *workspace = NULL;
    compare(&network_gru4rec, &s, 1.5F);
    assert_int_equal(user_model_open(path, &table, &model, &err), STATUS_OK);
    assert_int_equal(user_model_workspace_open(model, 3, &workspace, &err), STATUS_OK);
    struct history_event events[2 * LENGTH_MAX];
    for (size_t e = 0; e < 2 * LENGTH_MAX; e++) {
        events[e] = (struct history_event){(uint32_t)e % N_ITEMS, EVENT_VIEW, 0};
    }
    const uint32_t ends[] = {0, 0, 2 * LENGTH_MAX, 2 * LENGTH_MAX};
    const uint32_t short_ends[] = {0, LENGTH_MAX};
    const struct history_batch batch = {3, ends, events, 0};
    const struct history_batch newest = {1, short_ends, events, 0};
    float users[3 * ITEM_DIM];
    float user[ITEM_DIM];
    user_model_embed(model, workspace, &batch, users);
    user_model_embed(model, workspace, &newest, user);
    for (size_t c = 0; c < ITEM_DIM; c++) {
        assert_true(users[c] == 0.0F && users[2 * ITEM_DIM + c] == 0.0F);
        assert_true(fabsf(users[ITEM_DIM + c] - user[c]) <= 1e-5F * (1.0F + fabsf(user[c])));
    }
    user_model_workspace_close(workspace);
    user_model_close(model);
}

static void gru4rec_settings_check_names_the_setting(void **state)
{
    (void)state;
    struct error err = {0};
    struct gru4rec_settings s = gru(1, false);
    s.n_layers = GRU4REC_LAYERS_MAX + 1;
    assert_int_equal(gru4rec_settings_check(&s, &err), STATUS_INVALID);
    assert_string_equal(err.field, "n_layers");
    s = gru(1, false);
    s.item_dim = DIM;
    assert_int_equal(gru4rec_settings_check(&s, &err), STATUS_INVALID);
}

static void user_model_open_out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    struct error err = {0};
    struct gru4rec_settings s = gru(2, true);
    compare(&network_gru4rec, &s, 1.5F);
    enum status status = STATUS_NOMEM;
    for (int64_t nth = 1; status != STATUS_OK && nth < 1000; nth++) {
        struct user_model *model = NULL;
        mem_fail_nth(nth);
        status = user_model_open(path, &table, &model, &err);
        mem_fail_nth(0);
        assert_true((status == STATUS_OK) == (model != NULL));
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        user_model_close(model);
    }
    assert_int_equal(status, STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(user_model_gru4rec_equals_its_network),
        cmocka_unit_test(user_model_attention_equals_its_network),
        cmocka_unit_test(user_model_advance_equals_a_whole_pass),
        cmocka_unit_test(user_model_empty_and_long_histories_are_handled),
        cmocka_unit_test(gru4rec_settings_check_names_the_setting),
        cmocka_unit_test(user_model_open_out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
