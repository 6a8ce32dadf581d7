/* How many events a second does training take in? bench_train [full|sampled] [N_ITEMS [DIM
 * [NEGATIVES]]]: SASRec of 2 blocks and 2 heads on made-up sequences of 9 events on average,
 * batches of 2,048 events, dropout 0.2, 2 threads (OMP_NUM_THREADS changes that), the whole trainer
 * step with AdamW. One JSON line on stdout. tests/bench/train_peer.py runs it in turns with the
 * same model in PyTorch. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/rng.h"
#include "embeddings/train/trainer.h"

enum { SEQUENCES = 4600, INPUTS_MEAN = 9, INPUTS_MAX = 50, EPOCHS = 2, THREADS = 2 };

static void die(const char *what)
{
    (void)fprintf(stderr, "bench_train: %s\n", what);
    exit(1);
}

/* 1 … INPUTS_MAX inputs and a last target a sequence, lengths geometric; items by a Zipf-like law.
 */
static struct event_log make_log(size_t n_items)
{
    struct rng rng;
    struct event_log log = {.n_sequences = SEQUENCES};
    rng_init(&rng, 5);
    log.events = mem_calloc((size_t)SEQUENCES * (INPUTS_MAX + 1), sizeof(*log.events));
    log.offsets = mem_calloc(SEQUENCES + 1, sizeof(*log.offsets));
    if (log.events == NULL || log.offsets == NULL) {
        die("out of memory");
    }
    for (size_t s = 0; s < SEQUENCES; s++) {
        size_t length = 2;
        while (length < INPUTS_MAX + 1 && rng_below(&rng, INPUTS_MEAN) != 0) {
            length++;
        }
        for (size_t i = 0; i < length; i++) {
            double u = rng_double(&rng);
            log.events[log.n_events] = (struct history_event){
                (uint32_t)((double)n_items * u * u), EVENT_VIEW, (int64_t)log.n_events * 1000};
            log.n_events++;
        }
        log.offsets[s + 1] = log.n_events;
    }
    return log;
}

static size_t number(int argc, char **argv, int i, size_t fallback)
{
    int64_t value = (int64_t)fallback;
    if (argc > i && !parse_int64(argv[i], strlen(argv[i]), &value)) {
        die("not a number");
    }
    return (size_t)value;
}

int main(int argc, char **argv)
{
    struct trainer_settings settings;
    struct trainer *trainer;
    struct error error;
    size_t n_items = number(argc, argv, 2, 12000);
    log_init(LOG_LEVEL_WARN, LOG_FORMAT_TEXT, 2);
    (void)trainer_settings_default("sasrec", &settings);
    if (argc > 1 && !loss_kind_parse(argv[1], &settings.loss.kind)) {
        die("usage: bench_train [full|sampled|gbce] [N_ITEMS [DIM [NEGATIVES]]]");
    }
    settings.dim = number(argc, argv, 3, 64);
    settings.network.sasrec.ffn_dim = 4 * settings.dim;
    settings.loss.n_negatives = number(argc, argv, 4, 1024);
    settings.loss.negative_exponent = 0.5;
    settings.dropout = 0.2;
    settings.input_dropout = 0.2;
    settings.data.validation = VALIDATE_NONE;
    settings.n_epochs = EPOCHS;
    settings.n_threads = getenv("OMP_NUM_THREADS") != NULL ? 0 : THREADS;
    struct event_log log = make_log(n_items);
    if (trainer_open(&settings, &log, n_items, &trainer, &error) != STATUS_OK ||
        trainer_run(trainer, &error) != STATUS_OK) {
        die(error.message);
    }
    const struct trainer_curve *curve = trainer_curve(trainer);
    (void)printf("{\"bench\":\"train\",\"loss\":\"%s\",\"n_items\":%zu,\"dim\":%zu,"
                 "\"negatives\":%zu,\"events_per_second\":%.0f,\"seconds\":%.3f,"
                 "\"threads\":%d}\n",
                 loss_kind_name(settings.loss.kind), n_items, settings.dim,
                 settings.loss.kind == LOSS_FULL ? 0 : settings.loss.n_negatives,
                 (double)curve->n_targets * EPOCHS / curve->seconds, curve->seconds,
                 omp_get_max_threads());
    trainer_close(trainer);
    event_log_free(&log);
    return 0;
}
