// Critics whose layers' inputs are normalised over the batch, without targets: learner/batch_norm_critic.py and the
// first step of learner/cross_q.py (Bhatt et al. 2024, CrossQ).
#pragma once

#include "networks.h"
#include "work.h"

// Vectors of a layer's width have room for whole panels, as rows of buffers have: what lies behind the width is 0 and
// stays so.
inline int padded(int width) { return panels(width) * PANEL; }

constexpr float BATCH_NORM_EPS = 1e-3f, BATCH_NORM_MOMENTUM = 0.01f;

// (x − mean) / √(variance + ε) · scale + shift, column by column. The mean is taken off first: it may be many times as
// large as what is left.
struct Normalisation {
  Numbers mean, factor, shift;
  int columns = 0;

  void shape(int width) {
    for (Numbers* numbers : {&mean, &factor, &shift}) numbers->assign(padded(width), 0.0f);
    columns = width;
  }

  void of(const float* mean_, const float* variance, const float* scale, const float* shift_) {
    for (int c = 0; c < columns; ++c) {
      mean[c] = mean_[c], shift[c] = shift_[c];
      factor[c] = scale[c] / std::sqrt(variance[c] + BATCH_NORM_EPS);
    }
  }

  void apply(const float* x, float* into) const {
    const float *means = mean.data(), *factors = factor.data(), *shifts = shift.data();
    for (int c = 0; c < columns; c += WIDTH)
      store(into + c, (load(x + c) - load(means + c)) * load(factors + c) + load(shifts + c));
  }
};

// Two sums over a batch for each column, block by block (see SUMMED_ROWS).
struct ColumnSums {
  Numbers numbers;
  int room = 0, count = 0;  // columns; blocks

  void shape(int width, int rows) {
    room = padded(width), count = blocks(rows);
    numbers.assign(2 * static_cast<size_t>(room) * count, 0.0f);
  }

  float* first(int block) { return numbers.data() + 2 * static_cast<size_t>(block) * room; }
  float* second(int block) { return first(block) + room; }

  void clear(int block) { std::fill_n(first(block), 2 * room, 0.0f); }

  // Both over all blocks.
  void total(float* first_sum, float* second_sum) {
    std::fill_n(first_sum, room, 0.0f), std::fill_n(second_sum, room, 0.0f);
    for (int block = 0; block < count; ++block)
      for (int c = 0; c < room; c += WIDTH) {
        store(first_sum + c, load(first_sum + c) + load(first(block) + c));
        store(second_sum + c, load(second_sum + c) + load(second(block) + c));
      }
  }

  // Means and sums of squares about them, of the blocks of some rows.
  void measure(const Rows& x, int first_row, int end_row) {
    by_blocks(first_row, end_row, [&](int block, int begin, int end) {
      const float share = 1.0f / static_cast<float>(end - begin);
      for (int c = 0; c < room; c += WIDTH) {
        Vec mean{}, squares{};
        for (int m = begin; m < end; ++m) mean += load(x[m] + c);
        mean *= share;
        for (int m = begin; m < end; ++m) squares += (load(x[m] + c) - mean) * (load(x[m] + c) - mean);
        store(first(block) + c, mean), store(second(block) + c, squares);
      }
    });
  }

  // Mean and variance over all blocks (Chan et al. 1983, eq. 2.1), of ``rows`` rows.
  void moments(int rows, float* mean, float* variance) {
    std::fill_n(mean, room, 0.0f), std::fill_n(variance, room, 0.0f);
    for (int block = 0, before = 0; before < rows; ++block) {
      const int more = std::min(SUMMED_ROWS, rows - before);
      const float share = static_cast<float>(more) / static_cast<float>(before + more);
      const float weight = share * static_cast<float>(before);
      for (int c = 0; c < room; c += WIDTH) {
        const Vec off = load(first(block) + c) - load(mean + c);
        store(mean + c, load(mean + c) + off * share);
        store(variance + c, load(variance + c) + load(second(block) + c) + off * off * weight);
      }
      before += more;
    }
    for (int c = 0; c < room; c += WIDTH) store(variance + c, load(variance + c) / static_cast<float>(rows));
  }
};

// One Q-function. Layer l: normalise its input, times the weights (in x out), bias, relu; the last one has one output.
struct NormedCritic {
  struct Layer {
    Matrix weight;  // unused in the last layer, whose weights are a vector:
    Parameter vector{}, bias{}, scale{}, shift{};
    Running running{};
    Normalisation now, later;    // by the batch's statistics; by the running ones
    Numbers mean, rstd;          // of the batch
    Numbers weights;             // the vector's numbers, with room for whole panels
    Numbers by_scale, by_shift;  // gradients of scale and shift
    ColumnSums statistics, gradients;
    Buffer x, normed;            // what comes in, but for the first layer's; normalised
    Buffer gradient, by_normed;  // dL/d(what the product gave, before relu); dL/d(normed)
    int in = 0, out = 0;
  };

  std::vector<Layer> layers;
  Numbers q, by_q;  // (2b,)

  void shape(int inputs, const std::vector<int>& widths, int rows) {
    layers.resize(widths.size() + 1);
    q.assign(rows, 0.0f), by_q.assign(rows, 0.0f);
    for (size_t l = 0; l < layers.size(); ++l) {
      Layer& layer = layers[l];
      layer.in = inputs, layer.out = l < widths.size() ? widths[l] : 1;
      layer.now.shape(inputs), layer.later.shape(inputs);
      for (Numbers* numbers : {&layer.mean, &layer.rstd, &layer.weights, &layer.by_scale, &layer.by_shift})
        numbers->assign(padded(inputs), 0.0f);
      layer.statistics.shape(inputs, rows), layer.gradients.shape(inputs, rows);
      layer.normed.shape(rows, inputs), layer.by_normed.shape(rows, inputs);
      if (l > 0) layer.x.shape(rows, inputs);
      if (l == widths.size()) break;
      layer.weight.shape(inputs, layer.out);
      layer.gradient.shape(rows, layer.out);
      inputs = layer.out;
    }
  }

  void pack() {
    for (size_t l = 0; l + 1 < layers.size(); ++l) layers[l].weight.pack();
  }

  void copy_vector() { std::copy_n(layers.back().vector.value, layers.back().in, layers.back().weights.data()); }

  // ``input``'s rows for the first layer, its own for all others.
  Rows x(size_t l, const Rows& input) { return l == 0 ? input : layers[l].x.from(0); }

  // Layer ``l`` of rows ``first`` to ``end`` - 1, normalised ``by``: the next layer's x, or q.
  void forward(size_t l, const Rows& input, int first, int end, const Normalisation& by) {
    Layer& layer = layers[l];
    const Rows from = x(l, input), normed = layer.normed.from(0);
    for (int m = first; m < end; ++m) by.apply(from[m], normed[m]);
    if (l + 1 < layers.size())
      return layer_forward(normed, first, end, layer.weight.by_column, layer.in, layer.out, layer.bias.value, false,
                           layers[l + 1].x.from(0));
    for (int m = first; m < end; ++m) q[m] = dot(normed[m], layer.vector.value, layer.in) + layer.bias.value[0];
  }

  // q of rows ``first`` to ``end`` - 1 by the running statistics.
  void forward(const Rows& input, int first, int end) {
    for (size_t l = 0; l < layers.size(); ++l) forward(l, input, first, end, layers[l].later);
  }

  // The way back by the running statistics; see Critic::backward.
  template <class Row, class Sums>
  void backward(const float* dq, int at, int count, Row&& row, Sums&&) {
    const Layer& last = layers.back();
    size_t l = layers.size() - 2;
    for (int i = 0; i < count; ++i) {
      const float* x = last.x.numbers.data() + row(i) * last.x.stride;
      float* g = layers[l].gradient[at + i];
      const float *weights = last.weights.data(), *factor = last.later.factor.data();
      for (int c = 0; c < last.in; c += WIDTH)
        store(g + c, where_positive(load(x + c), dq[i] * load(weights + c) * load(factor + c)));
    }
    for (; l > 0; --l)
      to_normed(l, at, count, 0, [&](int i, int column, Vec left, Vec right) {
        const float *x = layers[l].x[row(i)] + column, *factor = layers[l].later.factor.data() + column;
        float* g = layers[l - 1].gradient[at + i] + column;
        store(g, where_positive(load(x), left * load(factor)));
        store(g + WIDTH, where_positive(load(x + WIDTH), right * load(factor + WIDTH)));
      });
  }

  // See Critic::to_input.
  template <class Out>
  void to_input(int at, int count, int panel, Out&& out) {
    to_normed(0, at, count, panel, [&](int i, int column, Vec left, Vec right) {
      float numbers[PANEL];
      const float* factor = layers[0].later.factor.data() + column;
      store(numbers, left * load(factor)), store(numbers + WIDTH, right * load(factor + WIDTH));
      out(i, column, numbers);
    });
  }

  // dL/d(normed) of layer ``l``, from its ``count`` gradients at ``at``.
  template <class Out>
  void to_normed(size_t l, int at, int count, int panel, Out&& out) {
    Layer& layer = layers[l];
    product(layer.gradient[at], layer.gradient.stride, count, layer.out, layer.weight.by_row.data(), panel,
            panels(layer.in), std::forward<Out>(out));
  }
};

class NormedCritics {
 public:
  std::vector<NormedCritic> all;

  explicit NormedCritics(Work& work) : work_(work), spec_(work.spec), rows_(2 * spec_.batch) {
    const std::vector<int> widths(spec_.critic_widths, spec_.critic_widths + spec_.critic_depth);
    all.resize(spec_.critics);
    for (NormedCritic& critic : all) critic.shape(spec_.obs + spec_.act, widths, rows_);
    for (int i = 0; i < spec_.critics; ++i) {
      for (int l = 0; l < spec_.critic_depth; ++l) add_units(units_, i, l, all[i].layers[l].in, spec_.threads);
      units_.push_back({i, spec_.critic_depth, 0, 0});
    }
    longest_first(units_, [&](const Unit& unit) { return all[unit.network].layers[unit.layer].out; });
  }

  void attach() {
    for (int i = 0; i < spec_.critics; ++i) {
      const Parameter* next = work_.in->critic;
      const Running* running = work_.in->running;
      for (NormedCritic::Layer& layer : all[i].layers) {
        const long before = static_cast<long>(i) * layer.in;
        layer.scale = Work::slice(*next++, before);
        layer.shift = Work::slice(*next++, before);
        layer.vector = layer.weight.parameter = Work::slice(*next++, before * layer.out);
        layer.bias = Work::slice(*next++, static_cast<long>(i) * layer.out);
        layer.running = {running->mean + before, running->variance + before};
        ++running;
      }
      all[i].copy_vector();
    }
  }

  void pack() {
    for (NormedCritic& critic : all) critic.pack();
  }

  // One step; ``act_next(first, end)`` has the actor act at s' of some rows. (s, a) and (s', a') go through together.
  template <class ActNext>
  void learn(Pool& pool, ActNext&& act_next, Losses& losses) {
    const size_t depth = all[0].layers.size() - 1;
    work_.by_rows(pool, spec_.batch, [&](int first, int end) {
      work_.read(first, end);
      act_next(first, end);
    });
    // All critics are given the same.
    ColumnSums& given = all[0].layers[0].statistics;
    work_.by_rows(pool, rows_, [&](int first, int end) { given.measure(work_.both.from(0), first, end); });
    for (size_t l = 0; l <= depth; ++l) {
      for (NormedCritic& critic : all) normalise(critic.layers[l], l == 0 ? given : critic.layers[l].statistics);
      work_.by_rows(pool, rows_, [&](int first, int end) {
        for (NormedCritic& critic : all) {
          critic.forward(l, work_.both.from(0), first, end, critic.layers[l].now);
          if (l < depth) critic.layers[l + 1].statistics.measure(critic.layers[l + 1].x.from(0), first, end);
        }
      });
    }
    bellman_target();
    work_.by_rows(pool, rows_, [&](int first, int end) {
      for (NormedCritic& critic : all) first_sums(critic, first, end);
    });
    for (NormedCritic& critic : all) last_gradients(critic);
    for (size_t l = depth; l > 0; --l) {
      work_.by_rows(pool, rows_, [&](int first, int end) {
        for (NormedCritic& critic : all) back(critic, l, first, end);
      });
      for (NormedCritic& critic : all) {
        NormedCritic::Layer& layer = critic.layers[l - 1];
        layer.gradients.total(layer.by_shift.data(), layer.by_scale.data());
      }
    }
    pool.each(static_cast<int>(units_.size()), [&](int i) { step(units_[i]); });
    Work::count_steps(work_.in->critic, 4 * static_cast<int>(depth + 1));
    for (NormedCritic& critic : all) {
      critic.copy_vector();
      for (NormedCritic::Layer& layer : critic.layers)
        layer.later.of(layer.running.mean, layer.running.variance, layer.scale.value, layer.shift.value);
    }
    tell_critics(all, work_, losses);
  }

 private:
  // By the batch's statistics; the running ones move toward them.
  void normalise(NormedCritic::Layer& layer, ColumnSums& statistics) const {
    Numbers variance(padded(layer.in));
    statistics.moments(rows_, layer.mean.data(), variance.data());
    for (int c = 0; c < layer.in; ++c) {
      layer.rstd[c] = 1.0f / std::sqrt(variance[c] + BATCH_NORM_EPS);
      layer.running.mean[c] += BATCH_NORM_MOMENTUM * (layer.mean[c] - layer.running.mean[c]);
      layer.running.variance[c] += BATCH_NORM_MOMENTUM * (variance[c] - layer.running.variance[c]);
    }
    layer.now.of(layer.mean.data(), variance.data(), layer.scale.value, layer.shift.value);
  }

  // The smallest of Q(s', a') that are asked is the target of Q(s, a); only the latter have a gradient of their own.
  void bellman_target() {
    const float share = 1.0f / static_cast<float>(spec_.batch);
    for (int m = 0; m < spec_.batch; ++m) {
      float least = 0.0f;
      for (int i = 0; i < work_.asked(); ++i)
        if (const float q = all[work_.asked(i)].q[spec_.batch + m]; i == 0 || q < least || q != q) least = q;
      work_.target[m] = work_.bellman(m, least);
      for (NormedCritic& critic : all) critic.by_q[m] = (critic.q[m] - work_.target[m]) * share;
    }
  }

  // Of the last layer, whose weights are a vector: Σ dL/dq and Σ dL/dq · x̂, the former in the first column.
  void first_sums(NormedCritic& critic, int first, int end) const {
    NormedCritic::Layer& layer = critic.layers.back();
    by_blocks(first, end, [&](int block, int begin, int stop) {
      layer.gradients.clear(block);
      float *by_q = layer.gradients.first(block), *along = layer.gradients.second(block);
      for (int m = begin; m < std::min(stop, spec_.batch); ++m) {
        for (int c = 0; c < layer.in; c += WIDTH)
          store(along + c, load(along + c) + critic.by_q[m] * normed(layer, layer.x[m], c));
        by_q[0] += critic.by_q[m];
      }
    });
  }

  // Gradients of the last layer's scale and shift; its weights' follow from the same sums, see ``step_last``.
  void last_gradients(NormedCritic& critic) const {
    NormedCritic::Layer& layer = critic.layers.back();
    layer.gradients.total(layer.by_shift.data(), layer.by_scale.data());
    const float by_q = layer.by_shift[0];
    for (int c = 0; c < layer.in; ++c) {
      layer.by_shift[c] = by_q * layer.weights[c];
      layer.by_scale[c] *= layer.weights[c];
    }
  }

  // From dL/d(normed) of layer ``l`` back through the normalisation and the relu below it, on to that of the layer
  // below.
  void back(NormedCritic& critic, size_t l, int first, int end) const {
    NormedCritic::Layer &layer = critic.layers[l], &below = critic.layers[l - 1];
    const bool last = l + 1 == critic.layers.size();
    for (int m = first; m < end; ++m) {
      // In the last layer all columns share one factor; rows of (s', a') have none but through the statistics.
      const float factor = !last ? 1.0f : m < spec_.batch ? critic.by_q[m] : 0.0f;
      unnormalise(layer, layer.x[m], last ? layer.weights.data() : layer.by_normed[m], factor, below.gradient[m]);
    }
    const Rows u = below.by_normed.from(0);
    critic.to_normed(l - 1, first, end - first, 0, [&](int i, int column, Vec left, Vec right) {
      float* to = u[first + i] + column;
      store(to, left), store(to + WIDTH, right);
    });
    const Rows x = l == 1 ? work_.both.from(0) : below.x.from(0);
    by_blocks(first, end, [&](int block, int begin, int stop) {
      below.gradients.clear(block);
      float *plain = below.gradients.first(block), *along = below.gradients.second(block);
      for (int m = begin; m < stop; ++m)
        for (int c = 0; c < below.in; c += WIDTH) {
          store(plain + c, load(plain + c) + load(u[m] + c));
          store(along + c, load(along + c) + load(u[m] + c) * normed(below, x[m], c));
        }
    });
  }

  // x̂ of WIDTH columns.
  static Vec normed(const NormedCritic::Layer& layer, const float* x, int column) {
    return (load(x + column) - load(layer.mean.data() + column)) * load(layer.rstd.data() + column);
  }

  // dL/dx = scale / σ (u − mean u − x̂ mean(u x̂)) (Ioffe and Szegedy 2015, section 3), where x > 0; u = factor · ``u``.
  void unnormalise(const NormedCritic::Layer& layer, const float* x, const float* u, float factor, float* into) const {
    const float share = 1.0f / static_cast<float>(rows_);
    for (int c = 0; c < layer.in; c += WIDTH) {
      const Vec means = load(layer.by_shift.data() + c) + normed(layer, x, c) * load(layer.by_scale.data() + c);
      const Vec off = factor * load(u + c) - share * means;
      store(into + c, where_positive(load(x + c), load(layer.now.factor.data() + c) * off));
    }
  }

  void step(const Unit& unit) {
    NormedCritic& critic = all[unit.network];
    NormedCritic::Layer& layer = critic.layers[unit.layer];
    if (&layer == &critic.layers.back()) return step_last(critic);
    const Rows by_output = layer.gradient.from(0);
    if (unit.end > 0)
      return step_weight(layer.weight, unit, layer.normed.from(0), by_output, rows_,
                         work_.critic_rates(layer.weight.parameter));
    step_bias(layer.bias, layer.out, by_output, rows_, work_.critic_rates(layer.bias));
    step_vectors(layer);
  }

  void step_vectors(NormedCritic::Layer& layer) const {
    work_.step_critic(layer.scale, layer.by_scale.data(), layer.in);
    work_.step_critic(layer.shift, layer.by_shift.data(), layer.in);
  }

  void step_last(NormedCritic& critic) const {
    NormedCritic::Layer& layer = critic.layers.back();
    Numbers gradient(padded(layer.in)), along(padded(layer.in));
    layer.gradients.total(gradient.data(), along.data());
    const float bias = gradient[0];
    for (int c = 0; c < layer.in; ++c) gradient[c] = layer.scale.value[c] * along[c] + layer.shift.value[c] * bias;
    step_vectors(layer);
    work_.step_critic(layer.vector, gradient.data(), layer.in);
    work_.step_critic(layer.bias, &bias, 1);
  }

  Work& work_;
  const Spec& spec_;
  const int rows_;  // of (s, a) and (s', a') together
  std::vector<Unit> units_;
};
