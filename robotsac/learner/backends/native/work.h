// What the parts of an update share: settings, what comes with each update, and numbers of the whole batch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "gaussian.h"
#include "layer.h"
#include "pool.h"

extern "C" {

struct Spec {
  int32_t batch, obs, act, critics, subset, threads;
  int32_t actor_depth, critic_depth;
  const int32_t *actor_widths, *critic_widths;
  int32_t layer_norm, batch_norm, mean_value, learned_temperature;
  float log_std_min, log_std_max, target_entropy, log_alpha_min, log_alpha_max;
  float discount, polyak, smooth_time, smooth_space, smooth_sigma;
};

struct Adams {
  float learning_rate, beta1, beta2, epsilon;
};

// A row of a batch's part every ``stride`` numbers; at null = there is none.
struct Part {
  const float* at;
  int64_t stride;

  const float* operator[](int64_t row) const { return at + row * stride; }
};

// Running statistics of what comes into a layer, of all critics.
struct Running {
  float *mean, *variance;
};

// subset, space, running: null = none.
struct Inputs {
  Part obs, action, reward, next_obs, terminal, steps, after;
  const float *mean, *std;
  const float *next_noise, *noise, *space;
  const int64_t* subset;
  const Parameter *critic, *actor, *log_alpha;
  const Running* running;
  Adams critic_adam, actor_adam, alpha_adam;
  int32_t update_actor, repack;
};

struct Losses {
  float critic_loss, q, actor_loss, entropy, alpha;
};
}

// Rows of a batch that one thread takes at a time: few enough for a fair share whatever a thread is held up by, enough
// to read each weight for. Sums over rows are made by such parts, in their order: the number of threads does not show.
constexpr int ROWS_AT_ONCE = 36;

// A part of a network's weights that one thread takes at a time; column < 0: the layer's vectors.
struct Unit {
  int network, layer, column;
};

// ``work`` (rows x PANEL) for a gradient, this thread's own.
inline float* gradient_room(int rows) {
  thread_local Numbers gradient;
  if (gradient.size() < static_cast<size_t>(rows) * PANEL) gradient.resize(static_cast<size_t>(rows) * PANEL);
  return gradient.data();
}

struct Work {
  const Spec spec;
  const Gaussian head;
  const Inputs* in = nullptr;
  float alpha = 0.0f;
  Buffer both, own;  // (s, a) of the batch, below it (s', a'); (s, the actor's own action)
  Numbers next_log_prob, target;

  explicit Work(const Spec& given) : spec(given), head{given.act, given.log_std_min, given.log_std_max} {
    both.shape(2 * spec.batch, spec.obs + spec.act), own.shape(spec.batch, spec.obs + spec.act);
    next_log_prob.assign(spec.batch, 0.0f), target.assign(spec.batch, 0.0f);
  }

  static int parts(int rows) { return (rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE; }
  static int first(int part) { return part * ROWS_AT_ONCE; }
  static int end(int part, int rows) { return std::min(first(part) + ROWS_AT_ONCE, rows); }

  Rows input() { return both.from(0); }
  Rows next_input() { return both.from(spec.batch); }

  void normalised(const float* row, float* into) const {
    for (int j = 0; j < spec.obs; ++j) into[j] = (row[j] - in->mean[j]) / in->std[j];
  }

  // Rows of ``both``, but for the next actions.
  void read(int first, int end) {
    for (int m = first; m < end; ++m) {
      normalised(in->next_obs[m], next_input()[m]);
      normalised(in->obs[m], input()[m]);
      std::copy_n(in->action[m], spec.act, input()[m] + spec.obs);
    }
  }

  // y = r + γ^k (1 − d) (Q(s', a') − α log π(a'|s')).
  float bellman(int m, float next_q) const {
    const float discount = in->steps.at == nullptr ? spec.discount : std::pow(spec.discount, *in->steps[m]);
    return *in->reward[m] + discount * (1.0f - *in->terminal[m]) * (next_q - alpha * next_log_prob[m]);
  }

  // Which critics are asked for the target.
  int asked() const { return in->subset == nullptr ? spec.critics : spec.subset; }
  int asked(int i) const { return in->subset == nullptr ? i : static_cast<int>(in->subset[i]); }

  // Parameter ``of`` one critic of all: each tensor holds those of all critics.
  static Parameter slice(const Parameter& all, long at) {
    return {all.value + at, all.first + at, all.second + at, all.steps,
            all.target == nullptr ? nullptr : all.target + at};
  }

  static void count_steps(const Parameter* parameters, int count) {
    for (int i = 0; i < count; ++i) *parameters[i].steps += 1.0f;
  }

  static Rates rates(const Adams& adams, const Parameter& parameter, float polyak = 0.0f) {
    return Rates::at(adams.learning_rate, adams.beta1, adams.beta2, adams.epsilon, polyak, *parameter.steps);
  }

  Rates critic_rates(const Parameter& parameter) const { return rates(in->critic_adam, parameter, spec.polyak); }

  void step_critic(const Parameter& parameter, const float* gradient, int count) const {
    adam(parameter, 0, gradient, count, critic_rates(parameter));
  }

  // A bias's numbers from ``column`` on: the gradient is the sum of ``rows`` rows.
  void step_bias(const Parameter& bias, int column, int width, const float* by_output, std::ptrdiff_t stride, int rows,
                 float* gradient) const {
    Vec left{}, right{};
    for (int m = 0; m < rows; ++m, by_output += stride) left += load(by_output), right += load(by_output + WIDTH);
    store(gradient, left), store(gradient + WIDTH, right);
    adam(bias, column, gradient, std::min(PANEL, width - column), critic_rates(bias));
  }
};

// J_Q and the mean q over all critics.
template <class Critics>
void tell_critics(const Critics& critics, const Work& work, Losses& losses) {
  double squares = 0.0, total = 0.0;
  for (const auto& critic : critics)
    for (int m = 0; m < work.spec.batch; ++m) {
      const double off = static_cast<double>(critic.q[m]) - work.target[m];
      squares += off * off, total += critic.q[m];
    }
  losses.critic_loss = static_cast<float>(0.5 * squares / work.spec.batch);
  losses.q = static_cast<float>(total / (static_cast<double>(work.spec.batch) * work.spec.critics));
}

// The long ones first, so that no thread begins one when the others are done; ``rows`` of a unit's matrix.
template <class RowsOf>
void longest_first(std::vector<Unit>& units, RowsOf&& rows) {
  std::stable_sort(units.begin(), units.end(), [&](const Unit& a, const Unit& b) {
    if ((a.column < 0) != (b.column < 0)) return b.column < 0;
    return a.column >= 0 && rows(a) > rows(b);
  });
}
