// The tanh-Gaussian head (Haarnoja et al. 2018a, appendix C), row by row; the same formulas as
// learner/heads/gaussian.py.
#pragma once

#include <cmath>

struct Gaussian {
  int actions;
  float log_std_min, log_std_max;

  float log_std(float raw) const { return log_std_min + 0.5f * (log_std_max - log_std_min) * (std::tanh(raw) + 1.0f); }

  // ``raw``: means, then what log σ is made of. Writes tanh(μ + σ ε); returns log π of it.
  float sample(const float* raw, const float* noise, float* action) const {
    float log_prob = 0.0f;
    for (int j = 0; j < actions; ++j) {
      const float scale = log_std(raw[actions + j]);
      const float u = raw[j] + std::exp(scale) * noise[j];
      action[j] = std::tanh(u);
      const float x = -2.0f * u, softplus = x > 20.0f ? x : std::log1p(std::exp(x));
      log_prob += -0.5f * noise[j] * noise[j] - scale - 2.0f * (0.69314718055994531f - u - softplus);
    }
    return log_prob - 0.91893853320467274f * static_cast<float>(actions);
  }

  // dL/d(raw) of a sample, from dL/d(log π) and dL/d(action).
  void backward(const float* raw, const float* noise, const float* action, float by_log_prob, const float* by_action,
                float* gradient) const {
    for (int j = 0; j < actions; ++j) {
      const float squashed = std::tanh(raw[actions + j]);
      const float half = 0.5f * (log_std_max - log_std_min);
      const float std = std::exp(log_std_min + half * (squashed + 1.0f));
      // d(log π)/du = 2 tanh u: what squashing does to the density.
      const float by_u = by_log_prob * 2.0f * action[j] + by_action[j] * (1.0f - action[j] * action[j]);
      gradient[j] = by_u;
      gradient[actions + j] = (by_u * std * noise[j] - by_log_prob) * half * (1.0f - squashed * squashed);
    }
  }
};
