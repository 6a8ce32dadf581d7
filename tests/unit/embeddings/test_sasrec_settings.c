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

#include "embeddings/safetensors.h"
#include "embeddings/user_model.h"

/* Settings of the SASRec model: their ranges, their reading from a file, the buckets of gaps. */
enum { PATH_BYTES = 64 };
static const int64_t now_ms = 1700000000000;

static void make_path(char path[PATH_BYTES])
{
    (void)snprintf(path, PATH_BYTES, "/tmp/aisle-sasrec-XXXXXX");
    const int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    (void)close(descriptor);
}

/* A file of no tensors with these settings after version and dim. */
static enum status open_settings(const char *members, struct error *err)
{
    char path[PATH_BYTES];
    char text[256];
    const float row[64] = {0.0F};
    const struct vectors items = {row, 1, 64, VECTOR_F32};
    struct user_model *model = NULL;
    (void)snprintf(text, sizeof(text), "{\"version\": 1, \"dim\": 64%s}", members);
    const struct metadata_entry metadata[] = {{"aisle.architecture", "sasrec"},
                                              {"aisle.settings", text}};
    make_path(path);
    assert_int_equal(safetensors_write(path, NULL, 0, metadata, 2, NULL), STATUS_OK);
    const enum status status = user_model_open(path, &items, &model, err);
    assert_null(model);
    (void)unlink(path);
    return status;
}

static void open_bad_settings_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *members, *field;
    } bad[] = {
        {", \"colour\": 1", "colour"},
        {", \"n_blocks\": 0", "n_blocks"},
        {", \"n_blocks\": 9", "n_blocks"},
        {", \"n_blocks\": 1.5", "n_blocks"},
        {", \"hidden_dim\": 65", "dim"},
        {", \"n_heads\": 3", "n_heads"},
        {", \"history_max\": 1001", "history_max"},
        {", \"ffn_dim\": 4097", "ffn_dim"},
        {", \"n_gap_buckets\": 65", "n_gap_buckets"},
        {", \"norm_epsilon\": 0", "norm_epsilon"},
        {", \"input_scale\": \"1\"", "input_scale"},
        {", \"output_scale\": -1", "output_scale"},
        {", \"activation\": \"tanh\"", "activation"},
        {", \"activation\": 0", "activation"},
        {", \"post_norm\": 1", "post_norm"},
        {", \"has_bias\": true", "dim"},
        {", \"attend_padding\": true", "attend_padding"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct error err = {.message = ""};
        assert_int_equal(open_settings(bad[i].members, &err), STATUS_FORMAT);
        assert_string_equal(err.field, bad[i].field);
    }
    struct error err = {.message = ""};
    assert_int_equal(open_settings("", &err), STATUS_NOT_FOUND); /* good, but no tensors */
}

static void settings_check_limits_are_inclusive(void **state)
{
    (void)state;
    struct sasrec_settings settings;
    struct error err = {.message = ""};
    sasrec_settings_default(&settings);
    assert_int_equal(sasrec_settings_check(&settings, &err), STATUS_OK);
    settings.dim = SASREC_DIM_MAX;
    settings.item_dim = SASREC_DIM_MAX + 1;
    settings.has_bias = true;
    settings.n_heads = SASREC_DIM_MAX;
    settings.n_blocks = SASREC_BLOCKS_MAX;
    settings.ffn_dim = SASREC_FFN_DIM_MAX;
    settings.history_max = SASREC_HISTORY_MAX;
    settings.n_gap_buckets = SASREC_GAP_BUCKETS_MAX;
    assert_int_equal(sasrec_settings_check(&settings, &err), STATUS_OK);
    settings.dim++;
    assert_int_equal(sasrec_settings_check(&settings, &err), STATUS_INVALID);
    assert_string_equal(err.field, "hidden_dim");
    sasrec_settings_default(&settings);
    settings.output_scale = (double)NAN;
    assert_int_equal(sasrec_settings_check(&settings, &err), STATUS_INVALID);
    assert_string_equal(err.field, "output_scale");
}

static void gap_bucket_grows_by_powers_of_two(void **state)
{
    (void)state;
    static const struct {
        int64_t seconds;
        size_t bucket;
    } cases[] = {{0, 1},  {1, 2},  {2, 2},  {3, 3},     {6, 3}, {7, 4},
                 {14, 4}, {15, 5}, {63, 7}, {86400, 7}, {-5, 1}};
    struct sasrec_settings settings;
    sasrec_settings_default(&settings);
    assert_int_equal(sasrec_gap_bucket(&settings, now_ms - 5000, now_ms), 0); /* none */
    settings.n_gap_buckets = 8;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(sasrec_gap_bucket(&settings, now_ms - cases[i].seconds * 1000, now_ms),
                         cases[i].bucket);
    }
    assert_int_equal(sasrec_gap_bucket(&settings, now_ms - 2999, now_ms), 2);
    assert_int_equal(sasrec_gap_bucket(&settings, EVENT_TIME_UNKNOWN, now_ms), 0);
    assert_int_equal(sasrec_gap_bucket(&settings, now_ms, EVENT_TIME_UNKNOWN), 0);
    assert_int_equal(sasrec_gap_bucket(&settings, INT64_MIN, INT64_MAX), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_bad_settings_are_refused_by_name),
        cmocka_unit_test(settings_check_limits_are_inclusive),
        cmocka_unit_test(gap_bucket_grows_by_powers_of_two),
    };
    return cmocka_run_group_tests_name("sasrec_settings", tests, NULL, NULL);
}
