// Actor and critics: forward and backward over some rows of a batch, layer by layer.
#pragma once

#include "layer.h"

// Rows ``first`` to ``end`` - 1 of ``from``, times a packed matrix, plus bias; relu unless ``plain``.
inline void layer_forward(const Rows& from, int first, int end, const std::vector<Packed>& packed, int in, int out,
                          const float* bias, bool plain, const Rows& into) {
  product(from[first], from.stride, end - first, in, packed.data(), 0, panels(out),
          [&](int row, int column, Vec left, Vec right) {
            float* to = into[first + row] + column;
            if (column + PANEL <= out) {
              left += load(bias + column), right += load(bias + column + WIDTH);
              store(to, plain ? left : relu(left)), store(to + WIDTH, plain ? right : relu(right));
              return;
            }
            store(to, left), store(to + WIDTH, right);
            for (int i = 0; i < out - column; ++i) {
              const float y = to[i] + bias[column + i];
              to[i] = y < 0.0f && !plain ? 0.0f : y;
            }
          });
}

inline float dot(const float* a, const float* b, int count) {
  Vec total{};
  int i = 0;
  for (; i + WIDTH <= count; i += WIDTH) total += load(a + i) * load(b + i);
  float result = sum(total);
  for (; i < count; ++i) result += a[i] * b[i];
  return result;
}

// One Q-function. A critic's weights are (in x out); its last layer has one output.
struct Critic {
  struct Hidden {
    Matrix weight;
    Parameter bias{}, scale{}, shift{};
    Buffer output, normed, gradient;
    Numbers rstd;
  };

  std::vector<Hidden> hidden;
  Parameter last{}, last_bias{};
  bool layer_norm = false;
  Numbers q;  // (b,)

  int width(size_t layer) const { return hidden[layer].weight.columns; }

  void shape(int inputs, const std::vector<int>& widths, bool layer_norm_, int batch) {
    layer_norm = layer_norm_;
    q.assign(batch, 0.0f);
    hidden.resize(widths.size());
    for (size_t l = 0; l < widths.size(); inputs = widths[l++]) {
      hidden[l].weight.shape(inputs, widths[l]);
      hidden[l].output.shape(batch, widths[l]);
      hidden[l].gradient.shape(batch, widths[l]);
      if (!layer_norm) continue;
      hidden[l].normed.shape(batch, widths[l]);
      hidden[l].rstd.assign(batch, 0.0f);
    }
  }

  void pack() {
    for (Hidden& layer : hidden) layer.weight.pack();
  }

  // q of rows ``first`` to ``end`` - 1; what the way back needs is kept.
  void forward(Rows input, int first, int end) {
    for (size_t l = 0; l < hidden.size(); ++l) {
      Hidden& layer = hidden[l];
      const int out = width(l);
      const Rows into = (layer_norm ? layer.normed : layer.output).from(0);
      layer_forward(input, first, end, layer.weight.by_column, layer.weight.rows, out, layer.bias.value, layer_norm,
                    into);
      input = layer.output.from(0);
      for (int m = first; layer_norm && m < end; ++m) {
        layer.rstd[m] = normalise(into[m], out);
        scale_shift_relu(into[m], layer.scale.value, layer.shift.value, input[m], out);
      }
    }
    for (int m = first; m < end; ++m) q[m] = dot(input[m], last.value, width(hidden.size() - 1)) + last_bias.value[0];
  }

  // q of the target network into ``into``, by way of ``scratch``, two buffers as wide as the widest layer.
  void target_forward(Rows input, int first, int end, Buffer* scratch, float* into) const {
    for (size_t l = 0; l < hidden.size(); ++l) {
      const Hidden& layer = hidden[l];
      const int out = width(l);
      const Rows to = scratch[l % 2].from(0);
      layer_forward(input, first, end, layer.weight.target_by_column, layer.weight.rows, out, layer.bias.target,
                    layer_norm, to);
      for (int m = first; layer_norm && m < end; ++m) {
        normalise(to[m], out);
        scale_shift_relu(to[m], layer.scale.target, layer.shift.target, to[m], out);
      }
      input = to;
    }
    for (int m = first; m < end; ++m)
      into[m] = dot(input[m], last.target, width(hidden.size() - 1)) + last_bias.target[0];
  }

  // From dL/dq of some rows back to dL/d(what the first layer's product gave). ``row(i)`` is the row of the batch that
  // the i-th of ``count`` gradients belongs to; the gradients lie at ``at`` + i. ``sums(i)`` is where it adds those of
  // LayerNorm's parameters, [layer][scale, shift][width], or null.
  template <class Row, class Sums>
  void backward(const float* dq, int at, int count, Row&& row, Sums&& sums) {
    size_t l = hidden.size() - 1;
    for (int i = 0; i < count; ++i) {
      const float* h = hidden[l].output[row(i)];
      float* g = hidden[l].gradient[at + i];
      int c = 0;
      for (; c + WIDTH <= width(l); c += WIDTH) store(g + c, where_positive(load(h + c), load(last.value + c) * dq[i]));
      for (; c < width(l); ++c) g[c] = h[c] > 0.0f ? last.value[c] * dq[i] : 0.0f;
    }
    for (;; --l) {
      Hidden& layer = hidden[l];
      for (int i = 0; layer_norm && i < count; ++i) {
        float* to = sums(i);
        if (to != nullptr) to += sums_before(l);
        normalise_back(layer.gradient[at + i], layer.normed[row(i)], layer.scale.value, layer.rstd[row(i)], width(l),
                       to, to == nullptr ? nullptr : to + width(l));
      }
      if (l == 0) return;
      Hidden& below = hidden[l - 1];
      product(layer.gradient[at], layer.gradient.stride, count, width(l), layer.weight.by_row.data(), 0,
              panels(width(l - 1)), [&](int i, int column, Vec left, Vec right) {
                const float* h = below.output[row(i)] + column;
                float* g = below.gradient[at + i] + column;
                store(g, where_positive(load(h), left)), store(g + WIDTH, where_positive(load(h + WIDTH), right));
              });
    }
  }

  // dL/d(input) of the same gradients, a panel at a time from ``panel`` on: ``out(i, column, numbers)``.
  template <class Out>
  void to_input(int at, int count, int panel, Out&& out) {
    Hidden& layer = hidden[0];
    product(layer.gradient[at], layer.gradient.stride, count, layer.weight.columns, layer.weight.by_row.data(), panel,
            panels(layer.weight.rows), [&](int i, int column, Vec left, Vec right) {
              float numbers[PANEL];
              store(numbers, left), store(numbers + WIDTH, right);
              out(i, column, numbers);
            });
  }

  int sums_before(size_t layer) const {
    int count = 0;
    for (size_t l = 0; l < layer; ++l) count += 2 * width(l);
    return count;
  }
};

// The policy's network. Its weights are (out x in), as torch.nn.Linear keeps them.
struct Actor {
  struct Layer {
    Matrix weight;
    Parameter bias{};
    Buffer output, gradient;
  };

  std::vector<Layer> layers;

  void shape(int inputs, const std::vector<int>& widths, int outputs, int rows) {
    layers.resize(widths.size() + 1);
    for (size_t l = 0; l < layers.size(); ++l) {
      const int out = l < widths.size() ? widths[l] : outputs;
      layers[l].weight.shape(out, inputs);
      layers[l].output.shape(rows, out);
      layers[l].gradient.shape(rows, out);
      inputs = out;
    }
  }

  void pack() {
    for (Layer& layer : layers) layer.weight.pack();
  }

  // The raw numbers of rows ``first`` to ``end`` - 1; ``into(l)`` are the rows that take what layer l gives.
  template <class Into>
  Rows forward(Rows input, int first, int end, Into&& into) const {
    for (size_t l = 0; l < layers.size(); ++l) {
      const Layer& layer = layers[l];
      const Rows to = into(l);
      layer_forward(input, first, end, layer.weight.by_row, layer.weight.columns, layer.weight.rows, layer.bias.value,
                    l + 1 == layers.size(), to);
      input = to;
    }
    return input;
  }

  // From dL/d(raw), which lies in the last layer's ``gradient``, back to that of the first layer.
  void backward(int first, int end) {
    for (size_t l = layers.size() - 1; l > 0; --l) {
      Layer &layer = layers[l], &below = layers[l - 1];
      product(layer.gradient[first], layer.gradient.stride, end - first, layer.weight.rows,
              layer.weight.by_column.data(), 0, panels(layer.weight.columns),
              [&](int row, int column, Vec left, Vec right) {
                const float* h = below.output[first + row] + column;
                float* g = below.gradient[first + row] + column;
                store(g, where_positive(load(h), left)), store(g + WIDTH, where_positive(load(h + WIDTH), right));
              });
    }
  }
};
