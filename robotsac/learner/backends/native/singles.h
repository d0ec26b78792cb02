// Products in float32: operands as they are.
#pragma once

#include "matrix.h"

// A number of a packed matrix, and how many of them make up an inner dimension.
using Packed = float;
inline int depth(int inner) { return inner; }

// a (rows x inner) times packed panels; ``out(row, column, left, right)`` takes PANEL numbers of the product.
template <class Out>
inline void product(const float* a, std::ptrdiff_t a_row, int rows, int inner, const Packed* packed, int first_panel,
                    int end_panel, Out&& out) {
  times_panels(a, a_row, rows, inner, packed, first_panel, end_panel, out);
}

// Of a gradient: what both operands have of so many fits the first cache, and leaves room.
constexpr int SAMPLES_AT_ONCE = 64;

// Transposed product over ``samples``: into[r * stride + c] = sum over m of u[m * u_row + r] * v[m * v_row + c], r <
// rows, c < columns; ``stride`` and rows of u and v have room for whole panels.
inline void gradient_rows(const float* u, std::ptrdiff_t u_row, int rows, const float* v, std::ptrdiff_t v_row,
                          int columns, int samples, float* into, std::ptrdiff_t stride) {
  for (int done = 0; done < samples; done += SAMPLES_AT_ONCE) {
    const int count = std::min(SAMPLES_AT_ONCE, samples - done);
    for (int column = 0; column < columns; column += PANEL)
      transposed_panel(u + done * u_row, u_row, rows, v + done * v_row + column, v_row, count, done > 0, into + column,
                       stride);
  }
}

// Rows ``first`` to ``end`` - 1 of ``width`` columns, [row][stride], into their panel, [row][PANEL].
inline void pack_columns(const float* from, std::ptrdiff_t stride, int first, int end, int width, Packed* panel) {
  for (int r = first; r < end; ++r) {
    const float* at = from + r * stride;
    if (width == PANEL) {
      store(panel + r * PANEL, load(at)), store(panel + r * PANEL + WIDTH, load(at + WIDTH));
    } else {
      std::copy_n(at, width, panel + r * PANEL);
    }
  }
}

// ``count`` rows of ``columns`` numbers, one after the other, into their panel, transposed: [column][PANEL].
inline void pack_rows(const float* from, int columns, int count, Packed* panel) {
  if (count == PANEL) {  // nearly always: a loop whose length is known
    for (int c = 0; c < columns; ++c, panel += PANEL)
      for (int r = 0; r < PANEL; ++r) panel[r] = from[static_cast<std::ptrdiff_t>(r) * columns + c];
    return;
  }
  for (int c = 0; c < columns; ++c, panel += PANEL)
    for (int r = 0; r < count; ++r) panel[r] = from[static_cast<std::ptrdiff_t>(r) * columns + c];
}
