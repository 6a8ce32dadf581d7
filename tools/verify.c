#include <stdbool.h>
#include <stddef.h>

#include "base/options.h"
#include "commands.h"
#include "common.h"
#include "core/engine.h"

static const struct option_table TABLE = {
    .command = "aisle verify",
    .synopsis = "aisle verify RELEASE_DIR",
    .about = "Opens a release the way a server does: checks every file's size and SHA-256, opens "
             "catalogue, vectors, user model and index, checks that they belong together and "
             "replays the build's probes.",
    .examples = "  aisle verify releases/channels/stable\n"
                "  aisle verify releases/releases/20261124T101500Z-3f2a\n",
    .n_positional_max = 1,
};

static int print_result(const struct engine *engine)
{
    const struct manifest *manifest = &engine->manifest;
    struct vector_index_info index = vector_index_info(engine->index);
    struct buf text;
    buf_init(&text, 1 << 16);
    buf_printf(&text, "ok %s\n", manifest->version);
    for (size_t i = 0; i < manifest->n_files; i++) {
        buf_printf(&text, "  %-22s %14llu bytes  sha256 %.16s…\n", manifest->files[i].name,
                   (unsigned long long)manifest->files[i].n_bytes, manifest->files[i].sha256);
    }
    buf_printf(&text, "  items     %zu, %zu columns\n", catalog_size(engine->catalog),
               catalog_n_columns(engine->catalog));
    buf_printf(&text, "  vectors   %zu x %zu %s\n", engine->vectors.n, engine->vectors.dim,
               manifest->vector_type);
    buf_printf(&text, "  model     %s\n", user_model_info(engine->model).architecture);
    buf_printf(&text, "  index     %s %s\n", index.factory, index.search_parameters);
    buf_printf(&text, "  probes    replayed, all agree\n");
    int code = command_print(TABLE.command, &text);
    buf_free(&text);
    return code;
}

int command_verify(int argc, const char *const *argv)
{
    struct options options;
    struct error err = {0};
    struct engine *engine = NULL;
    bool unused = false;
    int code = EXIT_CODE_DONE;
    if (!command_parse(&TABLE, argc, argv, &unused, &options, &code)) {
        return code;
    }
    if (options.n_positional != 1) {
        options_free(&options);
        return command_usage(TABLE.command, "RELEASE_DIR is needed");
    }
    struct engine_config config = {.release_dir = options.positional[0]};
    if (engine_open(&config, &engine, &err) == STATUS_OK) {
        code = print_result(engine);
    } else {
        code = command_failed(TABLE.command, &err);
    }
    engine_close(engine);
    options_free(&options);
    return code;
}
