#include "api/routes.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <string.h>

#include "api/assets.h"
#include "api/metrics.h"
#include "api_test.h"
#include "base/buf.h"
#include "base/file.h"

static void lower_method(enum http_method method, char *out, size_t size)
{
    route_allowed_text((unsigned)method, out, size);
    for (char *c = out; *c != '\0'; c++) {
        *c = (char)tolower((unsigned char)*c);
    }
}

static void routes_and_openapi_describe_the_same(void **state)
{
    struct error err;
    struct buf text;
    size_t n_described = 0;
    size_t n_routes = 0;
    (void)state;
    buf_init(&text, 1 << 20);
    assert_int_equal(file_read(AISLE_API_FOLDER "/openapi.json", &text, &err), STATUS_OK);
    assert_int_equal(text.len, ASSET_OPENAPI_JSON.n_bytes);
    assert_memory_equal(text.data, ASSET_OPENAPI_JSON.bytes, text.len);
    cJSON *tree = cJSON_ParseWithLength(text.data, text.len);
    assert_non_null(tree);
    const cJSON *version = cJSON_GetObjectItem(tree, "openapi");
    assert_string_equal(cJSON_GetStringValue(version), "3.1.0");
    const cJSON *paths = cJSON_GetObjectItem(tree, "paths");
    for (size_t i = 0; i < N_ROUTES; i++) {
        char method[64];
        if ((ROUTES[i].flags & ROUTE_PAGE) != 0) {
            continue;
        }
        lower_method(ROUTES[i].method, method, sizeof(method));
        const cJSON *path = cJSON_GetObjectItemCaseSensitive(paths, ROUTES[i].path);
        const cJSON *operation = cJSON_GetObjectItemCaseSensitive(path, method);
        if (operation == NULL) {
            fail_msg("openapi.json does not describe %s %s", method, ROUTES[i].path);
        }
        bool described_secret = cJSON_GetObjectItem(operation, "security") != NULL;
        assert_int_equal(described_secret, (ROUTES[i].flags & ROUTE_TOKEN) != 0);
        assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(operation, "responses")) > 0);
        n_routes++;
    }
    const cJSON *path = NULL;
    cJSON_ArrayForEach (path, paths) {
        n_described += (size_t)cJSON_GetArraySize(path);
    }
    assert_int_equal(n_described, n_routes);
    cJSON_Delete(tree);
    buf_free(&text);
}

static void routes_have_room_in_the_metrics_and_names_of_their_own(void **state)
{
    (void)state;
    assert_true(N_ROUTES + 1 <= METRIC_ENDPOINTS_MAX);
    for (size_t i = 0; i < N_ROUTES; i++) {
        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal(ROUTES[i].endpoint, ROUTES[k].endpoint);
        }
    }
}

static void route_find_matches_segments_exactly(void **state)
{
    (void)state;
    struct route_match match = route_find(METHOD_GET, "/v1/items/a%2Fb/related", false);
    assert_non_null(match.route);
    assert_string_equal(match.route->endpoint, "related");
    assert_int_equal(match.id_len, 5);
    assert_memory_equal(match.id, "a%2Fb", 5);
    assert_string_equal(route_find(METHOD_HEAD, "/v1/release", false).route->endpoint, "release");
    static const char *const unknown[] = {"",
                                          "/",
                                          "/v1",
                                          "/v1/items/",
                                          "/v1/items//related",
                                          "/v1/items/a/related/",
                                          "/v1/release/",
                                          "/v1/recommendationsx",
                                          "v1/release",
                                          "//v1/release"};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        match = route_find(METHOD_GET, unknown[i], false);
        if (match.route != NULL || match.allowed != 0) {
            fail_msg("\"%s\" is found", unknown[i]);
        }
    }
    assert_non_null(route_find(METHOD_GET, "/", true).route);
}

static void route_find_wrong_method_says_which_are_allowed(void **state)
{
    char text[64];
    (void)state;
    struct route_match match = route_find(METHOD_PUT, "/v1/users/u", false);
    assert_null(match.route);
    route_allowed_text(match.allowed, text, sizeof(text));
    assert_string_equal(text, "DELETE, OPTIONS");
    match = route_find(METHOD_DELETE, "/v1/items/u", false);
    assert_null(match.route);
    route_allowed_text(match.allowed, text, sizeof(text));
    assert_string_equal(text, "GET, HEAD, OPTIONS");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_and_openapi_describe_the_same),
        cmocka_unit_test(routes_have_room_in_the_metrics_and_names_of_their_own),
        cmocka_unit_test(route_find_matches_segments_exactly),
        cmocka_unit_test(route_find_wrong_method_says_which_are_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
