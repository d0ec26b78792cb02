// What test_native_arithmetic.py calls: the C++ update's products and functions, on numbers of its own.
#include "functions.h"
#include "layer.h"

extern "C" {

// a (rows x inner) times a weight (inner x columns), which ``by_rows`` lies transposed.
void product_of(const float* a, const float* weight, int rows, int inner, int columns, bool by_rows, float* result) {
  Matrix matrix;
  by_rows ? matrix.shape(columns, inner) : matrix.shape(inner, columns);
  Numbers copy(weight, weight + static_cast<size_t>(inner) * columns);
  matrix.parameter.value = copy.data();
  matrix.pack();
  product(a, inner, rows, inner, (by_rows ? matrix.by_row : matrix.by_column).data(), 0, panels(columns),
          [&](int row, int column, Vec left, Vec right) {
            float numbers[PANEL];
            store(numbers, left), store(numbers + WIDTH, right);
            std::copy_n(numbers, std::min(PANEL, columns - column),
                        result + static_cast<size_t>(row) * columns + column);
          });
}

// Rows ``first`` to ``end`` - 1 of u (samples x rows), transposed, times v (samples x columns).
void gradient_of(const float* u, const float* v, int samples, int rows, int columns, int first, int end,
                 float* result) {
  Buffer left, right;
  left.shape(samples, rows), right.shape(samples, columns);
  for (int m = 0; m < samples; ++m) {
    std::copy_n(u + static_cast<size_t>(m) * rows, rows, left[m]);
    std::copy_n(v + static_cast<size_t>(m) * columns, columns, right[m]);
  }
  const int stride = panels(columns) * PANEL;
  Numbers into(static_cast<size_t>(end - first) * stride);
  gradient_rows(left[0] + first, left.stride, end - first, right[0], right.stride, columns, samples, into.data(),
                stride);
  for (int r = 0; r < end - first; ++r)
    std::copy_n(into.data() + static_cast<size_t>(r) * stride, columns, result + static_cast<size_t>(r) * columns);
}

// e^x, tanh x and log(1 + e^x) of ``count`` numbers, a multiple of WIDTH.
void functions_of(const float* x, int count, float* exps, float* tanhs, float* softpluses) {
  for (int i = 0; i < count; i += WIDTH) {
    const Vec at = load(x + i);
    store(exps + i, exp(at)), store(tanhs + i, tanh(at)), store(softpluses + i, softplus(at));
  }
}
}
