// One SAC update (Haarnoja et al. 2018b, algorithm 1) on a CPU, as one call: what learner/sac.py says, in its order.
//
// Four parallel parts, each shared out by rows of the batch or by panels of a weight matrix:
//
//   rows     actor at s', target critics, soft Bellman target; critics at (s, a), and back to each layer
//   weights  the critics' gradients, Adam and target, panel by panel
//   rows     actor at s, critics at its action, back through both; smoothness terms
//   weights  the actor's gradients and Adam
//
// Numbers live in torch's own tensors. What is kept here are buffers, and the weights in the order in which products
// read them. ``robotsac_update`` takes pointers anew each time; when somebody else has changed a weight, ``repack``
// says so.

#include <cstdint>

#include "gaussian.h"
#include "networks.h"
#include "pool.h"

extern "C" {

struct Spec {
  int32_t batch, obs, act, critics, subset, threads;
  int32_t actor_depth, critic_depth;
  const int32_t *actor_widths, *critic_widths;
  int32_t layer_norm, mean_value, learned_temperature;
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

// subset, space: null = none.
struct Inputs {
  Part obs, action, reward, next_obs, terminal, steps, after;
  const float *mean, *std;
  const float *next_noise, *noise, *space;
  const int64_t* subset;
  const Parameter *critic, *actor, *log_alpha;
  Adams critic_adam, actor_adam, alpha_adam;
  int32_t update_actor, repack;
};

struct Losses {
  float critic_loss, q, actor_loss, entropy, alpha;
};
}

namespace {

constexpr int ROWS_AT_ONCE = 64, ROWS_OF_MANY = 24;

struct Unit {
  int network, layer, column;  // column < 0: the layer's vectors
};

class Update {
 public:
  explicit Update(const Spec& spec)
      : spec_(spec), head_{spec.act, spec.log_std_min, spec.log_std_max}, pool_(spec.threads) {
    const std::vector<int> actor_widths(spec.actor_widths, spec.actor_widths + spec.actor_depth);
    const std::vector<int> critic_widths(spec.critic_widths, spec.critic_widths + spec.critic_depth);
    const int b = spec.batch, inputs = spec.obs + spec.act;
    groups_ = 1 + (spec.smooth_time > 0.0f) + (spec.smooth_space > 0.0f);
    rows_ = spec.threads * ROWS_AT_ONCE <= b ? ROWS_AT_ONCE : ROWS_OF_MANY;
    parts_ = (b + rows_ - 1) / rows_;

    critics_.resize(spec.critics);
    for (Critic& critic : critics_) critic.shape(inputs, critic_widths, spec.layer_norm != 0, b);
    actor_.shape(spec.obs, actor_widths, 2 * spec.act, groups_ * b);
    next_outputs_.resize(actor_.layers.size());
    for (size_t l = 0; l < actor_.layers.size(); ++l) next_outputs_[l].shape(b, actor_.layers[l].weight.rows);
    by_action_.shape(b, spec.act);
    const int widest = *std::max_element(critic_widths.begin(), critic_widths.end());
    for (Buffer& buffer : scratch_) buffer.shape(b, widest);
    next_input_.shape(b, inputs), input_.shape(b, inputs), own_input_.shape(b, inputs);
    actor_input_.shape(groups_ * b, spec.obs);
    for (Numbers* numbers : {&target_q_, &next_q_, &target_, &log_prob_, &value_}) numbers->assign(b, 0.0f);
    by_q_.assign(static_cast<size_t>(spec.critics) * b, 0.0f);
    sums_.assign(static_cast<size_t>(parts_) * spec.critics * norm_numbers(), 0.0f);
    for (int i = 0; i < spec.critics; ++i) add_units(critics_[i].hidden.size(), i, critic_units_);
    for (size_t l = 0; l < actor_.layers.size(); ++l) {
      for (int c = 0; c < actor_.layers[l].weight.columns; c += PANEL)
        actor_units_.push_back({0, static_cast<int>(l), c});
      actor_units_.push_back({0, static_cast<int>(l), -1});
    }
    // The long ones first, so that no thread begins one when the others are done.
    const auto longer = [](const Matrix& a, const Matrix& b) { return a.rows > b.rows; };
    std::stable_sort(critic_units_.begin(), critic_units_.end(), [&](const Unit& a, const Unit& b) {
      if ((a.column < 0) != (b.column < 0)) return b.column < 0;
      return a.column >= 0 &&
             longer(critics_[a.network].hidden[a.layer].weight, critics_[b.network].hidden[b.layer].weight);
    });
    std::stable_sort(actor_units_.begin(), actor_units_.end(), [&](const Unit& a, const Unit& b) {
      if ((a.column < 0) != (b.column < 0)) return b.column < 0;
      return a.column >= 0 && longer(actor_.layers[a.layer].weight, actor_.layers[b.layer].weight);
    });
  }

  void run(const Inputs& inputs, Losses& losses) {
    in_ = &inputs;
    attach();
    if (inputs.repack) {
      for (Critic& critic : critics_) critic.pack();
      actor_.pack();
    }
    const float log_alpha = *inputs.log_alpha->value;
    alpha_ = std::exp(log_alpha);
    pool_.each(parts_, [&](int part) { judge(part); });
    pool_.each(static_cast<int>(critic_units_.size()), [&](int i) { step_critic(critic_units_[i]); });
    count_steps(inputs.critic, critic_parameters());
    tell_critics(losses);
    if (!inputs.update_actor) return;
    pool_.each(parts_, [&](int part) { act(part); });
    pool_.each(static_cast<int>(actor_units_.size()), [&](int i) { step_actor(actor_units_[i]); });
    count_steps(inputs.actor, 2 * static_cast<int>(actor_.layers.size()));
    step_temperature(losses);
  }

 private:
  // ---- what belongs to whom

  void add_units(size_t layers, int network, std::vector<Unit>& units) {
    for (size_t l = 0; l < layers; ++l) {
      for (int c = 0; c < critics_[network].width(l); c += PANEL) units.push_back({network, static_cast<int>(l), c});
      if (spec_.layer_norm) units.push_back({network, static_cast<int>(l), -1});
    }
    units.push_back({network, static_cast<int>(layers), -1});
  }

  int per_layer() const { return spec_.layer_norm ? 4 : 2; }
  int critic_parameters() const { return per_layer() * spec_.critic_depth + 2; }
  int norm_numbers() const { return spec_.layer_norm ? critics_[0].sums_before(critics_[0].hidden.size()) : 0; }

  // Parameter ``of`` critic ``network`` of ``critics_``: each tensor holds those of all critics.
  static Parameter slice(const Parameter& all, long at) {
    return {all.value + at, all.first + at, all.second + at, all.steps, all.target + at};
  }

  void attach() {
    for (int i = 0; i < spec_.critics; ++i) {
      Critic& critic = critics_[i];
      const Parameter* next = in_->critic;
      for (size_t l = 0; l < critic.hidden.size(); ++l) {
        Critic::Hidden& layer = critic.hidden[l];
        layer.weight.parameter = slice(*next++, static_cast<long>(i) * layer.weight.rows * layer.weight.columns);
        layer.bias = slice(*next++, static_cast<long>(i) * critic.width(l));
        if (!spec_.layer_norm) continue;
        layer.scale = slice(*next++, static_cast<long>(i) * critic.width(l));
        layer.shift = slice(*next++, static_cast<long>(i) * critic.width(l));
      }
      critic.last = slice(*next++, static_cast<long>(i) * critic.width(critic.hidden.size() - 1));
      critic.last_bias = slice(*next++, i);
    }
    const Parameter* next = in_->actor;
    for (Actor::Layer& layer : actor_.layers) layer.weight.parameter = *next++, layer.bias = *next++;
  }

  static void count_steps(const Parameter* parameters, int count) {
    for (int i = 0; i < count; ++i) *parameters[i].steps += 1.0f;
  }

  static Rates rates(const Adams& adams, const Parameter& parameter, float polyak = 0.0f) {
    return Rates::at(adams.learning_rate, adams.beta1, adams.beta2, adams.epsilon, polyak, *parameter.steps);
  }

  // ---- rows: critics

  void normalised(const float* row, float* into) const {
    for (int j = 0; j < spec_.obs; ++j) into[j] = (row[j] - in_->mean[j]) / in_->std[j];
  }

  void judge(int part) {
    const int first = part * rows_, end = std::min(first + rows_, spec_.batch);
    for (int m = first; m < end; ++m) {
      normalised(in_->next_obs[m], next_input_[m]);
      normalised(in_->obs[m], input_[m]);
      std::copy_n(in_->action[m], spec_.act, input_[m] + spec_.obs);
    }
    bellman_target(first, end);
    const float share = 1.0f / static_cast<float>(spec_.batch);
    for (int i = 0; i < spec_.critics; ++i) {
      Critic& critic = critics_[i];
      critic.forward(input_.from(0), first, end);
      float* by_q = by_q_.data() + static_cast<long>(i) * spec_.batch;
      for (int m = first; m < end; ++m) by_q[m] = (critic.q[m] - target_[m]) * share;
      float* sums = sums_.data() + (static_cast<long>(part) * spec_.critics + i) * norm_numbers();
      std::fill_n(sums, norm_numbers(), 0.0f);
      critic.backward(
          by_q + first, first, end - first, [&](int row) { return first + row; }, spec_.layer_norm ? sums : nullptr);
    }
  }

  // y = r + γ^k (1 − d) (min Q_θ̄(s', a') − α log π(a'|s')).
  void bellman_target(int first, int end) {
    const Rows raw =
        actor_.forward(next_input_.from(0), first, end, [this](size_t layer) { return next_outputs_[layer].from(0); });
    float next_log_prob[ROWS_AT_ONCE];
    for (int m = first; m < end; ++m)
      next_log_prob[m - first] =
          head_.sample(raw[m], in_->next_noise + static_cast<long>(m) * spec_.act, next_input_[m] + spec_.obs);
    const int count = in_->subset == nullptr ? spec_.critics : spec_.subset;
    for (int i = 0; i < count; ++i) {
      const Critic& critic = critics_[in_->subset == nullptr ? i : in_->subset[i]];
      critic.target_forward(next_input_.from(0), first, end, scratch_, target_q_.data());
      for (int m = first; m < end; ++m)
        if (i == 0 || target_q_[m] < next_q_[m] || target_q_[m] != target_q_[m]) next_q_[m] = target_q_[m];
    }
    for (int m = first; m < end; ++m) {
      const float discount = in_->steps.at == nullptr ? spec_.discount : std::pow(spec_.discount, *in_->steps[m]);
      const float value = next_q_[m] - alpha_ * next_log_prob[m - first];
      target_[m] = *in_->reward[m] + discount * (1.0f - *in_->terminal[m]) * value;
    }
  }

  // ---- weights: critics

  static float* room(int rows) {
    thread_local Numbers gradient;
    if (gradient.size() < static_cast<size_t>(rows) * PANEL) gradient.resize(static_cast<size_t>(rows) * PANEL);
    return gradient.data();
  }

  void step_critic(const Unit& unit) {
    Critic& critic = critics_[unit.network];
    const size_t l = unit.layer;
    if (l == critic.hidden.size()) return step_last(critic, unit.network);
    Critic::Hidden& layer = critic.hidden[l];
    if (unit.column < 0) return step_norm(layer, critic.width(l), unit.network, critic.sums_before(l));
    const Rows input = l == 0 ? input_.from(0) : critic.hidden[l - 1].output.from(0);
    float* gradient = room(layer.weight.rows + 1);
    const float* by_output = layer.gradient[0] + unit.column;
    gradient_panel(input.at, input.stride, layer.weight.rows, by_output, layer.gradient.stride, spec_.batch, gradient);
    layer.weight.step(unit.column, gradient, rates(in_->critic_adam, layer.weight.parameter, spec_.polyak));
    step_bias(layer.bias, unit.column, critic.width(l), by_output, layer.gradient.stride, gradient);
  }

  void step_bias(const Parameter& bias, int column, int width, const float* by_output, std::ptrdiff_t stride,
                 float* gradient) {
    Vec left{}, right{};
    for (int m = 0; m < spec_.batch; ++m, by_output += stride)
      left += load(by_output), right += load(by_output + WIDTH);
    store(gradient, left), store(gradient + WIDTH, right);
    adam(bias, column, gradient, std::min(PANEL, width - column), rates(in_->critic_adam, bias, spec_.polyak));
  }

  void step_norm(Critic::Hidden& layer, int width, int network, int before) {
    Numbers gradient(2 * static_cast<size_t>(width), 0.0f);
    for (int part = 0; part < parts_; ++part) {
      const float* sums = sums_.data() + (static_cast<long>(part) * spec_.critics + network) * norm_numbers() + before;
      for (int i = 0; i < 2 * width; ++i) gradient[i] += sums[i];
    }
    adam(layer.scale, 0, gradient.data(), width, rates(in_->critic_adam, layer.scale, spec_.polyak));
    adam(layer.shift, 0, gradient.data() + width, width, rates(in_->critic_adam, layer.shift, spec_.polyak));
  }

  void step_last(Critic& critic, int network) {
    const int width = critic.width(critic.hidden.size() - 1);
    const float* by_q = by_q_.data() + static_cast<long>(network) * spec_.batch;
    Numbers gradient(width, 0.0f);
    float bias = 0.0f;
    for (int m = 0; m < spec_.batch; ++m) {
      const float* h = critic.hidden.back().output[m];
#pragma GCC ivdep
      for (int i = 0; i < width; ++i) gradient[i] += by_q[m] * h[i];
      bias += by_q[m];
    }
    adam(critic.last, 0, gradient.data(), width, rates(in_->critic_adam, critic.last, spec_.polyak));
    adam(critic.last_bias, 0, &bias, 1, rates(in_->critic_adam, critic.last_bias, spec_.polyak));
  }

  void tell_critics(Losses& losses) const {
    double squares = 0.0, total = 0.0;
    for (const Critic& critic : critics_)
      for (int m = 0; m < spec_.batch; ++m) {
        const double off = static_cast<double>(critic.q[m]) - target_[m];
        squares += off * off, total += critic.q[m];
      }
    losses.critic_loss = static_cast<float>(0.5 * squares / spec_.batch);
    losses.q = static_cast<float>(total / (static_cast<double>(spec_.batch) * spec_.critics));
  }

  // ---- rows: actor

  void act(int part) {
    const int first = part * rows_, end = std::min(first + rows_, spec_.batch),
              last = static_cast<int>(actor_.layers.size()) - 1;
    for (int group = 0; group < groups_; ++group) {
      for (int m = first; m < end; ++m) fill(group, m, actor_input_[group * spec_.batch + m]);
      actor_.forward(actor_input_.from(0), group * spec_.batch + first, group * spec_.batch + end,
                     [this](size_t layer) { return actor_.layers[layer].output.from(0); });
    }
    Buffer &raw = actor_.layers[last].output, &gradient = actor_.layers[last].gradient;
    for (int m = first; m < end; ++m) {
      std::copy_n(input_[m], spec_.obs, own_input_[m]);
      log_prob_[m] = head_.sample(raw[m], noise(m), own_input_[m] + spec_.obs);
    }
    follow_critics(first, end);
    const float by_log_prob = alpha_ / static_cast<float>(spec_.batch);
    for (int m = first; m < end; ++m) {
      head_.backward(raw[m], noise(m), own_input_[m] + spec_.obs, by_log_prob, by_action_[m], gradient[m]);
      for (int group = 1; group < groups_; ++group)
        smooth(group, raw[m], raw[group * spec_.batch + m], gradient[m], gradient[group * spec_.batch + m]);
    }
    for (int group = 0; group < groups_; ++group)
      actor_.backward(group * spec_.batch + first, group * spec_.batch + end);
  }

  const float* noise(int m) const { return in_->noise + static_cast<long>(m) * spec_.act; }

  bool in_time(int group) const { return group == 1 && spec_.smooth_time > 0.0f; }

  // Row m of a group: s; one step later; a neighbour of s.
  void fill(int group, int m, float* into) const {
    if (group == 0) {
      std::copy_n(const_cast<Update*>(this)->input_[m], spec_.obs, into);
    } else if (in_time(group)) {
      normalised((in_->after.at == nullptr ? in_->next_obs : in_->after)[m], into);
    } else {
      const float* s = const_cast<Update*>(this)->input_[m];
      const float* off = in_->space + static_cast<long>(m) * spec_.obs;
      for (int j = 0; j < spec_.obs; ++j) into[j] = s[j] + spec_.smooth_sigma * off[j];
    }
  }

  // w · mean |μ(s) − μ(there)|²: adds to the first gradient, writes the second.
  void smooth(int group, const float* raw, const float* raw_there, float* gradient, float* gradient_there) const {
    const float weight =
        (in_time(group) ? spec_.smooth_time : spec_.smooth_space) * 2.0f / static_cast<float>(spec_.batch);
    for (int j = 0; j < spec_.act; ++j) {
      const float here = std::tanh(raw[j]), there = std::tanh(raw_there[j]);
      gradient[j] += weight * (here - there) * (1.0f - here * here);
      gradient_there[j] = -weight * (here - there) * (1.0f - there * there);
      gradient_there[spec_.act + j] = 0.0f;
    }
  }

  // J_π's value at the actor's own actions, the smaller or the mean of the critics' q, and its gradient by the actions.
  void follow_critics(int first, int end) {
    for (Critic& critic : critics_) critic.forward(own_input_.from(0), first, end);
    for (int m = first; m < end; ++m) {
      float least = critics_[0].q[m], total = 0.0f;
      for (const Critic& critic : critics_) least = critic.q[m] < least ? critic.q[m] : least, total += critic.q[m];
      value_[m] = spec_.mean_value ? total / static_cast<float>(spec_.critics) : least;
      std::fill_n(by_action_[m], spec_.act, 0.0f);
    }
    for (Critic& critic : critics_) follow(critic, first, end);
  }

  // Only the rows whose value depends on this critic go back through it.
  void follow(Critic& critic, int first, int end) {
    int rows[ROWS_AT_ONCE], count = 0;
    float by_q[ROWS_AT_ONCE];
    for (int m = first; m < end; ++m) {
      float share = 1.0f;
      if (spec_.mean_value) {
        share = 1.0f / static_cast<float>(spec_.critics);
      } else if (critic.q[m] == value_[m]) {
        // Among equals the gradient is shared, as torch does.
        const auto equal = [&](const Critic& other) { return other.q[m] == value_[m]; };
        share /= static_cast<float>(std::count_if(critics_.begin(), critics_.end(), equal));
      } else if (value_[m] == value_[m]) {
        continue;
      }
      by_q[count] = -share / static_cast<float>(spec_.batch);
      rows[count++] = m;
    }
    critic.backward(by_q, first, count, [&](int i) { return rows[i]; }, nullptr);
    Critic::Hidden& layer = critic.hidden[0];
    product(layer.gradient[first], layer.gradient.stride, count, layer.weight.columns, layer.weight.by_row.data(),
            spec_.obs / PANEL, panels(layer.weight.rows), [&](int i, int column, Vec left, Vec right) {
              float numbers[PANEL];
              store(numbers, left), store(numbers + WIDTH, right);
              for (int j = 0; j < PANEL; ++j)
                if (const int action = column + j - spec_.obs; action >= 0 && action < spec_.act)
                  by_action_[rows[i]][action] += numbers[j];
            });
  }

  // ---- weights: actor, temperature

  void step_actor(const Unit& unit) {
    Actor::Layer& layer = actor_.layers[unit.layer];
    const int samples = groups_ * spec_.batch;
    if (unit.column < 0) {
      Numbers gradient(layer.weight.rows, 0.0f);
      for (int m = 0; m < samples; ++m) {
        const float* by_output = layer.gradient[m];
#pragma GCC ivdep
        for (int i = 0; i < layer.weight.rows; ++i) gradient[i] += by_output[i];
      }
      return adam(layer.bias, 0, gradient.data(), layer.weight.rows, rates(in_->actor_adam, layer.bias));
    }
    Buffer& input = unit.layer == 0 ? actor_input_ : actor_.layers[unit.layer - 1].output;
    float* gradient = room(layer.weight.rows);
    gradient_panel(layer.gradient[0], layer.gradient.stride, layer.weight.rows, input[0] + unit.column, input.stride,
                   samples, gradient);
    layer.weight.step(unit.column, gradient, rates(in_->actor_adam, layer.weight.parameter));
  }

  // J(α) = −α (mean log π + H̄), one step on log α (2018b, eq. 18); what is told is α before it.
  void step_temperature(Losses& losses) {
    double log_prob = 0.0, value = 0.0;
    for (int m = 0; m < spec_.batch; ++m) log_prob += log_prob_[m], value += value_[m];
    const float mean = static_cast<float>(log_prob / spec_.batch);
    losses.actor_loss = static_cast<float>((alpha_ * log_prob - value) / spec_.batch);
    losses.entropy = -mean;
    losses.alpha = alpha_;
    if (!spec_.learned_temperature) return;
    const Parameter& log_alpha = *in_->log_alpha;
    const float gradient = -alpha_ * (mean + spec_.target_entropy);
    adam(log_alpha, 0, &gradient, 1, rates(in_->alpha_adam, log_alpha));
    *log_alpha.steps += 1.0f;
    *log_alpha.value = std::min(std::max(*log_alpha.value, spec_.log_alpha_min), spec_.log_alpha_max);
  }

  const Spec spec_;
  const Gaussian head_;
  Pool pool_;
  int groups_ = 1, rows_ = 0, parts_ = 0;
  std::vector<Critic> critics_;
  Actor actor_;
  std::vector<Buffer> next_outputs_;  // at s' nothing is kept for a way back
  Buffer scratch_[2], by_action_, next_input_, input_, own_input_, actor_input_;
  Numbers target_q_, next_q_, target_, log_prob_, value_, by_q_, sums_;
  std::vector<Unit> critic_units_, actor_units_;
  const Inputs* in_ = nullptr;
  float alpha_ = 0.0f;
};

}  // namespace

extern "C" {

void* robotsac_create(const Spec* spec) { return new Update(*spec); }

void robotsac_update(void* update, const Inputs* inputs, Losses* losses) {
  static_cast<Update*>(update)->run(*inputs, *losses);
}

void robotsac_destroy(void* update) { delete static_cast<Update*>(update); }

// Bytes of Spec, Adams, Inputs, Parameter: whoever fills them checks that it means the same.
int32_t robotsac_size(int32_t which) {
  const size_t sizes[] = {sizeof(Spec), sizeof(Adams), sizeof(Inputs), sizeof(Parameter)};
  return which >= 0 && which < 4 ? static_cast<int32_t>(sizes[which]) : 0;
}
}
