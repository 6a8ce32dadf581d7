#include "core/train_curve.h"

#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/chart.h"

/* What is told of a point; the picture has a choice of it. */
enum column { LOSS, NDCG10, HR10, HR20, MRR20, SECONDS, N_COLUMNS };

static const char *const COLUMN_NAMES[N_COLUMNS] = {"loss",  "ndcg@10", "hr@10",
                                                    "hr@20", "mrr@20",  "seconds"};

static float value_of(const struct trainer_point *point, enum column column)
{
    const float values[N_COLUMNS] = {point->loss, point->ndcg10, point->hr10,
                                     point->hr20, point->mrr20,  point->seconds};
    return values[column];
}

static bool has_validation(const struct trainer_curve *curve)
{
    for (size_t i = 0; i < curve->n; i++) {
        if (isfinite(curve->points[i].ndcg10)) {
            return true;
        }
    }
    return false;
}

static void fill(const struct trainer_curve *curve, enum column column, double *out)
{
    for (size_t i = 0; i < curve->n; i++) {
        out[i] = (double)value_of(&curve->points[i], column);
    }
}

enum status train_curve_svg(const struct trainer_curve *curve, const char *title, struct buf *out,
                            struct error *err)
{
    size_t n = curve->n;
    double *values = mem_calloc(4 * n + 1, sizeof(*values));
    if (values == NULL) {
        return error_set(err, STATUS_NOMEM, "a curve of %zu epochs: no memory", n);
    }
    double *epoch = values;
    double *loss = values + n;
    double *ndcg10 = values + 2 * n;
    double *hr20 = values + 3 * n;
    for (size_t i = 0; i < n; i++) {
        epoch[i] = (double)curve->points[i].epoch;
    }
    fill(curve, LOSS, loss);
    fill(curve, NDCG10, ndcg10);
    fill(curve, HR20, hr20);
    const struct chart_series losses[] = {{NULL, epoch, loss, n}};
    const struct chart_series metrics[] = {{"nDCG@10", epoch, ndcg10, n},
                                           {"HR@20", epoch, hr20, n}};
    struct chart_panel panels[] = {{.y_label = "training loss", .series = losses, .n_series = 1},
                                   {.y_label = "validation", .series = metrics, .n_series = 2}};
    char label[64];
    if (curve->best < n && isfinite(curve->points[curve->best].ndcg10)) {
        (void)snprintf(label, sizeof(label), "best: epoch %.0f, nDCG@10 %.4f", epoch[curve->best],
                       ndcg10[curve->best]);
        panels[1].mark = (struct chart_mark){epoch[curve->best], ndcg10[curve->best], label};
    }
    const struct chart chart = {
        .title = title,
        .description = "Loss of the training and quality on held-out events after each epoch.",
        .x_label = "epoch",
        .x_is_whole = true,
        .panels = panels,
        .n_panels = has_validation(curve) ? 2 : 1,
    };
    enum status status = chart_svg(&chart, out, err);
    mem_free(values);
    return status;
}

void train_curve_json(const struct trainer_curve *curve, struct json_writer *json)
{
    json_begin_object(json, "curve");
    json_begin_array(json, "epoch");
    for (size_t i = 0; i < curve->n; i++) {
        json_int(json, NULL, (int64_t)curve->points[i].epoch);
    }
    json_end_array(json);
    for (int c = 0; c < N_COLUMNS; c++) {
        json_begin_array(json, COLUMN_NAMES[c]);
        for (size_t i = 0; i < curve->n; i++) {
            json_float(json, NULL, value_of(&curve->points[i], (enum column)c));
        }
        json_end_array(json);
    }
    json_end_object(json);
    if (curve->best < curve->n) {
        json_int(json, "best_epoch", (int64_t)curve->points[curve->best].epoch);
    } else {
        json_null(json, "best_epoch");
    }
}
