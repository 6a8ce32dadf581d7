#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "index/index_internal.h"

/* Danger: an index file decides how much FAISS allocates and reads, and FAISS trusts its lengths.
 * Input: the bytes of an index file. Path: index_file_check, the walk through the file that decides
 * whether FAISS may see it. What it accepts must have a name that reads back as the same kind. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct index_file_info info;
    struct error err;
    if (index_file_check(data, size, &info, &err) == STATUS_OK) {
        char name[INDEX_NAME_BYTES];
        struct index_kind again;
        index_kind_name(&info.kind, name);
        if (info.dim == 0 || index_kind_parse(name, &again, &err) != STATUS_OK ||
            again.family != info.kind.family || again.codes != info.kind.codes ||
            again.n_lists != info.kind.n_lists) {
            abort();
        }
    }
    return 0;
}
