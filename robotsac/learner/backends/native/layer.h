// One layer of one network: its parameters, and copies of the weights in the order in which products read them.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "adam.h"
#if defined(PRODUCTS_IN_BFLOAT16)
#include "pairs.h"
#else
#include "singles.h"
#endif

constexpr float LAYER_NORM_EPS = 1e-5f;

using Numbers = std::vector<float>;

// A weight matrix (rows x columns, row-major as torch keeps it).
struct Matrix {
  int rows = 0, columns = 0;
  Parameter parameter{};
  // Panels of columns: [panel][depth(row)][PANEL]; of rows, transposed: [panel][depth(column)][PANEL].
  std::vector<Packed> by_column, by_row;
  std::vector<Packed> target_by_column;  // of the target's weights, if it has one

  void shape(int rows_, int columns_) {
    rows = rows_, columns = columns_;
    by_column.assign(static_cast<size_t>(panels(columns)) * depth(rows) * PANEL, Packed{});
    by_row.assign(static_cast<size_t>(panels(rows)) * depth(columns) * PANEL, Packed{});
  }

  void pack() {
    if (parameter.target != nullptr) target_by_column.resize(by_column.size(), Packed{});
    pack(0, rows);
  }

  // One step of Adam on rows ``first`` to ``end`` - 1, down ``gradient`` [row][stride], of weights that have been
  // packed.
  // ``first`` begins a panel of rows.
  void step(int first, int end, const float* gradient, std::ptrdiff_t stride, const Rates& rates) {
    // What has moved is packed while it is in the cache.
    for (int next; first < end; gradient += (next - first) * stride, first = next) {
      next = std::min(first + PANEL, end);
      if (stride == columns) {
        adam(parameter, number(first), gradient, (next - first) * columns, rates);
      } else {
        for (int r = first; r < next; ++r) adam(parameter, number(r), gradient + (r - first) * stride, columns, rates);
      }
      pack(first, next);
    }
  }

 private:
  long number(int row) const { return static_cast<long>(row) * columns; }

  // The packed copies of rows ``first`` to ``end`` - 1, from the parameter's numbers as they are now.
  void pack(int first, int end) {
    copy(parameter.value, first, end, by_column);
    for (int r = first; r < end; r += PANEL) {
      Packed* panel = by_row.data() + static_cast<size_t>(r / PANEL) * depth(columns) * PANEL;
      pack_rows(parameter.value + number(r), columns, std::min(PANEL, end - r), panel);
    }
    if (parameter.target != nullptr) copy(parameter.target, first, end, target_by_column);
  }

  void copy(const float* from, int first, int end, std::vector<Packed>& panels_of_columns) const {
    for (int column = 0; column < columns; column += PANEL) {
      Packed* panel = panels_of_columns.data() + static_cast<size_t>(column / PANEL) * depth(rows) * PANEL;
      pack_columns(from + column, columns, first, end, std::min(PANEL, columns - column), panel);
    }
  }
};

// Rows of numbers, each ``stride`` after the last.
struct Rows {
  float* at = nullptr;
  std::ptrdiff_t stride = 0;

  float* operator[](std::ptrdiff_t row) const { return at + row * stride; }
};

// Owns such rows; the room behind a row's numbers stays 0 or finite.
struct Buffer {
  Numbers numbers;
  std::ptrdiff_t stride = 0;

  void shape(int rows, int columns) {
    stride = row_stride(columns);
    numbers.assign(static_cast<size_t>(rows) * stride, 0.0f);
  }

  Rows from(int row) { return {numbers.data() + row * stride, stride}; }
  float* operator[](int row) { return numbers.data() + row * stride; }
};

// LayerNorm over ``width`` numbers of a row (Ba et al. 2016, eq. 3), in place; what is left is normalised, before scale
// and shift. Returns 1 / standard deviation.
inline float normalise(float* row, int width) {
  float mean = 0.0f, square = 0.0f;
  Vec sums{};
  int i = 0;
  for (; i + WIDTH <= width; i += WIDTH) sums += load(row + i);
  for (mean = sum(sums); i < width; ++i) mean += row[i];
  mean /= static_cast<float>(width);
  Vec squares{};
  for (i = 0; i + WIDTH <= width; i += WIDTH) {
    const Vec x = load(row + i) - mean;
    squares += x * x;
  }
  for (square = sum(squares); i < width; ++i) square += (row[i] - mean) * (row[i] - mean);
  const float scale = 1.0f / std::sqrt(square / static_cast<float>(width) + LAYER_NORM_EPS);
  for (i = 0; i + WIDTH <= width; i += WIDTH) store(row + i, (load(row + i) - mean) * scale);
  for (; i < width; ++i) row[i] = (row[i] - mean) * scale;
  return scale;
}

// relu(normed * scale + shift), ``width`` numbers.
inline void scale_shift_relu(const float* normed, const float* scale, const float* shift, float* into, int width) {
  int i = 0;
  for (; i + WIDTH <= width; i += WIDTH) store(into + i, relu(load(normed + i) * load(scale + i) + load(shift + i)));
  for (; i < width; ++i) {
    const float y = normed[i] * scale[i] + shift[i];
    into[i] = y < 0.0f ? 0.0f : y;
  }
}

// The way back through scale, shift and LayerNorm, in place: ``gradient`` comes masked by the relu. Adds this row's
// share to the gradients of scale and shift, unless null.
inline void normalise_back(float* gradient, const float* normed, const float* scale, float rstd, int width,
                           float* to_scale, float* to_shift) {
  float mean = 0.0f, along = 0.0f;
  Vec means{}, alongs{};
  int i = 0;
  for (; i + WIDTH <= width; i += WIDTH) {
    const Vec g = load(gradient + i), n = load(normed + i), scaled = g * load(scale + i);
    if (to_scale != nullptr) {
      store(to_scale + i, load(to_scale + i) + g * n);
      store(to_shift + i, load(to_shift + i) + g);
    }
    means += scaled;
    alongs += scaled * n;
    store(gradient + i, scaled);
  }
  mean = sum(means), along = sum(alongs);
  for (; i < width; ++i) {
    const float g = gradient[i], scaled = g * scale[i];
    if (to_scale != nullptr) to_scale[i] += g * normed[i], to_shift[i] += g;
    mean += scaled, along += scaled * normed[i];
    gradient[i] = scaled;
  }
  mean /= static_cast<float>(width), along /= static_cast<float>(width);
  for (i = 0; i + WIDTH <= width; i += WIDTH)
    store(gradient + i, (load(gradient + i) - mean - load(normed + i) * along) * rstd);
  for (; i < width; ++i) gradient[i] = (gradient[i] - mean - normed[i] * along) * rstd;
}
