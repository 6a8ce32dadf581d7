#include "embeddings/train/parameters.h"

#include <assert.h>
#include <stdio.h>

#include "base/alloc.h"
#include "embeddings/user_model_internal.h"

struct network_parameter *parameter_add(struct parameter_set *set, const char *name, size_t n_rows,
                                        size_t n_columns, bool is_decayed)
{
    assert(set->n < PARAMETERS_MAX);
    struct network_parameter *parameter = &set->items[set->n++];
    *parameter = (struct network_parameter){
        .n = n_rows * n_columns, .n_rows = n_rows, .is_decayed = is_decayed};
    (void)snprintf(parameter->name, sizeof(parameter->name), "%s", name);
    set->n_floats += parameter->n;
    return parameter;
}

enum status parameter_set_allocate(struct parameter_set *set, struct error *err)
{
    set->values = mem_calloc(set->n_floats, sizeof(float));
    set->gradients = mem_calloc(set->n_floats, sizeof(float));
    if (set->values == NULL || set->gradients == NULL) {
        return error_set(err, STATUS_NOMEM, "%zu weights: no memory", set->n_floats);
    }
    size_t at = 0;
    for (size_t i = 0; i < set->n; i++) {
        set->items[i].value = set->values + at;
        set->items[i].gradient = set->gradients + at;
        at += set->items[i].n;
    }
    return STATUS_OK;
}

void parameter_set_free(struct parameter_set *set)
{
    mem_free(set->values);
    mem_free(set->gradients);
}

float *carve(struct carver *carver, size_t n)
{
    float *piece = carver->base != NULL ? carver->base + carver->used : NULL;
    carver->used += floats_of_lines(n);
    return piece;
}
