#include "api/api_internal.h"

#include <string.h>
#include <unistd.h>

#include "api_test.h"

static void listen_bind_port_0_gives_all_sockets_one_free_port(void **state)
{
    int sockets[3];
    struct listen_address address;
    struct error err = {0};
    (void)state;
    assert_int_equal(listen_bind("127.0.0.1:0", sockets, 3, &address, &err), STATUS_OK);
    assert_true(address.is_loopback);
    assert_memory_equal(address.text, "http://127.0.0.1:", 17);
    assert_string_not_equal(address.text, "http://127.0.0.1:0");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(close(sockets[i]), 0);
    }
}

static void listen_bind_taken_port_is_an_error(void **state)
{
    int sockets[1];
    int others[1] = {-7};
    struct listen_address address;
    struct listen_address other;
    struct error err = {0};
    (void)state;
    assert_int_equal(listen_bind("127.0.0.1:0", sockets, 1, &address, &err), STATUS_OK);
    assert_int_not_equal(listen_bind(address.text + strlen("http://"), others, 1, &other, &err),
                         STATUS_OK);
    assert_non_null(strstr(err.message, "in use"));
    assert_int_equal(others[0], -7);
    assert_int_equal(close(sockets[0]), 0);
}

static void listen_is_loopback_tells_addresses_apart(void **state)
{
    static const struct {
        const char *address;
        enum status status;
        bool is_loopback;
    } rows[] = {
        {"127.0.0.1:80", STATUS_OK, true},
        {"127.9.9.9:0", STATUS_OK, true},
        {"[::1]:80", STATUS_OK, true},
        {"localhost:80", STATUS_OK, true},
        {"0.0.0.0:80", STATUS_OK, false},
        {"[::]:80", STATUS_OK, false},
        {"10.0.0.1:80", STATUS_OK, false},
        {"127.0.0.1", STATUS_INVALID, false},
        {"127.0.0.1:", STATUS_INVALID, false},
        {":80", STATUS_INVALID, false},
        {"127.0.0.1:65536", STATUS_INVALID, false},
        {"127.0.0.1:-1", STATUS_INVALID, false},
        {"example:80", STATUS_INVALID, false},
        {"", STATUS_INVALID, false},
        {"[]:80", STATUS_INVALID, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool is_loopback = false;
        struct error err = {0};
        if (listen_is_loopback(rows[i].address, &is_loopback, &err) != rows[i].status ||
            is_loopback != rows[i].is_loopback) {
            fail_msg("%s", rows[i].address);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listen_bind_port_0_gives_all_sockets_one_free_port),
        cmocka_unit_test(listen_bind_taken_port_is_an_error),
        cmocka_unit_test(listen_is_loopback_tells_addresses_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
