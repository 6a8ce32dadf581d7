#include "core_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "core/engine_internal.h"
#include "store/release.h"

static const char *const CATEGORIES[] = {"Home",
                                         "Home > Lighting",
                                         "Home > Lighting > Lanterns",
                                         "Home > Lighting > Lamps",
                                         "Home > Lightings",
                                         "Garden",
                                         "Garden > Tools",
                                         "Toys & Games"};
static const char *const BRANDS[] = {"Acme", "Nordlys", "Ünïque \"B\"", "Zest"};
static const char *const COLORS[] = {"red", "green", "blue"};
enum { N_CATEGORIES = 8, N_BRANDS = 4, N_COLORS = 3, N_CLUSTERS = 12, N_PROBES = 4 };

static void must(enum status status, const struct error *err, const char *what)
{
    if (status != STATUS_OK) {
        fail_msg("%s: %s: %s", what, status_text(status), err->message);
    }
}

static const char *maybe(struct rng *rng, const char *const *texts, size_t n)
{
    return rng_below(rng, 8) == 0 ? NULL : texts[rng_below(rng, n)];
}

static double maybe_number(struct rng *rng, uint64_t n)
{
    return rng_below(rng, 8) == 0 ? (double)NAN : (double)rng_below(rng, n);
}

static void make_items(struct core_fixture *shop)
{
    struct rng *rng = &shop->rng;
    shop->items = mem_calloc(shop->n, sizeof(*shop->items));
    assert_non_null(shop->items);
    for (size_t i = 0; i < shop->n; i++) {
        struct shop_item *item = &shop->items[i];
        (void)snprintf(item->id, sizeof(item->id), "I%zu", i);
        (void)snprintf(item->title, sizeof(item->title), "Item no. %zu", i);
        item->category = maybe(rng, CATEGORIES, N_CATEGORIES);
        item->brand = maybe(rng, BRANDS, N_BRANDS);
        item->color = maybe(rng, COLORS, N_COLORS);
        item->price = maybe_number(rng, 100);
        item->stock = maybe_number(rng, 4);
        item->size = maybe_number(rng, 12);
        item->eco = maybe_number(rng, 2);
        item->created_at_ms = rng_below(rng, 8) == 0
                                  ? (double)NAN
                                  : (double)(SHOP_START_MS + SHOP_DAY_MS * (int64_t)(i % 100));
        item->popularity = (double)rng_below(rng, 5) / (double)(1 + i);
    }
}

static void make_vectors(struct core_fixture *shop, const struct core_fixture_config *config)
{
    float centres[N_CLUSTERS * SHOP_DIM];
    for (size_t i = 0; i < (size_t)N_CLUSTERS * SHOP_DIM; i++) {
        centres[i] = (float)rng_normal(&shop->rng);
    }
    shop->vectors = mem_alloc_vectors(shop->n * shop->dim, sizeof(float));
    assert_non_null(shop->vectors);
    for (size_t i = 0; i < shop->n; i++) {
        float *vector = shop->vectors + i * shop->dim;
        const float *centre = centres + rng_below(&shop->rng, N_CLUSTERS) * shop->dim;
        for (size_t d = 0; d < shop->dim; d++) {
            vector[d] = centre[d] + (float)(0.5 * rng_normal(&shop->rng));
        }
        float length = 1.0F;
        if (config->length_max > 1.0) {
            length += (float)(rng_double(&shop->rng) * (config->length_max - 1.0));
        }
        length = i + config->n_zero < shop->n ? length : 0.0F;
        float norm = vector_norm(vector, shop->dim);
        for (size_t d = 0; d < shop->dim; d++) {
            vector[d] *= length / norm;
        }
    }
}

static void write_catalog(const struct core_fixture *shop, const char *path)
{
    struct catalog_writer *writer = NULL;
    struct error err = {.message = ""};
    must(catalog_writer_open(path, &writer, &err), &err, "catalogue");
    for (size_t i = 0; i < shop->n; i++) {
        const struct shop_item *from = &shop->items[i];
        char size[32];
        struct item_attribute attributes[3];
        size_t n = 0;
        (void)snprintf(size, sizeof(size), "%.0f", from->size);
        if (from->color != NULL) {
            attributes[n++] = (struct item_attribute){"color", ATTRIBUTE_TEXT, from->color, 0.0};
        }
        if (!isnan(from->size)) {
            attributes[n++] = (struct item_attribute){"size", ATTRIBUTE_NUMBER, size, from->size};
        }
        if (!isnan(from->eco)) {
            attributes[n++] = (struct item_attribute){
                "eco", ATTRIBUTE_BOOL, from->eco > 0.0 ? "true" : "false", from->eco};
        }
        struct item item = {
            .id = from->id,
            .title = from->title,
            .category = from->category,
            .brand = from->brand,
            .currency = "GBP",
            .price = from->price,
            .stock = from->stock,
            .created_at_ms = from->created_at_ms,
            .attributes = attributes,
            .n_attributes = n,
        };
        must(catalog_writer_add(writer, &item, from->popularity, &err), &err, from->id);
    }
    must(catalog_writer_finish(writer, &err), &err, "catalogue");
}

static const char *file_in(const char *dir, const char *name, char path[PATH_BYTES_MAX])
{
    struct error err;
    must(path_join(path, dir, name, &err), &err, name);
    return path;
}

static void write_numbers(struct core_fixture *shop, const struct release_draft *draft,
                          const char *factory, struct manifest *manifest)
{
    char path[PATH_BYTES_MAX];
    struct error err = {.message = ""};
    struct tensor_to_write tensor = {
        "item_vectors", TENSOR_F32, 2, {shop->n, shop->dim}, shop->vectors};
    must(safetensors_write(file_in(draft->dir, RELEASE_FILE_VECTORS, path), &tensor, 1, NULL, 0,
                           &err),
         &err, "vectors");
    struct decay_settings settings;
    decay_settings_default(&settings);
    must(decay_model_write(file_in(draft->dir, RELEASE_FILE_MODEL, path), shop->dim, &settings,
                           &err),
         &err, "model");
    struct vectors vectors = {shop->vectors, shop->n, shop->dim, VECTOR_F32};
    struct vector_index_build_config config = {.vectors = &vectors,
                                               .factory = factory,
                                               .recall_k = 20,
                                               .target_recall = 0.8,
                                               .n_threads = 1,
                                               .seed = 1};
    struct vector_index_measured measured;
    must(
        vector_index_build(&config, file_in(draft->dir, RELEASE_FILE_INDEX, path), &measured, &err),
        &err, factory);
    (void)snprintf(manifest->index_factory, sizeof(manifest->index_factory), "%s",
                   measured.factory);
    (void)snprintf(manifest->index_parameters, sizeof(manifest->index_parameters), "%s",
                   measured.search_parameters);
}

/* Sessions of 2 to 6 events, as many as items; what stands close in rows is met together. */
static void write_neighbors(struct core_fixture *shop, const struct release_draft *draft,
                            const struct neighbors_blend *blend)
{
    enum { EVENTS_MAX = 6 };
    char path[PATH_BYTES_MAX];
    struct error err = {.message = ""};
    struct neighbors_settings settings;
    struct event_log log = {.n_sequences = shop->n};
    log.events = mem_alloc_array(shop->n * EVENTS_MAX, sizeof(*log.events));
    log.offsets = mem_calloc(shop->n + 1, sizeof(*log.offsets));
    assert_true(log.events != NULL && log.offsets != NULL);
    for (size_t s = 0; s < shop->n; s++) {
        size_t n = 2 + (size_t)rng_below(&shop->rng, EVENTS_MAX - 1);
        for (size_t e = 0; e < n; e++) {
            log.events[log.n_events++] = (struct history_event){
                (uint32_t)((s + rng_below(&shop->rng, 20)) % shop->n), EVENT_VIEW,
                SHOP_START_MS + (int64_t)(s * EVENTS_MAX + e) * 60000};
        }
        log.offsets[s + 1] = log.n_events;
    }
    neighbors_settings_default(NEIGHBORS_VMIS, &settings);
    must(neighbors_build(&log, shop->n, &settings, blend,
                         file_in(draft->dir, RELEASE_FILE_NEIGHBORS, path), &err),
         &err, "neighbours");
    event_log_free(&log);
}

static void write_probes(const struct core_fixture *shop, const struct release_draft *draft,
                         const struct manifest *manifest)
{
    char path[PATH_BYTES_MAX];
    struct error err = {.message = ""};
    struct engine *engine = NULL;
    struct history_event events[N_PROBES];
    struct probe_history probes[N_PROBES];
    must(engine_open_draft(draft->dir, manifest, &engine, &err), &err, "draft");
    for (size_t i = 0; i < N_PROBES; i++) {
        uint32_t row = (uint32_t)(i * 7 % shop->n);
        events[i] = (struct history_event){row, EVENT_VIEW, SHOP_START_MS - (int64_t)i};
        probes[i] = (struct probe_history){events, i + 1, SHOP_START_MS};
    }
    must(probes_write(engine, file_in(draft->dir, RELEASE_FILE_PROBES, path), probes, N_PROBES,
                      &err),
         &err, "probes");
    engine_close(engine);
}

static void publish(struct core_fixture *shop, const struct core_fixture_config *config)
{
    char path[PATH_BYTES_MAX];
    struct error err = {.message = ""};
    struct release_draft draft;
    struct manifest manifest;
    must(release_draft_open(shop->dir, &draft, &err), &err, "draft");
    manifest_init(&manifest);
    manifest.n_items = shop->n;
    manifest.dim = shop->dim;
    (void)snprintf(manifest.vector_type, sizeof(manifest.vector_type), "F32");
    (void)snprintf(manifest.architecture, sizeof(manifest.architecture), "decay");
    write_catalog(shop, file_in(draft.dir, RELEASE_FILE_ITEMS, path));
    write_numbers(shop, &draft, config->index_factory, &manifest);
    if (config->blend != NULL) {
        write_neighbors(shop, &draft, config->blend);
    }
    write_probes(shop, &draft, &manifest);
    must(release_draft_commit(&draft, &manifest, &err), &err, "commit");
    must(release_dir(shop->dir, manifest.version, shop->release_dir, &err), &err, "release");
    manifest_free(&manifest);
}

static void write_profiles(const struct core_fixture *shop, char dir[PATH_BYTES_MAX])
{
    static const char plain[] = "{\"weights\": {\"similarity\": 1}}";
    static const char mixed[] =
        "{\"weights\": {\"similarity\": 1, \"popularity\": 0.3, \"freshness\": 0.2, \"in_stock\": "
        "0.5}, \"freshness_half_life_days\": 20, \"candidates\": 50}";
    static const char all[] = "{\"weights\": {\"similarity\": 1}, \"candidates\": 2000}";
    static const char few[] =
        "{\"weights\": {\"similarity\": 1}, \"candidates\": 4, \"neighbor_candidates\": 2}";
    static const char alone[] = "{\"weights\": {\"similarity\": 1}, \"neighbor_candidates\": 0}";
    char path[PATH_BYTES_MAX];
    struct error err;
    must(path_join(dir, shop->dir, "profiles", &err), &err, "profiles");
    must(dir_make(dir, &err), &err, dir);
    const struct {
        const char *name;
        const char *text;
    } files[] = {{"plain.json", plain},
                 {"mixed.json", mixed},
                 {"all.json", all},
                 {"few.json", few},
                 {"alone.json", alone}};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        must(file_write_atomic(file_in(dir, files[i].name, path), files[i].text,
                               strlen(files[i].text), &err),
             &err, path);
    }
}

void core_fixture_open(struct core_fixture *shop, size_t n_items, const char *index_factory,
                       uint64_t seed)
{
    struct core_fixture_config config = {
        .n_items = n_items, .index_factory = index_factory, .seed = seed};
    core_fixture_open_with(shop, &config);
}

void core_fixture_open_with(struct core_fixture *shop, const struct core_fixture_config *config)
{
    char profiles[PATH_BYTES_MAX];
    struct error err = {.message = ""};
    memset(shop, 0, sizeof(*shop));
    shop->n = config->n_items;
    shop->dim = SHOP_DIM;
    rng_init(&shop->rng, config->seed);
    (void)snprintf(shop->dir, sizeof(shop->dir), "/tmp/aisle-core-XXXXXX");
    assert_non_null(mkdtemp(shop->dir));
    make_items(shop);
    make_vectors(shop, config);
    publish(shop, config);
    struct engine_config engine = {.release_dir = shop->release_dir};
    must(engine_open(&engine, &shop->engine, &err), &err, "engine");
    write_profiles(shop, profiles);
    must(profile_set_load(profiles, &shop->profiles, &err), &err, "profiles");
    struct recommender_config recommender = {shop->engine, &shop->profiles, SHOP_BATCH, 1};
    must(recommender_open(&recommender, &shop->recommender, &err), &err, "recommender");
    arena_init(&shop->arena, 64 << 10, 16 << 20);
}

void core_fixture_close(struct core_fixture *shop)
{
    struct error err;
    arena_free(&shop->arena);
    recommender_close(shop->recommender);
    profile_set_free(&shop->profiles);
    engine_close(shop->engine);
    mem_free(shop->vectors);
    mem_free(shop->items);
    must(dir_remove(shop->dir, &err), &err, shop->dir);
}

void core_fixture_job(struct core_fixture *shop, struct recommend_job *job,
                      const struct recommend_request *request)
{
    arena_reset(&shop->arena);
    *job = (struct recommend_job){.request = request, .arena = &shop->arena};
}

struct history_result core_fixture_history(const struct core_fixture *shop, const uint32_t *rows,
                                           size_t n, enum event_type type,
                                           struct history_item *items)
{
    int64_t now_ms = clock_unix_ms();
    for (size_t i = 0; i < n; i++) {
        const char *id = shop->items[rows[i]].id;
        items[i] =
            (struct history_item){id, strlen(id), type, now_ms - (int64_t)i * SHOP_DAY_MS / 4};
    }
    return (struct history_result){.status = STATUS_OK, .items = items, .n_items = n};
}

void core_fixture_recommend(struct core_fixture *shop, struct recommend_job *job,
                            const struct recommend_request *request,
                            const struct history_result *history)
{
    struct error err = {.message = ""};
    core_fixture_job(shop, job, request);
    must(recommend_one(shop->recommender, job, history, &err), &err, "recommend");
}

/* ---- random filters ---- */

static double number_of(const struct shop_item *item, size_t field)
{
    const double numbers[] = {item->price, item->stock, item->size, item->created_at_ms};
    return numbers[field];
}

static bool compare(size_t op, double a, double b)
{
    switch (op) {
    case 0:
        return a == b;
    case 1:
        return !(a == b);
    case 2:
        return a < b;
    case 3:
        return a <= b;
    case 4:
        return a > b;
    default:
        return a >= b;
    }
}

static void number_condition(struct core_fixture *shop, struct buf *json, bool *matches)
{
    static const char *const fields[] = {"price", "stock", "attributes.size", "created_at"};
    static const double ranges[] = {100.0, 4.0, 12.0, 100.0};
    static const char *const ops[] = {"eq", "ne", "lt", "lte", "gt", "gte"};
    size_t field = (size_t)rng_below(&shop->rng, 4);
    size_t op = (size_t)rng_below(&shop->rng, 6);
    double value = floor(rng_double(&shop->rng) * ranges[field]);
    if (field == 3) {
        value = (double)SHOP_START_MS + value * (double)SHOP_DAY_MS;
    }
    buf_printf(json, "{\"field\":\"%s\",\"%s\":%.0f}", fields[field], ops[op], value);
    for (size_t i = 0; i < shop->n; i++) {
        matches[i] = compare(op, number_of(&shop->items[i], field), value);
    }
}

static bool is_under(const char *path, const char *top)
{
    size_t len = strlen(top);
    return path != NULL && strncmp(path, top, len) == 0 &&
           (path[len] == '\0' || strncmp(path + len, " > ", 3) == 0);
}

static void text_condition(struct core_fixture *shop, struct buf *json, bool *matches)
{
    size_t kind = (size_t)rng_below(&shop->rng, 4);
    const char *category = CATEGORIES[rng_below(&shop->rng, N_CATEGORIES)];
    const char *color = COLORS[rng_below(&shop->rng, N_COLORS)];
    const char *other = COLORS[rng_below(&shop->rng, N_COLORS)];
    if (kind == 0) {
        buf_printf(json, "{\"field\":\"category\",\"under\":\"%s\"}", category);
    } else if (kind == 1) {
        buf_printf(json, "{\"field\":\"category\",\"ne\":\"%s\"}", category);
    } else if (kind == 2) {
        buf_printf(json, "{\"field\":\"attributes.color\",\"in\":[\"%s\",\"none\",\"%s\"]}", color,
                   other);
    } else {
        buf_printf(json, "{\"field\":\"attributes.color\",\"eq\":\"%s\"}", color);
    }
    for (size_t i = 0; i < shop->n; i++) {
        const struct shop_item *item = &shop->items[i];
        bool same = item->color != NULL && strcmp(item->color, color) == 0;
        bool also = item->color != NULL && strcmp(item->color, other) == 0;
        matches[i] = kind == 0   ? is_under(item->category, category)
                     : kind == 1 ? item->category == NULL || strcmp(item->category, category) != 0
                     : kind == 2 ? same || also
                                 : same;
    }
}

static void presence_condition(struct core_fixture *shop, struct buf *json, bool *matches)
{
    bool wanted = rng_below(&shop->rng, 2) == 0;
    bool brand = rng_below(&shop->rng, 2) == 0;
    buf_printf(json, "{\"field\":\"%s\",\"exists\":%s}", brand ? "brand" : "attributes.eco",
               wanted ? "true" : "false");
    for (size_t i = 0; i < shop->n; i++) {
        bool there = brand ? shop->items[i].brand != NULL : !isnan(shop->items[i].eco);
        matches[i] = there == wanted;
    }
}

static void random_filter(struct core_fixture *shop, struct buf *json, bool *matches, int depth)
{
    static const char *const names[] = {"all", "any", "not"};
    uint64_t kind = rng_below(&shop->rng, depth > 0 ? 6 : 3);
    if (kind == 0) {
        number_condition(shop, json, matches);
        return;
    }
    if (kind == 1) {
        text_condition(shop, json, matches);
        return;
    }
    if (kind == 2) {
        presence_condition(shop, json, matches);
        return;
    }
    bool *child = mem_calloc(shop->n, sizeof(*child));
    assert_non_null(child);
    uint64_t n = kind == 5 ? 1 : rng_below(&shop->rng, 4);
    for (size_t i = 0; i < shop->n; i++) {
        matches[i] = kind == 3;
    }
    buf_printf(json, "{\"%s\":%s", names[kind - 3], kind == 5 ? "" : "[");
    for (uint64_t c = 0; c < n; c++) {
        buf_append_text(json, c > 0 ? "," : "");
        random_filter(shop, json, child, depth - 1);
        for (size_t i = 0; i < shop->n; i++) {
            matches[i] = kind == 3   ? matches[i] && child[i]
                         : kind == 4 ? matches[i] || child[i]
                                     : !child[i];
        }
    }
    buf_append_text(json, kind == 5 ? "}" : "]}");
    mem_free(child);
}

void core_fixture_random_filter(struct core_fixture *shop, struct buf *json, bool *matches)
{
    random_filter(shop, json, matches, 3);
}
