#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

#define SHA256_OF_EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SHA256_OF_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static void hash_bytes_of_known_input_is_stable(void **state)
{
    (void)state;
    /* XXH3-64 of the empty input with seed 0, as the algorithm's specification gives it. */
    assert_true(hash_bytes("", 0, 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(hash_bytes("abc", 3, 0) == hash_bytes("abc", 3, 0));
    assert_true(hash_bytes("abc", 3, 0) != hash_bytes("abc", 3, 1));
    assert_true(hash_bytes("abc", 3, 0) != hash_bytes("abd", 3, 0));
}

static void hash_sha256_hex_of_known_input_matches(void **state)
{
    (void)state;
    char hex[SHA256_HEX_BYTES];
    hash_sha256_hex("", 0, hex);
    assert_string_equal(hex, SHA256_OF_EMPTY);
    hash_sha256_hex("abc", 3, hex);
    assert_string_equal(hex, SHA256_OF_ABC);
}

static void hash_file_sha256_of_large_file_matches_memory(void **state)
{
    (void)state;
    size_t n = (2U << 20) + 17; /* more than two reads */
    char path[] = "/tmp/aisle-test-hash-XXXXXX";
    char expected[SHA256_HEX_BYTES];
    char hex[SHA256_HEX_BYTES];
    uint64_t n_bytes = 0;
    unsigned char *bytes = mem_alloc(n);
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (unsigned char)(i * 31 + i / 256);
    }
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    assert_int_equal(close(fd), 0);
    hash_sha256_hex(bytes, n, expected);
    assert_int_equal(hash_file_sha256(path, hex, &n_bytes, NULL), STATUS_OK);
    assert_string_equal(hex, expected);
    assert_int_equal(n_bytes, n);
    mem_fail_nth(1);
    n_bytes = 5;
    assert_int_equal(hash_file_sha256(path, hex, &n_bytes, NULL), STATUS_NOMEM);
    mem_fail_nth(0);
    assert_int_equal(n_bytes, 5);
    assert_int_equal(unlink(path), 0);
    mem_free(bytes);
}

static void hash_file_sha256_absent_file_is_not_found(void **state)
{
    (void)state;
    char hex[SHA256_HEX_BYTES] = "unchanged";
    uint64_t n_bytes = 7;
    struct error err = {0};
    assert_int_equal(hash_file_sha256("/nonexistent/file", hex, &n_bytes, &err), STATUS_NOT_FOUND);
    assert_string_equal(hex, "unchanged");
    assert_int_equal(n_bytes, 7);
    assert_non_null(strstr(err.message, "/nonexistent/file"));
}

static void secret_equal_compares_content_and_length(void **state)
{
    (void)state;
    assert_true(secret_equal("token", 5, "token", 5));
    assert_true(secret_equal("", 0, "", 0));
    assert_false(secret_equal("token", 5, "tokem", 5));
    assert_false(secret_equal("token", 5, "toke", 4));
    assert_false(secret_equal("", 0, "token", 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_bytes_of_known_input_is_stable),
        cmocka_unit_test(hash_sha256_hex_of_known_input_matches),
        cmocka_unit_test(hash_file_sha256_of_large_file_matches_memory),
        cmocka_unit_test(hash_file_sha256_absent_file_is_not_found),
        cmocka_unit_test(secret_equal_compares_content_and_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
