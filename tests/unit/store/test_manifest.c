#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "store/manifest.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const char GOOD[] =
    "{\"format_version\": 1, \"version\": \"20261124T101500Z-3f2a\","
    " \"created_at\": \"2026-11-24T10:15:00.000Z\", \"n_items\": 12, \"dim\": 64,"
    " \"vector_type\": \"F32\", \"model\": {\"architecture\": \"sasrec\","
    " \"settings\": {\"heads\": 2}}, \"index\": {\"factory\": \"HNSW32\","
    " \"parameters\": \"efSearch=64\"}, \"measured\": {\"recall\": 0.97},"
    " \"files\": [{\"name\": \"items.db\", \"bytes\": 4096, \"sha256\": \"" HEX64 "\"}],"
    " \"of_the_future\": [1, 2]}";

/* GOOD with the first occurrence of `from` replaced. */
static char *changed(const char *from, const char *to)
{
    struct buf text;
    const char *at = strstr(GOOD, from);
    assert_non_null(at);
    buf_init(&text, 1 << 20);
    buf_append(&text, GOOD, (size_t)(at - GOOD));
    buf_append_text(&text, to);
    buf_append_text(&text, at + strlen(from));
    assert_int_equal(text.status, STATUS_OK);
    char *copy = mem_strdup(buf_text(&text));
    buf_free(&text);
    assert_non_null(copy);
    return copy;
}

static void manifest_parse_good_text_fills_everything(void **state)
{
    (void)state;
    struct manifest manifest;
    struct error err;
    assert_int_equal(manifest_parse(GOOD, sizeof GOOD - 1, &manifest, &err), STATUS_OK);
    assert_int_equal(manifest.format_version, 1);
    assert_string_equal(manifest.version, "20261124T101500Z-3f2a");
    assert_int_equal(manifest.created_at_ms, 1795515300000);
    assert_int_equal(manifest.n_items, 12);
    assert_int_equal(manifest.dim, 64);
    assert_string_equal(manifest.vector_type, "F32");
    assert_string_equal(manifest.architecture, "sasrec");
    assert_string_equal(manifest.model_settings_json, "{\"heads\":2}");
    assert_string_equal(manifest.index_factory, "HNSW32");
    assert_string_equal(manifest.index_parameters, "efSearch=64");
    assert_string_equal(manifest.measured_json, "{\"recall\":0.97}");
    assert_null(manifest.training_json);
    assert_int_equal(manifest.n_files, 1);
    assert_string_equal(manifest.files[0].name, "items.db");
    assert_int_equal(manifest.files[0].n_bytes, 4096);
    assert_string_equal(manifest.files[0].sha256, HEX64);
    manifest_free(&manifest);
    assert_null(manifest.measured_json);
}

static void manifest_parse_faulty_member_is_named(void **state)
{
    (void)state;
    const struct {
        const char *from, *to, *field;
        enum status status;
    } cases[] = {
        {"\"format_version\": 1", "\"format_version\": 2", "format_version", STATUS_UNSUPPORTED},
        {"\"format_version\": 1", "\"format_version\": 0", "format_version", STATUS_FORMAT},
        {"\"format_version\": 1", "\"format_version\": \"1\"", "format_version", STATUS_FORMAT},
        {"\"version\": \"2026", "\"version\": \"../2026", "version", STATUS_FORMAT},
        {"\"version\": \"2026", "\"version\": \".2026", "version", STATUS_FORMAT},
        {"\"2026-11-24T10:15:00.000Z\"", "\"yesterday\"", "created_at", STATUS_FORMAT},
        {"\"2026-11-24T10:15:00.000Z\"", "5", "created_at", STATUS_FORMAT},
        {"\"n_items\": 12", "\"n_items\": -1", "n_items", STATUS_FORMAT},
        {"\"n_items\": 12", "\"n_items\": 1.5", "n_items", STATUS_FORMAT},
        {"\"n_items\": 12", "\"n_items\": 4294967295", "n_items", STATUS_FORMAT},
        {"\"n_items\": 12, ", "", "n_items", STATUS_FORMAT},
        {"\"dim\": 64", "\"dim\": 0", "dim", STATUS_FORMAT},
        {"\"dim\": 64", "\"dim\": 4097", "dim", STATUS_FORMAT},
        {"\"dim\": 64", "\"dim\": 1e400", "dim", STATUS_FORMAT},
        {"\"F32\"", "\"F64\"", "vector_type", STATUS_FORMAT},
        {"\"F32\"", "\"F32F32F32\"", "vector_type", STATUS_FORMAT},
        {"\"sasrec\"", "\"a-name-that-is-longer-than-any-architecture\"", "model.architecture",
         STATUS_FORMAT},
        {"{\"heads\": 2}", "[2]", "model.settings", STATUS_FORMAT},
        {"\"HNSW32\"", "32", "index.factory", STATUS_FORMAT},
        {"{\"recall\": 0.97}", "0.97", "measured", STATUS_FORMAT},
        {"\"items.db\"", "\"../items.db\"", "files[0].name", STATUS_FORMAT},
        {"\"items.db\"", "\".items.db\"", "files[0].name", STATUS_FORMAT},
        {"\"items.db\"", "\"\"", "files[0].name", STATUS_FORMAT},
        {"\"items.db\"", "\"a\\nb\"", "files[0].name", STATUS_FORMAT},
        {"4096", "-4096", "files[0].bytes", STATUS_FORMAT},
        {"4096", "\"4096\"", "files[0].bytes", STATUS_FORMAT},
        {"\"" HEX64, "\"A" HEX64, "files[0].sha256", STATUS_FORMAT},
        {"\"0123456789a", "\"0123456789A", "files[0].sha256", STATUS_FORMAT},
        {"\"0123456789a", "\"0123456789", "files[0].sha256", STATUS_FORMAT},
        {"{\"name\"",
         "{\"name\": \"items.db\", \"bytes\": 1, \"sha256\": \"" HEX64 "\"}, {\"name\"",
         "files[1].name", STATUS_FORMAT},
        {"\"dim\": 64", "\"dim\": 64, \"dim\": 64", "dim", STATUS_FORMAT},
        {"\"bytes\"", "\"bytes\": 1, \"bytes\"", "bytes", STATUS_FORMAT},
        {"[{\"name\"", "[7, {\"name\"", "files[0]", STATUS_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct manifest manifest;
        struct error err;
        char *text = changed(cases[i].from, cases[i].to);
        enum status status = manifest_parse(text, strlen(text), &manifest, &err);
        if (status != cases[i].status || strcmp(err.field, cases[i].field) != 0) {
            print_error("case %zu: %s, field %s: %s\n", i, status_text(status), err.field,
                        err.message);
        }
        assert_int_equal(status, cases[i].status);
        assert_string_equal(err.field, cases[i].field);
        assert_int_equal(manifest.n_files, 0);
        assert_null(manifest.measured_json);
        mem_free(text);
    }
}

static void manifest_parse_every_prefix_is_refused(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof GOOD - 1; len++) {
        struct manifest manifest;
        assert_int_equal(manifest_parse(GOOD, len, &manifest, NULL), STATUS_FORMAT);
    }
}

static void manifest_parse_text_after_the_end_is_refused(void **state)
{
    (void)state;
    struct manifest manifest;
    struct error err;
    char text[sizeof GOOD + 4];
    (void)snprintf(text, sizeof text, "%s \n", GOOD);
    assert_int_equal(manifest_parse(text, strlen(text), &manifest, &err), STATUS_OK);
    manifest_free(&manifest);
    (void)snprintf(text, sizeof text, "%s }", GOOD);
    assert_int_equal(manifest_parse(text, strlen(text), &manifest, &err), STATUS_FORMAT);
}

static void manifest_parse_deep_nesting_is_refused_before_recursion(void **state)
{
    (void)state;
    enum { DEPTH = 1000000 };
    struct manifest manifest;
    struct error err;
    char *text = mem_alloc(DEPTH);
    assert_non_null(text);
    memset(text, '[', DEPTH);
    assert_int_equal(manifest_parse(text, DEPTH, &manifest, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.message, "nested"));
    mem_free(text);
}

static void manifest_parse_too_many_files_are_refused(void **state)
{
    (void)state;
    struct manifest manifest;
    struct error err;
    for (size_t n = MANIFEST_FILES_MAX - 1; n <= MANIFEST_FILES_MAX; n++) {
        struct buf extra;
        buf_init(&extra, 1 << 20);
        for (size_t i = 0; i < n; i++) {
            buf_printf(&extra, "{\"name\": \"f%zu\", \"bytes\": 1, \"sha256\": \"" HEX64 "\"}, ",
                       i);
        }
        buf_append_text(&extra, "{\"name\"");
        char *text = changed("{\"name\"", buf_text(&extra));
        enum status status = manifest_parse(text, strlen(text), &manifest, &err);
        assert_int_equal(status, n < MANIFEST_FILES_MAX ? STATUS_OK : STATUS_FORMAT);
        manifest_free(&manifest);
        mem_free(text);
        buf_free(&extra);
    }
    assert_string_equal(err.field, "files");
}

static void manifest_parse_out_of_memory_is_clean(void **state)
{
    (void)state;
    enum status status = STATUS_NOMEM;
    for (int n = 1; status != STATUS_OK; n++) {
        struct manifest manifest;
        struct error err;
        mem_fail_nth(n);
        status = manifest_parse(GOOD, sizeof GOOD - 1, &manifest, &err);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        assert_true(n < 100);
        manifest_free(&manifest);
    }
}

static void fill(struct manifest *manifest)
{
    assert_int_equal(manifest_parse(GOOD, sizeof GOOD - 1, manifest, NULL), STATUS_OK);
    manifest->quality_json = mem_strdup("{\"hr@20\": 0.3336, \"big\": 12345678901}");
    assert_non_null(manifest->quality_json);
}

static void manifest_write_then_read_gives_the_same(void **state)
{
    (void)state;
    char dir[] = "/tmp/aisle-manifest-XXXXXX";
    char path[PATH_BYTES_MAX];
    struct manifest manifest;
    struct manifest again;
    struct error err;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(path_join(path, dir, "manifest.json", NULL), STATUS_OK);
    fill(&manifest);
    assert_int_equal(manifest_write(path, &manifest, &err), STATUS_OK);
    assert_int_equal(manifest_read(path, &again, &err), STATUS_OK);
    assert_string_equal(again.version, manifest.version);
    assert_int_equal(again.created_at_ms, manifest.created_at_ms);
    assert_string_equal(again.quality_json, "{\"hr@20\":0.3336,\"big\":12345678901}");
    assert_string_equal(again.model_settings_json, manifest.model_settings_json);
    assert_memory_equal(again.files, manifest.files, sizeof manifest.files[0]);
    manifest_free(&again);
    manifest_free(&manifest);
    assert_int_equal(dir_remove(dir, NULL), STATUS_OK);
}

static void manifest_write_of_what_could_not_be_read_writes_nothing(void **state)
{
    (void)state;
    char dir[] = "/tmp/aisle-manifest-XXXXXX";
    char path[PATH_BYTES_MAX];
    struct manifest manifest;
    struct error err;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(path_join(path, dir, "manifest.json", NULL), STATUS_OK);
    fill(&manifest);
    (void)snprintf(manifest.files[0].name, MANIFEST_NAME_BYTES, "../x");
    assert_int_equal(manifest_write(path, &manifest, &err), STATUS_INVALID);
    assert_string_equal(err.field, "files[0].name");
    assert_false(file_exists(path));
    manifest_free(&manifest);

    fill(&manifest);
    mem_free(manifest.quality_json);
    manifest.quality_json = mem_strdup("{}, \"files\": [");
    assert_int_equal(manifest_write(path, &manifest, &err), STATUS_INVALID);
    assert_false(file_exists(path));
    manifest_free(&manifest);
    assert_int_equal(dir_remove(dir, NULL), STATUS_OK);
}

static void manifest_read_missing_file_is_not_found(void **state)
{
    (void)state;
    struct manifest manifest;
    struct error err;
    assert_int_equal(manifest_read("/nonexistent/manifest.json", &manifest, &err),
                     STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/manifest.json"));
    assert_int_equal(manifest.n_files, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(manifest_parse_good_text_fills_everything),
        cmocka_unit_test(manifest_parse_faulty_member_is_named),
        cmocka_unit_test(manifest_parse_every_prefix_is_refused),
        cmocka_unit_test(manifest_parse_text_after_the_end_is_refused),
        cmocka_unit_test(manifest_parse_deep_nesting_is_refused_before_recursion),
        cmocka_unit_test(manifest_parse_too_many_files_are_refused),
        cmocka_unit_test(manifest_parse_out_of_memory_is_clean),
        cmocka_unit_test(manifest_write_then_read_gives_the_same),
        cmocka_unit_test(manifest_write_of_what_could_not_be_read_writes_nothing),
        cmocka_unit_test(manifest_read_missing_file_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
