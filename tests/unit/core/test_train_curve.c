#include "core/train_curve.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/alloc.h"

static struct trainer_curve curve;
static struct buf out;
static struct error err;

static int set_up(void **state)
{
    (void)state;
    buf_init(&out, 1 << 20);
    memset(&curve, 0, sizeof(curve));
    curve.n = 3;
    curve.best = 1;
    for (size_t i = 0; i < curve.n; i++) {
        float better = i == 1 ? 0.25F : 0.125F;
        curve.points[i] = (struct trainer_point){.epoch = (uint32_t)i + 1,
                                                 .loss = 8.0F - (float)i,
                                                 .ndcg10 = better,
                                                 .hr10 = 2 * better,
                                                 .hr20 = 3 * better,
                                                 .mrr20 = better / 2,
                                                 .seconds = (float)i + 0.5F};
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    buf_free(&out);
    return 0;
}

static void without_validation(void)
{
    for (size_t i = 0; i < curve.n; i++) {
        struct trainer_point *p = &curve.points[i];
        p->ndcg10 = p->hr10 = p->hr20 = p->mrr20 = NAN;
    }
    curve.best = curve.n;
}

static const char *json_text(void)
{
    struct json_writer json;
    buf_reset(&out);
    json_writer_init(&json, &out);
    json_begin_object(&json, NULL);
    train_curve_json(&curve, &json);
    json_end_object(&json);
    return buf_text(&out);
}

static void train_curve_svg_marks_the_best_epoch(void **state)
{
    (void)state;
    assert_int_equal(train_curve_svg(&curve, "Training of <x>", &out, &err), STATUS_OK);
    const char *svg = buf_text(&out);
    assert_non_null(strstr(svg, "Training of &lt;x&gt;</title>"));
    assert_non_null(strstr(svg, "training loss: 3 points from 6 to 8."));
    assert_non_null(strstr(svg, "validation, nDCG@10: 3 points from 0.125 to 0.25."));
    assert_non_null(strstr(svg, "validation, HR@20: 3 points from 0.375 to 0.75."));
    assert_non_null(strstr(svg, ">best: epoch 2, nDCG@10 0.2500</text>"));
}

static void train_curve_svg_without_validation_has_the_loss_alone(void **state)
{
    (void)state;
    without_validation();
    assert_int_equal(train_curve_svg(&curve, "Training", &out, &err), STATUS_OK);
    assert_non_null(strstr(buf_text(&out), "training loss: 3 points"));
    assert_null(strstr(buf_text(&out), "nDCG"));
    assert_null(strstr(buf_text(&out), "class=\"mark\""));
}

static void train_curve_svg_no_epoch_is_a_chart_without_data(void **state)
{
    (void)state;
    curve.n = 0;
    curve.best = 0;
    assert_int_equal(train_curve_svg(&curve, "Training", &out, &err), STATUS_OK);
    assert_non_null(strstr(buf_text(&out), "no data"));
}

static void train_curve_svg_longest_curve_fits(void **state)
{
    (void)state;
    curve.n = TRAINER_CURVE_MAX;
    for (size_t i = 0; i < curve.n; i++) {
        curve.points[i] = (struct trainer_point){
            .epoch = (uint32_t)i + 1, .loss = 1.0F / (float)(i + 1), .ndcg10 = 0.1F, .hr20 = 0.2F};
    }
    assert_int_equal(train_curve_svg(&curve, "Training", &out, &err), STATUS_OK);
    assert_true(out.len < 100000);
}

static void train_curve_svg_out_of_memory_fails(void **state)
{
    (void)state;
    enum status status = STATUS_NOMEM;
    int n = 0;
    while (status == STATUS_NOMEM) {
        buf_free(&out);
        mem_fail_nth(++n);
        status = train_curve_svg(&curve, "Training", &out, &err);
    }
    mem_fail_nth(0);
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 2);
}

static void train_curve_json_holds_every_epoch(void **state)
{
    (void)state;
    assert_string_equal(json_text(),
                        "{\"curve\":{\"epoch\":[1,2,3],\"loss\":[8,7,6],"
                        "\"ndcg@10\":[0.125,0.25,0.125],\"hr@10\":[0.25,0.5,0.25],"
                        "\"hr@20\":[0.375,0.75,0.375],\"mrr@20\":[0.0625,0.125,0.0625],"
                        "\"seconds\":[0.5,1.5,2.5]},\"best_epoch\":2}");
}

static void train_curve_json_without_validation_has_nulls(void **state)
{
    (void)state;
    without_validation();
    assert_non_null(strstr(json_text(), "\"ndcg@10\":[null,null,null]"));
    assert_non_null(strstr(json_text(), "\"best_epoch\":null}"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(train_curve_svg_marks_the_best_epoch),
        TEST(train_curve_svg_without_validation_has_the_loss_alone),
        TEST(train_curve_svg_no_epoch_is_a_chart_without_data),
        TEST(train_curve_svg_longest_curve_fits),
        TEST(train_curve_svg_out_of_memory_fails),
        TEST(train_curve_json_holds_every_epoch),
        TEST(train_curve_json_without_validation_has_nulls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
