#include "core/import_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cblas.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "core/model_folder.h"
#include "embeddings/user_model.h"

/* Published models, imported and run over all of their users, against what they are known to answer
 * (README.md of the data). Skipped without the data or zstd. */
enum {
    BEAUTY_USERS = 22363,
    BEAUTY_ITEMS = 12101,
    BEAUTY_DIM = 64,
    ML1M_USERS = 6040,
    ML1M_ITEMS = 3416,
    ML1M_DIM = 50,
    NEGATIVES = 100,
    USERS_AT_ONCE = 256,
    TOP = 20,
    GOLDEN_TOP = 10,
    LINE_BYTES_MAX = 1 << 20,
    USER_EVENTS_MAX = 4096,
    USERS_EVENTS_MAX = 1 << 20,
    EXIT_SKIPPED = 77,
};
static const double TOLERANCE = 1e-4;

static char folder[64];
static struct model_folder model_folder;
static struct user_model *model;
static struct user_model_workspace *workspace;

/* Users' events newest first, as a batch wants them, and what they are tested with. */
static struct history_event *events;
static uint32_t *offsets;
static uint32_t *targets;
static size_t n_users;

/* Unpacks a file of the data to `out`, in the test's folder. */
static void unpack(const char *name, char out[128])
{
    char command[512];
    const char *base = strrchr(name, '/') + 1;
    (void)snprintf(out, 128, "%s/%.*s", folder, (int)(strlen(base) - strlen(".zst")), base);
    (void)snprintf(command, sizeof(command), "exec zstd -q -d '%s/%s' -o %s", AISLE_SHARED_DATA,
                   name, out);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_int_equal(pclose(pipe), 0);
}

static struct line_reader *open_lines(const char *name)
{
    char path[128];
    struct line_reader *reader = NULL;
    unpack(name, path);
    assert_int_equal(line_reader_open(path, LINE_BYTES_MAX, &reader, NULL), STATUS_OK);
    return reader;
}

static const char *next_line(struct line_reader *reader)
{
    const char *line = NULL;
    size_t len = 0;
    return line_reader_next(reader, &line, &len, NULL) == STATUS_OK ? line : NULL;
}

static void import(const char *layout, const char *weights, size_t n_items)
{
    struct buf ids;
    char path[128];
    char out[128];
    char weights_path[512];
    struct import_model_result result;
    struct error err = {.message = ""};
    buf_init(&ids, 1 << 20);
    for (size_t i = 1; i <= n_items; i++) {
        buf_printf(&ids, "item-%zu\n", i);
    }
    (void)snprintf(path, sizeof(path), "%s/ids.txt", folder);
    (void)snprintf(out, sizeof(out), "%s/model", folder);
    (void)snprintf(weights_path, sizeof(weights_path), "%s/%s", AISLE_SHARED_DATA, weights);
    assert_int_equal(file_write_atomic(path, buf_text(&ids), ids.len, &err), STATUS_OK);
    buf_free(&ids);
    const struct import_model_config config = {
        .layout = layout, .weights_path = weights_path, .item_ids_path = path, .out_dir = out};
    if (import_model(&config, &result, &err) != STATUS_OK ||
        model_folder_open(out, &model_folder, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(result.n_items, n_items);
    assert_string_equal(result.notes, "");
    (void)snprintf(path, sizeof(path), "%s/model/%s", folder, MODEL_FILE_WEIGHTS);
    assert_int_equal(user_model_open(path, &model_folder.vectors, &model, &err), STATUS_OK);
    assert_int_equal(user_model_workspace_open(model, USERS_AT_ONCE, &workspace, &err), STATUS_OK);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/aisle-parity-XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    user_model_workspace_close(workspace);
    user_model_close(model);
    model_folder_close(&model_folder);
    workspace = NULL;
    model = NULL;
    mem_free(events);
    mem_free(offsets);
    mem_free(targets);
    events = NULL;
    offsets = NULL;
    targets = NULL;
    return dir_remove(folder, NULL) == STATUS_OK ? 0 : -1;
}

/* ---- reading ---- */

static bool next_number(const char **text, long *out)
{
    char *end = NULL;
    *out = strtol(*text, &end, 10);
    const bool is_there = end != *text;
    *text = end;
    return is_there;
}

static void begin_users(size_t n_users_max)
{
    events = mem_alloc_array(USERS_EVENTS_MAX, sizeof(*events));
    offsets = mem_alloc_array(n_users_max + 1, sizeof(*offsets));
    targets = mem_alloc_array(n_users_max, sizeof(*targets));
    assert_true(events != NULL && offsets != NULL && targets != NULL);
    offsets[0] = 0;
    n_users = 0;
}

/* Item numbers from 1, oldest first. */
static void add_user(const long *items, size_t n, long target)
{
    uint32_t end = offsets[n_users];
    assert_true(end + n <= USERS_EVENTS_MAX);
    for (size_t i = n; i-- > 0;) {
        events[end++] =
            (struct history_event){(uint32_t)items[i] - 1, EVENT_VIEW, EVENT_TIME_UNKNOWN};
    }
    targets[n_users++] = (uint32_t)target - 1;
    offsets[n_users] = end;
}

static size_t read_numbers(const char **text, long *items)
{
    size_t n = 0;
    while (n < USER_EVENTS_MAX && next_number(text, &items[n])) {
        n++;
    }
    return n;
}

/* A line a user: number, items; the last one is the target. */
static void read_beauty(void)
{
    static long items[USER_EVENTS_MAX];
    struct line_reader *reader = open_lines("beauty/Beauty.txt.zst");
    begin_users(BEAUTY_USERS);
    for (const char *line = next_line(reader); line != NULL; line = next_line(reader)) {
        const size_t n = read_numbers(&line, items);
        assert_int_equal(items[0], n_users + 1);
        add_user(items + 1, n - 2, items[n - 1]);
    }
    line_reader_close(reader);
    assert_int_equal(n_users, BEAUTY_USERS);
}

/* User, training items, second-last item or "-", last item, with tabs between. */
static void read_ml1m(void)
{
    static long items[USER_EVENTS_MAX];
    struct line_reader *reader = open_lines("ml1m/ml1m_seqs.tsv.zst");
    begin_users(ML1M_USERS);
    for (const char *line = next_line(reader); line != NULL; line = next_line(reader)) {
        long target = 0;
        line = strchr(line, '\t') + 1;
        const char *training = line;
        const char *second_last = strchr(line, '\t') + 1;
        const char *last = strchr(second_last, '\t') + 1;
        size_t n = 0;
        while (training < second_last - 1 && next_number(&training, &items[n])) {
            n++;
        }
        if (*second_last != '-') {
            assert_true(next_number(&second_last, &items[n]));
            n++;
        }
        assert_true(next_number(&last, &target));
        add_user(items, n, target);
    }
    line_reader_close(reader);
    assert_int_equal(n_users, ML1M_USERS);
}

/* ---- computing ---- */

/* Users first … first + n - 1 to out[n × D]. */
static void embed(size_t first, size_t n, float *out)
{
    user_model_embed(
        model, workspace,
        &(struct history_batch){.n_users = n, .offsets = offsets + first, .events = events}, out);
}

struct ranked {
    uint32_t row;
    float score;
};

/* The TOP best of scores[n], best first. */
static void select_top(const float *scores, size_t n, struct ranked *top)
{
    size_t n_top = 0;
    for (size_t i = 0; i < n; i++) {
        if (n_top == TOP && scores[i] <= top[TOP - 1].score) {
            continue;
        }
        size_t at = n_top < TOP ? n_top++ : TOP - 1;
        for (; at > 0 && top[at - 1].score < scores[i]; at--) {
            top[at] = top[at - 1];
        }
        top[at] = (struct ranked){(uint32_t)i, scores[i]};
    }
}

struct metrics {
    double hits[3], ndcg[3]; /* at 5, 10, 20 */
};
static const size_t CUTS[] = {5, 10, 20};

static void add_rank(struct metrics *metrics, size_t rank)
{
    for (size_t c = 0; c < 3; c++) {
        if (rank < CUTS[c]) {
            metrics->hits[c] += 1.0;
            metrics->ndcg[c] += 1.0 / log2((double)rank + 2.0);
        }
    }
}

struct beauty {
    struct line_reader *golden;
    struct file_map queries; /* per user: int32 64, 64 floats */
    struct metrics metrics;
    double worst_score, worst_query;
    size_t n_swapped; /* places where two items of nearly equal scores are the other way round */
};

/* One line of the golden file: user, target, its rank, ten item:score. */
static void check_golden(struct beauty *beauty, size_t user, const float *scores,
                         const struct ranked *top)
{
    const char *line = next_line(beauty->golden);
    long number = 0;
    long target = 0;
    long rank = 0;
    assert_non_null(line);
    assert_true(next_number(&line, &number) && next_number(&line, &target) &&
                next_number(&line, &rank));
    assert_int_equal(number, user + 1);
    assert_int_equal(target, targets[user] + 1);
    for (size_t i = 0; i < GOLDEN_TOP; i++) {
        long item = 0;
        char *end = NULL;
        assert_true(next_number(&line, &item));
        assert_int_equal(*line, ':');
        const double wanted = strtod(line + 1, &end);
        line = end;
        const double score = (double)scores[item - 1];
        beauty->worst_score = fmax(beauty->worst_score, fabs(score - wanted));
        if (top[i].row + 1 != item) {
            assert_true(fabs((double)top[i].score - score) <= TOLERANCE);
            beauty->n_swapped++;
        }
    }
}

static void check_query(struct beauty *beauty, size_t user, const float *embedded)
{
    float wanted[BEAUTY_DIM];
    const size_t row_bytes = sizeof(int32_t) + sizeof(wanted);
    assert_int_equal(beauty->queries.n_bytes, BEAUTY_USERS * row_bytes);
    memcpy(wanted, (const char *)beauty->queries.data + user * row_bytes + sizeof(int32_t),
           sizeof(wanted));
    for (size_t c = 0; c < BEAUTY_DIM; c++) {
        beauty->worst_query =
            fmax(beauty->worst_query, fabs((double)embedded[c] - (double)wanted[c]));
    }
}

static void check_beauty_user(struct beauty *beauty, size_t user, const float *embedded,
                              float *scores)
{
    struct ranked top[TOP];
    for (uint32_t e = offsets[user]; e < offsets[user + 1]; e++) {
        scores[events[e].row] = -HUGE_VALF;
    }
    select_top(scores, BEAUTY_ITEMS, top);
    for (size_t i = 0; i < TOP; i++) {
        if (top[i].row == targets[user]) {
            add_rank(&beauty->metrics, i);
        }
    }
    check_golden(beauty, user, scores, top);
    check_query(beauty, user, embedded);
}

static void assert_figure(const char *name, double value, double wanted, double tolerance)
{
    print_message("%s %.4f, wanted %.4f\n", name, value, wanted);
    assert_true(fabs(value - wanted) <= tolerance);
}

static void import_model_beauty_encoder_answers_as_published(void **state)
{
    (void)state;
    static const double hits[] = {0.0500, 0.0744, 0.1058};
    static const double ndcg[] = {0.0326, 0.0403, 0.0483};
    static float embedded[USERS_AT_ONCE * BEAUTY_DIM];
    static float scores[USERS_AT_ONCE * BEAUTY_ITEMS];
    char path[128];
    struct beauty beauty = {.worst_score = 0.0};
    import("s3rec", "beauty/encoder.safetensors", BEAUTY_ITEMS);
    read_beauty();
    unpack("beauty/Beauty_user_queries.fvecs.zst", path);
    assert_int_equal(file_map_open(path, &beauty.queries, NULL), STATUS_OK);
    beauty.golden = open_lines("beauty/Beauty_golden_top10.tsv.zst");
    for (size_t first = 0; first < n_users; first += USERS_AT_ONCE) {
        const size_t n = n_users - first < USERS_AT_ONCE ? n_users - first : USERS_AT_ONCE;
        embed(first, n, embedded);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, BEAUTY_ITEMS, BEAUTY_DIM, 1.0F,
                    embedded, BEAUTY_DIM, model_folder.vectors.data, BEAUTY_DIM, 0.0F, scores,
                    BEAUTY_ITEMS);
        for (size_t u = 0; u < n; u++) {
            check_beauty_user(&beauty, first + u, embedded + u * BEAUTY_DIM,
                              scores + u * BEAUTY_ITEMS);
        }
    }
    line_reader_close(beauty.golden);
    file_map_close(&beauty.queries);
    print_message(
        "%zu users: scores differ by %.1e at most, user vectors by %.1e; %zu of %d places "
        "have another item of the same score\n",
        n_users, beauty.worst_score, beauty.worst_query, beauty.n_swapped,
        BEAUTY_USERS * GOLDEN_TOP);
    assert_true(beauty.worst_score <= TOLERANCE);
    assert_true(beauty.worst_query <= TOLERANCE);
    for (size_t c = 0; c < 3; c++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "HIT@%zu", CUTS[c]);
        assert_figure(name, beauty.metrics.hits[c] / BEAUTY_USERS, hits[c], 0.00005);
        (void)snprintf(name, sizeof(name), "nDCG@%zu", CUTS[c]);
        assert_figure(name, beauty.metrics.ndcg[c] / BEAUTY_USERS, ndcg[c], 0.00005);
    }
}

/* Adds what a user is expected to give over all draws of NEGATIVES items, with replacement, that
 * the user has nothing to do with: exact where published figures are of one draw (of which another
 * one differs by 0.002). */
static void add_expected(struct metrics *metrics, size_t user, const float *scores)
{
    static bool known[ML1M_ITEMS];
    double n_others = 0.0;
    double n_better = 0.0;
    memset(known, 0, sizeof(known));
    known[targets[user]] = true;
    for (uint32_t e = offsets[user]; e < offsets[user + 1]; e++) {
        known[events[e].row] = true;
    }
    for (size_t row = 0; row < ML1M_ITEMS; row++) {
        n_others += known[row] ? 0.0 : 1.0;
        n_better += !known[row] && scores[row] > scores[targets[user]] ? 1.0 : 0.0;
    }
    const double p = n_better / n_others;
    double chance = pow(1.0 - p, NEGATIVES); /* that `rank` of the negatives are better */
    for (size_t rank = 0; rank < CUTS[1] && p < 1.0; rank++) {
        metrics->hits[1] += chance;
        metrics->ndcg[1] += chance / log2((double)rank + 2.0);
        chance *= (double)(NEGATIVES - rank) / (double)(rank + 1) * p / (1.0 - p);
    }
}

static void import_model_ml1m_sasrec_answers_as_published(void **state)
{
    (void)state;
    static float embedded[USERS_AT_ONCE * ML1M_DIM];
    static float scores[USERS_AT_ONCE * ML1M_ITEMS];
    struct metrics metrics = {.hits = {0}};
    import("sasrec-pytorch", "ml1m/sasrec.safetensors", ML1M_ITEMS);
    read_ml1m();
    for (size_t first = 0; first < n_users; first += USERS_AT_ONCE) {
        const size_t n = n_users - first < USERS_AT_ONCE ? n_users - first : USERS_AT_ONCE;
        embed(first, n, embedded);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, ML1M_ITEMS, ML1M_DIM, 1.0F,
                    embedded, ML1M_DIM, model_folder.vectors.data, ML1M_DIM, 0.0F, scores,
                    ML1M_ITEMS);
        for (size_t u = 0; u < n; u++) {
            add_expected(&metrics, first + u, scores + u * ML1M_ITEMS);
        }
    }
    /* As published, and as PyTorch gives them on the same weights with the padding passed through.
     */
    assert_figure("HR@10", metrics.hits[1] / ML1M_USERS, 0.794, 0.005);
    assert_figure("nDCG@10", metrics.ndcg[1] / ML1M_USERS, 0.558, 0.005);
    assert_figure("HR@10", metrics.hits[1] / ML1M_USERS, 0.79311, 0.0002);
    assert_figure("nDCG@10", metrics.ndcg[1] / ML1M_USERS, 0.55946, 0.0002);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(import_model_beauty_encoder_answers_as_published, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(import_model_ml1m_sasrec_answers_as_published, setup,
                                        teardown),
    };
    if (!file_exists(AISLE_SHARED_DATA "/beauty/encoder.safetensors") ||
        !file_exists("/usr/bin/zstd")) {
        (void)printf("skipped: no data, or no zstd\n");
        return EXIT_SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
