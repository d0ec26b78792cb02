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

// Of a tensor a row, or an update's share, every ``stride`` numbers; at null = there is none.
struct Part {
  const float* at;
  int64_t stride;

  const float* operator[](int64_t row) const { return at + row * stride; }

  void skip(int64_t rows) {
    if (at != nullptr) at += rows * stride;
  }
};

// Running statistics of what comes into a layer, of all critics.
struct Running {
  float *mean, *variance;
};

// Of several updates, the first one's; subset, space, running: null = none.
struct Inputs {
  Part obs, action, reward, next_obs, terminal, steps, after;  // by rows: each update's batch lies below the last
  Part next_noise, noise, space;                               // by updates
  const int64_t* subset;
  const int32_t* update_actor;
  const float *mean, *std;
  const Parameter *critic, *actor, *log_alpha;
  const Running* running;
  Adams critic_adam, actor_adam, alpha_adam;
  int32_t repack;

  // Those of the update after this one.
  void advance(const Spec& spec) {
    for (Part* part : {&obs, &action, &reward, &next_obs, &terminal, &steps, &after}) part->skip(spec.batch);
    for (Part* drawn : {&next_noise, &noise, &space}) drawn->skip(1);
    if (subset != nullptr) subset += spec.subset;
    ++update_actor;
  }
};

struct Losses {
  float critic_loss, q, actor_loss, entropy, alpha;
};
}

// Rows of a batch that one thread takes at a time: many enough to read each weight for. With many threads they are
// fewer.
constexpr int ROWS_AT_ONCE = 64;
// Sums over rows are made by blocks of so many and put together in their order, whoever made them: the number of
// threads does not show.
constexpr int SUMMED_ROWS = 32;

inline int blocks(int rows) { return (rows + SUMMED_ROWS - 1) / SUMMED_ROWS; }

// Calls ``work(block, first, end)`` for the blocks that rows ``first`` to ``end`` - 1 make up.
template <class Each>
inline void by_blocks(int first, int end, Each&& each) {
  for (; first < end; first += SUMMED_ROWS) each(first / SUMMED_ROWS, first, std::min(first + SUMMED_ROWS, end));
}

// Some rows of a weight matrix, which one thread takes at a time; no rows: the layer's vectors.
struct Unit {
  int network, layer, first, end;
};

// Appends what a layer is made up of: all of its ``rows``, in panels of rows, and its vectors.
inline void add_units(std::vector<Unit>& units, int network, int layer, int rows, int threads) {
  // Of few threads, a multiple of both a tile's rows and a panel's; among many, the work is cut finer.
  const int count = threads > 4 ? PANEL : 3 * PANEL;
  for (int first = 0; first < rows; first += count)
    units.push_back({network, layer, first, std::min(first + count, rows)});
  units.push_back({network, layer, 0, 0});
}

// The long ones first, so that no thread begins one when the others are done; ``columns`` of a unit's matrix.
template <class ColumnsOf>
void longest_first(std::vector<Unit>& units, ColumnsOf&& columns) {
  const auto size = [&](const Unit& unit) { return (unit.end - unit.first) * (unit.end ? columns(unit) : 0); };
  std::stable_sort(units.begin(), units.end(), [&](const Unit& a, const Unit& b) { return size(a) > size(b); });
}

// Adam on some rows of ``weight``, down Σ over ``samples`` of left ⊗ right: left's columns are its rows.
inline void step_weight(Matrix& weight, const Unit& unit, const Rows& left, const Rows& right, int samples,
                        const Rates& rates) {
  thread_local Numbers gradient;
  const int stride = panels(weight.columns) * PANEL;
  gradient.resize(static_cast<size_t>(unit.end - unit.first) * stride);
  gradient_rows(left.at + unit.first, left.stride, unit.end - unit.first, right.at, right.stride, weight.columns,
                samples, gradient.data(), stride);
  weight.step(unit.first, unit.end, gradient.data(), stride, rates);
}

// Adam on a bias, down Σ over ``samples`` of what comes to it.
inline void step_bias(const Parameter& bias, int width, const Rows& by_output, int samples, const Rates& rates) {
  thread_local Numbers gradient;
  gradient.assign(panels(width) * PANEL, 0.0f);
  for (int m = 0; m < samples; ++m)
    for (int c = 0; c < width; c += WIDTH)
      store(gradient.data() + c, load(gradient.data() + c) + load(by_output[m] + c));
  adam(bias, 0, gradient.data(), width, rates);
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

  // Calls ``work(first, end)`` for all of ``rows``, shared among the threads.
  template <class Each>
  void by_rows(Pool& pool, int rows, Each&& each) const {
    const int count = spec.threads * ROWS_AT_ONCE <= rows ? ROWS_AT_ONCE : SUMMED_ROWS;
    pool.each((rows + count - 1) / count, [&](int i) { each(i * count, std::min((i + 1) * count, rows)); });
  }

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

  // One critic's part of a parameter from number ``at`` on: each tensor holds those of all critics.
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
