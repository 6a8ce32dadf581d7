#ifndef AISLE_TESTS_TINY_SHOP_H
#define AISLE_TESTS_TINY_SHOP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/file.h"
#include "base/status.h"
#include "core/build_release.h"

/* A shop for tests of whole releases, made in a folder of its own under /tmp: TINY_ITEMS items in
 * TINY_CLUSTERS categories, visitors who stay within one category per session. The last TINY_NEW
 * items have no events; the very last has no category either. */
enum { TINY_ITEMS = 300, TINY_CLUSTERS = 10, TINY_NEW = 20, TINY_DIM = 16 };

struct tiny_shop {
    char dir[64];
    char items[128];
    char events[128];
    char model[128];
    char releases[128];
};

/* Writes items and events; a fault ends the test. Silences logs. */
void tiny_shop_make(struct tiny_shop *shop);
void tiny_shop_remove(struct tiny_shop *shop);
/* One thread, seed 1, few epochs. */
enum status tiny_shop_train(const struct tiny_shop *shop, struct error *err);
/* neighbors.safetensors (vmis) for the model folder, of sessions within one category each, of the
 * folder's first n_rows rows. */
void tiny_shop_add_neighbors(const struct tiny_shop *shop, size_t n_rows);
/* One thread, recall 0.95; from the folder shop->model. */
void tiny_shop_build_config(const struct tiny_shop *shop, struct build_config *config);

/* Whole files and parts of them; a fault ends the test. */
void test_write(const char *dir, const char *name, const void *bytes, size_t n);
void test_write_text(const char *dir, const char *name, const char *text);
/* Buf gives (buf_free). */
void test_read(const char *dir, const char *name, struct buf *out);
bool test_same_file(const char *dir_a, const char *dir_b, const char *name);
/* Copies a release's plain files to an empty folder. */
void test_copy_folder(const char *from, const char *to);
/* Entries of a folder, hidden ones too; 0 if it is not there. */
size_t test_count_entries(const char *dir);

#endif
