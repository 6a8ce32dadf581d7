#include "api/routes.h"

#include <stdio.h>
#include <string.h>

/* The one table of what this service answers; openapi.json describes it (a test compares). */
const struct route ROUTES[] = {
    {METHOD_POST, "/v1/recommendations", route_recommend, 0, "recommendations"},
    {METHOD_POST, "/v1/recommendations/batch", route_batch, ROUTE_BIG, "batch"},
    {METHOD_POST, "/v1/score", route_score, 0, "score"},
    {METHOD_GET, "/v1/items/{id}/related", route_related, 0, "related"},
    {METHOD_GET, "/v1/users/{id}/recommendations", route_user_recommendations, 0,
     "user_recommendations"},
    {METHOD_POST, "/v1/events", route_events, ROUTE_TOKEN, "events"},
    {METHOD_GET, "/v1/users/{id}/history", route_user_history, ROUTE_TOKEN, "user_history"},
    {METHOD_DELETE, "/v1/users/{id}", route_user_erase, ROUTE_TOKEN, "user_erase"},
    {METHOD_GET, "/v1/items/{id}", route_item, 0, "item"},
    {METHOD_GET, "/v1/release", route_release, 0, "release"},
    {METHOD_GET, "/healthz", route_healthz, ROUTE_HEALTH, "healthz"},
    {METHOD_GET, "/readyz", route_readyz, ROUTE_HEALTH, "readyz"},
    {METHOD_GET, "/metrics", route_metrics, 0, "metrics"},
    {METHOD_GET, "/openapi.json", route_openapi, 0, "openapi"},
    {METHOD_GET, "/", route_page, ROUTE_PAGE, "page"},
    {METHOD_GET, "/shop.css", route_page_style, ROUTE_PAGE, "page_style"},
    {METHOD_GET, "/shop.js", route_page_script, ROUTE_PAGE, "page_script"},
};
const size_t N_ROUTES = sizeof(ROUTES) / sizeof(ROUTES[0]);

static size_t segment_len(const char *at)
{
    return strcspn(at, "/");
}

static bool path_matches(const char *pattern, const char *path, struct route_match *match)
{
    for (;;) {
        if (*pattern != '/' || *path != '/') {
            return *pattern == '\0' && *path == '\0';
        }
        pattern++;
        path++;
        size_t pattern_len = segment_len(pattern);
        size_t path_len = segment_len(path);
        if (*pattern == '{') {
            if (path_len == 0) {
                return false;
            }
            match->id = path;
            match->id_len = path_len;
        } else if (path_len != pattern_len || memcmp(pattern, path, path_len) != 0) {
            return false;
        }
        pattern += pattern_len;
        path += path_len;
    }
}

struct route_match route_find(enum http_method method, const char *path, bool demo)
{
    struct route_match match = {0};
    enum http_method wanted = method == METHOD_HEAD ? METHOD_GET : method;
    for (size_t i = 0; i < N_ROUTES; i++) {
        const struct route *route = &ROUTES[i];
        struct route_match found = {0};
        if (((route->flags & ROUTE_PAGE) != 0 && !demo) ||
            !path_matches(route->path, path, &found)) {
            continue;
        }
        match.allowed |= (unsigned)route->method | METHOD_OPTIONS;
        if (route->method == METHOD_GET) {
            match.allowed |= METHOD_HEAD;
        }
        if (route->method == wanted) {
            match.route = route;
            match.id = found.id;
            match.id_len = found.id_len;
        }
    }
    return match;
}

void route_allowed_text(unsigned allowed, char *out, size_t size)
{
    static const struct {
        enum http_method method;
        const char *name;
    } names[] = {{METHOD_GET, "GET"},        {METHOD_HEAD, "HEAD"},   {METHOD_POST, "POST"},
                 {METHOD_PUT, "PUT"},        {METHOD_PATCH, "PATCH"}, {METHOD_DELETE, "DELETE"},
                 {METHOD_OPTIONS, "OPTIONS"}};
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if ((allowed & (unsigned)names[i].method) != 0 && len < size) {
            int n = snprintf(out + len, size - len, "%s%s", len > 0 ? ", " : "", names[i].name);
            len += n > 0 ? (size_t)n : 0;
        }
    }
}
