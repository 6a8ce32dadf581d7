#ifndef AISLE_CORE_ENGINE_INTERNAL_H
#define AISLE_CORE_ENGINE_INTERNAL_H

#include "core/engine.h"

/* Opens the parts in dir as the manifest describes them (only its numbers and names are used, its
 * texts are not copied), before manifest.json and probes.jsonl exist: the builder's view of what it
 * has just written. Checks and errors as engine_open. */
enum status engine_open_draft(const char *dir, const struct manifest *manifest, struct engine **out,
                              struct error *err) STATUS_CHECKED;

#endif
