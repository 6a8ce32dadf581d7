/* Danger: a file of session neighbours whose numbers lead out of its arrays, which queries index
 * without looking. Inputs: a whole neighbors.safetensors of N_ITEMS items; corpus/neighbors holds
 * one of each form. Code path: neighbors_open_bytes (settings, tensors, bounds), then a query from
 * every item. */
#include <stddef.h>
#include <stdint.h>

#include "embeddings/neighbors.h"

enum { N_ITEMS = 6, N_HITS = 8, SESSIONS_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct neighbors *neighbors = NULL;
    struct neighbors_workspace *workspace = NULL;
    struct error err;
    if (neighbors_open_bytes(data, size, N_ITEMS, &neighbors, &err) != STATUS_OK) {
        return 0;
    }
    if (neighbors_info(neighbors).n_sessions <= SESSIONS_MAX &&
        neighbors_workspace_open(neighbors, &workspace, &err) == STATUS_OK) {
        for (uint32_t row = 0; row < N_ITEMS; row++) {
            const struct history_event events[] = {{row, EVENT_VIEW, 1000},
                                                   {(row + 1) % N_ITEMS, EVENT_VIEW, 0}};
            uint32_t rows[N_HITS];
            float scores[N_HITS];
            double total = 0.0;
            (void)neighbors_query(neighbors, workspace, events, 2, 2000, N_HITS, rows, scores,
                                  &total);
        }
    }
    neighbors_workspace_close(workspace);
    neighbors_close(neighbors);
    return 0;
}
