#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

/* Every test has a folder of its own, removed afterwards by the function under test. */
struct fixture {
    char dir[64];
    char path[PATH_BYTES_MAX];
};

static int make_folder(void **state)
{
    static struct fixture fixture;
    (void)snprintf(fixture.dir, sizeof fixture.dir, "/tmp/aisle-test-file-XXXXXX");
    if (mkdtemp(fixture.dir) == NULL || path_join(fixture.path, fixture.dir, "file", NULL) != 0) {
        return -1;
    }
    *state = &fixture;
    return 0;
}

static int remove_folder(void **state)
{
    const struct fixture *fixture = *state;
    return dir_remove(fixture->dir, NULL) == STATUS_OK && !file_exists(fixture->dir) ? 0 : -1;
}

static void write_text(const char *path, const char *text, size_t len)
{
    struct error err = {0};
    if (file_write_atomic(path, text, len, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static size_t count_entries(const char *path)
{
    size_t n = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir) != NULL) { /* NOLINT(concurrency-mt-unsafe): one thread */
        n++;
    }
    assert_int_equal(closedir(dir), 0);
    return n - 2; /* without . and .. */
}

static void path_join_sets_one_slash(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    assert_int_equal(path_join(path, "a", "b", NULL), STATUS_OK);
    assert_string_equal(path, "a/b");
    assert_int_equal(path_join(path, "a/", "b", NULL), STATUS_OK);
    assert_string_equal(path, "a/b");
    assert_int_equal(path_join(path, "", "b", NULL), STATUS_OK);
    assert_string_equal(path, "b");
}

static void path_join_at_and_over_limit(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    char name[PATH_BYTES_MAX];
    memset(name, 'n', sizeof name);
    name[PATH_BYTES_MAX - 3] = '\0'; /* "d/" + 4093 + NUL = 4096 */
    assert_int_equal(path_join(path, "d", name, NULL), STATUS_OK);
    assert_int_equal(strlen(path), PATH_BYTES_MAX - 1);
    (void)snprintf(path, sizeof path, "same");
    name[PATH_BYTES_MAX - 3] = 'n';
    name[PATH_BYTES_MAX - 2] = '\0';
    assert_int_equal(path_join(path, "d", name, NULL), STATUS_LIMIT);
    assert_string_equal(path, "same");
}

static void file_write_atomic_then_read_gives_the_bytes(void **state)
{
    const struct fixture *fixture = *state;
    struct buf buf;
    buf_init(&buf, 1 << 20);
    write_text(fixture->path, "old", 3);
    write_text(fixture->path, "a\0b\n", 4);
    assert_int_equal(file_read(fixture->path, &buf, NULL), STATUS_OK);
    assert_int_equal(buf.len, 4);
    assert_memory_equal(buf.data, "a\0b\n", 4);
    assert_int_equal(count_entries(fixture->dir), 1);
    buf_free(&buf);
}

static void file_writer_abandon_keeps_the_old_file_and_no_temporary(void **state)
{
    const struct fixture *fixture = *state;
    struct file_writer writer;
    struct buf text;
    assert_int_equal(file_write_atomic(fixture->path, "old", 3, NULL), STATUS_OK);
    assert_int_equal(file_writer_open(&writer, fixture->path, NULL), STATUS_OK);
    assert_int_equal(file_writer_write(&writer, "new", 3, NULL), STATUS_OK);
    assert_true(file_exists(writer.temporary));
    file_writer_abandon(&writer);
    assert_false(file_exists(writer.temporary));
    buf_init(&text, 16);
    assert_int_equal(file_read(fixture->path, &text, NULL), STATUS_OK);
    assert_string_equal(buf_text(&text), "old");
    assert_int_equal(file_writer_open(&writer, fixture->path, NULL), STATUS_OK);
    assert_int_equal(file_writer_write(&writer, "ne", 2, NULL), STATUS_OK);
    assert_int_equal(file_writer_write(&writer, "w", 1, NULL), STATUS_OK);
    assert_int_equal(file_writer_commit(&writer, NULL), STATUS_OK);
    file_writer_abandon(&writer);
    buf_reset(&text);
    assert_int_equal(file_read(fixture->path, &text, NULL), STATUS_OK);
    assert_string_equal(buf_text(&text), "new");
    assert_false(file_exists(writer.temporary));
    buf_free(&text);
}

static void file_write_atomic_without_folder_leaves_nothing(void **state)
{
    const struct fixture *fixture = *state;
    char path[PATH_BYTES_MAX];
    struct error err = {0};
    assert_int_equal(path_join(path, fixture->dir, "no/such", NULL), STATUS_OK);
    assert_int_equal(file_write_atomic(path, "x", 1, &err), STATUS_NOT_FOUND);
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    assert_int_equal(count_entries(fixture->dir), 0);
}

static void file_write_atomic_onto_folder_removes_temporary(void **state)
{
    const struct fixture *fixture = *state;
    assert_int_equal(dir_make(fixture->path, NULL), STATUS_OK);
    assert_int_not_equal(file_write_atomic(fixture->path, "x", 1, NULL), STATUS_OK);
    assert_int_equal(count_entries(fixture->dir), 1);
}

static void file_read_at_and_over_limit(void **state)
{
    const struct fixture *fixture = *state;
    struct buf buf;
    struct error err = {0};
    write_text(fixture->path, "12345", 5);
    buf_init(&buf, 5);
    assert_int_equal(file_read(fixture->path, &buf, NULL), STATUS_OK);
    assert_string_equal(buf_text(&buf), "12345");
    buf_free(&buf);
    buf_init(&buf, 4);
    assert_int_equal(file_read(fixture->path, &buf, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.message, "5 bytes"));
    assert_int_equal(buf.len, 0);
    buf_free(&buf);
}

static void file_read_of_file_without_size_reads_it(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 1 << 20);
    assert_int_equal(file_read("/proc/self/status", &buf, NULL), STATUS_OK);
    assert_non_null(strstr(buf_text(&buf), "Pid:"));
    buf_free(&buf);
    buf_init(&buf, 8);
    assert_int_equal(file_read("/proc/self/status", &buf, NULL), STATUS_LIMIT);
    buf_free(&buf);
}

static void file_read_absent_folder_or_without_memory_fails(void **state)
{
    const struct fixture *fixture = *state;
    struct buf buf;
    struct error err = {0};
    buf_init(&buf, 100);
    assert_int_equal(file_read(fixture->path, &buf, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, fixture->path));
    assert_int_equal(file_read(fixture->dir, &buf, NULL), STATUS_IO);
    assert_int_equal(buf.len, 0);
    write_text(fixture->path, "12345", 5);
    mem_fail_nth(1);
    assert_int_equal(file_read(fixture->path, &buf, NULL), STATUS_NOMEM);
    mem_fail_nth(0);
    assert_int_equal(buf.len, 0);
    buf_free(&buf);
}

static void file_fsync_of_file_and_folder_is_ok(void **state)
{
    const struct fixture *fixture = *state;
    write_text(fixture->path, "x", 1);
    assert_int_equal(file_fsync(fixture->path, NULL), STATUS_OK);
    assert_int_equal(file_fsync(fixture->dir, NULL), STATUS_OK);
    assert_int_equal(file_fsync("/nonexistent", NULL), STATUS_NOT_FOUND);
}

static void dir_make_makes_parents_and_accepts_present(void **state)
{
    const struct fixture *fixture = *state;
    char path[PATH_BYTES_MAX];
    struct stat info;
    assert_int_equal(path_join(path, fixture->dir, "a//b/c/", NULL), STATUS_OK);
    assert_int_equal(dir_make(path, NULL), STATUS_OK);
    assert_int_equal(dir_make(path, NULL), STATUS_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_true(S_ISDIR(info.st_mode));
    assert_int_equal(dir_make("", NULL), STATUS_INVALID);
}

static void dir_make_through_a_file_fails(void **state)
{
    const struct fixture *fixture = *state;
    char path[PATH_BYTES_MAX];
    write_text(fixture->path, "x", 1);
    assert_int_equal(dir_make(fixture->path, NULL), STATUS_EXISTS);
    assert_int_equal(path_join(path, fixture->path, "below", NULL), STATUS_OK);
    assert_int_not_equal(dir_make(path, NULL), STATUS_OK);
}

static void dir_remove_takes_the_tree_but_follows_no_symlink(void **state)
{
    const struct fixture *fixture = *state;
    char kept[PATH_BYTES_MAX];
    char tree[PATH_BYTES_MAX];
    char deep[PATH_BYTES_MAX];
    char link_path[PATH_BYTES_MAX];
    assert_int_equal(path_join(kept, fixture->dir, "kept", NULL), STATUS_OK);
    assert_int_equal(path_join(tree, fixture->dir, "tree", NULL), STATUS_OK);
    assert_int_equal(path_join(deep, tree, "a/b", NULL), STATUS_OK);
    assert_int_equal(path_join(link_path, tree, "link", NULL), STATUS_OK);
    assert_int_equal(dir_make(kept, NULL), STATUS_OK);
    assert_int_equal(dir_make(deep, NULL), STATUS_OK);
    assert_int_equal(path_join(deep, kept, "precious", NULL), STATUS_OK);
    write_text(deep, "x", 1);
    assert_int_equal(symlink(kept, link_path), 0);
    assert_int_equal(dir_remove(tree, NULL), STATUS_OK);
    assert_false(file_exists(tree));
    assert_true(file_exists(deep));
    assert_int_equal(dir_remove(tree, NULL), STATUS_OK); /* absent is good */
    assert_int_equal(symlink(kept, tree), 0);
    assert_int_equal(dir_remove(tree, NULL), STATUS_INVALID);
    assert_true(file_exists(deep));
    (void)snprintf(link_path, sizeof link_path, "%s/tree/", fixture->dir);
    assert_int_equal(dir_remove(link_path, NULL), STATUS_INVALID);
    assert_true(file_exists(deep));
}

static void dir_remove_of_a_file_is_invalid(void **state)
{
    const struct fixture *fixture = *state;
    write_text(fixture->path, "x", 1);
    assert_int_equal(dir_remove(fixture->path, NULL), STATUS_INVALID);
    assert_true(file_exists(fixture->path));
    assert_int_equal(dir_remove("", NULL), STATUS_INVALID);
}

static void file_map_open_maps_content(void **state)
{
    const struct fixture *fixture = *state;
    struct file_map map = {0};
    write_text(fixture->path, "mapped", 6);
    assert_int_equal(file_map_open(fixture->path, &map, NULL), STATUS_OK);
    assert_int_equal(map.n_bytes, 6);
    assert_memory_equal(map.data, "mapped", 6);
    file_map_close(&map);
    assert_null(map.data);
    file_map_close(NULL);
}

static void file_map_open_empty_absent_or_folder(void **state)
{
    const struct fixture *fixture = *state;
    struct file_map map = {.data = "x", .n_bytes = 1};
    assert_int_equal(file_map_open(fixture->path, &map, NULL), STATUS_NOT_FOUND);
    assert_null(map.data);
    assert_int_equal(file_map_open(fixture->dir, &map, NULL), STATUS_INVALID);
    assert_null(map.data);
    write_text(fixture->path, "", 0);
    assert_int_equal(file_map_open(fixture->path, &map, NULL), STATUS_OK);
    assert_null(map.data);
    assert_int_equal(map.n_bytes, 0);
    file_map_close(&map);
}

static struct line_reader *open_lines(const struct fixture *fixture, const char *text, size_t len,
                                      size_t max_line_bytes)
{
    struct line_reader *reader = NULL;
    write_text(fixture->path, text, len);
    assert_int_equal(line_reader_open(fixture->path, max_line_bytes, &reader, NULL), STATUS_OK);
    return reader;
}

static void expect_line(struct line_reader *reader, const char *expected, uint64_t number)
{
    const char *line = NULL;
    size_t len = 0;
    assert_int_equal(line_reader_next(reader, &line, &len, NULL), STATUS_OK);
    assert_string_equal(line, expected);
    assert_int_equal(len, strlen(expected));
    assert_int_equal(line_reader_number(reader), number);
}

static void expect_end(struct line_reader *reader)
{
    const char *line = NULL;
    size_t len = 77;
    struct error err = {0};
    assert_int_equal(line_reader_next(reader, &line, &len, &err), STATUS_NOT_FOUND);
    assert_null(line);
    assert_int_equal(len, 77);
    assert_int_equal(err.code, STATUS_OK);
}

static void line_reader_next_handles_every_line_end(void **state)
{
    struct line_reader *reader = open_lines(*state, "a\n\nb\r\nc", 7, 10);
    expect_line(reader, "a", 1);
    expect_line(reader, "", 2);
    expect_line(reader, "b", 3);
    expect_line(reader, "c", 4);
    expect_end(reader);
    expect_end(reader);
    line_reader_close(reader);
    line_reader_close(NULL);
}

static void line_reader_next_skips_mark_and_accepts_empty(void **state)
{
    struct line_reader *reader = open_lines(*state, "\xef\xbb\xbfid\n", 6, 2);
    expect_line(reader, "id", 1);
    expect_end(reader);
    line_reader_close(reader);
    reader = open_lines(*state, "\xef\xbb\xbf", 3, 2);
    expect_end(reader);
    line_reader_close(reader);
    reader = open_lines(*state, "", 0, 2);
    expect_end(reader);
    line_reader_close(reader);
    reader = open_lines(*state, "x", 1, 2);
    expect_line(reader, "x", 1);
    expect_end(reader);
    line_reader_close(reader);
}

static void line_reader_next_at_and_over_limit(void **state)
{
    const char *line = NULL;
    size_t len = 0;
    struct error err = {0};
    struct line_reader *reader = open_lines(*state, "1234\n1234\r\n12345\n", 17, 4);
    expect_line(reader, "1234", 1);
    expect_line(reader, "1234", 2);
    assert_int_equal(line_reader_next(reader, &line, &len, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.message, ":3: "));
    assert_null(line);
    assert_int_equal(line_reader_number(reader), 2);
    line_reader_close(reader);
    reader = open_lines(*state, "12345", 5, 4);
    assert_int_equal(line_reader_next(reader, &line, &len, NULL), STATUS_LIMIT);
    line_reader_close(reader);
    reader = open_lines(*state, "123456789", 9, 4);
    assert_int_equal(line_reader_next(reader, &line, &len, NULL), STATUS_LIMIT);
    line_reader_close(reader);
}

/* Several times the buffer, lines of all lengths up to one longer than the buffer itself. */
static void line_reader_next_large_file_keeps_lines_whole(void **state)
{
    enum { N_LINES = 3000, LONG_LINE = (1 << 20) + 4321 };
    const struct fixture *fixture = *state;
    struct buf buf;
    buf_init(&buf, 64 << 20);
    for (size_t i = 0; i < N_LINES; i++) {
        size_t n = i == 1500 ? LONG_LINE : (i * 37) % 2000;
        char *to = buf_reserve(&buf, n + 1);
        assert_non_null(to);
        memset(to, 'a' + (int)(i % 26), n);
        to[n] = '\n';
        buf.len += n + 1;
    }
    struct line_reader *reader = open_lines(fixture, buf.data, buf.len, LONG_LINE);
    for (size_t i = 0; i < N_LINES; i++) {
        const char *line = NULL;
        size_t len = 0;
        size_t n = i == 1500 ? LONG_LINE : (i * 37) % 2000;
        assert_int_equal(line_reader_next(reader, &line, &len, NULL), STATUS_OK);
        assert_int_equal(len, n);
        assert_true(n == 0 || (line[0] == 'a' + (int)(i % 26) && line[n - 1] == line[0]));
        assert_int_equal(line[n], '\0');
    }
    expect_end(reader);
    line_reader_close(reader);
    buf_free(&buf);
}

static void line_reader_open_dash_is_standard_input(void **state)
{
    const struct fixture *fixture = *state;
    struct line_reader *reader = NULL;
    int saved = dup(STDIN_FILENO);
    write_text(fixture->path, "from stdin\n", 11);
    assert_non_null(freopen(fixture->path, "r", stdin));
    assert_int_equal(line_reader_open("-", 100, &reader, NULL), STATUS_OK);
    expect_line(reader, "from stdin", 1);
    expect_end(reader);
    line_reader_close(reader);
    assert_true(lseek(STDIN_FILENO, 0, SEEK_CUR) == 11); /* still open */
    if (saved >= 0) {
        assert_int_equal(dup2(saved, STDIN_FILENO), STDIN_FILENO);
        assert_int_equal(close(saved), 0);
    }
}

static void line_reader_open_absent_or_without_memory_fails(void **state)
{
    const struct fixture *fixture = *state;
    struct line_reader *reader = (struct line_reader *)&reader;
    assert_int_equal(line_reader_open(fixture->path, 10, &reader, NULL), STATUS_NOT_FOUND);
    assert_null(reader);
    write_text(fixture->path, "x\n", 2);
    enum status status = STATUS_NOMEM;
    int64_t n = 0;
    while (status == STATUS_NOMEM) {
        mem_fail_nth(++n);
        status = line_reader_open(fixture->path, 10, &reader, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || reader == NULL);
    }
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(n, 4);
    line_reader_close(reader);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(path_join_sets_one_slash),
        cmocka_unit_test(path_join_at_and_over_limit),
        IN_FOLDER(file_write_atomic_then_read_gives_the_bytes),
        IN_FOLDER(file_writer_abandon_keeps_the_old_file_and_no_temporary),
        IN_FOLDER(file_write_atomic_without_folder_leaves_nothing),
        IN_FOLDER(file_write_atomic_onto_folder_removes_temporary),
        IN_FOLDER(file_read_at_and_over_limit),
        cmocka_unit_test(file_read_of_file_without_size_reads_it),
        IN_FOLDER(file_read_absent_folder_or_without_memory_fails),
        IN_FOLDER(file_fsync_of_file_and_folder_is_ok),
        IN_FOLDER(dir_make_makes_parents_and_accepts_present),
        IN_FOLDER(dir_make_through_a_file_fails),
        IN_FOLDER(dir_remove_takes_the_tree_but_follows_no_symlink),
        IN_FOLDER(dir_remove_of_a_file_is_invalid),
        IN_FOLDER(file_map_open_maps_content),
        IN_FOLDER(file_map_open_empty_absent_or_folder),
        IN_FOLDER(line_reader_next_handles_every_line_end),
        IN_FOLDER(line_reader_next_skips_mark_and_accepts_empty),
        IN_FOLDER(line_reader_next_at_and_over_limit),
        IN_FOLDER(line_reader_next_large_file_keeps_lines_whole),
        IN_FOLDER(line_reader_open_dash_is_standard_input),
        IN_FOLDER(line_reader_open_absent_or_without_memory_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
