#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "store/manifest.h"

/* Danger: a release may come from another machine, and its manifest decides which files are opened
 * and hashed; deep nesting must not exhaust the stack, names must not leave the folder.
 * Inputs: any bytes as manifest.json. Path: manifest_parse, cJSON inside. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct manifest manifest;
    struct error err;
    enum status status = manifest_parse((const char *)data, size, &manifest, &err);
    if (status == STATUS_OK) {
        for (size_t i = 0; i < manifest.n_files; i++) {
            const char *name = manifest.files[i].name;
            for (const char *c = name; *c != '\0'; c++) {
                if (*c == '/') {
                    abort();
                }
            }
            if (name[0] == '.' || name[0] == '\0') {
                abort();
            }
        }
    }
    manifest_free(&manifest);
    return 0;
}
