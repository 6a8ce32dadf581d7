#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "store/release.h"

static const char *const FILES[] = {
    RELEASE_FILE_ITEMS, RELEASE_FILE_VECTORS, RELEASE_FILE_MODEL,
    RELEASE_FILE_INDEX, RELEASE_FILE_PROBES,
};
enum { N_FILES = sizeof FILES / sizeof FILES[0], FILE_BYTES = 300 };

struct place {
    char root[64];
    char releases[PATH_BYTES_MAX];
};

static int make_place(void **state)
{
    struct place *place = mem_calloc(1, sizeof *place);
    if (place == NULL) {
        return -1;
    }
    (void)snprintf(place->root, sizeof place->root, "/tmp/aisle-release-XXXXXX");
    if (mkdtemp(place->root) == NULL ||
        path_join(place->releases, place->root, "shop", NULL) != STATUS_OK) {
        return -1;
    }
    *state = place;
    return 0;
}

static int remove_place(void **state)
{
    struct place *place = *state;
    enum status status = dir_remove(place->root, NULL);
    mem_free(place);
    return status == STATUS_OK ? 0 : -1;
}

static void join(char out[PATH_BYTES_MAX], const char *dir, const char *name)
{
    assert_int_equal(path_join(out, dir, name, NULL), STATUS_OK);
}

static void fill_manifest(struct manifest *manifest)
{
    manifest_init(manifest);
    manifest->n_items = 3;
    manifest->dim = 4;
    (void)snprintf(manifest->vector_type, sizeof manifest->vector_type, "F32");
    (void)snprintf(manifest->architecture, sizeof manifest->architecture, "decay");
    (void)snprintf(manifest->index_factory, sizeof manifest->index_factory, "Flat");
}

static void fill_draft(const struct release_draft *draft, char filler)
{
    char bytes[FILE_BYTES];
    char path[PATH_BYTES_MAX];
    for (size_t i = 0; i < N_FILES; i++) {
        memset(bytes, filler + (char)i, sizeof bytes);
        join(path, draft->dir, FILES[i]);
        assert_int_equal(file_write_atomic(path, bytes, sizeof bytes, NULL), STATUS_OK);
    }
}

static void make_release(const struct place *place, char filler, char version[])
{
    struct release_draft draft;
    struct manifest manifest;
    struct error err;
    assert_int_equal(release_draft_open(place->releases, &draft, &err), STATUS_OK);
    fill_draft(&draft, filler);
    fill_manifest(&manifest);
    assert_int_equal(release_draft_commit(&draft, &manifest, &err), STATUS_OK);
    (void)snprintf(version, RELEASE_VERSION_BYTES, "%s", manifest.version);
    manifest_free(&manifest);
}

static void release_name_valid_accepts_only_plain_names(void **state)
{
    (void)state;
    char name[80];
    assert_true(release_name_valid("stable"));
    assert_true(release_name_valid("20261124T101500Z-3f2a"));
    assert_true(release_name_valid("a..b_-"));
    assert_false(release_name_valid(""));
    assert_false(release_name_valid("."));
    assert_false(release_name_valid(".."));
    assert_false(release_name_valid(".hidden"));
    assert_false(release_name_valid("a/b"));
    assert_false(release_name_valid("a b"));
    assert_false(release_name_valid("ä"));
    memset(name, 'a', sizeof name);
    name[63] = '\0';
    assert_true(release_name_valid(name));
    name[63] = 'a';
    name[64] = '\0';
    assert_false(release_name_valid(name));
}

static void release_draft_commit_makes_a_release_that_verifies(void **state)
{
    const struct place *place = *state;
    char version[RELEASE_VERSION_BYTES];
    char dir[PATH_BYTES_MAX];
    struct manifest manifest;
    struct release_list list;
    struct error err;
    make_release(place, 'a', version);
    assert_int_equal(strlen(version), strlen("20261124T101500Z-3f2a"));
    assert_int_equal(release_dir(place->releases, version, dir, &err), STATUS_OK);
    assert_int_equal(release_verify(dir, &manifest, &err), STATUS_OK);
    assert_string_equal(manifest.version, version);
    assert_int_equal(manifest.n_files, N_FILES);
    assert_int_equal(manifest.files[0].n_bytes, FILE_BYTES);
    manifest_free(&manifest);
    assert_int_equal(release_list(place->releases, &list, &err), STATUS_OK);
    assert_int_equal(list.n, 1);
    assert_string_equal(list.versions[0], version);
    release_list_free(&list);
}

static void release_draft_commit_two_drafts_at_once_give_two_releases(void **state)
{
    const struct place *place = *state;
    struct release_draft drafts[2];
    struct manifest manifests[2];
    struct release_list list;
    struct error err;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(release_draft_open(place->releases, &drafts[i], &err), STATUS_OK);
        fill_draft(&drafts[i], 'a'); /* the same content, hence the same digits */
        fill_manifest(&manifests[i]);
    }
    assert_string_not_equal(drafts[0].dir, drafts[1].dir);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(release_draft_commit(&drafts[i], &manifests[i], &err), STATUS_OK);
        release_draft_abandon(&drafts[i]); /* nothing left: legal */
    }
    assert_int_equal(release_list(place->releases, &list, &err), STATUS_OK);
    assert_int_equal(list.n, 2);
    assert_string_equal(list.versions[0], manifests[1].version);
    assert_string_equal(list.versions[1], manifests[0].version);
    release_list_free(&list);
    manifest_free(&manifests[0]);
    manifest_free(&manifests[1]);
}

static void release_draft_commit_refuses_what_has_no_place(void **state)
{
    const struct place *place = *state;
    struct release_draft draft;
    struct manifest manifest;
    struct release_list list;
    struct error err;
    char path[PATH_BYTES_MAX];
    assert_int_equal(release_draft_open(place->releases, &draft, &err), STATUS_OK);
    fill_draft(&draft, 'a');
    join(path, draft.dir, "folder");
    assert_int_equal(dir_make(path, NULL), STATUS_OK);
    fill_manifest(&manifest);
    assert_int_equal(release_draft_commit(&draft, &manifest, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "folder"));
    assert_true(file_exists(draft.dir));
    assert_int_equal(release_list(place->releases, &list, &err), STATUS_OK);
    assert_int_equal(list.n, 0);
    release_list_free(&list);
    manifest_free(&manifest);
    (void)snprintf(path, sizeof path, "%s", draft.dir);
    release_draft_abandon(&draft);
    assert_false(file_exists(path));
}

static void set_age(const char *path, int64_t hours)
{
    struct timespec times[2];
    times[0].tv_sec = time(NULL) - (time_t)(hours * 3600);
    times[0].tv_nsec = 0;
    times[1] = times[0];
    assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

static void release_draft_open_sweeps_only_what_is_stale(void **state)
{
    const struct place *place = *state;
    struct release_draft young;
    struct release_draft busy;
    struct release_draft stale;
    struct release_draft next;
    struct error err;
    char path[PATH_BYTES_MAX];
    assert_int_equal(release_draft_open(place->releases, &young, &err), STATUS_OK);
    assert_int_equal(release_draft_open(place->releases, &busy, &err), STATUS_OK);
    assert_int_equal(release_draft_open(place->releases, &stale, &err), STATUS_OK);
    fill_draft(&young, 'a');
    fill_draft(&busy, 'a');
    fill_draft(&stale, 'a');
    set_age(young.dir, 23);
    set_age(busy.dir, 30); /* its files are new */
    for (size_t i = 0; i < N_FILES; i++) {
        join(path, stale.dir, FILES[i]);
        set_age(path, 25);
    }
    set_age(stale.dir, 25);
    assert_int_equal(release_draft_open(place->releases, &next, &err), STATUS_OK);
    assert_true(file_exists(young.dir));
    assert_true(file_exists(busy.dir));
    assert_false(file_exists(stale.dir));
    release_draft_abandon(&next);
}

static void release_draft_open_without_permission_says_so(void **state)
{
    const struct place *place = *state;
    struct release_draft draft;
    struct error err;
    char path[PATH_BYTES_MAX];
    join(path, place->root, "a-file");
    assert_int_equal(file_write_atomic(path, "x", 1, NULL), STATUS_OK);
    assert_int_not_equal(release_draft_open(path, &draft, &err), STATUS_OK);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(draft.dir[0], '\0');
    assert_int_equal(release_draft_open("/proc/aisle", &draft, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "/proc/aisle"));
}

static void assert_damage_is_named(const char *dir, const char *file, const char *what)
{
    struct manifest manifest;
    struct error err;
    char expected[128];
    (void)snprintf(expected, sizeof expected, "%s: %s", file, what);
    assert_int_equal(release_verify(dir, &manifest, &err), STATUS_MISMATCH);
    assert_string_equal(err.message, expected);
    assert_int_equal(manifest.n_files, 0);
}

static void release_verify_names_the_damaged_file(void **state)
{
    const struct place *place = *state;
    char version[RELEASE_VERSION_BYTES];
    char dir[PATH_BYTES_MAX];
    char path[PATH_BYTES_MAX];
    struct manifest manifest;
    struct error err;
    make_release(place, 'a', version);
    assert_int_equal(release_dir(place->releases, version, dir, &err), STATUS_OK);
    for (size_t i = 0; i < N_FILES; i++) {
        struct buf bytes;
        join(path, dir, FILES[i]);
        buf_init(&bytes, 4096);
        assert_int_equal(file_read(path, &bytes, &err), STATUS_OK);

        bytes.data[i * 70] ^= 0x10;
        assert_int_equal(file_write_atomic(path, bytes.data, bytes.len, &err), STATUS_OK);
        assert_damage_is_named(dir, FILES[i], "SHA-256 differs from the manifest's (damaged)");
        bytes.data[i * 70] ^= 0x10;

        assert_int_equal(file_write_atomic(path, bytes.data, bytes.len - 1, &err), STATUS_OK);
        assert_damage_is_named(dir, FILES[i], "299 bytes, the manifest says 300 (truncated)");
        buf_append_char(&bytes, 'x');
        assert_int_equal(file_write_atomic(path, bytes.data, bytes.len, &err), STATUS_OK);
        assert_damage_is_named(dir, FILES[i], "301 bytes, the manifest says 300");

        assert_int_equal(unlink(path), 0);
        assert_damage_is_named(dir, FILES[i], "missing");
        assert_int_equal(symlink("/etc/passwd", path), 0);
        assert_damage_is_named(dir, FILES[i], "not a regular file");
        assert_int_equal(unlink(path), 0);
        assert_int_equal(file_write_atomic(path, bytes.data, bytes.len - 1, &err), STATUS_OK);
        assert_int_equal(release_verify(dir, &manifest, &err), STATUS_OK);
        manifest_free(&manifest);
        buf_free(&bytes);
    }
}

static void release_verify_manifest_without_a_needed_file_is_refused(void **state)
{
    const struct place *place = *state;
    struct error err;
    for (size_t i = 0; i < N_FILES; i++) {
        struct release_draft draft;
        struct manifest manifest;
        char path[PATH_BYTES_MAX];
        char dir[PATH_BYTES_MAX];
        assert_int_equal(release_draft_open(place->releases, &draft, &err), STATUS_OK);
        fill_draft(&draft, 'a');
        join(path, draft.dir, FILES[i]);
        assert_int_equal(unlink(path), 0);
        fill_manifest(&manifest);
        assert_int_equal(release_draft_commit(&draft, &manifest, &err), STATUS_OK);
        assert_int_equal(release_dir(place->releases, manifest.version, dir, &err), STATUS_OK);
        manifest_free(&manifest);
        assert_int_equal(release_verify(dir, &manifest, &err), STATUS_FORMAT);
        assert_non_null(strstr(err.message, FILES[i]));
    }
}

static void release_verify_newer_format_is_unsupported(void **state)
{
    const struct place *place = *state;
    char version[RELEASE_VERSION_BYTES];
    char dir[PATH_BYTES_MAX];
    char path[PATH_BYTES_MAX];
    struct buf text;
    struct manifest manifest;
    struct error err;
    make_release(place, 'a', version);
    assert_int_equal(release_dir(place->releases, version, dir, &err), STATUS_OK);
    join(path, dir, RELEASE_FILE_MANIFEST);
    buf_init(&text, 1 << 20);
    assert_int_equal(file_read(path, &text, &err), STATUS_OK);
    char *digit = strchr(strstr(text.data, "format_version"), '1');
    assert_non_null(digit);
    *digit = '2';
    assert_int_equal(file_write_atomic(path, text.data, text.len, &err), STATUS_OK);
    assert_int_equal(release_verify(dir, &manifest, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "newer"));
    buf_free(&text);
}

static void release_list_passes_over_what_a_crash_leaves(void **state)
{
    const struct place *place = *state;
    char version[RELEASE_VERSION_BYTES];
    char path[PATH_BYTES_MAX];
    struct release_draft killed;
    struct release_list list;
    struct error err;
    make_release(place, 'a', version);
    /* Killed while writing, killed before the first file, and a stray folder. */
    assert_int_equal(release_draft_open(place->releases, &killed, &err), STATUS_OK);
    fill_draft(&killed, 'b');
    assert_int_equal(release_draft_open(place->releases, &killed, &err), STATUS_OK);
    join(path, place->releases, "releases/20990101T000000Z-0000");
    assert_int_equal(dir_make(path, NULL), STATUS_OK);
    assert_int_equal(release_list(place->releases, &list, &err), STATUS_OK);
    assert_int_equal(list.n, 1);
    assert_string_equal(list.versions[0], version);
    release_list_free(&list);
    assert_int_equal(release_list("/nonexistent", &list, &err), STATUS_NOT_FOUND);
    assert_int_equal(list.n, 0);
}

static void channel_set_points_and_moves(void **state)
{
    const struct place *place = *state;
    char first[RELEASE_VERSION_BYTES];
    char second[RELEASE_VERSION_BYTES];
    char dir[PATH_BYTES_MAX];
    struct error err;
    make_release(place, 'a', first);
    make_release(place, 'b', second);
    assert_string_not_equal(first, second);
    assert_int_equal(channel_set(place->releases, "stable", first, &err), STATUS_OK);
    assert_int_equal(channel_resolve(place->releases, "stable", dir, &err), STATUS_OK);
    assert_non_null(strstr(dir, first));
    assert_int_equal(channel_set(place->releases, "stable", second, &err), STATUS_OK);
    assert_int_equal(channel_resolve(place->releases, "stable", dir, &err), STATUS_OK);
    assert_non_null(strstr(dir, second));

    assert_int_equal(channel_set(place->releases, "stable", "20000101T000000Z-0000", &err),
                     STATUS_NOT_FOUND);
    assert_int_equal(channel_set(place->releases, "../x", first, &err), STATUS_INVALID);
    assert_int_equal(channel_set(place->releases, "stable", "../x", &err), STATUS_INVALID);
    assert_int_equal(channel_resolve(place->releases, "stable", dir, &err), STATUS_OK);
    assert_non_null(strstr(dir, second));
}

static void channel_resolve_unknown_channel_lists_those_there_are(void **state)
{
    const struct place *place = *state;
    char version[RELEASE_VERSION_BYTES];
    char dir[PATH_BYTES_MAX];
    struct error err;
    make_release(place, 'a', version);
    assert_int_equal(channel_resolve(place->releases, "stable", dir, &err), STATUS_NOT_FOUND);
    assert_string_equal(err.message, "no channel \"stable\"; there is none");
    assert_int_equal(channel_set(place->releases, "candidate", version, &err), STATUS_OK);
    assert_int_equal(channel_resolve(place->releases, "stable", dir, &err), STATUS_NOT_FOUND);
    assert_string_equal(err.message, "no channel \"stable\"; there are: candidate");
    assert_int_equal(dir[0], '\0');
}

static void channel_resolve_bad_links_are_refused(void **state)
{
    const struct place *place = *state;
    static const char *const targets[] = {
        "../releases/20000101T000000Z-0000",
        "../releases/..",
        "../releases/a/b",
        "/etc",
        "../../elsewhere",
    };
    char version[RELEASE_VERSION_BYTES];
    char path[PATH_BYTES_MAX];
    char dir[PATH_BYTES_MAX];
    struct error err;
    make_release(place, 'a', version);
    join(path, place->releases, "channels/stable");
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        assert_int_equal(symlink(targets[i], path), 0);
        assert_int_equal(channel_resolve(place->releases, "stable", dir, &err), STATUS_FORMAT);
        assert_int_equal(dir[0], '\0');
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(dir_make(path, NULL), STATUS_OK);
    assert_int_equal(channel_resolve(place->releases, "stable", dir, &err), STATUS_FORMAT);
}

static void release_list_out_of_memory_is_clean(void **state)
{
    const struct place *place = *state;
    char version[RELEASE_VERSION_BYTES];
    enum status status = STATUS_NOMEM;
    make_release(place, 'a', version);
    make_release(place, 'b', version);
    for (int n = 1; status != STATUS_OK; n++) {
        struct release_list list;
        mem_fail_nth(n);
        status = release_list(place->releases, &list, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        assert_int_equal(list.n, status == STATUS_OK ? 2 : 0);
        release_list_free(&list);
    }
}

int main(void)
{
#define WITH_PLACE(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(release_name_valid_accepts_only_plain_names),
        WITH_PLACE(release_draft_commit_makes_a_release_that_verifies),
        WITH_PLACE(release_draft_commit_two_drafts_at_once_give_two_releases),
        WITH_PLACE(release_draft_commit_refuses_what_has_no_place),
        WITH_PLACE(release_draft_open_sweeps_only_what_is_stale),
        WITH_PLACE(release_draft_open_without_permission_says_so),
        WITH_PLACE(release_verify_names_the_damaged_file),
        WITH_PLACE(release_verify_manifest_without_a_needed_file_is_refused),
        WITH_PLACE(release_verify_newer_format_is_unsupported),
        WITH_PLACE(release_list_passes_over_what_a_crash_leaves),
        WITH_PLACE(channel_set_points_and_moves),
        WITH_PLACE(channel_resolve_unknown_channel_lists_those_there_are),
        WITH_PLACE(channel_resolve_bad_links_are_refused),
        WITH_PLACE(release_list_out_of_memory_is_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
