#include "store/history_redis_internal.h"

#include <errno.h>
#include <event2/event.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"

/* Host names for the Redis connection. getaddrinfo is kept because it honours what the machine's
 * administrator configured (hosts file, search domains, a container's resolver), but it waits, so a
 * reconnection asks it on a thread of its own: one look-up at a time and worker, told to the loop
 * through an eventfd. The object is shared by loop and thread and freed by whoever lets go last; a
 * thread that hangs in the resolver hinders nobody. libevent's evdns was rejected: it reads a part
 * of that configuration only, and its requests cannot be cancelled before the loop turns again. */

struct redis_resolution {
    atomic_int n_owners;
    int done_fd;
    struct event *done_event;
    redis_resolve_fn *callback;
    void *context;
    struct error error; /* the thread's until done_fd says so */
    char numeric[REDIS_NUMERIC_BYTES];
    char host[];
};

enum status redis_resolve_now(const char *host, char numeric[REDIS_NUMERIC_BYTES],
                              struct error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int code = getaddrinfo(host, NULL, &hints, &found);
    if (code != 0)
        return error_set(err, STATUS_UNAVAILABLE, "Redis host %s: %s", host, gai_strerror(code));
    code = getnameinfo(found->ai_addr, found->ai_addrlen, numeric, REDIS_NUMERIC_BYTES, NULL, 0,
                       NI_NUMERICHOST);
    freeaddrinfo(found);
    if (code != 0)
        return error_set(err, STATUS_UNAVAILABLE, "Redis host %s: %s", host, gai_strerror(code));
    return STATUS_OK;
}

static void resolution_release(struct redis_resolution *resolution)
{
    if (atomic_fetch_sub(&resolution->n_owners, 1) > 1)
        return;
    close(resolution->done_fd);
    mem_free(resolution);
}

static void *resolver(void *argument)
{
    struct redis_resolution *resolution = argument;
    if (redis_resolve_now(resolution->host, resolution->numeric, &resolution->error) != STATUS_OK)
        resolution->numeric[0] = '\0';
    uint64_t one = 1;
    while (write(resolution->done_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        continue;
    resolution_release(resolution);
    return NULL;
}

static void on_done(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    struct redis_resolution *resolution = context;
    uint64_t n = 0;
    if (read((int)fd, &n, sizeof(n)) != (ssize_t)sizeof(n))
        return;
    event_free(resolution->done_event);
    bool found = resolution->numeric[0] != '\0';
    resolution->callback(resolution->context, found ? resolution->numeric : NULL,
                         resolution->error.message);
    resolution_release(resolution);
}

enum status redis_resolve_start(const char *host, struct event_base *loop,
                                redis_resolve_fn *callback, void *context,
                                struct redis_resolution **out, struct error *err)
{
    size_t host_size = strlen(host) + 1;
    struct redis_resolution *resolution = mem_calloc(1, sizeof(*resolution) + host_size);
    if (resolution == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    memcpy(resolution->host, host, host_size);
    resolution->callback = callback;
    resolution->context = context;
    atomic_init(&resolution->n_owners, 2);
    resolution->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (resolution->done_fd < 0) {
        error_set_errno(err, "eventfd");
        goto fail_eventfd;
    }
    resolution->done_event =
        event_new(loop, resolution->done_fd, EV_READ | EV_PERSIST, on_done, resolution);
    if (resolution->done_event == NULL || event_add(resolution->done_event, NULL) != 0) {
        error_set(err, STATUS_NOMEM, "out of memory");
        goto fail_event;
    }
    pthread_t thread;
    errno = pthread_create(&thread, NULL, resolver, resolution);
    if (errno != 0) {
        error_set_errno(err, "starting a resolver thread");
        goto fail_event;
    }
    pthread_detach(thread);
    *out = resolution;
    return STATUS_OK;

fail_event:
    if (resolution->done_event != NULL)
        event_free(resolution->done_event);
    close(resolution->done_fd);
fail_eventfd:
    mem_free(resolution);
    return STATUS_UNAVAILABLE;
}

void redis_resolve_cancel(struct redis_resolution *resolution)
{
    if (resolution == NULL)
        return;
    event_free(resolution->done_event);
    resolution_release(resolution);
}
