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
#include "base/rng.h"
#include "embeddings/safetensors.h"

enum { N_ITEMS = 40, DIM_LARGEST = 65, USERS_MAX = 8 };
static const int64_t now_ms = 1700000000000;
static const int64_t hour_ms = 3600 * 1000;

/* A model over a table of random items, in a file of its own. */
struct fixture {
    char path[64];
    float floats[N_ITEMS * DIM_LARGEST];
    uint16_t halves[N_ITEMS * DIM_LARGEST];
    struct vectors items;
    struct user_model *model;
    struct user_model_workspace *workspace;
};

static void fixture_open(struct fixture *f, size_t dim, enum vector_type type,
                         const struct decay_settings *settings)
{
    struct rng rng;
    rng_init(&rng, 3);
    for (size_t i = 0; i < N_ITEMS * dim; i++) {
        f->floats[i] = (float)rng_normal(&rng);
    }
    half_from_floats(f->floats, N_ITEMS * dim, f->halves);
    f->items = (struct vectors){.data = type == VECTOR_F16 ? (const void *)f->halves : f->floats,
                                .n = N_ITEMS,
                                .dim = dim,
                                .type = type};
    (void)snprintf(f->path, sizeof(f->path), "/tmp/aisle-model-XXXXXX");
    const int descriptor = mkstemp(f->path);
    assert_true(descriptor >= 0);
    (void)close(descriptor);
    struct error err = {.message = ""};
    assert_int_equal(decay_model_write(f->path, dim, settings, &err), STATUS_OK);
    assert_int_equal(user_model_open(f->path, &f->items, &f->model, &err), STATUS_OK);
    assert_int_equal(user_model_workspace_open(f->model, USERS_MAX, &f->workspace, &err),
                     STATUS_OK);
}

static void fixture_close(struct fixture *f)
{
    user_model_workspace_close(f->workspace);
    user_model_close(f->model);
    (void)unlink(f->path);
}

/* The formula of user_model.h read literally, in double. */
static void decay_naive(const struct decay_settings *settings, const struct vectors *items,
                        const struct history_event *events, size_t n, double *out)
{
    float row[DIM_LARGEST];
    double norm = 0.0;
    memset(out, 0, items->dim * sizeof(*out));
    for (size_t i = 0; i < n && i < settings->history_max; i++) {
        double weight =
            settings->type_weights[events[i].type] * pow(settings->position_decay, (double)i);
        if (events[i].time_ms != EVENT_TIME_UNKNOWN && events[i].time_ms < now_ms) {
            weight *= pow(0.5, (double)(now_ms - events[i].time_ms) / settings->half_life_ms);
        }
        vectors_row(items, events[i].row, row);
        for (size_t d = 0; d < items->dim; d++) {
            out[d] += weight * (double)row[d];
        }
    }
    for (size_t d = 0; d < items->dim; d++) {
        norm += out[d] * out[d];
    }
    for (size_t d = 0; d < items->dim && norm > 0.0; d++) {
        out[d] /= sqrt(norm);
    }
}

static size_t random_history(struct rng *rng, struct history_event *events, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        events[i] = (struct history_event){.row = (uint32_t)rng_below(rng, N_ITEMS),
                                           .type = (enum event_type)rng_below(rng, N_EVENT_TYPES)};
        const uint64_t kind = rng_below(rng, 4);
        events[i].time_ms = kind == 0   ? EVENT_TIME_UNKNOWN
                            : kind == 1 ? now_ms + 5 * hour_ms /* clocks differ */
                                        : now_ms - (int64_t)rng_below(rng, 1000) * hour_ms;
    }
    return n;
}

static void compare_with_naive(size_t dim, enum vector_type type,
                               const struct decay_settings *settings, double *worst)
{
    static const size_t lengths[USERS_MAX] = {0, 1, 2, 3, 49, 50, 51, 200};
    static struct history_event events[400];
    uint32_t offsets[USERS_MAX + 1] = {0};
    struct fixture f;
    fixture_open(&f, dim, type, settings);
    struct rng rng;
    rng_init(&rng, dim);
    for (size_t b = 0; b < USERS_MAX; b++) {
        offsets[b + 1] =
            offsets[b] + (uint32_t)random_history(&rng, events + offsets[b], lengths[b]);
    }
    const struct history_batch batch = {
        .n_users = USERS_MAX, .offsets = offsets, .events = events, .now_ms = now_ms};
    static float out[USERS_MAX * DIM_LARGEST];
    memset(out, 0x7f, sizeof(out));
    const uint64_t n_allocations = mem_count();
    user_model_embed(f.model, f.workspace, &batch, out);
    assert_int_equal(mem_count(), n_allocations);
    for (size_t b = 0; b < USERS_MAX; b++) {
        double naive[DIM_LARGEST];
        decay_naive(settings, &f.items, events + offsets[b], lengths[b], naive);
        for (size_t d = 0; d < dim; d++) {
            *worst = fmax(*worst, fabs(naive[d] - (double)out[b * dim + d]));
        }
    }
    fixture_close(&f);
}

static void user_model_embed_decay_equals_naive_formula(void **state)
{
    (void)state;
    static const size_t dims[] = {1, 2, 15, 16, 17, 64, 65};
    struct decay_settings settings[3];
    decay_settings_default(&settings[0]);
    decay_settings_default(&settings[1]);
    settings[1].half_life_ms = HUGE_VAL;
    settings[1].type_weights[EVENT_VIEW] = 0.0;
    decay_settings_default(&settings[2]);
    settings[2].history_max = 3;
    settings[2].position_decay = 1.0;
    double worst = 0.0;
    for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++) {
        for (size_t s = 0; s < 3; s++) {
            compare_with_naive(dims[i], VECTOR_F32, &settings[s], &worst);
            compare_with_naive(dims[i], VECTOR_F16, &settings[s], &worst);
        }
    }
    print_message("worst difference %.3g\n", worst);
    assert_true(worst < 2e-6);
}

static void user_model_embed_user_alone_and_in_batch_gives_same_bits(void **state)
{
    (void)state;
    struct decay_settings settings;
    decay_settings_default(&settings);
    struct fixture f;
    fixture_open(&f, 17, VECTOR_F16, &settings);
    struct history_event events[30];
    struct rng rng;
    rng_init(&rng, 8);
    (void)random_history(&rng, events, 30);
    const uint32_t offsets[] = {0, 11, 11, 30};
    struct history_batch batch = {
        .n_users = 3, .offsets = offsets, .events = events, .now_ms = now_ms};
    float together[3 * 17];
    float alone[17];
    user_model_embed(f.model, f.workspace, &batch, together);
    for (size_t b = 0; b < 3; b++) {
        batch.n_users = 1;
        batch.offsets = offsets + b;
        user_model_embed(f.model, f.workspace, &batch, alone);
        assert_memory_equal(alone, together + b * 17, sizeof(alone));
    }
    fixture_close(&f);
}

/* Ten years are 520 half-lives: the weights read literally are below what a float holds. */
static void user_model_embed_old_history_equals_new_one(void **state)
{
    (void)state;
    struct decay_settings settings;
    decay_settings_default(&settings);
    settings.half_life_ms = 24.0 * 3600 * 1000;
    struct fixture f;
    fixture_open(&f, 16, VECTOR_F32, &settings);
    struct history_event events[3] = {{.row = 1, .time_ms = now_ms},
                                      {.row = 2, .time_ms = now_ms - 30 * hour_ms},
                                      {.row = 3, .time_ms = now_ms - 90 * hour_ms}};
    const uint32_t offsets[] = {0, 3};
    struct history_batch batch = {
        .n_users = 1, .offsets = offsets, .events = events, .now_ms = now_ms};
    float fresh[16];
    float old[16];
    user_model_embed(f.model, f.workspace, &batch, fresh);
    batch.now_ms += 10 * 365 * 24 * hour_ms;
    user_model_embed(f.model, f.workspace, &batch, old);
    for (size_t d = 0; d < 16; d++) {
        assert_true(fabs((double)fresh[d] - (double)old[d]) < 1e-6);
    }
    assert_true(fabs((double)vector_norm(old, 16) - 1.0) < 1e-5);
    fixture_close(&f);
}

static void user_model_embed_nothing_that_counts_gives_zero_vector(void **state)
{
    (void)state;
    struct decay_settings settings;
    decay_settings_default(&settings);
    settings.type_weights[EVENT_CLICK] = 0.0;
    struct fixture f;
    fixture_open(&f, 16, VECTOR_F32, &settings);
    struct history_event events[3] = {{.row = 4, .type = EVENT_CLICK},
                                      {.row = 0, .time_ms = EVENT_TIME_UNKNOWN},
                                      {.row = 1, .time_ms = EVENT_TIME_UNKNOWN}};
    const uint32_t offsets[] = {0, 1};
    const struct history_batch batch = {
        .n_users = 1, .offsets = offsets, .events = events, .now_ms = now_ms};
    float out[16];
    memset(out, 0x7f, sizeof(out));
    user_model_embed(f.model, f.workspace, &batch, out);
    for (size_t d = 0; d < 16; d++) {
        assert_true(out[d] == 0.0F);
    }
    fixture_close(&f);
    settings.position_decay = 1.0;
    fixture_open(&f, 16, VECTOR_F32, &settings);
    for (size_t d = 0; d < 16; d++) {
        f.floats[d] = -f.floats[16 + d]; /* rows 0 and 1 cancel each other */
    }
    const uint32_t two[] = {1, 3};
    const struct history_batch cancelling = {
        .n_users = 1, .offsets = two, .events = events, .now_ms = now_ms};
    user_model_embed(f.model, f.workspace, &cancelling, out);
    for (size_t d = 0; d < 16; d++) {
        assert_true(out[d] == 0.0F);
    }
    fixture_close(&f);
}

static void user_model_info_tells_what_was_written(void **state)
{
    (void)state;
    struct decay_settings settings;
    decay_settings_default(&settings);
    settings.history_max = 12;
    settings.half_life_ms = HUGE_VAL;
    struct fixture f;
    fixture_open(&f, 7, VECTOR_F32, &settings);
    const struct user_model_info info = user_model_info(f.model);
    assert_string_equal(info.architecture, "decay");
    assert_int_equal(info.dim, 7);
    assert_int_equal(info.history_max, 12);
    assert_non_null(strstr(info.settings_json, "\"half_life_ms\":null"));
    fixture_close(&f);
}

static void user_model_open_bad_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *architecture;
        const char *settings;
        enum status status;
    } cases[] = {
        {"decay", "{\"version\":1,\"dim\":4}", STATUS_OK},
        {"decay", "{\"version\":1,\"dim\":5}", STATUS_MISMATCH},
        {"decay", "{\"version\":2,\"dim\":4}", STATUS_UNSUPPORTED},
        {"decay", "{\"version\":0,\"dim\":4}", STATUS_FORMAT},
        {"decay", "{\"dim\":4}", STATUS_FORMAT},
        {"decay", "{\"version\":1}", STATUS_FORMAT},
        {"decay", "[]", STATUS_FORMAT},
        {"decay", "{", STATUS_FORMAT},
        {"decay", "{\"version\":1,\"dim\":4,\"more\":1}", STATUS_FORMAT},
        {"decay", "{\"version\":1,\"dim\":4,\"history_max\":0}", STATUS_FORMAT},
        {"decay", "{\"version\":1,\"dim\":4,\"history_max\":1001}", STATUS_FORMAT},
        {"decay", "{\"version\":1,\"dim\":4,\"history_max\":1.5}", STATUS_FORMAT},
        {"decay", "{\"version\":1,\"dim\":4,\"half_life_ms\":0}", STATUS_FORMAT},
        {"decay", "{\"version\":1,\"dim\":4,\"position_decay\":1.1}", STATUS_FORMAT},
        {"decay", "{\"version\":1,\"dim\":4,\"type_weights\":{\"view\":-1}}", STATUS_FORMAT},
        {"decay", "{\"version\":1,\"dim\":4,\"type_weights\":{\"look\":1}}", STATUS_FORMAT},
        {"decay", "{\"version\":1,\"dim\":4,\"type_weights\":1}", STATUS_FORMAT},
        {"quantum", "{\"version\":1,\"dim\":4}", STATUS_UNSUPPORTED},
        {NULL, NULL, STATUS_FORMAT},
    };
    static const float data[8] = {1.0F};
    const struct vectors items = {.data = data, .n = 2, .dim = 4, .type = VECTOR_F32};
    char path[] = "/tmp/aisle-model-XXXXXX";
    const int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    (void)close(descriptor);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct metadata_entry metadata[] = {{"aisle.architecture", cases[i].architecture},
                                                  {"aisle.settings", cases[i].settings}};
        const size_t n_metadata = cases[i].architecture != NULL ? 2 : 0;
        assert_int_equal(safetensors_write(path, NULL, 0, metadata, n_metadata, NULL), STATUS_OK);
        struct user_model *model = NULL;
        struct error err = {.code = STATUS_OK};
        const enum status status = user_model_open(path, &items, &model, &err);
        if (status != cases[i].status) {
            fail_msg("case %zu: %s: %s", i, cases[i].settings, err.message);
        }
        assert_true((model != NULL) == (status == STATUS_OK));
        user_model_close(model);
    }
    (void)unlink(path);
    struct user_model *model = NULL;
    assert_int_equal(user_model_open(path, &items, &model, NULL), STATUS_NOT_FOUND);
    assert_null(model);
}

static void decay_model_write_bad_settings_writes_nothing(void **state)
{
    (void)state;
    const char *path = "/tmp/aisle-model-that-is-not-written";
    for (int i = 0; i < 6; i++) {
        struct decay_settings settings;
        decay_settings_default(&settings);
        switch (i) {
        case 0:
            settings.history_max = 0;
            break;
        case 1:
            settings.half_life_ms = (double)NAN;
            break;
        case 2:
            settings.position_decay = 0.0;
            break;
        case 3:
            settings.type_weights[EVENT_CART] = HUGE_VAL;
            break;
        default:
            break;
        }
        const size_t dim = i == 4 ? 0 : i == 5 ? VECTOR_DIM_MAX + 1 : 8;
        struct error err = {.field = ""};
        assert_int_equal(decay_model_write(path, dim, &settings, &err), STATUS_INVALID);
        assert_true(err.field[0] != '\0');
        assert_int_equal(access(path, F_OK), -1);
    }
}

static void user_model_open_out_of_memory_is_reported(void **state)
{
    (void)state;
    struct decay_settings settings;
    decay_settings_default(&settings);
    struct fixture f;
    fixture_open(&f, 8, VECTOR_F32, &settings);
    enum status status = STATUS_NOMEM;
    int n = 0;
    while (status != STATUS_OK) {
        struct user_model *model = NULL;
        struct user_model_workspace *workspace = NULL;
        mem_fail_nth(++n);
        status = user_model_open(f.path, &f.items, &model, NULL);
        assert_true((model != NULL) == (status == STATUS_OK));
        if (status == STATUS_OK) {
            status = user_model_workspace_open(model, 4, &workspace, NULL);
            assert_true((workspace != NULL) == (status == STATUS_OK));
        }
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        user_model_workspace_close(workspace);
        user_model_close(model);
    }
    assert_true(n > 7);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(user_model_embed_decay_equals_naive_formula),
        cmocka_unit_test(user_model_embed_user_alone_and_in_batch_gives_same_bits),
        cmocka_unit_test(user_model_embed_old_history_equals_new_one),
        cmocka_unit_test(user_model_embed_nothing_that_counts_gives_zero_vector),
        cmocka_unit_test(user_model_info_tells_what_was_written),
        cmocka_unit_test(user_model_open_bad_files_are_refused),
        cmocka_unit_test(decay_model_write_bad_settings_writes_nothing),
        cmocka_unit_test(user_model_open_out_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
