#include "store/history_redis_internal.h"

#include <string.h>

#include "base/alloc.h"
#include "base/parse.h"

/* Redis addresses: redis://[[USER]:PASSWORD@]HOST[:PORT][/DB] and redis+unix://PATH[?db=N]. User
 * and password are percent-decoded; an IPv6 host stands in brackets. */

enum { PORT_DEFAULT = 6379, DATABASE_MAX = 65535 };

static const char TCP_SCHEME[] = "redis://";
static const char UNIX_SCHEME[] = "redis+unix://";

static enum status copy_text(const char *text, size_t len, char **out, struct error *err)
{
    *out = mem_strndup(text, len);
    return *out != NULL ? STATUS_OK : error_set(err, STATUS_NOMEM, "out of memory");
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static enum status copy_decoded(const char *text, size_t len, char **out, struct error *err)
{
    char *copy = mem_strndup(text, len);
    *out = copy;
    if (copy == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        copy[n] = text[i];
        if (text[i] == '%') {
            int high = i + 2 < len ? hex_digit(text[i + 1]) : -1;
            int low = i + 2 < len ? hex_digit(text[i + 2]) : -1;
            if (high < 0 || low < 0 || high * 16 + low == 0)
                return error_set(err, STATUS_INVALID, "Redis address: bad %% in user or password");
            copy[n] = (char)(high * 16 + low);
            i += 2;
        }
        n++;
    }
    copy[n] = '\0';
    return STATUS_OK;
}

static enum status parse_number(const char *text, size_t len, int64_t max, const char *what,
                                int64_t *out, struct error *err)
{
    if (!parse_int64(text, len, out) || *out < 0 || *out > max)
        return error_set(err, STATUS_INVALID, "Redis address: bad %s", what);
    return STATUS_OK;
}

static enum status parse_credentials(const char *text, size_t len, struct redis_store *store,
                                     struct error *err)
{
    const char *colon = memchr(text, ':', len);
    if (colon == NULL)
        return error_set(err, STATUS_INVALID, "Redis address: no password before the @");
    size_t user_len = (size_t)(colon - text);
    enum status status = STATUS_OK;
    if (user_len > 0)
        status = copy_decoded(text, user_len, &store->user, err);
    if (status == STATUS_OK)
        status = copy_decoded(colon + 1, len - user_len - 1, &store->password, err);
    return status;
}

static enum status parse_host_port(const char *text, size_t len, struct redis_store *store,
                                   struct error *err)
{
    const char *host = text;
    size_t host_len = len;
    const char *rest = NULL; /* ":PORT" */
    if (len > 0 && text[0] == '[') {
        const char *end = memchr(text, ']', len);
        if (end == NULL)
            return error_set(err, STATUS_INVALID, "Redis address: no ] after the IPv6 address");
        host = text + 1;
        host_len = (size_t)(end - host);
        rest = end + 1;
    } else {
        const char *colon = memchr(text, ':', len);
        if (colon != NULL)
            host_len = (size_t)(colon - text);
        rest = text + host_len;
    }
    int64_t port = PORT_DEFAULT;
    size_t rest_len = (size_t)(text + len - rest);
    if (rest_len > 0) {
        if (rest[0] != ':')
            return error_set(err, STATUS_INVALID, "Redis address: bad port");
        enum status status = parse_number(rest + 1, rest_len - 1, 65535, "port", &port, err);
        if (status != STATUS_OK)
            return status;
    }
    if (host_len == 0 || port == 0)
        return error_set(err, STATUS_INVALID, "Redis address: no host or port");
    store->port = (int)port;
    return copy_text(host, host_len, &store->host, err);
}

static enum status parse_unix(const char *text, struct redis_store *store, struct error *err)
{
    const char *query = strchr(text, '?');
    size_t path_len = query != NULL ? (size_t)(query - text) : strlen(text);
    if (path_len == 0)
        return error_set(err, STATUS_INVALID, "Redis address: no path of a socket");
    if (query != NULL) {
        if (strncmp(query, "?db=", 4) != 0)
            return error_set(err, STATUS_INVALID, "Redis address: only ?db=N may follow the path");
        enum status status = parse_number(query + 4, strlen(query + 4), DATABASE_MAX,
                                          "database number", &store->database, err);
        if (status != STATUS_OK)
            return status;
    }
    return copy_text(text, path_len, &store->path, err);
}

enum status redis_address_parse(const char *address, struct redis_store *store, struct error *err)
{
    if (strncmp(address, UNIX_SCHEME, sizeof(UNIX_SCHEME) - 1) == 0)
        return parse_unix(address + sizeof(UNIX_SCHEME) - 1, store, err);
    if (strncmp(address, TCP_SCHEME, sizeof(TCP_SCHEME) - 1) != 0)
        return error_set(err, STATUS_INVALID,
                         "Redis address starts with neither redis:// nor redis+unix://");
    const char *text = address + sizeof(TCP_SCHEME) - 1;
    enum status status = STATUS_OK;
    const char *at = strrchr(text, '@');
    if (at != NULL) {
        status = parse_credentials(text, (size_t)(at - text), store, err);
        text = at + 1;
    }
    const char *slash = strchr(text, '/');
    size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
    if (status == STATUS_OK && slash != NULL && slash[1] != '\0')
        status = parse_number(slash + 1, strlen(slash + 1), DATABASE_MAX, "database number",
                              &store->database, err);
    return status == STATUS_OK ? parse_host_port(text, len, store, err) : status;
}
