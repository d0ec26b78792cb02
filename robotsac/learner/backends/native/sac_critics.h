// SAC's critics, whose targets follow them: learner/critic.py and the first step of learner/sac.py.
#pragma once

#include "networks.h"
#include "work.h"

class SacCritics {
 public:
  std::vector<Critic> all;

  explicit SacCritics(Work& work) : work_(work), spec_(work.spec) {
    const std::vector<int> widths(spec_.critic_widths, spec_.critic_widths + spec_.critic_depth);
    all.resize(spec_.critics);
    for (Critic& critic : all) critic.shape(spec_.obs + spec_.act, widths, spec_.layer_norm != 0, spec_.batch);
    const int widest = *std::max_element(widths.begin(), widths.end());
    for (Buffer& buffer : scratch_) buffer.shape(spec_.batch, widest);
    for (Numbers* numbers : {&target_q_, &next_q_}) numbers->assign(spec_.batch, 0.0f);
    by_q_.assign(static_cast<size_t>(spec_.critics) * spec_.batch, 0.0f);
    sums_.assign(static_cast<size_t>(blocks(spec_.batch)) * spec_.critics * norm_numbers(), 0.0f);
    for (int i = 0; i < spec_.critics; ++i) {
      for (int l = 0; l < spec_.critic_depth; ++l) add_units(units_, i, l, all[i].hidden[l].weight.rows, spec_.threads);
      units_.push_back({i, spec_.critic_depth, 0, 0});
    }
    longest_first(units_, [&](const Unit& unit) { return all[unit.network].hidden[unit.layer].weight.columns; });
  }

  void attach() {
    for (int i = 0; i < spec_.critics; ++i) {
      Critic& critic = all[i];
      const Parameter* next = work_.in->critic;
      for (size_t l = 0; l < critic.hidden.size(); ++l) {
        Critic::Hidden& layer = critic.hidden[l];
        const long before = static_cast<long>(i) * critic.width(l);
        layer.weight.parameter = Work::slice(*next++, before * layer.weight.rows);
        layer.bias = Work::slice(*next++, before);
        if (!spec_.layer_norm) continue;
        layer.scale = Work::slice(*next++, before);
        layer.shift = Work::slice(*next++, before);
      }
      critic.last = Work::slice(*next++, static_cast<long>(i) * critic.width(critic.hidden.size() - 1));
      critic.last_bias = Work::slice(*next++, i);
    }
  }

  void pack() {
    for (Critic& critic : all) critic.pack();
  }

  // One step; ``act_next(first, end)`` has the actor act at s' of some rows.
  template <class ActNext>
  void learn(Pool& pool, ActNext&& act_next, Losses& losses) {
    work_.by_rows(pool, spec_.batch, [&](int first, int end) {
      work_.read(first, end);
      act_next(first, end);
      bellman_target(first, end);
      for (int i = 0; i < spec_.critics; ++i) judge(i, first, end);
    });
    pool.each(static_cast<int>(units_.size()), [&](int i) { step(units_[i]); });
    Work::count_steps(work_.in->critic, (spec_.layer_norm ? 4 : 2) * spec_.critic_depth + 2);
    tell_critics(all, work_, losses);
  }

 private:
  int norm_numbers() const { return spec_.layer_norm ? all[0].sums_before(all[0].hidden.size()) : 0; }

  float* sums(int block, int network) {
    return sums_.data() + (static_cast<long>(block) * spec_.critics + network) * norm_numbers();
  }

  float* by_q(int network) { return by_q_.data() + static_cast<long>(network) * spec_.batch; }

  void judge(int network, int first, int end) {
    Critic& critic = all[network];
    critic.forward(work_.input(), first, end);
    const float share = 1.0f / static_cast<float>(spec_.batch);
    for (int m = first; m < end; ++m) by_q(network)[m] = (critic.q[m] - work_.target[m]) * share;
    by_blocks(first, end, [&](int block, int, int) { std::fill_n(sums(block, network), norm_numbers(), 0.0f); });
    critic.backward(
        by_q(network) + first, first, end - first, [&](int i) { return first + i; },
        [&](int i) { return spec_.layer_norm ? sums((first + i) / SUMMED_ROWS, network) : nullptr; });
  }

  // With the smallest of the targets that are asked.
  void bellman_target(int first, int end) {
    for (int i = 0; i < work_.asked(); ++i) {
      all[work_.asked(i)].target_forward(work_.next_input(), first, end, scratch_, target_q_.data());
      for (int m = first; m < end; ++m)
        if (i == 0 || target_q_[m] < next_q_[m] || target_q_[m] != target_q_[m]) next_q_[m] = target_q_[m];
    }
    for (int m = first; m < end; ++m) work_.target[m] = work_.bellman(m, next_q_[m]);
  }

  void step(const Unit& unit) {
    Critic& critic = all[unit.network];
    const size_t l = unit.layer;
    if (l == critic.hidden.size()) return step_last(critic, unit.network);
    Critic::Hidden& layer = critic.hidden[l];
    const Rows input = l == 0 ? work_.input() : critic.hidden[l - 1].output.from(0), by_output = layer.gradient.from(0);
    if (unit.end > 0)
      return step_weight(layer.weight, unit, input, by_output, spec_.batch, work_.critic_rates(layer.weight.parameter));
    step_bias(layer.bias, critic.width(l), by_output, spec_.batch, work_.critic_rates(layer.bias));
    if (spec_.layer_norm) step_norm(layer, critic.width(l), unit.network, critic.sums_before(l));
  }

  void step_norm(Critic::Hidden& layer, int width, int network, int before) {
    Numbers gradient(2 * static_cast<size_t>(width), 0.0f);
    for (int block = 0; block < blocks(spec_.batch); ++block)
      for (int i = 0; i < 2 * width; ++i) gradient[i] += sums(block, network)[before + i];
    work_.step_critic(layer.scale, gradient.data(), width);
    work_.step_critic(layer.shift, gradient.data() + width, width);
  }

  void step_last(Critic& critic, int network) {
    const int width = critic.width(critic.hidden.size() - 1);
    Numbers gradient(width, 0.0f);
    float bias = 0.0f;
    for (int m = 0; m < spec_.batch; ++m) {
      const float* h = critic.hidden.back().output[m];
      const float by = by_q(network)[m];
#pragma GCC ivdep
      for (int i = 0; i < width; ++i) gradient[i] += by * h[i];
      bias += by;
    }
    work_.step_critic(critic.last, gradient.data(), width);
    work_.step_critic(critic.last_bias, &bias, 1);
  }

  Work& work_;
  const Spec& spec_;
  Buffer scratch_[2];
  Numbers target_q_, next_q_, by_q_, sums_;
  std::vector<Unit> units_;
};
