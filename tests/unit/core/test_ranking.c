#include "core/recommend_internal.h"

#include "core_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static struct core_fixture shop;

static int open_shop(void **state)
{
    (void)state;
    core_fixture_open(&shop, 900, "Flat", 31);
    return 0;
}

static int close_shop(void **state)
{
    (void)state;
    core_fixture_close(&shop);
    return 0;
}

/* n random candidates, each row once; similarities in steps, so that ties happen. */
static void make_candidates(size_t n)
{
    bool taken[900] = {false};
    struct recommender *r = shop.recommender;
    r->n_candidates = 0;
    while (r->n_candidates < n) {
        uint32_t row = (uint32_t)rng_below(&shop.rng, shop.n);
        if (!taken[row]) {
            taken[row] = true;
            r->candidates[r->n_candidates++] = (struct candidate){
                .row = row,
                .sources = SOURCE_VECTOR,
                .similarity = (float)rng_below(&shop.rng, 40) / 40.0F,
            };
        }
    }
}

static struct recommend_job job_of(const char *profile)
{
    return (struct recommend_job){.profile = profile_find(&shop.profiles, profile),
                                  .now_ms = SHOP_START_MS + 50 * SHOP_DAY_MS,
                                  .has_vector = true};
}

static int compare_candidates(const void *a, const void *b)
{
    const struct candidate *x = a;
    const struct candidate *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return (x->row > y->row) - (x->row < y->row);
}

static void ranking_order_gives_the_best_in_order(void **state)
{
    static const size_t sizes[] = {0, 1, 2, 3, 7, 64, 500, 900};
    static const size_t limits[] = {1, 2, 20, 899, 2000};
    struct recommend_job job = job_of("plain");
    struct candidate sorted[900];
    struct recommender *r = shop.recommender;
    (void)state;
    for (size_t s = 0; s < 8; s++) {
        for (size_t l = 0; l < 5; l++) {
            make_candidates(sizes[s]);
            for (size_t i = 0; i < sizes[s]; i++) {
                sorted[i] = r->candidates[i];
                sorted[i].score = sorted[i].similarity;
            }
            qsort(sorted, sizes[s], sizeof(*sorted), compare_candidates);
            size_t n = ranking_order(r, &job, 0.0, limits[l]);
            assert_int_equal(n, limits[l] < sizes[s] ? limits[l] : sizes[s]);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(r->candidates[i].row, sorted[i].row);
            }
        }
    }
}

static void ranking_order_features_are_those_of_the_item(void **state)
{
    struct recommend_job job = job_of("mixed");
    struct recommender *r = shop.recommender;
    (void)state;
    make_candidates(900);
    assert_int_equal(ranking_order(r, &job, 0.0, 900), 900);
    for (size_t i = 0; i < 900; i++) {
        const struct candidate *candidate = &r->candidates[i];
        const struct shop_item *item = &shop.items[candidate->row];
        double age_days = ((double)job.now_ms - item->created_at_ms) / (double)SHOP_DAY_MS;
        double freshness = isnan(item->created_at_ms) ? 0.0 : exp2(-fmax(age_days, 0.0) / 20.0);
        const double expected[N_FEATURES] = {
            (double)candidate->similarity,
            0.3 * (double)shop.engine->popularity[candidate->row],
            0.2 * freshness,
            item->stock <= 0.0 ? 0.0 : 0.5,
        };
        double sum = 0.0;
        for (int f = 0; f < N_FEATURES; f++) {
            assert_true(fabs((double)candidate->features[f] - expected[f]) < 1e-6);
            sum += expected[f];
        }
        assert_true(fabs((double)candidate->score - sum) < 1e-6);
    }
}

/* The definition, step by step: picked[] from candidates in order of score. */
static void naive_relevance_and_diversity(const struct candidate *sorted, size_t n,
                                          double diversity, size_t limit, uint32_t *picked)
{
    bool used[900] = {false};
    double range = (double)sorted[0].score - (double)sorted[n - 1].score;
    for (size_t p = 0; p < limit; p++) {
        size_t best = n;
        double best_value = 0.0;
        for (size_t i = 0; i < n; i++) {
            float closest = 0.0F;
            for (size_t q = 0; q < p; q++) {
                float similarity = 0.0F;
                vectors_dot_naive(&shop.engine->vectors, shop.vectors + sorted[i].row * shop.dim,
                                  &picked[q], 1, &similarity);
                closest = fmaxf(closest, similarity);
            }
            double relevance = 1.0 - ((double)sorted[0].score - (double)sorted[i].score) / range;
            double value = (1.0 - diversity) * relevance - diversity * (double)closest;
            if (!used[i] && (best == n || value > best_value + 1e-6)) {
                best = i;
                best_value = value;
            }
        }
        used[best] = true;
        picked[p] = sorted[best].row;
    }
}

static void ranking_order_diversity_picks_as_its_definition(void **state)
{
    static const double diversities[] = {0.1, 0.5, 1.0};
    struct recommend_job job = job_of("plain");
    struct recommender *r = shop.recommender;
    struct candidate sorted[120];
    uint32_t picked[30];
    (void)state;
    for (size_t d = 0; d < 3; d++) {
        make_candidates(120);
        for (size_t i = 0; i < 120; i++) { /* no ties: rounding must not decide */
            r->candidates[i].similarity = 1.0F - (float)i * 0.00817F;
            sorted[i] = r->candidates[i];
            sorted[i].score = sorted[i].similarity;
        }
        naive_relevance_and_diversity(sorted, 120, diversities[d], 30, picked);
        assert_int_equal(ranking_order(r, &job, diversities[d], 30), 30);
        for (size_t i = 0; i < 30; i++) {
            assert_int_equal(r->candidates[i].row, picked[i]);
        }
    }
}

static void ranking_order_equal_scores_and_diversity_keep_every_item(void **state)
{
    struct recommend_job job = job_of("plain");
    struct recommender *r = shop.recommender;
    bool seen[900] = {false};
    (void)state;
    make_candidates(50);
    for (size_t i = 0; i < 50; i++) {
        r->candidates[i].similarity = 0.5F;
    }
    assert_int_equal(ranking_order(r, &job, 0.4, 50), 50);
    for (size_t i = 0; i < 50; i++) {
        assert_false(seen[r->candidates[i].row]);
        seen[r->candidates[i].row] = true;
    }
}

static void ranking_because_names_the_closest_events_once(void **state)
{
    struct recommender *r = shop.recommender;
    struct history_event events[60];
    struct recommend_job job = {.events = events};
    (void)state;
    for (uint32_t round = 0; round < 50; round++) {
        uint32_t because[BECAUSE_MAX];
        uint32_t row = (uint32_t)rng_below(&shop.rng, shop.n);
        float last = HUGE_VALF;
        for (size_t e = 0; e < 60; e++) {
            events[e].row = (uint32_t)rng_below(&shop.rng, e % 3 == 0 ? 5 : shop.n);
        }
        job.n_events = 60;
        job.answer.n_history = round % 2 == 0 ? 60 : 4;
        size_t n = ranking_because(r, &job, row, because);
        size_t n_better = 0;
        for (size_t i = 0; i < n; i++) {
            float similarity = 0.0F;
            vectors_dot(&shop.engine->vectors, shop.vectors + row * shop.dim, &because[i], 1,
                        &similarity);
            assert_true(similarity > 0.0F && similarity <= last && because[i] != row);
            assert_true(i == 0 || because[i] != because[i - 1]);
            last = similarity;
        }
        for (size_t e = 0; e < job.answer.n_history; e++) {
            float similarity = 0.0F;
            bool chosen = false;
            vectors_dot(&shop.engine->vectors, shop.vectors + row * shop.dim, &events[e].row, 1,
                        &similarity);
            for (size_t i = 0; i < n; i++) {
                chosen = chosen || because[i] == events[e].row;
            }
            n_better += !chosen && events[e].row != row && similarity > 0.0F &&
                        (n < BECAUSE_MAX || similarity > last);
        }
        assert_int_equal(n_better, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranking_order_gives_the_best_in_order),
        cmocka_unit_test(ranking_order_features_are_those_of_the_item),
        cmocka_unit_test(ranking_order_diversity_picks_as_its_definition),
        cmocka_unit_test(ranking_order_equal_scores_and_diversity_keep_every_item),
        cmocka_unit_test(ranking_because_names_the_closest_events_once),
    };
    return cmocka_run_group_tests(tests, open_shop, close_shop);
}
