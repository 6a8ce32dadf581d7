/* Gradients of gru4rec and attention. The naive forward passes below say the definitions of
 * gru4rec.h and attention.h in double, event by event; their central differences are what the
 * gradients are compared with. Dropout, whose masks are the network's own, is compared with
 * differences of the network itself. */
#include "embeddings/train/network.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "embeddings/attention.h"
#include "embeddings/gru4rec.h"

enum {
    DIM = 5,
    HIDDEN = 4,
    WIDEST = 5,
    HISTORY = 7,
    N_SEQUENCES = 6,
    EVENTS = 19,
    PARAMETERS = 18,
    VALUES = 80,
};
static const uint32_t offsets[N_SEQUENCES + 1] = {0, 1, 5, 7, 14, 15, 19}; /* lengths 1 … 7 */

struct problem {
    const struct network_architecture *architecture;
    struct network *network;
    size_t n_layers, hidden_dim; /* of gru4rec */
    bool has_output;
    struct history_event events[EVENTS];
    float inputs_f32[EVENTS * DIM];
    double inputs[EVENTS * DIM];
    double values[PARAMETERS][VALUES];
    double projection[EVENTS * DIM]; /* loss = Σ projection × hidden */
};
static struct problem problem;
typedef void naive_forward(const struct problem *p, double *hidden);

static struct network_batch batch_of(void)
{
    return (struct network_batch){.n_sequences = N_SEQUENCES,
                                  .offsets = offsets,
                                  .events = problem.events,
                                  .inputs = problem.inputs_f32};
}

/* Random weights everywhere, so that no gradient is zero by chance. */
static void open_problem(const struct network_architecture *architecture, const void *settings)
{
    struct rng rng;
    rng_init(&rng, 11);
    const struct network_config config = {DIM, EVENTS, N_SEQUENCES, 5, settings};
    problem.architecture = architecture;
    assert_int_equal(architecture->open(&config, &problem.network, NULL), STATUS_OK);
    assert_true(architecture->n_parameters(problem.network) <= PARAMETERS);
    for (size_t i = 0; i < architecture->n_parameters(problem.network); i++) {
        struct network_parameter *p = architecture->parameter(problem.network, i);
        assert_true(p->n <= VALUES);
        for (size_t v = 0; v < p->n; v++) {
            p->value[v] += (float)(0.4 * rng_normal(&rng));
            problem.values[i][v] = (double)p->value[v];
        }
    }
    for (size_t i = 0; i < EVENTS * DIM; i++) {
        problem.inputs_f32[i] = (float)rng_normal(&rng);
        problem.inputs[i] = (double)problem.inputs_f32[i];
        problem.projection[i] = (double)(float)rng_normal(&rng);
    }
    for (size_t e = 0; e < EVENTS; e++) {
        problem.events[e] = (struct history_event){
            .type = (enum event_type)rng_below(&rng, N_EVENT_TYPES), .time_ms = EVENT_TIME_UNKNOWN};
    }
}

static void close_problem(void)
{
    problem.architecture->close(problem.network);
    problem.network = NULL;
}

/* weight [out × in] row o times x, plus bias[o] (or NULL) */
static double row_product(const double *weight, const double *bias, size_t o, const double *x,
                          size_t n_in)
{
    double sum = bias != NULL ? bias[o] : 0.0;
    for (size_t i = 0; i < n_in; i++) {
        sum += weight[o * n_in + i] * x[i];
    }
    return sum;
}

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static void gru4rec_step_naive(const struct problem *p, size_t layer, const double *x,
                               double *state)
{
    const double(*w)[VALUES] = p->values + 4 * layer;
    const size_t h = p->hidden_dim;
    const size_t n_in = layer == 0 ? DIM : h;
    double next[WIDEST];
    for (size_t c = 0; c < h; c++) {
        const double r =
            sigmoid(row_product(w[0], w[1], c, x, n_in) + row_product(w[2], w[3], c, state, h));
        const double z = sigmoid(row_product(w[0], w[1], h + c, x, n_in) +
                                 row_product(w[2], w[3], h + c, state, h));
        const double n = tanh(row_product(w[0], w[1], 2 * h + c, x, n_in) +
                              r * row_product(w[2], w[3], 2 * h + c, state, h));
        next[c] = (1.0 - z) * n + z * state[c];
    }
    memcpy(state, next, h * sizeof(*state));
}

static void gru4rec_naive(const struct problem *p, double *hidden)
{
    for (size_t s = 0; s < N_SEQUENCES; s++) {
        double states[GRU4REC_LAYERS_MAX][WIDEST] = {{0.0}};
        for (size_t e = offsets[s]; e < offsets[s + 1]; e++) {
            const double *x = p->inputs + e * DIM;
            for (size_t layer = 0; layer < p->n_layers; layer++) {
                gru4rec_step_naive(p, layer, x, states[layer]);
                x = states[layer];
            }
            const double(*output)[VALUES] = p->values + 4 * p->n_layers;
            for (size_t c = 0; c < DIM; c++) {
                hidden[e * DIM + c] =
                    p->has_output ? row_product(output[0], output[1], c, x, p->hidden_dim) : x[c];
            }
        }
    }
}

/* values: query, recency, types, mix, newest, bias */
static void attention_event_naive(const struct problem *p, size_t first, size_t newest,
                                  double *hidden)
{
    const double *v0 = p->inputs + newest * DIM;
    double scores[HISTORY];
    double pooled[DIM] = {0.0};
    double sum = 0.0;
    for (size_t j = 0; newest - j + 1 > first; j++) { /* newest first, as the definition counts */
        const double *v = p->inputs + (newest - j) * DIM;
        double dot = 0.0;
        for (size_t c = 0; c < DIM; c++) {
            dot += row_product(p->values[0], NULL, c, v0, DIM) * v[c];
        }
        scores[j] = exp(dot / sqrt((double)DIM) + p->values[1][j] +
                        p->values[2][p->events[newest - j].type]);
        sum += scores[j];
    }
    for (size_t j = 0; newest - j + 1 > first; j++) {
        for (size_t c = 0; c < DIM; c++) {
            pooled[c] += scores[j] / sum * p->inputs[(newest - j) * DIM + c];
        }
    }
    for (size_t c = 0; c < DIM; c++) {
        hidden[c] = row_product(p->values[3], p->values[5], c, pooled, DIM) +
                    row_product(p->values[4], NULL, c, v0, DIM);
    }
}

static void attention_naive(const struct problem *p, double *hidden)
{
    for (size_t s = 0; s < N_SEQUENCES; s++) {
        for (size_t e = offsets[s]; e < offsets[s + 1]; e++) {
            attention_event_naive(p, offsets[s], e, hidden + e * DIM);
        }
    }
}

static double naive_loss(naive_forward *forward)
{
    double hidden[EVENTS * DIM];
    double loss = 0.0;
    forward(&problem, hidden);
    for (size_t i = 0; i < EVENTS * DIM; i++) {
        loss += problem.projection[i] * hidden[i];
    }
    return loss;
}

/* Largest difference over largest value of a gradient [n] of values [n] in the problem. */
static double gradient_error(naive_forward *forward, double *values, const float *gradient,
                             size_t n)
{
    const double step = 1e-5;
    double worst = 0.0;
    double largest = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double kept = values[i];
        values[i] = kept + step;
        const double above = naive_loss(forward);
        values[i] = kept - step;
        const double wanted = (above - naive_loss(forward)) / (2.0 * step);
        values[i] = kept;
        worst = fmax(worst, fabs(wanted - (double)gradient[i]));
        largest = fmax(largest, fabs(wanted));
    }
    assert_true(largest > 1e-3); /* else nothing was compared */
    return worst / largest;
}

static void run(const struct network_batch *batch, float *input_gradient)
{
    float dhidden[EVENTS * DIM];
    (void)problem.architecture->forward(problem.network, batch);
    for (size_t i = 0; i < EVENTS * DIM; i++) {
        dhidden[i] = (float)problem.projection[i];
    }
    problem.architecture->backward(problem.network, batch, dhidden, input_gradient);
}

/* Forward within 1e-5, gradients within 1e-4, of each tensor's largest value; a second pass adds to
 * the parameters' gradients and writes the inputs' anew. */
static void compare_with_naive(naive_forward *forward)
{
    const struct network_architecture *a = problem.architecture;
    const struct network_batch batch = batch_of();
    double wanted[EVENTS * DIM];
    float dinputs[EVENTS * DIM];
    forward(&problem, wanted);
    const float *hidden = a->forward(problem.network, &batch);
    for (size_t i = 0; i < EVENTS * DIM; i++) {
        assert_true(fabs(wanted[i] - (double)hidden[i]) <= 1e-5 * (1.0 + fabs(wanted[i])));
    }
    double worst = 0.0;
    for (int pass = 1; pass <= 2; pass++) {
        memset(dinputs, 0x7f, sizeof(dinputs));
        run(&batch, dinputs);
        worst = fmax(worst, gradient_error(forward, problem.inputs, dinputs, EVENTS * DIM));
        for (size_t i = 0; i < a->n_parameters(problem.network); i++) {
            const struct network_parameter *p = a->parameter(problem.network, i);
            float gradient[VALUES];
            for (size_t v = 0; v < p->n; v++) {
                gradient[v] = p->gradient[v] / (float)pass;
            }
            worst = fmax(worst, gradient_error(forward, problem.values[i], gradient, p->n));
        }
    }
    print_message("%s: worst gradient is off by %.2g\n", a->name, worst);
    assert_true(worst < 1e-4);
}

static struct gru4rec_settings gru(size_t n_layers, bool has_output)
{
    struct gru4rec_settings s;
    gru4rec_settings_default(&s);
    s.dim = DIM;
    s.item_dim = DIM;
    s.hidden_dim = has_output ? HIDDEN : DIM;
    s.n_layers = n_layers;
    s.history_max = HISTORY;
    s.has_output = has_output;
    problem.n_layers = n_layers;
    problem.hidden_dim = s.hidden_dim;
    problem.has_output = has_output;
    return s;
}

static struct attention_settings attention(void)
{
    struct attention_settings s;
    attention_settings_default(&s);
    s.dim = DIM;
    s.item_dim = DIM;
    s.history_max = HISTORY;
    return s;
}

static void network_gru4rec_matches_naive_differences(void **state)
{
    (void)state;
    for (size_t n_layers = 1; n_layers <= 3; n_layers++) {
        for (int has_output = 0; has_output < 2; has_output++) {
            const struct gru4rec_settings s = gru(n_layers, has_output != 0);
            open_problem(&network_gru4rec, &s);
            compare_with_naive(gru4rec_naive);
            close_problem();
        }
    }
}

static void network_attention_matches_naive_differences(void **state)
{
    (void)state;
    const struct attention_settings s = attention();
    open_problem(&network_attention, &s);
    compare_with_naive(attention_naive);
    close_problem();
}

static double network_loss(const struct network_batch *batch)
{
    const float *hidden = problem.architecture->forward(problem.network, batch);
    double loss = 0.0;
    for (size_t i = 0; i < EVENTS * DIM; i++) {
        loss += problem.projection[i] * (double)hidden[i];
    }
    return loss;
}

/* Along a random direction of values [n], by differences of the network in float32: within 1 %. */
static void assert_slope(const struct network_batch *batch, float *values, const float *gradient,
                         size_t n, uint64_t seed)
{
    const double step = 2e-3;
    float kept[EVENTS * DIM];
    double direction[EVENTS * DIM];
    double loss[2];
    double slope = 0.0;
    double size = 0.0;
    struct rng rng;
    rng_init(&rng, seed);
    assert_true(n <= EVENTS * DIM);
    memcpy(kept, values, n * sizeof(*kept));
    for (size_t i = 0; i < n; i++) {
        direction[i] = rng_normal(&rng);
        slope += direction[i] * (double)gradient[i];
        size += fabs(direction[i] * (double)gradient[i]);
    }
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++) {
            values[i] = kept[i] + (float)((side == 0 ? -step : step) * direction[i]);
        }
        loss[side] = network_loss(batch);
    }
    memcpy(values, kept, n * sizeof(*kept));
    assert_true(size > 1e-3);
    assert_true(fabs((loss[1] - loss[0]) / (2.0 * step) - slope) <= 0.01 * size);
}

static void network_gru4rec_dropout_matches_differences_of_same_masks(void **state)
{
    (void)state;
    const struct gru4rec_settings s = gru(3, true);
    open_problem(&network_gru4rec, &s);
    struct network_batch batch = batch_of();
    float dinputs[EVENTS * DIM];
    const double without = network_loss(&batch);
    batch.dropout = 0.4;
    batch.dropout_seed = 31;
    const double with_mask = network_loss(&batch);
    assert_true(network_loss(&batch) == with_mask);
    assert_true(fabs(with_mask - without) > 1e-2);
    run(&batch, dinputs);
    assert_slope(&batch, problem.inputs_f32, dinputs, EVENTS * DIM, 1);
    for (size_t i = 0; i < network_gru4rec.n_parameters(problem.network); i++) {
        struct network_parameter *p = network_gru4rec.parameter(problem.network, i);
        assert_slope(&batch, p->value, p->gradient, p->n, 2 + i);
    }
    batch.dropout_seed++;
    assert_true(fabs(network_loss(&batch) - with_mask) > 1e-2);
    close_problem();
}

static void network_open_same_seed_gives_same_weights(void **state)
{
    (void)state;
    const struct gru4rec_settings s = gru(2, true);
    struct network_config config = {DIM, EVENTS, N_SEQUENCES, 5, &s};
    struct network *nets[3];
    for (size_t i = 0; i < 3; i++) {
        config.seed = i < 2 ? 5 : 6;
        assert_int_equal(network_gru4rec.open(&config, &nets[i], NULL), STATUS_OK);
    }
    for (size_t i = 0; i < network_gru4rec.n_parameters(nets[0]); i++) {
        const struct network_parameter *p = network_gru4rec.parameter(nets[0], i);
        const size_t n_bytes = p->n * sizeof(float);
        const float zeros[VALUES] = {0.0F};
        assert_memory_equal(p->value, network_gru4rec.parameter(nets[1], i)->value, n_bytes);
        assert_memory_equal(p->gradient, zeros, n_bytes);
        if (p->is_decayed) { /* matrices: Glorot; the others begin at zero */
            assert_true(memcmp(p->value, network_gru4rec.parameter(nets[2], i)->value, n_bytes) !=
                        0);
        } else {
            assert_memory_equal(p->value, zeros, n_bytes);
        }
    }
    for (size_t i = 0; i < 3; i++) {
        network_gru4rec.close(nets[i]);
    }
}

static void network_open_bad_settings_are_refused(void **state)
{
    (void)state;
    struct gru4rec_settings g = gru(GRU4REC_LAYERS_MAX + 1, true);
    struct attention_settings t = attention();
    t.history_max = 0;
    const struct network_config of_gru = {DIM, EVENTS, N_SEQUENCES, 5, &g};
    const struct network_config of_attention = {DIM, EVENTS, N_SEQUENCES, 5, &t};
    struct network *net = (struct network *)&g;
    struct error err = {.message = ""};
    assert_int_equal(network_gru4rec.open(&of_gru, &net, &err), STATUS_INVALID);
    assert_string_equal(err.field, "n_layers");
    assert_null(net);
    net = (struct network *)&g;
    assert_int_equal(network_attention.open(&of_attention, &net, &err), STATUS_INVALID);
    assert_string_equal(err.field, "history_max");
    assert_null(net);
}

static void sweep(const struct network_architecture *architecture, const void *settings)
{
    const struct network_config config = {DIM, EVENTS, N_SEQUENCES, 5, settings};
    enum status status = STATUS_NOMEM;
    int64_t nth = 1;
    for (; status != STATUS_OK && nth < 50; nth++) {
        struct network *net = (struct network *)&problem;
        mem_fail_nth(nth);
        status = architecture->open(&config, &net, NULL);
        mem_fail_nth(0);
        if (status == STATUS_OK) {
            architecture->close(net);
        } else {
            assert_int_equal(status, STATUS_NOMEM);
            assert_null(net);
        }
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(nth > 3);
}

static void network_open_out_of_memory_fails_cleanly(void **state)
{
    (void)state;
    const struct gru4rec_settings g = gru(2, true);
    const struct attention_settings t = attention();
    sweep(&network_gru4rec, &g);
    sweep(&network_attention, &t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(network_gru4rec_matches_naive_differences),
        cmocka_unit_test(network_attention_matches_naive_differences),
        cmocka_unit_test(network_gru4rec_dropout_matches_differences_of_same_masks),
        cmocka_unit_test(network_open_same_seed_gives_same_weights),
        cmocka_unit_test(network_open_bad_settings_are_refused),
        cmocka_unit_test(network_open_out_of_memory_fails_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
