#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "store/synth_internal.h"

/* Reads the words of the demonstration shop. They are a data file and not C tables, so that a shop
 * of another kind (or language) is made by editing text. The parsed JSON stays alive and all texts
 * are borrowed from it; only the arrays of pointers and the joined category paths are ours. */

enum { VOCABULARY_MAX_BYTES = 1 << 20, WORDS_MAX = 4096, CATEGORIES_MAX = 1024 };

static const char FILE_NAME[] = "shop.json";

static enum status fault(struct error *err, const char *where, const char *member, const char *what)
{
    return error_set_field(err, STATUS_FORMAT, member, "%s: %s: \"%s\" %s", FILE_NAME, where,
                           member, what);
}

static enum status no_memory(struct error *err)
{
    return error_set(err, STATUS_NOMEM, "%s: no memory", FILE_NAME);
}

static enum status get_text(const cJSON *object, const char *where, const char *member,
                            const char **out, struct error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, member);
    if (!cJSON_IsString(value) || value->valuestring[0] == '\0') {
        return fault(err, where, member, "is not a text");
    }
    *out = value->valuestring;
    return STATUS_OK;
}

static enum status get_words(struct vocabulary *vocabulary, const cJSON *list, const char *where,
                             const char *member, struct word_list *out, struct error *err)
{
    const cJSON *word = NULL;
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : -1;
    if (n < 0 || n > WORDS_MAX) {
        return fault(err, where, member, "is not a list of words");
    }
    const char ***owned =
        mem_realloc_array(vocabulary->owned, vocabulary->n_owned + 1, sizeof *owned);
    if (owned == NULL) {
        return no_memory(err);
    }
    vocabulary->owned = owned;
    const char **words = mem_alloc_array((size_t)n, sizeof *words);
    if (words == NULL) {
        return no_memory(err);
    }
    vocabulary->owned[vocabulary->n_owned++] = words;
    out->words = words;
    out->n = 0;
    cJSON_ArrayForEach (word, list) {
        if (!cJSON_IsString(word) || word->valuestring[0] == '\0') {
            return fault(err, where, member, "holds something that is not a word");
        }
        words[out->n++] = word->valuestring;
    }
    return STATUS_OK;
}

static enum status get_some_words(struct vocabulary *vocabulary, const cJSON *object,
                                  const char *where, const char *member, struct word_list *out,
                                  struct error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, member);
    enum status status = get_words(vocabulary, list, where, member, out, err);
    return status == STATUS_OK && out->n == 0 ? fault(err, where, member, "is empty") : status;
}

/* A category's own list, or the department's. */
static enum status get_own_words(struct vocabulary *vocabulary, const cJSON *object,
                                 const char *member, const struct word_list *otherwise,
                                 struct word_list *out, struct error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, member);
    if (list == NULL) {
        *out = *otherwise;
        return STATUS_OK;
    }
    const cJSON *code = cJSON_GetObjectItemCaseSensitive(object, "code");
    return get_words(vocabulary, list, code->valuestring, member, out, err);
}

static enum status get_numbers(const cJSON *object, struct vocabulary_category *out,
                               struct error *err)
{
    const cJSON *price = cJSON_GetObjectItemCaseSensitive(object, "price");
    const cJSON *median = cJSON_IsArray(price) ? cJSON_GetArrayItem(price, 0) : NULL;
    const cJSON *sigma = cJSON_IsArray(price) ? cJSON_GetArrayItem(price, 1) : NULL;
    const cJSON *weight = cJSON_GetObjectItemCaseSensitive(object, "weight");
    if (median == NULL || sigma == NULL || !cJSON_IsNumber(median) || !cJSON_IsNumber(sigma) ||
        !(median->valuedouble > 0.0) || !(sigma->valuedouble >= 0.0) || median->valuedouble > 1e6 ||
        sigma->valuedouble > 3.0) {
        return fault(err, out->code, "price", "is not [median, sigma]");
    }
    if (!cJSON_IsNumber(weight) || !(weight->valuedouble > 0.0) || weight->valuedouble > 1e6) {
        return fault(err, out->code, "weight", "is not a positive number");
    }
    out->price_median = median->valuedouble;
    out->price_sigma = sigma->valuedouble;
    out->weight = weight->valuedouble;
    return STATUS_OK;
}

static enum status get_goes_with(const cJSON *object, struct vocabulary_category *out,
                                 struct error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, "goes_with");
    const cJSON *code = NULL;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > SYNTH_GOES_WITH_MAX) {
        return fault(err, out->code, "goes_with", "is not a list of up to four codes");
    }
    cJSON_ArrayForEach (code, list) {
        if (!cJSON_IsString(code)) {
            return fault(err, out->code, "goes_with", "is not a list of codes");
        }
        out->goes_with_codes[out->n_goes_with++] = code->valuestring;
    }
    return STATUS_OK;
}

static enum status join_path(const char *department, const char *path, char **out,
                             struct error *err)
{
    struct buf text;
    buf_init(&text, VOCABULARY_MAX_BYTES);
    buf_printf(&text, "%s > %s", department, path);
    *out = text.status == STATUS_OK ? mem_strdup(buf_text(&text)) : NULL;
    buf_free(&text);
    return *out != NULL ? STATUS_OK : no_memory(err);
}

static enum status get_category(struct vocabulary *vocabulary, const cJSON *object,
                                struct error *err)
{
    size_t d = vocabulary->n_departments - 1;
    const struct vocabulary_department *department = &vocabulary->departments[d];
    struct vocabulary_category *out = &vocabulary->categories[vocabulary->n_categories];
    const struct word_list none = {NULL, 0};
    const char *code = NULL;
    const char *path = NULL;
    enum status status = get_text(object, department->name, "code", &code, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (strlen(code) != SYNTH_CODE_BYTES - 1) {
        return fault(err, department->name, "code", "is not three letters");
    }
    memset(out, 0, sizeof *out);
    memcpy(out->code, code, sizeof out->code);
    out->department = d;
    vocabulary->n_categories++;
    status = get_text(object, code, "path", &path, err);
    if (status == STATUS_OK) {
        status = join_path(department->name, path, &out->path, err);
    }
    if (status == STATUS_OK) {
        status = get_numbers(object, out, err);
    }
    if (status == STATUS_OK) {
        status = get_goes_with(object, out, err);
    }
    if (status == STATUS_OK) {
        status = get_some_words(vocabulary, object, code, "nouns", &out->nouns, err);
    }
    if (status == STATUS_OK) {
        status = get_own_words(vocabulary, object, "materials", &department->materials,
                               &out->materials, err);
    }
    if (status == STATUS_OK) {
        status =
            get_own_words(vocabulary, object, "colours", &department->colours, &out->colours, err);
    }
    if (status == STATUS_OK) {
        status = get_own_words(vocabulary, object, "sizes", &none, &out->sizes, err);
    }
    return status;
}

static enum status get_categories(struct vocabulary *vocabulary, const cJSON *list,
                                  const char *where, struct error *err)
{
    const cJSON *entry = NULL;
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    if (n < 1 || vocabulary->n_categories + (size_t)n > CATEGORIES_MAX) {
        return fault(err, where, "categories", "is empty, too long or no list");
    }
    struct vocabulary_category *grown = mem_realloc_array(
        vocabulary->categories, vocabulary->n_categories + (size_t)n, sizeof *grown);
    if (grown == NULL) {
        return no_memory(err);
    }
    vocabulary->categories = grown;
    cJSON_ArrayForEach (entry, list) {
        enum status status = get_category(vocabulary, entry, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status get_department(struct vocabulary *vocabulary, const cJSON *object,
                                  struct error *err)
{
    struct vocabulary_department *out = &vocabulary->departments[vocabulary->n_departments];
    memset(out, 0, sizeof *out);
    out->first_category = vocabulary->n_categories;
    vocabulary->n_departments++;
    enum status status = get_text(object, "departments", "name", &out->name, err);
    const cJSON *colours = cJSON_GetObjectItemCaseSensitive(object, "colours");
    if (status == STATUS_OK) {
        status = get_some_words(vocabulary, object, out->name, "adjectives", &out->adjectives, err);
    }
    if (status == STATUS_OK) {
        status = get_some_words(vocabulary, object, out->name, "materials", &out->materials, err);
    }
    if (status == STATUS_OK) {
        status = get_some_words(vocabulary, object, out->name, "brands", &out->brands, err);
    }
    if (status == STATUS_OK) {
        status = get_words(vocabulary, colours, out->name, "colours", &out->colours, err);
    }
    if (status == STATUS_OK) {
        status = get_categories(vocabulary, cJSON_GetObjectItemCaseSensitive(object, "categories"),
                                out->name, err);
    }
    out->n_categories = vocabulary->n_categories - out->first_category;
    return status;
}

/* Codes → numbers; a code given twice is refused. */
static enum status resolve_codes(struct vocabulary *vocabulary, struct error *err)
{
    size_t n = vocabulary->n_categories;
    for (size_t i = 0; i < n; i++) {
        struct vocabulary_category *category = &vocabulary->categories[i];
        for (size_t k = 0; k < i; k++) {
            if (strcmp(vocabulary->categories[k].code, category->code) == 0) {
                return fault(err, category->code, "code", "is given twice");
            }
        }
        for (size_t g = 0; g < category->n_goes_with; g++) {
            size_t k = 0;
            while (k < n &&
                   strcmp(vocabulary->categories[k].code, category->goes_with_codes[g]) != 0) {
                k++;
            }
            if (k == n || k == i) {
                return fault(err, category->code, "goes_with", "names no other category");
            }
            category->goes_with[g] = k;
        }
    }
    return STATUS_OK;
}

static enum status get_all(struct vocabulary *vocabulary, struct error *err)
{
    const cJSON *root = vocabulary->tree;
    const cJSON *departments = cJSON_GetObjectItemCaseSensitive(root, "departments");
    const cJSON *entry = NULL;
    enum status status = get_text(root, "top level", "currency", &vocabulary->currency, err);
    if (status == STATUS_OK) {
        status = get_some_words(vocabulary, root, "top level", "collections",
                                &vocabulary->collections, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    int n = cJSON_IsArray(departments) ? cJSON_GetArraySize(departments) : 0;
    if (n < 1 || n > CATEGORIES_MAX) {
        return fault(err, "top level", "departments", "is empty, too long or no list");
    }
    vocabulary->departments = mem_calloc((size_t)n, sizeof *vocabulary->departments);
    if (vocabulary->departments == NULL) {
        return no_memory(err);
    }
    cJSON_ArrayForEach (entry, departments) {
        status = get_department(vocabulary, entry, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return resolve_codes(vocabulary, err);
}

enum status vocabulary_load(const char *dir, struct vocabulary *out, struct error *err)
{
    char path[PATH_BYTES_MAX];
    struct buf text;
    memset(out, 0, sizeof *out);
    buf_init(&text, VOCABULARY_MAX_BYTES);
    enum status status = path_join(path, dir, FILE_NAME, err);
    if (status == STATUS_OK) {
        status = file_read(path, &text, err);
    }
    if (status == STATUS_OK) {
        out->tree = cJSON_ParseWithLength(buf_text(&text), text.len);
        status = out->tree != NULL ? get_all(out, err)
                                   : error_set(err, STATUS_FORMAT, "%s: not JSON", path);
    }
    buf_free(&text);
    if (status != STATUS_OK) {
        vocabulary_free(out);
    }
    return status;
}

void vocabulary_free(struct vocabulary *vocabulary)
{
    for (size_t i = 0; i < vocabulary->n_owned; i++) {
        mem_free(vocabulary->owned[i]);
    }
    mem_free(vocabulary->owned);
    for (size_t i = 0; i < vocabulary->n_categories; i++) {
        mem_free(vocabulary->categories[i].path);
    }
    mem_free(vocabulary->categories);
    mem_free(vocabulary->departments);
    cJSON_Delete(vocabulary->tree);
    memset(vocabulary, 0, sizeof *vocabulary);
}
