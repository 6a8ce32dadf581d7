#ifndef AISLE_API_ROUTES_H
#define AISLE_API_ROUTES_H

#include <stdbool.h>
#include <stddef.h>

struct exchange;
struct task;
typedef void route_fn(struct exchange *exchange);

enum http_method {
    METHOD_GET = 1,
    METHOD_POST = 2,
    METHOD_PUT = 4,
    METHOD_PATCH = 8,
    METHOD_DELETE = 16,
    METHOD_HEAD = 32,
    METHOD_OPTIONS = 64,
    METHOD_OTHER = 128, /* TRACE, CONNECT: no path takes it */
};

enum route_flag {
    ROUTE_TOKEN = 1,  /* writes or administers: the token, once there is one */
    ROUTE_HEALTH = 2, /* open to everybody, and answered when all else is refused */
    ROUTE_BIG = 4,    /* body up to BATCH_BODY_MAX_BYTES */
    ROUTE_PAGE = 8,   /* for people: in demonstration mode only, not in openapi.json */
};

struct route {
    enum http_method method;
    const char *path; /* "/v1/items/{id}/related"; {id} is one segment */
    route_fn *handler;
    unsigned flags;
    const char *endpoint; /* label in metrics */
};

extern const struct route ROUTES[];
extern const size_t N_ROUTES;

struct route_match {
    const struct route *route; /* NULL: none */
    unsigned allowed;          /* methods that the path has; 0: no such path */
    const char *id;            /* raw {id} segment inside path, or NULL */
    size_t id_len;
};
/* path is raw, without the query. HEAD finds GET's route. Pages are found in demo mode only. */
struct route_match route_find(enum http_method method, const char *path, bool demo);
/* "GET, HEAD, OPTIONS" of a set of methods. */
void route_allowed_text(unsigned allowed, char *out, size_t size);

/* Handlers; each ends its exchange with one reply. */
route_fn route_recommend, route_related, route_user_recommendations, route_score, route_batch;
route_fn route_events, route_user_history, route_user_erase;
route_fn route_item, route_release, route_healthz, route_readyz, route_metrics, route_openapi;
route_fn route_page, route_page_style, route_page_script;

#endif
