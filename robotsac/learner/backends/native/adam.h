// Adam (Kingma and Ba 2015, algorithm 1), applied where a gradient has just been computed, and the target's move with
// it.
#pragma once

#include <cmath>

// One parameter tensor: its numbers, both moments, the count of steps (a number of torch's own), its target or null.
struct Parameter {
  float *value, *first, *second, *steps, *target;
};

struct Rates {
  float step, beta1, beta2, root_correction, epsilon, polyak;

  // For a tensor that has had ``steps`` steps before this one.
  static Rates at(float learning_rate, float beta1, float beta2, float epsilon, float polyak, float steps) {
    const double count = static_cast<double>(steps) + 1.0;
    const double correction = 1.0 - std::pow(static_cast<double>(beta1), count);
    const double root = std::sqrt(1.0 - std::pow(static_cast<double>(beta2), count));
    return {static_cast<float>(learning_rate / correction), beta1, beta2, static_cast<float>(root), epsilon, polyak};
  }
};

// ``count`` numbers of ``value`` and its moments, down ``gradient``; then those of ``target``, if there is one, toward
// them. None of them overlap.
inline void adam(float* __restrict value, float* __restrict first, float* __restrict second, float* __restrict target,
                 const float* __restrict gradient, int count, const Rates& rates) {
  const float keep1 = 1.0f - rates.beta1, keep2 = 1.0f - rates.beta2, beta2 = rates.beta2, step = rates.step,
              scale = 1.0f / rates.root_correction, epsilon = rates.epsilon, polyak = rates.polyak;
  for (int i = 0; i < count; ++i) {
    const float slope = gradient[i];
    first[i] += (slope - first[i]) * keep1;
    second[i] = second[i] * beta2 + keep2 * slope * slope;
    value[i] -= step * first[i] / (std::sqrt(second[i]) * scale + epsilon);
  }
  if (target == nullptr) return;
  for (int i = 0; i < count; ++i) target[i] += polyak * (value[i] - target[i]);
}

// The same, of a parameter's numbers from ``at`` on.
inline void adam(const Parameter& parameter, long at, const float* gradient, int count, const Rates& rates) {
  float* target = parameter.target == nullptr ? nullptr : parameter.target + at;
  adam(parameter.value + at, parameter.first + at, parameter.second + at, target, gradient, count, rates);
}
