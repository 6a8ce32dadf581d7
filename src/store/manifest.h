#ifndef AISLE_STORE_MANIFEST_H
#define AISLE_STORE_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

/* manifest.json of a release (design.md section 4). Free-form parts (settings, measurements,
 * training, quality, drift baseline) are kept as JSON text. */
enum {
    MANIFEST_FORMAT_VERSION = 1,
    MANIFEST_FILES_MAX = 64,
    MANIFEST_NAME_BYTES = 64,
    MANIFEST_MAX_BYTES = 8 << 20,
    RELEASE_VERSION_BYTES = 64,
};

struct manifest_file {
    char name[MANIFEST_NAME_BYTES];
    uint64_t n_bytes;
    char sha256[SHA256_HEX_BYTES];
};

struct manifest {
    int format_version;
    char version[RELEASE_VERSION_BYTES];
    int64_t created_at_ms;
    uint64_t n_items;
    uint64_t dim;
    char vector_type[8];       /* "F32" | "F16" */
    char architecture[32];     /* of the user model */
    char *model_settings_json; /* object; owned, like the ones below; NULL when absent */
    char index_factory[128];
    char index_parameters[128];
    char *measured_json; /* {"recall": …, "recall_k": 100, "search_p50_us": …, …} */
    char *training_json;
    char *quality_json;
    char *drift_baseline_json;
    struct manifest_file files[MANIFEST_FILES_MAX];
    size_t n_files;
};

void manifest_init(struct manifest *manifest);
void manifest_free(struct manifest *manifest);
/* Strict: FORMAT names the member at fault; UNSUPPORTED: a newer format version. Fuzzed. */
enum status manifest_parse(const char *text, size_t len, struct manifest *out,
                           struct error *err) STATUS_CHECKED;
enum status manifest_read(const char *path, struct manifest *out, struct error *err) STATUS_CHECKED;
enum status manifest_write(const char *path, const struct manifest *manifest,
                           struct error *err) STATUS_CHECKED;

#endif
