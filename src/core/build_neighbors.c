/* Session neighbours of the model folder → release: the same file with the rows of the release. */
#include <string.h>

#include "base/alloc.h"
#include "core/build_internal.h"

/* Row of the release of each row of the folder, UINT32_MAX where the shop no longer has the item;
 * gives (mem_free), NULL: no memory. */
static uint32_t *map_rows(const struct build *build)
{
    size_t n = idmap_size(build->folder.ids);
    uint32_t *to = mem_alloc_array(n, sizeof(*to));
    for (uint32_t row = 0; to != NULL && row < n; row++) {
        size_t len = 0;
        const char *id = idmap_id(build->folder.ids, row, &len);
        uint32_t found = idmap_find(build->rows, id, len);
        to[row] = found != IDMAP_NONE ? found : UINT32_MAX;
    }
    return to;
}

enum status build_write_neighbors(struct build *build, struct error *err)
{
    char from[PATH_BYTES_MAX];
    char to_path[PATH_BYTES_MAX];
    enum status status = path_join(from, build->config->model_dir, MODEL_FILE_NEIGHBORS, err);
    if (status != STATUS_OK || !file_exists(from)) {
        return status;
    }
    status = build_path(build, RELEASE_FILE_NEIGHBORS, to_path, err);
    if (status != STATUS_OK) {
        return status;
    }
    uint32_t *to = map_rows(build);
    if (to == NULL) {
        return error_set(err, STATUS_NOMEM, "rows of %zu items: no memory",
                         idmap_size(build->folder.ids));
    }
    status = neighbors_renumber(from, to, idmap_size(build->folder.ids), idmap_size(build->rows),
                                to_path, err);
    mem_free(to);
    return status;
}
