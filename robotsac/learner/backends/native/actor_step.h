// The actor's step and the temperature's: learner/actor_step.py.
#pragma once

#include "networks.h"
#include "work.h"

class ActorStep {
 public:
  explicit ActorStep(Work& work) : work_(work), spec_(work.spec) {
    const std::vector<int> widths(spec_.actor_widths, spec_.actor_widths + spec_.actor_depth);
    groups_ = 1 + (spec_.smooth_time > 0.0f) + (spec_.smooth_space > 0.0f);
    actor_.shape(spec_.obs, widths, 2 * spec_.act, groups_ * spec_.batch);
    next_outputs_.resize(actor_.layers.size());
    for (size_t l = 0; l < actor_.layers.size(); ++l) next_outputs_[l].shape(spec_.batch, actor_.layers[l].weight.rows);
    input_.shape(groups_ * spec_.batch, spec_.obs);
    by_action_.shape(spec_.batch, spec_.act);
    for (Numbers* numbers : {&log_prob_, &value_}) numbers->assign(spec_.batch, 0.0f);
    for (size_t l = 0; l < actor_.layers.size(); ++l)
      add_units(units_, 0, static_cast<int>(l), actor_.layers[l].weight.rows, spec_.threads);
    longest_first(units_, [&](const Unit& unit) { return actor_.layers[unit.layer].weight.columns; });
  }

  void attach() {
    const Parameter* next = work_.in->actor;
    for (Actor::Layer& layer : actor_.layers) layer.weight.parameter = *next++, layer.bias = *next++;
  }

  void pack() { actor_.pack(); }

  // a' at s' of rows ``first`` to ``end`` - 1, and log π of it.
  void act_next(int first, int end) {
    const Rows raw =
        actor_.forward(work_.next_input(), first, end, [this](size_t layer) { return next_outputs_[layer].from(0); });
    for (int m = first; m < end; ++m)
      work_.next_log_prob[m] = work_.head.sample(raw[m], work_.in->next_noise.at + static_cast<long>(m) * spec_.act,
                                                 work_.next_input()[m] + spec_.obs);
  }

  // One step against ``critics``, and one of the temperature.
  template <class Critic>
  void learn(Pool& pool, std::vector<Critic>& critics, Losses& losses) {
    work_.by_rows(pool, spec_.batch, [&](int first, int end) { act(critics, first, end); });
    pool.each(static_cast<int>(units_.size()), [&](int i) { step(units_[i]); });
    Work::count_steps(work_.in->actor, 2 * static_cast<int>(actor_.layers.size()));
    step_temperature(losses);
  }

 private:
  template <class Critic>
  void act(std::vector<Critic>& critics, int first, int end) {
    for (int group = 0; group < groups_; ++group) {
      for (int m = first; m < end; ++m) fill(group, m, input_[group * spec_.batch + m]);
      actor_.forward(input_.from(0), group * spec_.batch + first, group * spec_.batch + end,
                     [this](size_t layer) { return actor_.layers[layer].output.from(0); });
    }
    Buffer &raw = actor_.layers.back().output, &gradient = actor_.layers.back().gradient;
    for (int m = first; m < end; ++m) {
      std::copy_n(work_.input()[m], spec_.obs, work_.own[m]);
      log_prob_[m] = work_.head.sample(raw[m], noise(m), work_.own[m] + spec_.obs);
    }
    follow(critics, first, end);
    const float by_log_prob = work_.alpha / static_cast<float>(spec_.batch);
    for (int m = first; m < end; ++m) {
      work_.head.backward(raw[m], noise(m), work_.own[m] + spec_.obs, by_log_prob, by_action_[m], gradient[m]);
      for (int group = 1; group < groups_; ++group)
        smooth(group, raw[m], raw[group * spec_.batch + m], gradient[m], gradient[group * spec_.batch + m]);
    }
    for (int group = 0; group < groups_; ++group)
      actor_.backward(group * spec_.batch + first, group * spec_.batch + end);
  }

  const float* noise(int m) const { return work_.in->noise.at + static_cast<long>(m) * spec_.act; }

  bool in_time(int group) const { return group == 1 && spec_.smooth_time > 0.0f; }

  // Row m of a group: s; one step later; a neighbour of s.
  void fill(int group, int m, float* into) {
    const Inputs& in = *work_.in;
    const float* s = work_.input()[m];
    if (group == 0) {
      std::copy_n(s, spec_.obs, into);
    } else if (in_time(group)) {
      work_.normalised((in.after.at == nullptr ? in.next_obs : in.after)[m], into);
    } else {
      const float* off = in.space.at + static_cast<long>(m) * spec_.obs;
      for (int j = 0; j < spec_.obs; ++j) into[j] = s[j] + spec_.smooth_sigma * off[j];
    }
  }

  // w · mean |μ(s) − μ(there)|²: adds to the first gradient, writes the second.
  void smooth(int group, const float* raw, const float* raw_there, float* gradient, float* gradient_there) const {
    const float weight =
        (in_time(group) ? spec_.smooth_time : spec_.smooth_space) * 2.0f / static_cast<float>(spec_.batch);
    for (int j = 0; j < spec_.act; j += WIDTH) {
      const int count = std::min(WIDTH, spec_.act - j);
      const Vec here = tanh(load(raw + j, count)), there = tanh(load(raw_there + j, count));
      const Vec by_here = weight * (here - there) * (1.0f - here * here);
      store(gradient + j, load(gradient + j, count) + by_here, count);
      store(gradient_there + j, weight * (there - here) * (1.0f - there * there), count);
    }
    std::fill_n(gradient_there + spec_.act, spec_.act, 0.0f);
  }

  // J_π's value at the actor's own actions, the smaller or the mean of the critics' q, and its gradient by the actions.
  template <class Critic>
  void follow(std::vector<Critic>& critics, int first, int end) {
    for (Critic& critic : critics) critic.forward(work_.own.from(0), first, end);
    for (int m = first; m < end; ++m) {
      float least = critics[0].q[m], total = 0.0f;
      for (const Critic& critic : critics) {
        if (const float q = critic.q[m]; q < least || q != q) least = q;
        total += critic.q[m];
      }
      value_[m] = spec_.mean_value ? total / static_cast<float>(spec_.critics) : least;
      std::fill_n(by_action_[m], spec_.act, 0.0f);
    }
    for (Critic& critic : critics) follow(critic, critics, first, end);
  }

  // Only the rows whose value depends on this critic go back through it.
  template <class Critic>
  void follow(Critic& critic, const std::vector<Critic>& critics, int first, int end) {
    int rows[ROWS_AT_ONCE], count = 0;
    float by_q[ROWS_AT_ONCE];
    for (int m = first; m < end; ++m) {
      float share = 1.0f;
      if (spec_.mean_value) {
        share = 1.0f / static_cast<float>(spec_.critics);
      } else if (critic.q[m] == value_[m]) {
        // Among equals the gradient is shared, as torch does.
        const auto equal = [&](const Critic& other) { return other.q[m] == value_[m]; };
        share /= static_cast<float>(std::count_if(critics.begin(), critics.end(), equal));
      } else if (value_[m] == value_[m]) {
        continue;
      }
      by_q[count] = -share / static_cast<float>(spec_.batch);
      rows[count++] = m;
    }
    critic.backward(by_q, first, count, [&](int i) { return rows[i]; }, [](int) { return nullptr; });
    critic.to_input(first, count, spec_.obs / PANEL, [&](int i, int column, const float* numbers) {
      for (int j = 0; j < PANEL; ++j)
        if (const int action = column + j - spec_.obs; action >= 0 && action < spec_.act)
          by_action_[rows[i]][action] += numbers[j];
    });
  }

  void step(const Unit& unit) {
    Actor::Layer& layer = actor_.layers[unit.layer];
    const int samples = groups_ * spec_.batch;
    const Rows input = unit.layer == 0 ? input_.from(0) : actor_.layers[unit.layer - 1].output.from(0);
    const Rows by_output = layer.gradient.from(0);
    if (unit.end == 0)
      return step_bias(layer.bias, layer.weight.rows, by_output, samples,
                       Work::rates(work_.in->actor_adam, layer.bias));
    step_weight(layer.weight, unit, by_output, input, samples,
                Work::rates(work_.in->actor_adam, layer.weight.parameter));
  }

  // J(α) = −α (mean log π + H̄), one step on log α (2018b, eq. 18); what is told is α before it.
  void step_temperature(Losses& losses) {
    double log_prob = 0.0, value = 0.0;
    for (int m = 0; m < spec_.batch; ++m) log_prob += log_prob_[m], value += value_[m];
    const float mean = static_cast<float>(log_prob / spec_.batch);
    losses.actor_loss = static_cast<float>((work_.alpha * log_prob - value) / spec_.batch);
    losses.entropy = -mean;
    losses.alpha = work_.alpha;
    if (!spec_.learned_temperature) return;
    const Parameter& log_alpha = *work_.in->log_alpha;
    const float gradient = -work_.alpha * (mean + spec_.target_entropy);
    adam(log_alpha, 0, &gradient, 1, Work::rates(work_.in->alpha_adam, log_alpha));
    *log_alpha.steps += 1.0f;
    *log_alpha.value = std::min(std::max(*log_alpha.value, spec_.log_alpha_min), spec_.log_alpha_max);
  }

  Work& work_;
  const Spec& spec_;
  int groups_ = 1;
  Actor actor_;
  std::vector<Buffer> next_outputs_;  // at s' nothing is kept for a way back
  Buffer input_, by_action_;
  Numbers log_prob_, value_;
  std::vector<Unit> units_;
};
