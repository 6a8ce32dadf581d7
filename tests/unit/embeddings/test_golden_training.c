#include "embeddings/train/network.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "embeddings/attention.h"
#include "embeddings/gru4rec.h"
#include "embeddings/safetensors.h"
#include "embeddings/sasrec.h"
#include "embeddings/train/adamw.h"
#include "embeddings/train/loss.h"

/* Forward pass, loss, gradients and a step of each network against PyTorch's, from the files that
 * tests/golden/make_training.py made. The largest difference of a tensor over its largest value. */
enum { DIM = 16, HISTORY = 8, FFN = 32, GAPS = 9, ITEMS = 30, TOKENS_MAX = 32 };
static const double TOLERANCE = 1e-5;

struct golden {
    struct safetensors *file;
    const struct network_architecture *architecture;
    struct network *network;
    struct history_event events[TOKENS_MAX];
    uint32_t offsets[TOKENS_MAX + 1];
    uint32_t targets[TOKENS_MAX];
    size_t n_sequences, n; /* T */
    float items[ITEMS * DIM];
    float item_gradient[ITEMS * DIM];
    double largest_gradient;
};

static const struct tensor *find(const struct golden *golden, const char *prefix, const char *name,
                                 size_t n)
{
    char full[128];
    (void)snprintf(full, sizeof(full), "%s%s", prefix, name);
    const struct tensor *tensor = safetensors_find(golden->file, full);
    if (tensor == NULL || tensor->n_values != n) {
        fail_msg("%s [%zu] is not in the file", full, n);
    }
    return tensor;
}

static void copy(const struct golden *golden, const char *prefix, const char *name, size_t n,
                 float *out)
{
    memcpy(out, find(golden, prefix, name, n)->data, n * sizeof(float));
}

/* floor: the least that counts as the tensor's largest value. */
static void assert_close(const struct golden *golden, const char *prefix, const char *name,
                         const float *values, size_t n, double floor)
{
    const char *wanted = find(golden, prefix, name, n)->data;
    double worst = 0.0;
    double largest = floor;
    for (size_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, wanted + i * sizeof(value), sizeof(value));
        const double difference = fabs((double)values[i] - (double)value);
        worst = difference > worst || isnan(difference) ? difference : worst;
        largest = fmax(largest, fabs((double)value));
    }
    if (!(worst <= TOLERANCE * largest)) {
        fail_msg("%s%s is off by %.2e of %.2e", prefix, name, worst, largest);
    }
}

static void read_batch(struct golden *golden)
{
    const size_t n = safetensors_find(golden->file, "rows")->n_values;
    const struct tensor *offsets = safetensors_find(golden->file, "offsets");
    assert_true(n <= TOKENS_MAX && offsets->n_values <= TOKENS_MAX + 1);
    golden->n = n;
    golden->n_sequences = offsets->n_values - 1;
    memcpy(golden->offsets, offsets->data, offsets->n_values * sizeof(uint32_t));
    memcpy(golden->targets, find(golden, "", "targets", n)->data, n * sizeof(uint32_t));
    for (size_t i = 0; i < n; i++) {
        int32_t row;
        int32_t type;
        int64_t time_ms;
        memcpy(&row, (const char *)find(golden, "", "rows", n)->data + i * 4, sizeof(row));
        memcpy(&type, (const char *)find(golden, "", "types", n)->data + i * 4, sizeof(type));
        memcpy(&time_ms, (const char *)find(golden, "", "times", n)->data + i * 8, sizeof(time_ms));
        golden->events[i] = (struct history_event){(uint32_t)row, (enum event_type)type, time_ms};
    }
    copy(golden, "", "items", ITEMS * DIM, golden->items);
}

static void open_golden(struct golden *golden, const char *name,
                        const struct network_architecture *architecture, const void *settings)
{
    char path[256];
    struct error error;
    assert_non_null(architecture->open);
    *golden = (struct golden){.architecture = architecture};
    (void)snprintf(path, sizeof(path), "%s/training_%s.safetensors", AISLE_TEST_GOLDEN, name);
    if (safetensors_open(path, &golden->file, &error) != STATUS_OK) {
        fail_msg("%s", error.message);
    }
    read_batch(golden);
    const struct network_config config = {DIM, TOKENS_MAX, TOKENS_MAX, 1, settings};
    assert_int_equal(architecture->open(&config, &golden->network, NULL), STATUS_OK);
    for (size_t p = 0; p < architecture->n_parameters(golden->network); p++) {
        struct network_parameter *parameter = architecture->parameter(golden->network, p);
        copy(golden, "weight.", parameter->name, parameter->n, parameter->value);
        const char *gradient = find(golden, "gradient.", parameter->name, parameter->n)->data;
        for (size_t i = 0; i < parameter->n; i++) {
            float value;
            memcpy(&value, gradient + i * sizeof(value), sizeof(value));
            golden->largest_gradient = fmax(golden->largest_gradient, fabs((double)value));
        }
    }
}

/* One pass as the trainer makes it: embed, forward, loss, backward, gradients back to the items. */
static void assert_pass(struct golden *golden)
{
    const size_t n = golden->n;
    float inputs[TOKENS_MAX * DIM];
    float dhidden[TOKENS_MAX * DIM];
    float dinputs[TOKENS_MAX * DIM];
    const double counts[ITEMS] = {1.0};
    for (size_t i = 0; i < n; i++) {
        memcpy(inputs + i * DIM, golden->items + golden->events[i].row * DIM, DIM * sizeof(float));
    }
    const struct network_batch batch = {.n_sequences = golden->n_sequences,
                                        .offsets = golden->offsets,
                                        .events = golden->events,
                                        .inputs = inputs};
    const float *hidden = golden->architecture->forward(golden->network, &batch);
    assert_close(golden, "", "hidden", hidden, n * DIM, 0.0);
    const struct loss_settings settings = {.kind = LOSS_FULL};
    struct loss *loss;
    assert_int_equal(loss_open(&settings, counts, ITEMS, DIM, &loss, NULL), STATUS_OK);
    const struct loss_batch loss_batch = {n, hidden, golden->targets, golden->items, NULL, 1};
    const struct loss_gradients out = {dhidden, golden->item_gradient, NULL, NULL};
    const float value = (float)loss_compute(loss, &loss_batch, &out);
    loss_close(loss);
    assert_close(golden, "", "loss", &value, 1, 0.0);
    golden->architecture->backward(golden->network, &batch, dhidden, dinputs);
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < DIM; c++) {
            golden->item_gradient[golden->events[i].row * DIM + c] += dinputs[i * DIM + c];
        }
    }
}

/* Gradients, then the step from PyTorch's own gradients: where they are all but zero, the sign of
 * rounding decides what AdamW does. The floor is for derivatives that are zero (keys' biases). */
static void assert_gradient_and_step(const struct golden *golden, const char *name, float *weights,
                                     const float *gradient, size_t n, double decay)
{
    const struct adamw adamw = {1e-3, 0.9, 0.98, 1e-8, decay, 1.0, 1};
    float *scratch = mem_calloc(3 * n, sizeof(float));
    assert_non_null(scratch);
    assert_close(golden, "gradient.", name, gradient, n, 0.01 * golden->largest_gradient);
    copy(golden, "gradient.", name, n, scratch);
    adamw_update(&adamw, weights, scratch, scratch + n, scratch + 2 * n, n);
    assert_close(golden, "step.", name, weights, n, 0.0);
    mem_free(scratch);
}

static void check(const char *name, const struct network_architecture *architecture,
                  const void *settings)
{
    static struct golden golden;
    open_golden(&golden, name, architecture, settings);
    assert_pass(&golden);
    for (size_t p = 0; p < architecture->n_parameters(golden.network); p++) {
        struct network_parameter *parameter = architecture->parameter(golden.network, p);
        assert_gradient_and_step(&golden, parameter->name, parameter->value, parameter->gradient,
                                 parameter->n, parameter->is_decayed ? 0.01 : 0.0);
    }
    assert_gradient_and_step(&golden, "items", golden.items, golden.item_gradient, ITEMS * DIM,
                             0.0);
    architecture->close(golden.network);
    safetensors_close(golden.file);
}

static struct sasrec_settings sasrec(void)
{
    struct sasrec_settings settings;
    sasrec_settings_default(&settings);
    settings.dim = DIM;
    settings.item_dim = DIM;
    settings.n_heads = 2;
    settings.ffn_dim = FFN;
    settings.history_max = HISTORY;
    settings.norm_epsilon = 1e-12;
    settings.has_embedding_norm = true;
    return settings;
}

static void network_sasrec_pre_norm_matches_pytorch(void **state)
{
    (void)state;
    struct sasrec_settings settings = sasrec();
    settings.activation = SASREC_GELU;
    settings.has_types = true;
    settings.n_gap_buckets = GAPS;
    check("sasrec_pre", &network_sasrec, &settings);
}

static void network_sasrec_post_norm_matches_pytorch(void **state)
{
    (void)state;
    struct sasrec_settings settings = sasrec();
    settings.post_norm = true;
    settings.norm_keys = false;
    settings.positions_right = true;
    settings.has_final_norm = false;
    check("sasrec_post", &network_sasrec, &settings);
}

static void network_gru4rec_matches_pytorch(void **state)
{
    (void)state;
    struct gru4rec_settings settings;
    gru4rec_settings_default(&settings);
    settings.dim = DIM;
    settings.hidden_dim = DIM;
    settings.item_dim = DIM;
    settings.n_layers = 2;
    settings.history_max = HISTORY;
    settings.has_output = true;
    check("gru4rec", &network_gru4rec, &settings);
}

static void network_attention_matches_pytorch(void **state)
{
    (void)state;
    struct attention_settings settings;
    attention_settings_default(&settings);
    settings.dim = DIM;
    settings.item_dim = DIM;
    settings.history_max = HISTORY;
    check("attention", &network_attention, &settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(network_sasrec_pre_norm_matches_pytorch),
        cmocka_unit_test(network_sasrec_post_norm_matches_pytorch),
        cmocka_unit_test(network_gru4rec_matches_pytorch),
        cmocka_unit_test(network_attention_matches_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
