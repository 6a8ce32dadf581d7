#ifndef AISLE_TESTS_GRADIENT_CHECK_H
#define AISLE_TESTS_GRADIENT_CHECK_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"

/* Gradients against central differences of a naive form in double precision, whose own error is
 * about 1e-9: what is left is the float arithmetic of the code under test. */
static const double GRADIENT_STEP = 1e-5;

/* Standard normal values, in both precisions. */
static inline void fill_normal(float *x, double *twin, size_t n, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)rng_normal(&rng);
        if (twin != NULL) {
            twin[i] = (double)x[i];
        }
    }
}

/* Largest difference of gradient from the derivatives of loss(problem) by variable[n], over the
 * largest derivative (but at least `floor`). */
static inline double gradient_error(double (*loss)(const void *), const void *problem,
                                    double *variable, const float *gradient, size_t n, double floor)
{
    double worst = 0.0;
    double largest = floor;
    for (size_t i = 0; i < n; i++) {
        const double kept = variable[i];
        variable[i] = kept + GRADIENT_STEP;
        const double up = loss(problem);
        variable[i] = kept - GRADIENT_STEP;
        const double down = loss(problem);
        variable[i] = kept;
        const double wanted = (up - down) / (2.0 * GRADIENT_STEP);
        const double difference = fabs(wanted - (double)gradient[i]);
        largest = fmax(largest, fabs(wanted));
        worst = difference > worst || isnan(difference) ? difference : worst;
    }
    return worst / largest;
}

#endif
