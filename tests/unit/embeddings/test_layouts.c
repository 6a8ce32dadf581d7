#include "embeddings/layouts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "embeddings/user_model.h"

/* The files of tests/golden/make_layouts.py, whole and with one thing wrong. */
enum {
    ITEMS = 12,
    DIM = 8,
    HISTORY = 6,
    USERS = 6,
    EVENTS_MAX = 8,
    TENSORS_MAX = 48,
    NAME_MAX_BYTES = 96
};
static const double TOLERANCE = 1e-5;

struct golden {
    const char *layout;
    const char *file;
    const char *prefix;
    const char *positions; /* its table, whose rows may be any number; or NULL */
};
static const struct golden GOLDEN[] = {
    {"sasrec-pytorch", "layout_sasrec_pytorch", "", "pos_emb.weight"},
    {"s3rec", "layout_s3rec", "", "position_embeddings.weight"},
    {"recbole-sasrec", "layout_recbole_sasrec", "model.", "position_embedding.weight"},
    {"recbole-gru4rec", "layout_recbole_gru4rec", "module.", NULL},
    {"recbole-gru4rec", "layout_recbole_gru4rec_bias", "", NULL},
};
enum {
    N_GOLDEN = sizeof(GOLDEN) / sizeof(GOLDEN[0]),
    PYTORCH = 0,
    S3REC = 1,
    RECBOLE = 2,
    GRU = 3
};

static struct safetensors *file;
static struct layout_model model;
static struct error err;
static char path[64];

/* A file's tensors, to be changed and written. */
static struct tensor_to_write tensors[TENSORS_MAX];
static float *copies[TENSORS_MAX];
static size_t n_tensors;

static void open_golden(const struct golden *golden)
{
    char name[512];
    (void)snprintf(name, sizeof(name), "%s/%s.safetensors", AISLE_TEST_GOLDEN, golden->file);
    if (safetensors_open(name, &file, &err) != STATUS_OK) {
        fail_msg("%s: %s", name, err.message);
    }
}

static struct layout_config config_of(const struct golden *golden)
{
    const struct layout_config config = {
        .layout = golden->layout,
        .n_items = ITEMS,
        .n_heads = strcmp(golden->layout, "sasrec-pytorch") == 0 ? 2 : 0,
        .history_max = strcmp(golden->layout, "recbole-gru4rec") == 0 ? HISTORY : 0,
    };
    return config;
}

static void close_all(void)
{
    layout_model_free(&model);
    safetensors_close(file);
    file = NULL;
    for (size_t i = 0; i < n_tensors; i++) {
        mem_free(copies[i]);
    }
    n_tensors = 0;
}

static int setup(void **state)
{
    (void)state;
    memset(&err, 0, sizeof(err));
    (void)snprintf(path, sizeof(path), "/tmp/aisle-layout-XXXXXX");
    const int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    return close(descriptor);
}

static int teardown(void **state)
{
    (void)state;
    close_all();
    return unlink(path);
}

/* Copies of all tensors of a golden file. */
static void copy_golden(const struct golden *golden)
{
    close_all();
    open_golden(golden);
    n_tensors = safetensors_count(file);
    assert_true(n_tensors <= TENSORS_MAX);
    for (size_t i = 0; i < n_tensors; i++) {
        const struct tensor *tensor = safetensors_at(file, i);
        copies[i] = mem_alloc(tensor->n_bytes);
        assert_non_null(copies[i]);
        memcpy(copies[i], tensor->data, tensor->n_bytes);
        tensors[i] = (struct tensor_to_write){
            .name = tensor->name, .type = tensor->type, .rank = tensor->rank, .data = copies[i]};
        memcpy(tensors[i].shape, tensor->shape, sizeof(tensor->shape));
    }
}

static bool is_of_layout(size_t i)
{
    return strstr(tensors[i].name, "golden.") == NULL;
}

static size_t find_copy(const char *name)
{
    for (size_t i = 0; i < n_tensors; i++) {
        if (strcmp(tensors[i].name, name) == 0) {
            return i;
        }
    }
    fail_msg("%s is not in the file", name);
    return 0;
}

/* Writes the copies but `left_out` (SIZE_MAX: all) and reads that file by the layout. */
static enum status read_changed(const struct layout_config *config, size_t left_out)
{
    static struct tensor_to_write kept[TENSORS_MAX];
    struct safetensors *changed = NULL;
    size_t n = 0;
    for (size_t i = 0; i < n_tensors; i++) {
        if (i != left_out) {
            kept[n++] = tensors[i];
        }
    }
    assert_int_equal(safetensors_write(path, kept, n, NULL, 0, &err), STATUS_OK);
    assert_int_equal(safetensors_open(path, &changed, &err), STATUS_OK);
    layout_model_free(&model);
    memset(&err, 0, sizeof(err));
    const enum status status = layout_read(changed, config, &model, &err);
    model.file = NULL;
    safetensors_close(changed);
    if (status != STATUS_OK) {
        assert_null(model.values);
        assert_int_equal(model.vectors.n, 0);
        assert_int_equal(err.code, status);
    }
    return status;
}

static void assert_says(const char *text)
{
    if (strstr(err.message, text) == NULL) {
        fail_msg("\"%s\" is not in \"%s\"", text, err.message);
    }
}

/* ---- parity ---- */

/* Histories of the file as a batch, newest first. */
static void golden_batch(const struct golden *golden, struct history_event *events,
                         uint32_t *offsets)
{
    char name[NAME_MAX_BYTES];
    (void)snprintf(name, sizeof(name), "%sgolden.histories", golden->prefix);
    const struct tensor *tensor = safetensors_find(file, name);
    assert_non_null(tensor);
    assert_int_equal(tensor->n_values, USERS * EVENTS_MAX);
    size_t n = 0;
    offsets[0] = 0;
    for (size_t u = 0; u < USERS; u++) {
        for (size_t j = EVENTS_MAX; j-- > 0;) {
            int32_t item = 0;
            memcpy(&item, (const char *)tensor->data + (u * EVENTS_MAX + j) * sizeof(item),
                   sizeof(item));
            if (item > 0) {
                events[n++] =
                    (struct history_event){(uint32_t)item - 1, EVENT_VIEW, EVENT_TIME_UNKNOWN};
            }
        }
        offsets[u + 1] = (uint32_t)n;
    }
}

/* Embeds the golden histories by the model file at `path`; returns the largest difference from the
 * golden users over the largest value. */
static double worst_difference(const struct golden *golden, const struct vectors *items)
{
    struct history_event events[USERS * EVENTS_MAX];
    uint32_t offsets[USERS + 1];
    float users[USERS * DIM];
    float wanted[USERS * DIM];
    char name[NAME_MAX_BYTES];
    const uint64_t shape[] = {USERS, DIM};
    struct user_model *user_model = NULL;
    struct user_model_workspace *workspace = NULL;
    double worst = 0.0;
    double largest = 0.0;
    if (user_model_open(path, items, &user_model, &err) != STATUS_OK ||
        user_model_workspace_open(user_model, USERS, &workspace, &err) != STATUS_OK) {
        fail_msg("%s: %s", golden->file, err.message);
    }
    golden_batch(golden, events, offsets);
    user_model_embed(
        user_model, workspace,
        &(struct history_batch){.n_users = USERS, .offsets = offsets, .events = events}, users);
    user_model_workspace_close(workspace);
    user_model_close(user_model);
    (void)snprintf(name, sizeof(name), "%sgolden.users", golden->prefix);
    assert_int_equal(safetensors_read_f32(file, name, shape, 2, wanted, &err), STATUS_OK);
    for (size_t i = 0; i < USERS * DIM; i++) {
        worst = fmax(worst, fabs((double)users[i] - (double)wanted[i]));
        largest = fmax(largest, fabs((double)wanted[i]));
    }
    return worst / largest;
}

static void layout_read_golden_files_give_the_users_of_pytorch(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++) {
        const struct layout_config config = config_of(&GOLDEN[g]);
        close_all();
        open_golden(&GOLDEN[g]);
        assert_int_equal(layout_read(file, &config, &model, &err), STATUS_OK);
        assert_int_equal(model.vectors.n, ITEMS);
        assert_int_equal(model.vectors.dim, DIM);
        assert_int_equal(layout_model_write(path, &model, &err), STATUS_OK);
        const double worst = worst_difference(&GOLDEN[g], &model.vectors);
        print_message("%-28s largest difference %.1e of the largest value\n", GOLDEN[g].file,
                      worst);
        assert_true(worst <= TOLERANCE);
    }
}

/* Written in the native layout and imported from there, the model is the same. */
static void layout_read_native_file_gives_the_same_model(void **state)
{
    (void)state;
    const struct layout_config foreign = config_of(&GOLDEN[RECBOLE]);
    struct layout_config native = {.layout = "aisle", .n_items = ITEMS};
    struct safetensors *written = NULL;
    struct layout_model again;
    open_golden(&GOLDEN[RECBOLE]);
    assert_int_equal(layout_read(file, &foreign, &model, &err), STATUS_OK);
    assert_int_equal(layout_model_write(path, &model, &err), STATUS_OK);
    assert_int_equal(safetensors_open(path, &written, &err), STATUS_OK);

    assert_int_equal(layout_read(written, &native, &again, &err), STATUS_NOT_FOUND);
    assert_says("item_vectors");
    native.vectors = &model.vectors;
    native.n_items = ITEMS + 1;
    assert_int_equal(layout_read(written, &native, &again, &err), STATUS_MISMATCH);
    assert_says("12 item vectors, but 13 item ids");
    assert_int_equal(again.vectors.n, 0);
    native.n_items = ITEMS;
    assert_int_equal(layout_read(written, &native, &again, &err), STATUS_OK);
    assert_int_equal(layout_model_write(path, &again, &err), STATUS_OK);
    assert_true(worst_difference(&GOLDEN[RECBOLE], &again.vectors) <= TOLERANCE);
    layout_model_free(&again);
    safetensors_close(written);
}

static void layout_read_native_file_with_item_vectors_leaves_them_out_of_the_model(void **state)
{
    (void)state;
    const struct layout_config native = {.layout = "aisle", .n_items = 2};
    const float vectors[] = {1, 2, 3, 4};
    const struct tensor_to_write items = {"item_vectors", TENSOR_F32, 2, {2, 2}, vectors};
    const struct metadata_entry metadata[] = {{"aisle.architecture", "decay"},
                                              {"aisle.settings", "{\"version\":1,\"dim\":2}"}};
    struct safetensors *written = NULL;
    assert_int_equal(safetensors_write(path, &items, 1, NULL, 0, &err), STATUS_OK);
    assert_int_equal(safetensors_open(path, &file, &err), STATUS_OK);
    assert_int_equal(layout_read(file, &native, &model, &err), STATUS_NOT_FOUND);
    assert_says("aisle.architecture");
    safetensors_close(file);
    assert_int_equal(safetensors_write(path, &items, 1, metadata, 2, &err), STATUS_OK);
    assert_int_equal(safetensors_open(path, &file, &err), STATUS_OK);
    assert_int_equal(layout_read(file, &native, &model, &err), STATUS_OK);
    assert_memory_equal(model.vectors.data, vectors, sizeof(vectors));
    assert_int_equal(layout_model_write(path, &model, &err), STATUS_OK);
    assert_int_equal(safetensors_open(path, &written, &err), STATUS_OK);
    assert_int_equal(safetensors_count(written), 0);
    assert_string_equal(safetensors_metadata(written, "aisle.settings"), metadata[1].text);
    safetensors_close(written);
}

/* ---- one thing wrong ---- */

static void layout_read_each_tensor_missing_is_named(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++) {
        const struct layout_config config = config_of(&GOLDEN[g]);
        copy_golden(&GOLDEN[g]);
        for (size_t i = 0; i < n_tensors; i++) {
            const bool may_miss =
                !is_of_layout(i) || strstr(tensors[i].name, "gru_layers.bias") != NULL;
            assert_int_equal(read_changed(&config, i), may_miss ? STATUS_OK : STATUS_NOT_FOUND);
            if (!may_miss) {
                assert_says(tensors[i].name + strlen(GOLDEN[g].prefix));
            }
        }
    }
}

static void layout_read_each_shape_wrong_is_named(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++) {
        const struct layout_config config = config_of(&GOLDEN[g]);
        copy_golden(&GOLDEN[g]);
        for (size_t i = 0; i < n_tensors; i++) {
            const char *name = tensors[i].name + strlen(GOLDEN[g].prefix);
            const bool is_free = !is_of_layout(i) || (GOLDEN[g].positions != NULL &&
                                                      strcmp(name, GOLDEN[g].positions) == 0);
            tensors[i].shape[0]--;
            const enum status status = read_changed(&config, SIZE_MAX);
            tensors[i].shape[0]++;
            assert_int_equal(status, is_free ? STATUS_OK : STATUS_MISMATCH);
            /* the feed-forward width is that of its first matrix: its bias is then the wrong one */
            if (!is_free && strstr(name, "0.conv1") == NULL &&
                strstr(name, "0.feed_forward") == NULL && strstr(name, "0.intermediate") == NULL) {
                char shown[NAME_MAX_BYTES]; /* names are cut in this message */
                (void)snprintf(shown, sizeof(shown), "%.40s", name);
                assert_says(shown);
            }
        }
    }
}

static void layout_read_each_nan_is_named_with_its_place(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++) {
        const struct layout_config config = config_of(&GOLDEN[g]);
        copy_golden(&GOLDEN[g]);
        for (size_t i = 0; i < n_tensors; i++) {
            char place[32];
            const size_t last = safetensors_at(file, i)->n_values - 1;
            const float value = copies[i][last];
            copies[i][last] = NAN;
            const enum status status = read_changed(&config, SIZE_MAX);
            copies[i][last] = value;
            assert_int_equal(status, is_of_layout(i) ? STATUS_INVALID : STATUS_OK);
            if (is_of_layout(i)) {
                (void)snprintf(place, sizeof(place), "value %zu", last);
                assert_says(tensors[i].name);
                assert_says(place);
            }
        }
    }
}

static void layout_read_other_number_of_ids_names_both(void **state)
{
    (void)state;
    struct layout_config config = config_of(&GOLDEN[S3REC]);
    open_golden(&GOLDEN[S3REC]);
    config.n_items = ITEMS + 1;
    assert_int_equal(layout_read(file, &config, &model, &err), STATUS_MISMATCH);
    assert_says("has 14 rows; 13 item ids and 2 rows of padding and mask want 15");
    config.n_items = 0;
    assert_int_equal(layout_read(file, &config, &model, &err), STATUS_INVALID);
    assert_null(model.values);
}

static void layout_read_option_that_does_not_fit_names_the_flag(void **state)
{
    (void)state;
    const struct vectors vectors = {.n = ITEMS};
    const struct {
        size_t golden;
        const char *flag;
        struct layout_config config;
    } cases[] = {
        {PYTORCH, "--heads", {.layout = "sasrec-pytorch", .n_heads = 3}},
        {GRU, "--heads", {.layout = "recbole-gru4rec", .n_heads = 1}},
        {GRU, "--activation", {.layout = "recbole-gru4rec", .activation = "relu"}},
        {RECBOLE, "--activation", {.layout = "recbole-sasrec", .activation = "swish"}},
        {RECBOLE, "--history-max", {.layout = "recbole-sasrec", .history_max = 10}},
        {RECBOLE, "--vectors", {.layout = "recbole-sasrec", .vectors = &vectors}},
        {RECBOLE, "--layout", {.layout = "recbole"}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct layout_config config = cases[i].config;
        config.n_items = ITEMS;
        close_all();
        open_golden(&GOLDEN[cases[i].golden]);
        assert_int_equal(layout_read(file, &config, &model, &err), STATUS_INVALID);
        assert_string_equal(err.field, cases[i].flag);
        assert_null(model.values);
    }
}

static void layout_read_options_that_fit_are_followed(void **state)
{
    (void)state;
    struct layout_config config = config_of(&GOLDEN[RECBOLE]);
    config.n_heads = 4;
    config.activation = "relu";
    open_golden(&GOLDEN[RECBOLE]);
    assert_int_equal(layout_read(file, &config, &model, &err), STATUS_OK);
    assert_int_equal(model.sasrec.n_heads, 4);
    assert_int_equal(model.sasrec.activation, SASREC_RELU);
    close_all();
    config = config_of(&GOLDEN[GRU]);
    config.history_max = 7;
    open_golden(&GOLDEN[GRU]);
    assert_int_equal(layout_read(file, &config, &model, &err), STATUS_OK);
    assert_int_equal(model.gru4rec.history_max, 7);
    assert_int_equal(model.gru4rec.n_layers, 2);
}

static void layout_read_tensors_without_a_place_are_listed(void **state)
{
    (void)state;
    const struct layout_config config = config_of(&GOLDEN[S3REC]);
    open_golden(&GOLDEN[S3REC]);
    assert_int_equal(layout_read(file, &config, &model, &err), STATUS_OK);
    assert_int_equal(model.n_unused, 2);
    assert_string_equal(model.notes, "not used: golden.histories, golden.users");
}

static void layout_read_padding_row_not_zero_is_noted(void **state)
{
    (void)state;
    const struct layout_config config = config_of(&GOLDEN[PYTORCH]);
    copy_golden(&GOLDEN[PYTORCH]);
    assert_int_equal(read_changed(&config, SIZE_MAX), STATUS_OK);
    assert_null(strstr(model.notes, "padding"));
    copies[find_copy("pos_emb.weight")][DIM - 1] = 0.5F;
    assert_int_equal(read_changed(&config, SIZE_MAX), STATUS_OK);
    assert_non_null(strstr(model.notes, "row 0 of pos_emb.weight (padding) is not zero"));
}

static void layout_read_more_blocks_than_can_be_served_is_unsupported(void **state)
{
    (void)state;
    const struct layout_config config = config_of(&GOLDEN[S3REC]);
    copy_golden(&GOLDEN[S3REC]);
    tensors[find_copy("golden.users")].name = "item_encoder.layer.8.attention.query.weight";
    assert_int_equal(read_changed(&config, SIZE_MAX), STATUS_UNSUPPORTED);
    assert_says("9 blocks");
    tensors[find_copy("golden.histories")].name = "item_encoder.layer.2.attention.query.bias";
    tensors[find_copy("item_encoder.layer.8.attention.query.weight")].name = "golden.users";
    assert_int_equal(read_changed(&config, SIZE_MAX), STATUS_NOT_FOUND);
    assert_says("item_encoder.layer.2.attention.query.weight");
}

static void layout_read_prefix_that_one_tensor_lacks_is_kept(void **state)
{
    (void)state;
    const struct layout_config config = config_of(&GOLDEN[RECBOLE]);
    copy_golden(&GOLDEN[RECBOLE]);
    tensors[find_copy("model.golden.users")].name = "users";
    assert_int_equal(read_changed(&config, SIZE_MAX), STATUS_NOT_FOUND);
    assert_says("item_embedding.weight");
}

static void layout_read_out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    const struct layout_config config = config_of(&GOLDEN[S3REC]);
    enum status status = STATUS_NOMEM;
    int64_t n = 0;
    open_golden(&GOLDEN[S3REC]);
    while (status == STATUS_NOMEM) {
        mem_fail_nth(++n);
        status = layout_read(file, &config, &model, &err);
        mem_fail_nth(0);
        if (status == STATUS_NOMEM) {
            assert_null(model.values);
            assert_int_equal(err.code, STATUS_NOMEM);
        }
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(layout_read_golden_files_give_the_users_of_pytorch),
        TEST(layout_read_native_file_gives_the_same_model),
        TEST(layout_read_native_file_with_item_vectors_leaves_them_out_of_the_model),
        TEST(layout_read_each_tensor_missing_is_named),
        TEST(layout_read_each_shape_wrong_is_named),
        TEST(layout_read_each_nan_is_named_with_its_place),
        TEST(layout_read_other_number_of_ids_names_both),
        TEST(layout_read_option_that_does_not_fit_names_the_flag),
        TEST(layout_read_options_that_fit_are_followed),
        TEST(layout_read_tensors_without_a_place_are_listed),
        TEST(layout_read_padding_row_not_zero_is_noted),
        TEST(layout_read_more_blocks_than_can_be_served_is_unsupported),
        TEST(layout_read_prefix_that_one_tensor_lacks_is_kept),
        TEST(layout_read_out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
