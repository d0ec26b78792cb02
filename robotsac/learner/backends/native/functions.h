// Exponential, hyperbolic tangent and softplus of vectors, to within a few units in the last place.
//
// Reductions and polynomials are those of the Cephes Mathematical Library (S. L. Moshier; expf, tanhf, logf). NaN stays
// NaN.
#pragma once

#include <cstdint>

#include "vector.h"

typedef std::int32_t Ints __attribute__((vector_size(WIDTH * sizeof(std::int32_t))));

constexpr float LOG_2 = 0.69314718055994531f, LOG_2_HIGH = 0.693359375f, LOG_2_LOW = -2.12194440e-4f;

// Horner's rule, the highest power first.
template <class... Rest>
inline Vec polynomial(Vec x, float highest, Rest... rest) {
  Vec value = broadcast(highest);
  ((value = value * x + rest), ...);
  return value;
}

inline Vec absolute(Vec x) { return x < 0.0f ? -x : x; }

// e^x; below -87 and above 88, near where float32 ends, that of the bound.
inline Vec exp(Vec x) {
  constexpr float LOG2_E = 1.44269504088896341f, ROUNDS = 12582912.0f;  // 1.5 * 2^23: a sum with it has no fraction
  x = x > 88.0f ? broadcast(88.0f) : x;
  x = x < -87.0f ? broadcast(-87.0f) : x;
  const Vec shifted = x * LOG2_E + ROUNDS, whole = shifted - ROUNDS;
  const Vec rest = x - whole * LOG_2_HIGH - whole * LOG_2_LOW;
  const Vec series = polynomial(rest, 1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                                1.6666665459e-1f, 5.0000001201e-1f);
  const Ints exponent = (Ints)shifted - (Ints)broadcast(ROUNDS);
  return (series * rest * rest + rest + 1.0f) * (Vec)((exponent + 127) << 23);
}

inline Vec tanh(Vec x) {
  const Vec size = absolute(x), square = x * x;
  const Vec near = polynomial(square, -5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f,
                              -3.33332819422e-1f) *
                       square * x +
                   x;
  const Vec far = 1.0f - 2.0f / (exp(2.0f * size) + 1.0f);
  return size < 0.625f ? near : x < 0.0f ? -far : far;
}

// log(1 + e^x).
inline Vec softplus(Vec x) {
  constexpr float ROOT_HALF = 0.70710678118654752f;
  const Vec small = exp(-absolute(x));
  // log(1 + small), where that is more than the root of 2 by way of half of it.
  const auto halved = (1.0f + small) * ROOT_HALF > 1.0f;
  const Vec off = halved ? 0.5f * small - 0.5f : small, square = off * off;
  const Vec series =
      polynomial(off, 7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                 -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f);
  const Vec log = off - 0.5f * square + square * off * series;
  return relu(x) + (halved ? log + LOG_2_LOW + LOG_2_HIGH : log);
}
