/* One ranking of the catalogue: the rank of an item, and the places at its top.
 *
 * A rank is a count of scores, not a sort: one pass counts what scores at least as high (ties are
 * broken against us) and keeps the largest score of each block of 64. The top, which only coverage
 * needs, then looks into the few blocks whose largest score beats the worst of the list so far.
 * What a variant leaves out is taken off afterwards: from the count by looking at each excluded
 * row, from the top by its mark, so that both variants come from one pass.
 *
 * Popularity is the same for all cases: order and ranks are made once. */
#include "core/evaluate_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* Sanitizers' runtimes are not up yet when a CPU variant is chosen, so that they get the plain one.
 */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || defined(__clang__) ||         \
    !defined(__x86_64__)
#define CPU_VARIANTS
#else
#define CPU_VARIANTS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif

/* ---- counting ---- */

CPU_VARIANTS size_t evaluate_count(const float *scores, size_t n, float wanted, float *maxima)
{
    size_t count = 0;
    for (size_t block = 0; block < n / EVALUATE_BLOCK; block++) {
        const float *in = scores + block * EVALUATE_BLOCK;
        float largest[16];
        int32_t above[16] = {0};
        memcpy(largest, in, sizeof(largest));
        for (size_t i = 0; i < EVALUATE_BLOCK; i += 16) {
            for (size_t lane = 0; lane < 16; lane++) {
                float score = in[i + lane];
                above[lane] += score >= wanted ? 1 : 0;
                largest[lane] = score > largest[lane] ? score : largest[lane];
            }
        }
        int32_t sum = 0;
        for (size_t lane = 0; lane < 16; lane++) {
            sum += above[lane];
            largest[0] = largest[lane] > largest[0] ? largest[lane] : largest[0];
        }
        count += (size_t)sum;
        maxima[block] = largest[0];
    }
    return count;
}

size_t evaluate_count_naive(const float *scores, size_t n, float wanted, float *maxima)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        size_t block = i / EVALUATE_BLOCK;
        count += scores[i] >= wanted;
        if (i % EVALUATE_BLOCK == 0 || scores[i] > maxima[block]) {
            maxima[block] = scores[i];
        }
    }
    return count;
}

/* ---- the top of a list: a heap with the worst on top ---- */

/* Higher score first, then smaller row, as the service orders. */
static bool comes_before(struct evaluate_scored a, struct evaluate_scored b)
{
    return a.score > b.score || (a.score == b.score && a.row < b.row);
}

static void sift_down(struct evaluate_scored *heap, size_t n)
{
    size_t root = 0;
    for (;;) {
        size_t worst = root;
        for (size_t child = 2 * root + 1; child <= 2 * root + 2 && child < n; child++) {
            if (comes_before(heap[worst], heap[child])) {
                worst = child;
            }
        }
        if (worst == root) {
            return;
        }
        struct evaluate_scored swap = heap[root];
        heap[root] = heap[worst];
        heap[worst] = swap;
        root = worst;
    }
}

static void push(struct evaluate_scored *heap, size_t n, struct evaluate_scored value)
{
    size_t at = n;
    while (at > 0 && comes_before(heap[(at - 1) / 2], value)) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = value;
}

static void note_place(uint16_t *best, uint32_t row, size_t place)
{
    if (place < best[row]) {
        best[row] = (uint16_t)place;
    }
}

void evaluate_note_top(const float *scores, size_t n, const float *maxima,
                       const struct evaluate_excluded *excluded, const struct evaluate_top *top)
{
    struct evaluate_scored *heap = top->heap;
    size_t n_top = 0;
    if (top->best == NULL) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        bool full = n_top == top->k;
        if (full && i % EVALUATE_BLOCK == 0 && maxima[i / EVALUATE_BLOCK] <= heap[0].score) {
            i += EVALUATE_BLOCK - 1;
            continue;
        }
        /* Rows rise: an equal score would come after the worst. */
        if ((full && scores[i] <= heap[0].score) || excluded->marks[i] != 0) {
            continue;
        }
        struct evaluate_scored value = {scores[i], (uint32_t)i};
        if (full) {
            heap[0] = value;
            sift_down(heap, n_top);
        } else {
            push(heap, n_top++, value);
        }
    }
    for (; n_top > 0; n_top--) {
        note_place(top->best, heap[0].row, n_top);
        heap[0] = heap[n_top - 1];
        sift_down(heap, n_top - 1);
    }
}

/* ---- popularity ---- */

struct popular {
    double value;
    uint32_t row;
};

static int by_value(const void *a, const void *b)
{
    const struct popular *x = a;
    const struct popular *y = b;
    if (x->value != y->value) {
        return x->value > y->value ? -1 : 1;
    }
    return (x->row > y->row) - (x->row < y->row);
}

enum status evaluate_popularity_init(const double *values, size_t n,
                                     struct evaluate_popularity *out, struct error *err)
{
    struct popular *sorted = mem_alloc_array(n, sizeof(*sorted));
    out->order = mem_alloc_array(n, sizeof(uint32_t));
    out->ranks = mem_alloc_array(n, sizeof(uint32_t));
    if (sorted == NULL || out->order == NULL || out->ranks == NULL) {
        mem_free(sorted);
        return error_set(err, STATUS_NOMEM, "popularity of %zu items", n);
    }
    for (size_t row = 0; row < n; row++) {
        sorted[row] = (struct popular){values[row], (uint32_t)row};
    }
    qsort(sorted, n, sizeof(*sorted), by_value);
    /* Equally popular items all get the last place among them: ties are broken against us. */
    for (size_t first = 0; first < n;) {
        size_t end = first + 1;
        while (end < n && sorted[end].value == sorted[first].value) {
            end++;
        }
        for (; first < end; first++) {
            out->order[first] = sorted[first].row;
            out->ranks[sorted[first].row] = (uint32_t)end;
        }
    }
    mem_free(sorted);
    return STATUS_OK;
}

void evaluate_popularity_free(struct evaluate_popularity *popularity)
{
    mem_free(popularity->order);
    mem_free(popularity->ranks);
    *popularity = (struct evaluate_popularity){NULL, NULL};
}

uint32_t evaluate_popularity_rank(const struct evaluate_popularity *popularity, uint32_t row,
                                  const struct evaluate_excluded *excluded)
{
    uint32_t rank = popularity->ranks[row];
    uint32_t n_before = 0;
    for (size_t i = 0; i < excluded->n; i++) {
        n_before += popularity->ranks[excluded->rows[i]] <= rank;
    }
    return rank - n_before;
}

void evaluate_popularity_note_top(const struct evaluate_popularity *popularity, size_t n,
                                  const struct evaluate_excluded *excluded,
                                  const struct evaluate_top *top)
{
    size_t place = 0;
    for (size_t i = 0; top->best != NULL && i < n && place < top->k; i++) {
        if (excluded->marks[popularity->order[i]] == 0) {
            note_place(top->best, popularity->order[i], ++place);
        }
    }
}
