#include "store/synth.h"

#include <string.h>

#include "base/file.h"
#include "store/synth_internal.h"

/* 2026-11-24T00:00:00Z. Not the present time: the same seed must give the same bytes. */
static const int64_t END_TIME_DEFAULT_MS = 1795478400000;
static const int64_t DAY_MS = 86400000;

void synth_config_default(struct synth_config *config)
{
    memset(config, 0, sizeof *config);
    config->n_items = SYNTH_ITEMS_DEFAULT;
    config->n_users = SYNTH_USERS_DEFAULT;
    config->n_events = SYNTH_EVENTS_DEFAULT;
    config->seed = 1;
    config->n_days = SYNTH_DAYS_DEFAULT;
    config->end_time_ms = END_TIME_DEFAULT_MS;
}

static enum status check_range(const char *field, size_t value, size_t min, size_t max,
                               struct error *err)
{
    if (value >= min && value <= max) {
        return STATUS_OK;
    }
    return error_set_field(err, STATUS_INVALID, field, "%s is %zu; it must be %zu to %zu", field,
                           value, min, max);
}

static enum status check_config(const struct synth_config *config, struct error *err)
{
    if (config->out_dir == NULL || config->vocabulary_dir == NULL) {
        return error_set(err, STATUS_INVALID, "an output and a vocabulary folder are needed");
    }
    enum status status = check_range("items", config->n_items, 1, SYNTH_ITEMS_MAX, err);
    if (status == STATUS_OK) {
        status = check_range("users", config->n_users, 1, SYNTH_USERS_MAX, err);
    }
    if (status == STATUS_OK) {
        status = check_range("events", config->n_events, 0, SYNTH_EVENTS_MAX, err);
    }
    if (status == STATUS_OK) {
        status = check_range("days", config->n_days, 1, SYNTH_DAYS_MAX, err);
    }
    if (status == STATUS_OK &&
        config->end_time_ms < (SYNTH_DAYS_MAX + (int64_t)config->n_days) * DAY_MS) {
        status = error_set_field(err, STATUS_INVALID, "end_time_ms", "the end is too early");
    }
    return status;
}

static enum status write_files(const struct synth_config *config, const struct synth_shop *shop,
                               struct error *err)
{
    char path[PATH_BYTES_MAX];
    enum status status = dir_make(config->out_dir, err);
    if (status == STATUS_OK) {
        status = path_join(path, config->out_dir, "items.csv", err);
    }
    if (status == STATUS_OK) {
        status = synth_shop_write(shop, path, err);
    }
    if (status == STATUS_OK) {
        status = path_join(path, config->out_dir, "events.csv", err);
    }
    return status == STATUS_OK ? synth_events_write(config, shop, path, err) : status;
}

enum status synth_run(const struct synth_config *config, struct error *err)
{
    struct vocabulary vocabulary;
    struct synth_shop shop;
    enum status status = check_config(config, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = vocabulary_load(config->vocabulary_dir, &vocabulary, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = synth_shop_make(config, &vocabulary, &shop, err);
    if (status == STATUS_OK) {
        status = write_files(config, &shop, err);
        synth_shop_free(&shop);
    }
    vocabulary_free(&vocabulary);
    return status;
}
