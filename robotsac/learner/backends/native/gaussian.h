// The tanh-Gaussian head (Haarnoja et al. 2018a, appendix C), row by row; the same formulas as
// learner/heads/gaussian.py.
#pragma once

#include <algorithm>

#include "functions.h"

struct Gaussian {
  int actions;
  float log_std_min, log_std_max;

  // ``raw``: means, then what log σ is made of. Writes tanh(μ + σ ε); returns log π of it.
  float sample(const float* raw, const float* noise, float* action) const {
    float log_prob = 0.0f;
    for (int first = 0; first < actions; first += WIDTH) {
      const int count = std::min(WIDTH, actions - first);
      const Vec mean = load(raw + first, count), epsilon = load(noise + first, count);
      const Vec log_std = squashed(tanh(load(raw + actions + first, count)));
      const Vec u = mean + exp(log_std) * epsilon;
      store(action + first, tanh(u), count);
      const Vec density = -0.5f * epsilon * epsilon - log_std - 2.0f * (LOG_2 - u - softplus(-2.0f * u));
      for (int j = 0; j < count; ++j) log_prob += density[j];
    }
    return log_prob - 0.91893853320467274f * static_cast<float>(actions);
  }

  // dL/d(raw) of a sample, from dL/d(log π) and dL/d(action).
  void backward(const float* raw, const float* noise, const float* action, float by_log_prob, const float* by_action,
                float* gradient) const {
    for (int first = 0; first < actions; first += WIDTH) {
      const int count = std::min(WIDTH, actions - first);
      const Vec epsilon = load(noise + first, count), a = load(action + first, count);
      const Vec t = tanh(load(raw + actions + first, count)), std = exp(squashed(t));
      // d(log π)/du = 2 tanh u: what squashing does to the density.
      const Vec by_u = by_log_prob * 2.0f * a + load(by_action + first, count) * (1.0f - a * a);
      store(gradient + first, by_u, count);
      const Vec by_raw = (by_u * std * epsilon - by_log_prob) * half() * (1.0f - t * t);
      store(gradient + actions + first, by_raw, count);
    }
  }

 private:
  float half() const { return 0.5f * (log_std_max - log_std_min); }

  // log σ, of a hyperbolic tangent.
  Vec squashed(Vec t) const { return log_std_min + half() * (t + 1.0f); }
};
