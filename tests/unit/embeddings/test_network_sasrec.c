#include "embeddings/train/network.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "embeddings/sasrec.h"
#include "gradient_check.h"

/* The whole network against a naive one in double precision, written after the definition in
 * embeddings/sasrec.h, one sequence after another. */
enum { DIM = 8, FFN = 12, HISTORY = 6, EVENTS = 11, SEQUENCES = 3, PARAMETERS = 64 };
static const uint32_t OFFSETS[SEQUENCES + 1] = {0, 1, 5, EVENTS};

struct problem {
    struct sasrec_settings settings;
    struct network *network;
    struct history_event events[EVENTS];
    size_t n_parameters;
    double *parameters[PARAMETERS]; /* the network's weights */
    double inputs[EVENTS * DIM];
    double dhidden[EVENTS * DIM];
};
static struct problem problem;

static const double *weights_of(const struct problem *p, const char *name)
{
    for (size_t i = 0; i < p->n_parameters; i++) {
        if (strcmp(network_sasrec.parameter(p->network, i)->name, name) == 0) {
            return p->parameters[i];
        }
    }
    fail_msg("no parameter %s", name);
    return NULL;
}

static const double *block_weights(const struct problem *p, size_t block, const char *name)
{
    char full[128];
    (void)snprintf(full, sizeof(full), "blocks.%zu.%s", block, name);
    return weights_of(p, full);
}

static void naive_norm(const double *x, const double *weight, const double *bias, double epsilon,
                       double *y)
{
    double mean = 0.0;
    double variance = 0.0;
    for (size_t c = 0; c < DIM; c++) {
        mean += x[c] / DIM;
    }
    for (size_t c = 0; c < DIM; c++) {
        variance += (x[c] - mean) * (x[c] - mean) / DIM;
    }
    for (size_t c = 0; c < DIM; c++) {
        y[c] = (x[c] - mean) / sqrt(variance + epsilon) * weight[c] + bias[c];
    }
}

static void naive_norm_rows(const struct problem *p, const char *name, const double *x, size_t n,
                            double *y)
{
    char full[64];
    (void)snprintf(full, sizeof(full), "%s.weight", name);
    const double *weight = weights_of(p, full);
    (void)snprintf(full, sizeof(full), "%s.bias", name);
    const double *bias = weights_of(p, full);
    for (size_t i = 0; i < n; i++) {
        naive_norm(x + i * DIM, weight, bias, p->settings.norm_epsilon, y + i * DIM);
    }
}

static void naive_linear(const struct problem *p, size_t block, const char *name, const double *x,
                         size_t n, size_t n_in, size_t n_out, double *y)
{
    char full[64];
    (void)snprintf(full, sizeof(full), "%s.weight", name);
    const double *weight = block_weights(p, block, full);
    (void)snprintf(full, sizeof(full), "%s.bias", name);
    const double *bias = block_weights(p, block, full);
    for (size_t i = 0; i < n; i++) {
        for (size_t o = 0; o < n_out; o++) {
            y[i * n_out + o] = bias[o];
            for (size_t k = 0; k < n_in; k++) {
                y[i * n_out + o] += weight[o * n_in + k] * x[i * n_in + k];
            }
        }
    }
}

static void naive_head(const double *q, const double *k, const double *v, size_t n, size_t width,
                       double *out)
{
    for (size_t i = 0; i < n; i++) {
        double weights[HISTORY];
        double sum = 0.0;
        for (size_t j = 0; j <= i; j++) {
            double dot = 0.0;
            for (size_t c = 0; c < width; c++) {
                dot += q[i * DIM + c] * k[j * DIM + c];
            }
            weights[j] = exp(dot / sqrt((double)width));
            sum += weights[j];
        }
        for (size_t c = 0; c < width; c++) {
            out[i * DIM + c] = 0.0;
            for (size_t j = 0; j <= i; j++) {
                out[i * DIM + c] += weights[j] / sum * v[j * DIM + c];
            }
        }
    }
}

static void naive_attention(const struct problem *p, size_t block, const double *query_input,
                            const double *key_input, size_t n, double *out)
{
    double q[HISTORY * DIM];
    double k[HISTORY * DIM];
    double v[HISTORY * DIM];
    double context[HISTORY * DIM];
    const size_t width = DIM / p->settings.n_heads;
    naive_linear(p, block, "attention.query", query_input, n, DIM, DIM, q);
    naive_linear(p, block, "attention.key", key_input, n, DIM, DIM, k);
    naive_linear(p, block, "attention.value", key_input, n, DIM, DIM, v);
    for (size_t h = 0; h < DIM; h += width) {
        naive_head(q + h, k + h, v + h, n, width, context + h);
    }
    naive_linear(p, block, "attention.output", context, n, DIM, DIM, out);
}

static void naive_ffn(const struct problem *p, size_t block, const double *z, size_t n, double *out)
{
    double up[HISTORY * FFN];
    naive_linear(p, block, "ffn.up", z, n, DIM, FFN, up);
    for (size_t i = 0; i < n * FFN; i++) {
        up[i] = p->settings.activation == SASREC_GELU ? 0.5 * up[i] * (1.0 + erf(up[i] * M_SQRT1_2))
                                                      : fmax(up[i], 0.0);
    }
    naive_linear(p, block, "ffn.down", up, n, FFN, DIM, out);
}

static void add_to(double *x, const double *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
}

/* x [n × DIM] in place */
static void naive_block(const struct problem *p, size_t block, size_t n, double *x)
{
    const struct sasrec_settings *s = &p->settings;
    char attention_norm[64];
    char ffn_norm[64];
    double q[HISTORY * DIM];
    double y[HISTORY * DIM];
    double z[HISTORY * DIM];
    (void)snprintf(attention_norm, sizeof(attention_norm), "blocks.%zu.attention_norm", block);
    (void)snprintf(ffn_norm, sizeof(ffn_norm), "blocks.%zu.ffn_norm", block);
    if (s->post_norm) {
        naive_attention(p, block, x, x, n, q);
        add_to(x, q, n * DIM);
        naive_norm_rows(p, attention_norm, x, n, y);
        naive_ffn(p, block, y, n, z);
        add_to(y, z, n * DIM);
        naive_norm_rows(p, ffn_norm, y, n, x);
        return;
    }
    naive_norm_rows(p, attention_norm, x, n, q);
    naive_attention(p, block, q, s->norm_keys ? q : x, n, y);
    add_to(y, s->residual_normed ? q : x, n * DIM);
    naive_norm_rows(p, ffn_norm, y, n, z);
    naive_ffn(p, block, z, n, x);
    add_to(x, s->residual_normed ? z : y, n * DIM);
}

static size_t naive_gap(const struct problem *p, size_t i, size_t first)
{
    if (i == first || p->events[i].time_ms < 0 || p->events[i - 1].time_ms < 0) {
        return 0;
    }
    const double seconds = (double)(p->events[i].time_ms - p->events[i - 1].time_ms) / 1000.0;
    const size_t bucket = 1 + (size_t)floor(log2(1.0 + seconds));
    return bucket < p->settings.n_gap_buckets ? bucket : p->settings.n_gap_buckets - 1;
}

static void naive_sequence(const struct problem *p, size_t first, size_t n, double *hidden)
{
    const struct sasrec_settings *s = &p->settings;
    double x[HISTORY * DIM];
    memcpy(x, p->inputs + first * DIM, n * DIM * sizeof(double));
    for (size_t j = 0; j < n; j++) {
        const size_t position = s->positions_right ? HISTORY - n + j : j;
        add_to(x + j * DIM, weights_of(p, "positions") + position * DIM, DIM);
        if (s->has_types) {
            const size_t type = (size_t)p->events[first + j].type;
            add_to(x + j * DIM, weights_of(p, "types") + type * DIM, DIM);
        }
        if (s->n_gap_buckets > 0) {
            add_to(x + j * DIM, weights_of(p, "gaps") + naive_gap(p, first + j, first) * DIM, DIM);
        }
    }
    if (s->has_embedding_norm) {
        naive_norm_rows(p, "embedding_norm", x, n, hidden);
        memcpy(x, hidden, n * DIM * sizeof(double));
    }
    for (size_t b = 0; b < s->n_blocks; b++) {
        naive_block(p, b, n, x);
    }
    if (s->has_final_norm) {
        naive_norm_rows(p, "final_norm", x, n, hidden);
    } else {
        memcpy(hidden, x, n * DIM * sizeof(double));
    }
}

static void naive_hidden(const struct problem *p, double *hidden)
{
    for (size_t s = 0; s < SEQUENCES; s++) {
        naive_sequence(p, OFFSETS[s], OFFSETS[s + 1] - OFFSETS[s], hidden + OFFSETS[s] * DIM);
    }
}

static double naive_loss(const void *context)
{
    const struct problem *p = context;
    double hidden[EVENTS * DIM];
    double loss = 0.0;
    naive_hidden(p, hidden);
    for (size_t i = 0; i < EVENTS * DIM; i++) {
        loss += p->dhidden[i] * hidden[i];
    }
    return loss;
}

/* ---- the network under test ---- */

static float inputs[EVENTS * DIM];

static struct network_config config_of(const struct sasrec_settings *settings)
{
    return (struct network_config){DIM, EVENTS, SEQUENCES, 5, settings};
}

static void open_problem(const struct sasrec_settings *settings)
{
    memset(&problem, 0, sizeof(problem));
    problem.settings = *settings;
    const struct network_config config = config_of(settings);
    assert_int_equal(network_sasrec.open(&config, &problem.network, NULL), STATUS_OK);
    problem.n_parameters = network_sasrec.n_parameters(problem.network);
    assert_true(problem.n_parameters <= PARAMETERS);
    fill_normal(inputs, problem.inputs, EVENTS * DIM, 21);
    for (size_t i = 0; i < problem.n_parameters; i++) {
        struct network_parameter *parameter = network_sasrec.parameter(problem.network, i);
        problem.parameters[i] = mem_alloc_array(parameter->n, sizeof(double));
        assert_non_null(problem.parameters[i]);
        struct rng rng;
        rng_init(&rng, 100 + i);
        for (size_t k = 0; k < parameter->n; k++) {
            /* Away from the initial values, so that biases and norms take part. */
            parameter->value[k] += (float)(0.2 * rng_normal(&rng));
            problem.parameters[i][k] = (double)parameter->value[k];
        }
    }
    for (size_t i = 0; i < EVENTS; i++) {
        problem.events[i] =
            (struct history_event){(uint32_t)i, (enum event_type)(i * 3 % N_EVENT_TYPES),
                                   i == 7 ? EVENT_TIME_UNKNOWN : (int64_t)(i * i * i) * 1700};
    }
}

static void close_problem(void)
{
    for (size_t i = 0; i < problem.n_parameters; i++) {
        mem_free(problem.parameters[i]);
    }
    network_sasrec.close(problem.network);
}

static struct network_batch batch_of(void)
{
    return (struct network_batch){
        .n_sequences = SEQUENCES, .offsets = OFFSETS, .events = problem.events, .inputs = inputs};
}

static void check(const char *name, const struct sasrec_settings *settings)
{
    open_problem(settings);
    const struct network_batch batch = batch_of();
    double wanted[EVENTS * DIM];
    float dhidden[EVENTS * DIM];
    float dinputs[EVENTS * DIM];
    double worst_hidden = 0.0;
    const float *hidden = network_sasrec.forward(problem.network, &batch);
    naive_hidden(&problem, wanted);
    for (size_t i = 0; i < EVENTS * DIM; i++) {
        worst_hidden = fmax(worst_hidden, fabs((double)hidden[i] - wanted[i]));
    }
    fill_normal(dhidden, problem.dhidden, EVENTS * DIM, 22);
    network_sasrec.backward(problem.network, &batch, dhidden, dinputs);
    double worst =
        gradient_error(naive_loss, &problem, problem.inputs, dinputs, EVENTS * DIM, 1e-6);
    const char *where = "inputs";
    for (size_t i = 0; i < problem.n_parameters; i++) {
        const struct network_parameter *parameter = network_sasrec.parameter(problem.network, i);
        /* The floor is for keys' biases, whose derivative is zero. */
        const double error = gradient_error(naive_loss, &problem, problem.parameters[i],
                                            parameter->gradient, parameter->n, 1e-1);
        where = error > worst ? parameter->name : where;
        worst = fmax(worst, error);
    }
    print_message("%s: hidden %.1e, gradients %.1e (%s)\n", name, worst_hidden, worst, where);
    assert_true(worst_hidden < 2e-5);
    assert_true(worst < 1e-4);
    close_problem();
}

static struct sasrec_settings small_settings(void)
{
    struct sasrec_settings settings;
    sasrec_settings_default(&settings);
    settings.dim = DIM;
    settings.item_dim = DIM;
    settings.n_heads = 2;
    settings.ffn_dim = FFN;
    settings.history_max = HISTORY;
    settings.norm_epsilon = 1e-5;
    settings.activation = SASREC_GELU;
    return settings;
}

static void backward_pre_norm_forms_match_differences(void **state)
{
    (void)state;
    for (unsigned form = 0; form < 4; form++) {
        struct sasrec_settings settings = small_settings();
        char name[64];
        settings.norm_keys = (form & 1U) != 0;
        settings.residual_normed = (form & 2U) != 0;
        (void)snprintf(name, sizeof(name), "pre-norm, norm_keys %d, residual_normed %d",
                       settings.norm_keys, settings.residual_normed);
        check(name, &settings);
    }
}

static void backward_post_norm_matches_differences(void **state)
{
    (void)state;
    struct sasrec_settings settings = small_settings();
    settings.post_norm = true;
    settings.norm_keys = false;
    check("post-norm", &settings);
    settings.has_final_norm = false;
    settings.has_embedding_norm = true;
    settings.n_heads = 1;
    settings.activation = SASREC_RELU;
    check("post-norm, embedding norm, no final norm, one head, ReLU", &settings);
}

static void backward_embeddings_of_all_kinds_match_differences(void **state)
{
    (void)state;
    struct sasrec_settings settings = small_settings();
    settings.has_embedding_norm = true;
    settings.has_types = true;
    settings.n_gap_buckets = 9;
    check("embedding norm, types, gaps", &settings);
    settings.positions_right = true;
    settings.has_embedding_norm = false;
    settings.has_final_norm = false;
    settings.n_blocks = 3;
    check("positions from the right, 3 blocks", &settings);
}

/* Dropout is a product with a fixed mask: along any direction the loss of the same masks changes as
 * the gradients say. Float differences; a tolerance of 1 %. */
static void backward_dropout_matches_differences_of_same_masks(void **state)
{
    (void)state;
    struct sasrec_settings settings = small_settings();
    settings.n_blocks = 1;
    open_problem(&settings);
    struct network_batch batch = batch_of();
    batch.dropout = 0.4;
    batch.dropout_seed = 31;
    float dhidden[EVENTS * DIM];
    float kept[EVENTS * DIM];
    float dinputs[EVENTS * DIM];
    float direction[EVENTS * DIM];
    fill_normal(kept, problem.dhidden, EVENTS * DIM, 22);
    fill_normal(direction, NULL, EVENTS * DIM, 23);
    memcpy(dhidden, kept, sizeof(kept));
    (void)network_sasrec.forward(problem.network, &batch);
    network_sasrec.backward(problem.network, &batch, dhidden, dinputs);
    double wanted = 0.0;
    double losses[2] = {0.0, 0.0};
    const float step = 1e-3F;
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < EVENTS * DIM; i++) {
            inputs[i] = (float)problem.inputs[i] + (side == 0 ? -step : step) * direction[i];
        }
        const float *hidden = network_sasrec.forward(problem.network, &batch);
        for (size_t i = 0; i < EVENTS * DIM; i++) {
            losses[side] += (double)hidden[i] * (double)kept[i];
        }
    }
    for (size_t i = 0; i < EVENTS * DIM; i++) {
        wanted += (double)dinputs[i] * (double)direction[i];
    }
    const double difference = (losses[1] - losses[0]) / (2.0 * (double)step);
    print_message("along a direction: %.5f, gradient %.5f\n", difference, wanted);
    assert_true(fabs(difference - wanted) < 0.01 * fabs(wanted));
    const double with_mask = losses[0];
    batch.dropout_seed++;
    const float *other = network_sasrec.forward(problem.network, &batch);
    double loss = 0.0;
    for (size_t i = 0; i < EVENTS * DIM; i++) {
        loss += (double)other[i] * (double)kept[i];
    }
    assert_true(fabs(loss - with_mask) > 0.1);
    close_problem();
}

static void backward_called_twice_adds_parameter_gradients(void **state)
{
    (void)state;
    const struct sasrec_settings settings = small_settings();
    open_problem(&settings);
    const struct network_batch batch = batch_of();
    float dhidden[EVENTS * DIM];
    float dinputs[2][EVENTS * DIM];
    float once[FFN * DIM];
    const struct network_parameter *up = network_sasrec.parameter(problem.network, 0);
    for (size_t i = 0; i < problem.n_parameters; i++) {
        const struct network_parameter *p = network_sasrec.parameter(problem.network, i);
        up = strcmp(p->name, "blocks.1.ffn.up.weight") == 0 ? p : up;
    }
    assert_string_equal(up->name, "blocks.1.ffn.up.weight");
    assert_true(up->n == FFN * DIM && up->n_rows == FFN && up->is_decayed);
    for (int i = 0; i < 2; i++) {
        (void)network_sasrec.forward(problem.network, &batch);
        fill_normal(dhidden, NULL, EVENTS * DIM, 22);
        network_sasrec.backward(problem.network, &batch, dhidden, dinputs[i]);
        if (i == 0) {
            memcpy(once, up->gradient, sizeof(once));
        }
    }
    for (size_t i = 0; i < FFN * DIM; i++) {
        assert_true(fabsf(up->gradient[i] - 2.0F * once[i]) < 1e-3F);
    }
    assert_memory_equal(dinputs[0], dinputs[1], sizeof(dinputs[0]));
    close_problem();
}

static void open_attend_padding_is_refused(void **state)
{
    (void)state;
    struct sasrec_settings settings = small_settings();
    settings.attend_padding = true;
    settings.positions_right = true;
    const struct network_config config = config_of(&settings);
    struct network *network = (struct network *)(uintptr_t)1;
    struct error error;
    assert_int_equal(network_sasrec.open(&config, &network, &error), STATUS_INVALID);
    assert_null(network);
    assert_string_equal(error.field, "attend_padding");
    assert_true(network_sasrec.bytes(&config) > EVENTS * DIM * sizeof(float) * 20);
}

static void open_out_of_memory_fails_cleanly(void **state)
{
    (void)state;
    const struct sasrec_settings settings = small_settings();
    const struct network_config config = config_of(&settings);
    enum status status = STATUS_NOMEM;
    int64_t nth = 1;
    for (; status != STATUS_OK; nth++) {
        struct network *network;
        mem_fail_nth(nth);
        status = network_sasrec.open(&config, &network, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        assert_int_equal(network != NULL, status == STATUS_OK);
        network_sasrec.close(network);
    }
    assert_true(nth > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backward_pre_norm_forms_match_differences),
        cmocka_unit_test(backward_post_norm_matches_differences),
        cmocka_unit_test(backward_embeddings_of_all_kinds_match_differences),
        cmocka_unit_test(backward_dropout_matches_differences_of_same_masks),
        cmocka_unit_test(backward_called_twice_adds_parameter_gradients),
        cmocka_unit_test(open_attend_padding_is_refused),
        cmocka_unit_test(open_out_of_memory_fails_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
