/* Listening sockets. SO_REUSEPORT lets every worker have its own, between which the kernel spreads
 * the connections; it also lets a second server of the same user take the same port unnoticed. So a
 * socket without it is bound first, which fails if the port is taken, and picks the port where 0
 * was asked for; it is closed before the real ones are bound. */
#include "api/api_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/parse.h"

union any_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static socklen_t address_len(const union any_address *address)
{
    return address->any.sa_family == AF_INET6 ? sizeof(address->v6) : sizeof(address->v4);
}

static void set_port(union any_address *address, uint16_t port)
{
    if (address->any.sa_family == AF_INET6) {
        address->v6.sin6_port = htons(port);
    } else {
        address->v4.sin_port = htons(port);
    }
}

/* "ADDR:PORT", "[ADDR]:PORT"; numeric addresses and "localhost" only, since a name could mean
 * several addresses and resolving one can hang. */
static enum status parse_address(const char *text, union any_address *out, struct error *err)
{
    char host[INET6_ADDRSTRLEN + 16];
    memset(out, 0, sizeof(*out));
    int64_t port = 0;
    const char *colon = strrchr(text, ':');
    const char *begin = text;
    const char *end = colon;
    if (colon != NULL && text[0] == '[' && colon > text + 1 && colon[-1] == ']') {
        begin++;
        end--;
    }
    size_t len = end != NULL && end > begin ? (size_t)(end - begin) : 0;
    if (colon == NULL || len == 0 || len >= sizeof(host) ||
        !parse_int64(colon + 1, strlen(colon + 1), &port) || port < 0 || port > UINT16_MAX) {
        return error_set(err, STATUS_INVALID,
                         "listen address \"%s\" is not ADDR:PORT, for example 127.0.0.1:8080",
                         text);
    }
    memcpy(host, begin, len);
    host[len] = '\0';
    const char *address = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    if (inet_pton(AF_INET, address, &out->v4.sin_addr) == 1) {
        out->any.sa_family = AF_INET;
    } else if (inet_pton(AF_INET6, address, &out->v6.sin6_addr) == 1) {
        out->any.sa_family = AF_INET6;
    } else {
        return error_set(err, STATUS_INVALID,
                         "listen address \"%s\" needs a numeric IP address or localhost", text);
    }
    set_port(out, (uint16_t)port);
    return STATUS_OK;
}

static bool is_loopback(const union any_address *address)
{
    if (address->any.sa_family == AF_INET6) {
        return IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr) != 0;
    }
    return (ntohl(address->v4.sin_addr.s_addr) >> 24) == IN_LOOPBACKNET;
}

enum status listen_is_loopback(const char *address, bool *out, struct error *err)
{
    union any_address parsed;
    enum status status = parse_address(address, &parsed, err);
    if (status == STATUS_OK) {
        *out = is_loopback(&parsed);
    }
    return status;
}

/* What people meet most, in words that say what to do. */
static enum status bind_fault(struct error *err)
{
    if (errno == EADDRINUSE) {
        return error_set(err, STATUS_IO,
                         "the port is in use by another program; choose another one, or port 0 for "
                         "any that is free");
    }
    if (errno == EADDRNOTAVAIL) {
        return error_set(err, STATUS_IO, "this machine has no such address");
    }
    return error_set_errno(err, "listening");
}

static enum status bind_one(const union any_address *address, bool shared, int *out,
                            struct error *err)
{
    const int on = 1;
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return error_set_errno(err, "making a socket");
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* accepted ones inherit it */
    if ((shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) ||
        bind(fd, &address->any, address_len(address)) != 0 ||
        (shared && listen(fd, SOMAXCONN) != 0)) {
        enum status status = bind_fault(err);
        (void)close(fd);
        return status;
    }
    *out = fd;
    return STATUS_OK;
}

/* Finds out whether the port is free, and which one it is. */
static enum status probe(union any_address *address, struct error *err)
{
    int fd = -1;
    enum status status = bind_one(address, false, &fd, err);
    if (status != STATUS_OK) {
        return status;
    }
    socklen_t len = sizeof(*address);
    if (getsockname(fd, &address->any, &len) != 0) {
        status = error_set_errno(err, "reading a socket's address");
    }
    (void)close(fd);
    return status;
}

static void describe(const union any_address *address, struct listen_address *out)
{
    char text[INET6_ADDRSTRLEN] = "";
    if (address->any.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &address->v6.sin6_addr, text, sizeof(text));
        (void)snprintf(out->text, sizeof(out->text), "http://[%s]:%u", text,
                       (unsigned)ntohs(address->v6.sin6_port));
    } else {
        (void)inet_ntop(AF_INET, &address->v4.sin_addr, text, sizeof(text));
        (void)snprintf(out->text, sizeof(out->text), "http://%s:%u", text,
                       (unsigned)ntohs(address->v4.sin_port));
    }
    out->is_loopback = is_loopback(address);
}

enum status listen_bind(const char *address, int *sockets, size_t n, struct listen_address *out,
                        struct error *err)
{
    union any_address bound;
    size_t i = 0;
    enum status status = parse_address(address, &bound, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = probe(&bound, err);
    while (status == STATUS_OK && i < n) {
        status = bind_one(&bound, true, &sockets[i], err);
        i += status == STATUS_OK ? 1 : 0;
    }
    if (status != STATUS_OK) {
        while (i > 0) {
            (void)close(sockets[--i]);
        }
        error_prefix(err, "%s: ", address);
        return status;
    }
    describe(&bound, out);
    return STATUS_OK;
}
