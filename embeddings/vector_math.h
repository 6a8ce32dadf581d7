#ifndef AISLE_EMBEDDINGS_VECTOR_MATH_H
#define AISLE_EMBEDDINGS_VECTOR_MATH_H

#include <stdint.h>
#include <string.h>

/* CPU variants of a kernel, chosen when the program is loaded. Sanitizers are not up yet when the
 * loader chooses, and clang knows the attribute only from later versions on: they get the plain
 * one.
 */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define CPU_VARIANTS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CPU_VARIANTS
#endif

/* e^x for x in -87 … 87 (clamped below), relative error under 3e-7: range reduction to ±ln 2 / 2
 * and a polynomial of degree 6 (Taylor). Written without branches, so that loops over it vectorise.
 */
static inline float exp_fast(float x)
{
    float clamped = x < -87.0F ? -87.0F : x;
    float scaled = clamped * 1.44269504F;
    /* Adding and taking away 1.5 × 2^23 rounds to the nearest whole number. */
    float whole = (scaled + 12582912.0F) - 12582912.0F;
    float r = clamped - whole * 0.693145752F;
    r -= whole * 1.42860677e-6F;
    float p = 1.0F / 720.0F;
    p = p * r + 1.0F / 120.0F;
    p = p * r + 1.0F / 24.0F;
    p = p * r + 1.0F / 6.0F;
    p = p * r + 0.5F;
    p = p * r + 1.0F;
    p = p * r + 1.0F;
    uint32_t bits = (uint32_t)((int32_t)whole + 127) << 23; /* unsigned: x may be NaN */
    float power;
    memcpy(&power, &bits, sizeof(power));
    return p * power;
}

/* Φ(x), the normal distribution, and its density φ(x); absolute error under 2e-7 (M. Abramowitz,
 * I. Stegun, "Handbook of Mathematical Functions", 1964, formula 26.2.17). */
static inline float normal_share(float x, float *density)
{
    float a = x < 0.0F ? -x : x;
    float t = 1.0F / (1.0F + 0.2316419F * a);
    float p = 1.330274429F;
    p = p * t - 1.821255978F;
    p = p * t + 1.781477937F;
    p = p * t - 0.356563782F;
    p = p * t + 0.319381530F;
    *density = 0.398942280F * exp_fast(-0.5F * a * a);
    float tail = *density * p * t;
    return x < 0.0F ? tail : 1.0F - tail;
}

#endif
