/* Session neighbours against a brute-force reading of their definitions, and against files that
 * were tampered with. */
#include "embeddings/neighbors.h"

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

enum { N_ITEMS = 30, N_SESSIONS = 200, LENGTH_MAX = 9, SEED = 7 };

static struct history_event events[N_SESSIONS * LENGTH_MAX];
static uint64_t offsets[N_SESSIONS + 1];
static struct event_log log_;
static char path[64];

static int setup(void **state)
{
    (void)state;
    struct rng rng;
    size_t n = 0;
    rng_init(&rng, SEED);
    for (size_t s = 0; s < N_SESSIONS; s++) {
        size_t length = 2 + (size_t)rng_below(&rng, LENGTH_MAX - 1);
        events[n] = (struct history_event){0, EVENT_VIEW, 0};
        for (size_t i = 0; i < length; i++) {
            uint32_t row = (uint32_t)rng_below(&rng, N_ITEMS);
            row = i == 1 && row == events[n - 1].row ? (row + 1) % N_ITEMS : row;
            events[n++] =
                (struct history_event){row, EVENT_VIEW, (int64_t)s * 3600000 + (int64_t)i};
        }
        offsets[s + 1] = n;
    }
    log_ = (struct event_log){
        .events = events, .offsets = offsets, .n_sequences = N_SESSIONS, .n_events = n};
    (void)snprintf(path, sizeof(path), "/tmp/aisle-neighbors-%ld.safetensors", (long)getpid());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(path);
    return 0;
}

static struct neighbors *built(const struct neighbors_settings *settings)
{
    struct error err = {0};
    struct neighbors *neighbors = NULL;
    const struct neighbors_blend blend = {.weight = 1.0, .floor = 1e-3};
    if (neighbors_build(&log_, N_ITEMS, settings, &blend, path, &err) != STATUS_OK ||
        neighbors_open(path, N_ITEMS, &neighbors, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return neighbors;
}

/* ---- the definitions, read literally ---- */

static int position_in(size_t session, uint32_t row)
{
    int position = 0; /* among different items */
    bool seen[N_ITEMS] = {false};
    for (uint64_t e = offsets[session]; e < offsets[session + 1]; e++) {
        if (events[e].row == row) {
            return position;
        }
        position += seen[events[e].row] ? 0 : 1;
        seen[events[e].row] = true;
    }
    return -1;
}

static size_t different_items(size_t session)
{
    size_t n = 0;
    for (uint32_t row = 0; row < N_ITEMS; row++) {
        n += position_in(session, row) >= 0 ? 1 : 0;
    }
    return n;
}

struct naive {
    size_t session;
    double similarity;
    size_t place; /* of the newest match */
    int match;
};

static int by_similarity(const void *a, const void *b)
{
    const struct naive *x = a;
    const struct naive *y = b;
    if (x->similarity != y->similarity) {
        return x->similarity > y->similarity ? -1 : 1;
    }
    return x->session > y->session ? -1 : 1;
}

static double naive_weight(const struct neighbors_settings *s, size_t place, size_t length,
                           size_t n_different)
{
    double left = (double)length - (double)place;
    if (s->kind == NEIGHBORS_VMIS) {
        return left / (double)n_different;
    }
    if (s->kind == NEIGHBORS_VSKNN) {
        return left / (double)length * left / (double)length / (double)n_different;
    }
    return exp(-(double)place / s->lambda_query);
}

static void naive_scores(const struct neighbors_settings *s, const struct history_event *query,
                         size_t n, int64_t now_ms, double scores[N_ITEMS])
{
    static struct naive all[N_SESSIONS];
    size_t length = s->n_last > 0 && s->n_last < n ? s->n_last : n;
    size_t n_different = 0;
    size_t n_found = 0;
    for (size_t p = 0; p < length; p++) {
        bool first = true;
        for (size_t q = 0; q < p; q++) {
            first = first && query[q].row != query[p].row;
        }
        n_different += first ? 1 : 0;
    }
    for (size_t session = N_SESSIONS; session-- > 0 && n_found < s->n_sampled;) {
        struct naive one = {session, 0.0, 0, -1};
        for (size_t p = 0; p < length; p++) {
            bool first = true;
            for (size_t q = 0; q < p; q++) {
                first = first && query[q].row != query[p].row;
            }
            int at = position_in(session, query[p].row);
            if (!first || at < 0) {
                continue;
            }
            if (one.match < 0) {
                one.match = at;
                one.place = p;
            }
            one.similarity += naive_weight(s, p, length, n_different);
        }
        if (one.match >= 0) {
            if (s->kind == NEIGHBORS_VSTAN) {
                double age = (double)(now_ms - events[offsets[session + 1] - 1].time_ms) / 86400000;
                one.similarity /= sqrt((double)n_different * (double)different_items(session));
                one.similarity *= exp(-age / s->lambda_age_days);
            }
            all[n_found++] = one;
        }
    }
    qsort(all, n_found, sizeof(all[0]), by_similarity);
    memset(scores, 0, N_ITEMS * sizeof(*scores));
    for (size_t i = 0; i < n_found && i < s->n_neighbors; i++) {
        double match = s->kind == NEIGHBORS_VMIS    ? 1.0 - 0.1 * (double)(all[i].place + 1)
                       : s->kind == NEIGHBORS_VSKNN ? 1.0 / (double)(all[i].place + 1)
                                                    : 1.0;
        for (uint32_t row = 0; row < N_ITEMS; row++) {
            int at = position_in(all[i].session, row);
            if (at >= 0) {
                double distance = s->kind == NEIGHBORS_VSTAN
                                      ? exp(-fabs((double)(at - all[i].match)) / s->lambda_distance)
                                      : 1.0;
                scores[row] += all[i].similarity * match * distance;
            }
        }
    }
    for (uint32_t row = 0; row < N_ITEMS; row++) {
        size_t count = 0;
        for (size_t session = 0; session < N_SESSIONS; session++) {
            count += position_in(session, row) >= 0 ? 1 : 0;
        }
        double idf = s->idf * log((double)N_SESSIONS / (double)count);
        scores[row] *= s->idf <= 0.0 ? 1.0 : s->kind == NEIGHBORS_VMIS ? idf : 1.0 + idf;
        if (s->exclude_current && row == query[0].row) {
            scores[row] = 0.0;
        }
    }
}

static void compare_with_naive(const struct neighbors_settings *s)
{
    struct error err = {0};
    struct neighbors *neighbors = built(s);
    struct neighbors_workspace *workspace = NULL;
    struct rng rng;
    rng_init(&rng, SEED + 1);
    assert_int_equal(neighbors_workspace_open(neighbors, &workspace, &err), STATUS_OK);
    for (int round = 0; round < 50; round++) {
        struct history_event query[8];
        double wanted[N_ITEMS];
        uint32_t rows[N_ITEMS];
        float scores[N_ITEMS];
        double total = 0.0;
        double sum = 0.0;
        size_t n = 1 + (size_t)rng_below(&rng, 8);
        for (size_t i = 0; i < n; i++) {
            query[i] = (struct history_event){(uint32_t)rng_below(&rng, N_ITEMS), EVENT_VIEW, 0};
        }
        int64_t now_ms = (int64_t)N_SESSIONS * 3600000;
        naive_scores(s, query, n, now_ms, wanted);
        size_t n_hits =
            neighbors_query(neighbors, workspace, query, n, now_ms, N_ITEMS, rows, scores, &total);
        for (size_t i = 0; i < n_hits; i++) {
            assert_true(fabs((double)scores[i] - wanted[rows[i]]) <=
                        1e-5 * fabs(wanted[rows[i]]) + 1e-7);
            assert_true(i == 0 || scores[i] <= scores[i - 1]);
            sum += wanted[rows[i]];
            wanted[rows[i]] = 0.0;
        }
        for (size_t row = 0; row < N_ITEMS; row++) {
            assert_true(wanted[row] <= 1e-12); /* none was left out */
        }
        assert_true(fabs(total - sum) <= 1e-6 * sum + 1e-9);
    }
    neighbors_workspace_close(workspace);
    neighbors_close(neighbors);
}

static void neighbors_query_vmis_equals_the_definition(void **state)
{
    (void)state;
    struct neighbors_settings s;
    neighbors_settings_default(NEIGHBORS_VMIS, &s);
    compare_with_naive(&s);
    s.n_sampled = 17;
    s.n_neighbors = 5;
    s.n_last = 0;
    s.idf = 0.0;
    s.exclude_current = false;
    compare_with_naive(&s);
}

static void neighbors_query_vsknn_equals_the_definition(void **state)
{
    (void)state;
    struct neighbors_settings s;
    neighbors_settings_default(NEIGHBORS_VSKNN, &s);
    compare_with_naive(&s);
    s.n_sampled = 40;
    s.n_neighbors = 11;
    compare_with_naive(&s);
}

static void neighbors_query_vstan_equals_the_definition(void **state)
{
    (void)state;
    struct neighbors_settings s;
    neighbors_settings_default(NEIGHBORS_VSTAN, &s);
    s.lambda_age_days = 3.0;
    compare_with_naive(&s);
    s.n_sampled = 40;
    s.n_neighbors = 11;
    compare_with_naive(&s);
}

static void compare_rules(enum neighbors_kind kind)
{
    struct error err = {0};
    struct neighbors_settings s;
    struct neighbors_workspace *workspace = NULL;
    neighbors_settings_default(kind, &s);
    s.n_pruned = N_ITEMS;
    s.n_steps = 3;
    struct neighbors *neighbors = built(&s);
    assert_int_equal(neighbors_workspace_open(neighbors, &workspace, &err), STATUS_OK);
    for (uint32_t from = 0; from < N_ITEMS; from++) {
        double wanted[N_ITEMS] = {0.0};
        double largest = 0.0;
        for (size_t session = 0; session < N_SESSIONS; session++) {
            for (uint64_t i = offsets[session]; i < offsets[session + 1]; i++) {
                for (uint64_t j = i + 1; j < offsets[session + 1]; j++) {
                    double d = (double)(j - i);
                    if (kind == NEIGHBORS_SR && events[i].row == from && d <= 3.0) {
                        wanted[events[j].row] += 1.0 / (d * d);
                    } else if (kind == NEIGHBORS_AR) {
                        wanted[events[j].row] += events[i].row == from ? 1.0 : 0.0;
                        wanted[events[i].row] += events[j].row == from ? 1.0 : 0.0;
                    }
                }
            }
        }
        for (size_t row = 0; row < N_ITEMS; row++) {
            largest = fmax(largest, wanted[row]);
        }
        struct history_event query = {from, EVENT_VIEW, 0};
        uint32_t rows[N_ITEMS];
        float scores[N_ITEMS];
        double total = 0.0;
        size_t n =
            neighbors_query(neighbors, workspace, &query, 1, 0, N_ITEMS, rows, scores, &total);
        for (size_t i = 0; i < n; i++) {
            assert_true(fabs((double)scores[i] - wanted[rows[i]] / largest) <= 1e-6);
            wanted[rows[i]] = 0.0;
        }
        for (size_t row = 0; row < N_ITEMS; row++) {
            assert_true(wanted[row] <= 0.0);
        }
    }
    neighbors_workspace_close(workspace);
    neighbors_close(neighbors);
}

static void neighbors_query_rules_equal_the_definition(void **state)
{
    (void)state;
    compare_rules(NEIGHBORS_SR);
    compare_rules(NEIGHBORS_AR);
}

static void neighbors_query_nothing_known_gives_nothing(void **state)
{
    (void)state;
    struct error err = {0};
    struct neighbors_settings s;
    struct neighbors_workspace *workspace = NULL;
    uint32_t rows[4];
    float scores[4];
    double total = 1.0;
    neighbors_settings_default(NEIGHBORS_VMIS, &s);
    struct neighbors *neighbors = built(&s);
    assert_int_equal(neighbors_workspace_open(neighbors, &workspace, &err), STATUS_OK);
    assert_int_equal(neighbors_query(neighbors, workspace, NULL, 0, 0, 4, rows, scores, &total), 0);
    assert_true(total <= 0.0);
    neighbors_workspace_close(workspace);
    neighbors_close(neighbors);
}

static void neighbors_build_without_a_session_is_invalid(void **state)
{
    (void)state;
    struct error err = {0};
    struct neighbors_settings s;
    const struct neighbors_blend blend = {.floor = 1e-3};
    struct history_event same[] = {{1, EVENT_VIEW, 0}, {1, EVENT_VIEW, 1}, {2, EVENT_VIEW, 2}};
    uint64_t ends[] = {0, 2, 3};
    const struct event_log sessions = {
        .events = same, .offsets = ends, .n_sequences = 2, .n_events = 3};
    (void)unlink(path);
    neighbors_settings_default(NEIGHBORS_VMIS, &s);
    assert_int_equal(neighbors_build(&sessions, N_ITEMS, &s, &blend, path, &err), STATUS_INVALID);
    assert_false(file_exists(path));
    s.n_sampled = 0;
    assert_int_equal(neighbors_build(&log_, N_ITEMS, &s, &blend, path, &err), STATUS_INVALID);
    assert_string_equal(err.field, "n_sampled");
    assert_false(file_exists(path));
}

static void neighbors_renumber_keeps_answers(void **state)
{
    (void)state;
    struct error err = {0};
    char other[80];
    uint32_t to[N_ITEMS];
    (void)snprintf(other, sizeof(other), "%s.renumbered", path);
    for (uint32_t row = 0; row < N_ITEMS; row++) {
        to[row] = row == 3 ? UINT32_MAX : N_ITEMS - row; /* one more row, row 3 gone */
    }
    for (int kind = 0; kind < N_NEIGHBORS_KINDS; kind++) {
        struct neighbors_settings s;
        struct neighbors *moved = NULL;
        struct neighbors_workspace *w = NULL;
        struct neighbors_workspace *moved_w = NULL;
        neighbors_settings_default((enum neighbors_kind)kind, &s);
        struct neighbors *neighbors = built(&s);
        assert_int_equal(neighbors_renumber(path, to, N_ITEMS, N_ITEMS + 1, other, &err),
                         STATUS_OK);
        assert_int_equal(neighbors_open(other, N_ITEMS, &moved, &err), STATUS_MISMATCH);
        assert_int_equal(neighbors_open(other, N_ITEMS + 1, &moved, &err), STATUS_OK);
        assert_int_equal(neighbors_workspace_open(neighbors, &w, &err), STATUS_OK);
        assert_int_equal(neighbors_workspace_open(moved, &moved_w, &err), STATUS_OK);
        struct history_event query = {5, EVENT_VIEW, 0};
        struct history_event moved_query = {to[5], EVENT_VIEW, 0};
        uint32_t rows[2][N_ITEMS];
        float scores[2][N_ITEMS];
        double total = 0.0;
        size_t n = neighbors_query(neighbors, w, &query, 1, 0, N_ITEMS, rows[0], scores[0], &total);
        size_t n_moved = neighbors_query(moved, moved_w, &moved_query, 1, 0, N_ITEMS, rows[1],
                                         scores[1], &total);
        for (size_t i = 0; i < n; i++) {
            size_t j = 0;
            while (j < n_moved && rows[1][j] != to[rows[0][i]]) {
                j++;
            }
            assert_true(rows[0][i] == 3 ? j == n_moved : j < n_moved);
        }
        neighbors_workspace_close(w);
        neighbors_workspace_close(moved_w);
        neighbors_close(neighbors);
        neighbors_close(moved);
    }
    (void)unlink(other);
}

static void neighbors_open_damaged_file_is_refused(void **state)
{
    (void)state;
    struct error err = {0};
    struct neighbors_settings s;
    struct buf text;
    neighbors_settings_default(NEIGHBORS_VMIS, &s);
    neighbors_close(built(&s));
    buf_init(&text, 1 << 20);
    assert_int_equal(file_read(path, &text, &err), STATUS_OK);
    size_t n_refused = 0;
    for (size_t at = text.len / 2; at + 4 < text.len; at += 97) {
        char kept[4];
        memcpy(kept, text.data + at, 4);
        memset(text.data + at, 0x7f, 4);
        assert_int_equal(file_write_atomic(path, text.data, text.len, &err), STATUS_OK);
        struct neighbors *neighbors = NULL;
        enum status status = neighbors_open(path, N_ITEMS, &neighbors, &err);
        assert_true((status == STATUS_OK) == (neighbors != NULL));
        n_refused += status != STATUS_OK ? 1 : 0;
        neighbors_close(neighbors);
        memcpy(text.data + at, kept, 4);
    }
    assert_true(n_refused > 10); /* what is not refused is a length, which indexes nothing */
    buf_free(&text);
}

static void neighbors_open_out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    struct error err = {0};
    struct neighbors_settings s;
    neighbors_settings_default(NEIGHBORS_VSTAN, &s);
    neighbors_close(built(&s));
    enum status status = STATUS_NOMEM;
    for (int64_t nth = 1; status != STATUS_OK && nth < 1000; nth++) {
        struct neighbors *neighbors = NULL;
        struct neighbors_workspace *workspace = NULL;
        mem_fail_nth(nth);
        status = neighbors_open(path, N_ITEMS, &neighbors, &err);
        if (status == STATUS_OK) {
            status = neighbors_workspace_open(neighbors, &workspace, &err);
            assert_true((status == STATUS_OK) == (workspace != NULL));
        } else {
            assert_null(neighbors);
        }
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        neighbors_workspace_close(workspace);
        neighbors_close(neighbors);
    }
    assert_int_equal(status, STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbors_query_vmis_equals_the_definition),
        cmocka_unit_test(neighbors_query_vsknn_equals_the_definition),
        cmocka_unit_test(neighbors_query_vstan_equals_the_definition),
        cmocka_unit_test(neighbors_query_rules_equal_the_definition),
        cmocka_unit_test(neighbors_query_nothing_known_gives_nothing),
        cmocka_unit_test(neighbors_build_without_a_session_is_invalid),
        cmocka_unit_test(neighbors_renumber_keeps_answers),
        cmocka_unit_test(neighbors_open_damaged_file_is_refused),
        cmocka_unit_test(neighbors_open_out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
