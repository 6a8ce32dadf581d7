/* bench_make_shop DIR N_ITEMS DIM [HISTORIES_FILE N_USERS]: the shop of bench_shop.h, and
 * optionally the visitors' histories as Redis commands in the wire protocol (feed to redis-cli
 * --pipe). */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/parse.h"
#include "bench_shop.h"

static void write_redis(FILE *out, size_t n_items, size_t n_users)
{
    int64_t now_ms = clock_unix_ms();
    for (size_t user = 0; user < n_users; user++) {
        struct history_event events[BENCH_HISTORY];
        char key[64];
        bench_shop_history(n_items, user, now_ms, events);
        (void)snprintf(key, sizeof(key), "aisle:{u%zu}:history", user);
        (void)fprintf(out, "*%d\r\n$5\r\nRPUSH\r\n$%zu\r\n%s\r\n", BENCH_HISTORY + 2, strlen(key),
                      key);
        for (size_t e = 0; e < BENCH_HISTORY; e++) {
            char id[BENCH_ID_BYTES];
            char element[64];
            bench_shop_id(events[e].row, id);
            (void)snprintf(element, sizeof(element), "%lld view %s", (long long)events[e].time_ms,
                           id);
            (void)fprintf(out, "$%zu\r\n%s\r\n", strlen(element), element);
        }
    }
}

static int usage(void)
{
    (void)fprintf(stderr, "usage: bench_make_shop DIR N_ITEMS DIM [REDIS_FILE N_USERS]\n");
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t n_items;
    uint64_t dim;
    uint64_t n_users = 0;
    struct error error;
    if ((argc != 4 && argc != 6) || !parse_uint64(argv[2], strlen(argv[2]), &n_items) ||
        !parse_uint64(argv[3], strlen(argv[3]), &dim) || n_items == 0 || dim == 0) {
        return usage();
    }
    if (argc == 6 && !parse_uint64(argv[5], strlen(argv[5]), &n_users)) {
        return usage();
    }
    if (bench_shop_write(argv[1], n_items, dim, 1, &error) != STATUS_OK) {
        (void)fprintf(stderr, "bench_make_shop: %s\n", error.message);
        return 1;
    }
    if (argc == 6) {
        FILE *out = fopen(argv[4], "we");
        if (out == NULL) {
            (void)fprintf(stderr, "bench_make_shop: cannot write %s\n", argv[4]);
            return 1;
        }
        write_redis(out, n_items, n_users);
        if (fclose(out) != 0) {
            return 1;
        }
    }
    return 0;
}
