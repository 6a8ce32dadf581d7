#ifndef AISLE_EMBEDDINGS_ATTENTION_INTERNAL_H
#define AISLE_EMBEDDINGS_ATTENTION_INTERNAL_H

#include "embeddings/attention.h"
#include "embeddings/model_file.h"

/* Shared by the forward pass, the writer and the trainer of attention. */
extern const struct model_format attention_format;

enum { /* tensors in the order of the file */
       ATTENTION_QUERY,
       ATTENTION_RECENCY,
       ATTENTION_TYPES,
       ATTENTION_MIX,
       ATTENTION_NEWEST,
       ATTENTION_BIAS,
       ATTENTION_TENSORS,
};
void attention_tensors(const struct attention_settings *settings,
                       struct model_tensor tensors[ATTENTION_TENSORS]);
/* attention_settings_check with another code (FORMAT for files). */
enum status attention_settings_check_as(const struct attention_settings *settings, enum status code,
                                        struct error *err) STATUS_CHECKED;

#endif
