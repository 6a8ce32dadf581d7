#ifndef AISLE_CORE_TRAIN_CURVE_H
#define AISLE_CORE_TRAIN_CURVE_H

#include "base/buf.h"
#include "base/json_write.h"
#include "base/status.h"
#include "embeddings/train/trainer.h"

/* A training's course for people (training.svg) and for programs (training.json). */

/* Appends an SVG document: the loss over the epochs and, where there was validation, nDCG@10 and
 * HR@20 below it with the best epoch marked. title is UTF-8, shown as it is. NOMEM, LIMIT of out.
 */
enum status train_curve_svg(const struct trainer_curve *curve, const char *title, struct buf *out,
                            struct error *err) STATUS_CHECKED;

/* Members of the object that is open: "curve": {"epoch", "loss", "ndcg@10", "hr@10", "hr@20",
 * "mrr@20", "seconds"}, each an array with one value an epoch (null where not known), and
 * "best_epoch", from 1, of the weights that were kept; null: none. */
void train_curve_json(const struct trainer_curve *curve, struct json_writer *json);

#endif
