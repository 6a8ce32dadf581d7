#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "api/server.h"
#include "base/file.h"
#include "base/log.h"
#include "base/options.h"
#include "base/parse.h"
#include "commands.h"
#include "common.h"
#include "core/engine.h"
#include "core/profile.h"
#include "core/recommend.h"
#include "store/history.h"
#include "store/release.h"

/* Opens and verifies everything first, listens last: once "ready" is printed, all is well. Signals
 * are blocked before any thread starts, so that this thread alone waits for them. */

struct serve_options {
    const char *releases, *channel, *history, *listen, *config, *token, *log_level, *log_format;
    const char *profiles, *redis_password, *history_key, *history_ttl;
    int64_t workers, timeout_ms, body_max_bytes, connections_max;
    bool demo, print_config;
};

enum { WORKERS_OPTION_MAX = 256, STOP_GRACE_MS = 10000 };

#define AT(field) offsetof(struct serve_options, field)
static const struct option_row ROWS[] = {
    {"releases", OPTION_TEXT, AT(releases), NULL, 0, 0, "",
     "folder of releases, as `aisle build` makes it (required)", false},
    {"channel", OPTION_TEXT, AT(channel), "stable", 0, 0, "", "which release of it to serve",
     false},
    {"history", OPTION_TEXT, AT(history), NULL, 0, 0, "",
     "sqlite:FILE, redis://HOST:PORT[/DB] or redis+unix://PATH (default: sqlite:RELEASES/"
     "history.db)",
     false},
    {"listen", OPTION_TEXT, AT(listen), "127.0.0.1:8080", 0, 0, "",
     "address and port; port 0 takes any free one", false},
    {"workers", OPTION_INT, AT(workers), "0", 0, WORKERS_OPTION_MAX, "threads",
     "0 means one for each processor", false},
    {"config", OPTION_TEXT, AT(config), NULL, 0, 0, "", "file of `name = value` lines", false},
    {"token", OPTION_TEXT, AT(token), NULL, 0, 0, "",
     "bearer token of what writes or administers; needed to listen beyond loopback", true},
    {"profiles", OPTION_TEXT, AT(profiles), NULL, 0, 0, "",
     "folder of ranking profiles (default: Aisle's own)", false},
    {"timeout-ms", OPTION_INT, AT(timeout_ms), "50", TIMEOUT_MS_MIN, TIMEOUT_MS_MAX, "ms",
     "time allowed for a request that names none", false},
    {"body-max-bytes", OPTION_INT, AT(body_max_bytes), "1048576", 1024, 67108864, "bytes",
     "largest body of a request; a batch may have 8 MiB", false},
    {"connections-max", OPTION_INT, AT(connections_max), "10000", 1, 1000000, "connections",
     "open connections of a worker", false},
    {"redis-password", OPTION_TEXT, AT(redis_password), NULL, 0, 0, "",
     "overrides the one of the address", true},
    {"history-key", OPTION_TEXT, AT(history_key), NULL, 0, 0, "",
     "Redis key of a user's history, %u being the user (default: aisle:{%u}:history)", false},
    {"history-ttl", OPTION_TEXT, AT(history_ttl), "2160h", 0, 0, "",
     "how long what is stored of a user lives after its last event (s, m, h); 0 for ever", false},
    {"demo", OPTION_BOOL, AT(demo), NULL, 0, 0, "", "serve the demonstration shop at /", false},
    {"log-level", OPTION_TEXT, AT(log_level), "info", 0, 0, "", "debug, info, warn, error or off",
     false},
    {"log-format", OPTION_TEXT, AT(log_format), "text", 0, 0, "", "text or json", false},
    {"print-config", OPTION_BOOL, AT(print_config), NULL, 0, 0, "",
     "print the effective configuration and end", false},
};
#undef AT

static const struct option_table TABLE = {
    .command = "aisle serve",
    .synopsis = "aisle serve --releases DIR [--channel NAME] [--history ADDRESS] "
                "[--listen ADDR:PORT] [options]",
    .about = "Serves recommendations over HTTP from a release, with the visitors' history from "
             "Redis or a file. Prints `ready URL` once it answers; ends on SIGTERM or Ctrl-C after "
             "finishing what is under way.",
    .examples = "  aisle serve --releases /srv/aisle --history redis://127.0.0.1:6379\n"
                "  aisle serve --releases build/shop/releases --listen 127.0.0.1:0 --demo\n"
                "  AISLE_TOKEN=secret aisle serve --config /etc/aisle.conf --listen 0.0.0.0:8080\n",
    .rows = ROWS,
    .n_rows = sizeof ROWS / sizeof ROWS[0],
    .with_environment = true,
};

struct parts {
    struct engine *engine;
    struct profile_set profiles;
    struct history_store *history;
    struct server *server;
};

/* The mistakes of a first start, told apart. */
static enum status find_release(const struct serve_options *options, char dir[PATH_BYTES_MAX],
                                struct error *err)
{
    char manifest[PATH_BYTES_MAX];
    if (!file_exists(options->releases)) {
        return error_set(err, STATUS_NOT_FOUND,
                         "--releases: there is no folder %s; `aisle build` makes one",
                         options->releases);
    }
    enum status status = path_join(manifest, options->releases, "manifest.json", err);
    if (status == STATUS_OK && file_exists(manifest)) {
        return error_set(err, STATUS_INVALID,
                         "--releases: %s is one release; name the folder that `aisle build "
                         "--releases` was given",
                         options->releases);
    }
    if (status == STATUS_OK) {
        status = channel_resolve(options->releases, options->channel, dir, err);
        if (status == STATUS_NOT_FOUND) {
            error_prefix(err, "%s: `aisle build --channel %s` has published nothing yet: ",
                         options->releases, options->channel);
        }
    }
    return status;
}

static enum status open_release(const struct serve_options *options, struct parts *parts,
                                struct error *err)
{
    char dir[PATH_BYTES_MAX];
    enum status status = find_release(options, dir, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (options->profiles != NULL && !file_exists(options->profiles)) {
        return error_set(err, STATUS_NOT_FOUND, "--profiles: there is no folder %s",
                         options->profiles);
    }
    struct engine_config config = {.release_dir = dir};
    status = engine_open(&config, &parts->engine, err);
    if (status != STATUS_OK) {
        return status;
    }
    const char *profiles = options->profiles;
    if (profiles == NULL) {
        profiles =
            file_exists(AISLE_PROFILES_SOURCE) ? AISLE_PROFILES_SOURCE : AISLE_PROFILES_INSTALLED;
    }
    return profile_set_load(profiles, &parts->profiles, err);
}

/* A value that makes no sense is the command line's fault. */
static void blame_flag(enum status status, const char *flag, struct error *err)
{
    if (status == STATUS_INVALID) {
        (void)snprintf(err->field, sizeof err->field, "%s", flag);
    }
}

static enum status open_history(const struct serve_options *options, struct parts *parts,
                                struct error *err)
{
    char address[PATH_BYTES_MAX + 32];
    const int64_t MS_PER_S = 1000;
    struct history_config config;
    int64_t ttl_ms = 0;
    history_config_default(&config);
    if (!parse_duration_ms(options->history_ttl, strlen(options->history_ttl), &ttl_ms) ||
        ttl_ms < 0) {
        return error_set_field(err, STATUS_INVALID, "--history-ttl",
                               "--history-ttl: %s is no duration, for example 30m, 720h or 0",
                               options->history_ttl);
    }
    config.ttl_s = ttl_ms / MS_PER_S;
    config.password = options->redis_password;
    config.key_pattern = options->history_key;
    config.address = options->history;
    if (config.address == NULL) {
        (void)snprintf(address, sizeof address, "sqlite:%s/history.db", options->releases);
        config.address = address;
    }
    enum status status = history_store_open(&config, &parts->history, err);
    if (status != STATUS_OK) {
        error_prefix(err, "--history: ");
        blame_flag(status, "--history", err);
    }
    return status;
}

static enum status start(const struct serve_options *options, struct parts *parts,
                         struct error *err)
{
    struct server_config config;
    enum status status = open_release(options, parts, err);
    if (status == STATUS_OK) {
        status = open_history(options, parts, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    server_config_default(&config);
    config.listen = options->listen;
    config.n_workers = (size_t)options->workers;
    config.token = options->token;
    config.default_timeout_ms = options->timeout_ms;
    config.body_max_bytes = (size_t)options->body_max_bytes;
    config.connections_max = (size_t)options->connections_max;
    config.demo = options->demo;
    config.engine = parts->engine;
    config.profiles = &parts->profiles;
    config.history = parts->history;
    status = server_start(&config, &parts->server, err);
    blame_flag(status, "--listen", err);
    return status;
}

static void stop(struct parts *parts)
{
    server_stop(parts->server, STOP_GRACE_MS);
    history_store_close(parts->history);
    profile_set_free(&parts->profiles);
    engine_close(parts->engine);
}

static int serve(const struct serve_options *options)
{
    struct error err = {0};
    struct parts parts = {0};
    enum log_level level = LOG_LEVEL_INFO;
    enum log_format format = LOG_FORMAT_TEXT;
    sigset_t signals;
    int signal_number = 0;
    if (!log_level_parse(options->log_level, &level)) {
        return command_usage(TABLE.command, "--log-level: there is no level %s",
                             options->log_level);
    }
    if (!log_format_parse(options->log_format, &format)) {
        return command_usage(TABLE.command, "--log-format: there is no format %s",
                             options->log_format);
    }
    log_init(level, format, 2);
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    if (start(options, &parts, &err) != STATUS_OK) {
        stop(&parts);
        return command_failed(TABLE.command, &err);
    }
    if (options->demo) {
        LOG_INFO("open the demonstration shop in a browser",
                 LOG_S("url", server_url(parts.server)));
    }
    (void)printf("ready %s\n", server_url(parts.server));
    (void)fflush(stdout);
    (void)sigwait(&signals, &signal_number);
    LOG_INFO("stopping", LOG_I("signal", signal_number));
    stop(&parts);
    return EXIT_CODE_DONE;
}

int command_serve(int argc, const char *const *argv)
{
    struct serve_options target;
    struct options options;
    int code = EXIT_CODE_DONE;
    if (!command_parse(&TABLE, argc, argv, &target, &options, &code)) {
        return code;
    }
    if (target.print_config) {
        options_print(&TABLE, &target, stdout);
    } else if (target.releases == NULL) {
        code = command_usage(TABLE.command, "--releases DIR is needed");
    } else {
        code = serve(&target);
    }
    options_free(&options);
    return code;
}
