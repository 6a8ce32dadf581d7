#include <setjmp.h>
#include <stdarg.h>

#include "tiny_shop.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/rng.h"
#include "core/model_folder.h"
#include "core/train_model.h"
#include "embeddings/neighbors.h"

enum { USERS = 120, SESSIONS_A_USER = 2, EVENTS_A_SESSION = 9, FILE_MAX_BYTES = 1 << 26 };
static const int64_t FIRST_MS = 1700000000000;

static void path_of(char out[PATH_BYTES_MAX], const char *dir, const char *name)
{
    assert_int_equal(path_join(out, dir, name, NULL), STATUS_OK);
}

void test_write(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[PATH_BYTES_MAX];
    path_of(path, dir, name);
    assert_int_equal(file_write_atomic(path, bytes, n, NULL), STATUS_OK);
}

void test_write_text(const char *dir, const char *name, const char *text)
{
    test_write(dir, name, text, strlen(text));
}

void test_read(const char *dir, const char *name, struct buf *out)
{
    char path[PATH_BYTES_MAX];
    path_of(path, dir, name);
    buf_init(out, FILE_MAX_BYTES);
    assert_int_equal(file_read(path, out, NULL), STATUS_OK);
}

bool test_same_file(const char *dir_a, const char *dir_b, const char *name)
{
    struct buf a;
    struct buf b;
    test_read(dir_a, name, &a);
    test_read(dir_b, name, &b);
    bool same = a.len > 0 && a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
    buf_free(&a);
    buf_free(&b);
    return same;
}

void test_copy_folder(const char *from, const char *to)
{
    assert_int_equal(dir_make(to, NULL), STATUS_OK);
    DIR *dir = opendir(from);
    assert_non_null(dir);
    const struct dirent *entry = NULL;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            struct buf bytes;
            test_read(from, entry->d_name, &bytes);
            test_write(to, entry->d_name, bytes.data, bytes.len);
            buf_free(&bytes);
        }
    }
    (void)closedir(dir);
}

size_t test_count_entries(const char *path)
{
    size_t n = 0;
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return 0;
    }
    const struct dirent *entry = NULL;
    while ((entry = readdir(dir)) != NULL) {
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 ? 1 : 0;
    }
    (void)closedir(dir);
    return n;
}

static void write_items(const struct tiny_shop *shop)
{
    struct buf text;
    buf_init(&text, FILE_MAX_BYTES);
    buf_append_text(&text, "id,title,category,price,stock\n");
    for (int i = 0; i < TINY_ITEMS; i++) {
        if (i == TINY_ITEMS - 1) {
            buf_printf(&text, "SKU%03d,Item %d,,%d.50,3\n", i, i, i + 1);
        } else {
            buf_printf(&text, "SKU%03d,Item %d,Shop > Room %d,%d.50,3\n", i, i, i % TINY_CLUSTERS,
                       i + 1);
        }
    }
    test_write(shop->dir, "items.csv", text.data, text.len);
    buf_free(&text);
}

static void write_session(struct buf *text, struct rng *rng, int user, int64_t start_ms)
{
    static const char *const TYPES[] = {"view", "view", "view", "cart", "purchase"};
    int cluster = (int)rng_below(rng, TINY_CLUSTERS);
    for (int e = 0; e < EVENTS_A_SESSION; e++) {
        int per_cluster = (TINY_ITEMS - TINY_NEW) / TINY_CLUSTERS;
        /* Squared: some items are more popular than others. */
        double share = rng_double(rng);
        int item = cluster + TINY_CLUSTERS * (int)(share * share * per_cluster);
        buf_printf(text, "u%d,SKU%03d,%lld,%s\n", user, item,
                   (long long)(start_ms + (int64_t)e * 60000), TYPES[rng_below(rng, 5)]);
    }
}

static void write_events(const struct tiny_shop *shop)
{
    struct buf text;
    struct rng rng;
    rng_init(&rng, 7);
    buf_init(&text, FILE_MAX_BYTES);
    buf_append_text(&text, "user_id,item_id,timestamp,type\n");
    for (int user = 0; user < USERS; user++) {
        for (int s = 0; s < SESSIONS_A_USER; s++) {
            write_session(&text, &rng, user,
                          FIRST_MS + ((int64_t)user * SESSIONS_A_USER + s) * 7200000);
        }
    }
    buf_printf(&text, "u0,GONE,%lld,view\n", (long long)FIRST_MS);
    test_write(shop->dir, "events.csv", text.data, text.len);
    buf_free(&text);
}

void tiny_shop_make(struct tiny_shop *shop)
{
    log_init(LOG_LEVEL_OFF, LOG_FORMAT_TEXT, 2);
    (void)snprintf(shop->dir, sizeof(shop->dir), "/tmp/aisle-tiny-shop-XXXXXX");
    assert_non_null(mkdtemp(shop->dir));
    (void)snprintf(shop->items, sizeof(shop->items), "%s/items.csv", shop->dir);
    (void)snprintf(shop->events, sizeof(shop->events), "%s/events.csv", shop->dir);
    (void)snprintf(shop->model, sizeof(shop->model), "%s/model", shop->dir);
    (void)snprintf(shop->releases, sizeof(shop->releases), "%s/shop", shop->dir);
    write_items(shop);
    write_events(shop);
}

void tiny_shop_remove(struct tiny_shop *shop)
{
    assert_int_equal(dir_remove(shop->dir, NULL), STATUS_OK);
}

enum status tiny_shop_train(const struct tiny_shop *shop, struct error *err)
{
    struct train_config config;
    struct train_result result;
    train_config_default(&config);
    config.items_path = shop->items;
    config.events_path = shop->events;
    config.out_dir = shop->model;
    config.dim = TINY_DIM;
    config.n_epochs = 8;
    config.n_threads = 1;
    config.seed = 1;
    return train_model(&config, &result, err);
}

void tiny_shop_add_neighbors(const struct tiny_shop *shop, size_t n_rows)
{
    enum { SESSIONS = 200, EVENTS = 5 };
    static struct history_event events[SESSIONS * EVENTS];
    static uint64_t offsets[SESSIONS + 1];
    const struct neighbors_blend blend = {.weight = 0.5, .floor = 1e-3};
    struct neighbors_settings settings;
    char path[PATH_BYTES_MAX];
    struct rng rng;
    rng_init(&rng, 9);
    for (size_t s = 0; s < SESSIONS; s++) {
        for (size_t e = 0; e < EVENTS; e++) {
            size_t row = s + TINY_CLUSTERS * (size_t)rng_below(&rng, 8);
            events[s * EVENTS + e] = (struct history_event){
                (uint32_t)(row % n_rows), EVENT_VIEW, FIRST_MS + (int64_t)(s * EVENTS + e) * 60000};
        }
        offsets[s + 1] = (s + 1) * EVENTS;
    }
    const struct event_log log = {.events = events,
                                  .offsets = offsets,
                                  .n_sequences = SESSIONS,
                                  .n_events = (size_t)SESSIONS * EVENTS};
    neighbors_settings_default(NEIGHBORS_VMIS, &settings);
    path_of(path, shop->model, MODEL_FILE_NEIGHBORS);
    assert_int_equal(neighbors_build(&log, n_rows, &settings, &blend, path, NULL), STATUS_OK);
}

void tiny_shop_build_config(const struct tiny_shop *shop, struct build_config *config)
{
    build_config_default(config);
    config->items_path = shop->items;
    config->model_dir = shop->model;
    config->releases = shop->releases;
    config->n_threads = 1;
    config->seed = 1;
}
