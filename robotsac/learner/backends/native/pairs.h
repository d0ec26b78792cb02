// Products in bfloat16, two at a time (x86's AVX-512 BF16): operands are rounded to it, 8 bits of mantissa; products
// are exact, and sums are kept in float32.
//
// A lane holds a pair of neighbours along the inner dimension; where that is odd, the last one's neighbour is 0.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <vector>

#include "matrix.h"

enum class Pair : std::uint32_t {};  // the first in the low half

// A number of a packed matrix, and how many of them make up an inner dimension.
using Packed = Pair;
inline int depth(int inner) { return (inner + 1) / 2; }

template <>
struct Lanes<Pair> {
  using Vector = __m512i;
  static Vector load(const Pair* from) { return _mm512_loadu_si512(from); }
  static Vector spread(Pair value) { return _mm512_set1_epi32(static_cast<int>(value)); }
  static void add_product(Vec& sum, Vector x, Vector y) {
    sum = (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
  }
};

typedef std::uint16_t Halves __attribute__((vector_size(WIDTH * sizeof(std::uint16_t))));
typedef std::uint32_t Words __attribute__((vector_size(WIDTH * sizeof(std::uint32_t))));

// first[i], second[i] as pair i.
inline __m512i paired(Vec first, Vec second) {
  const auto wide = [](Vec x) { return __builtin_convertvector((Halves)_mm512_cvtneps_pbh((__m512)x), Words); };
  return (__m512i)(wide(first) | wide(second) << 16);
}

inline void store(Pair* to, __m512i value) { _mm512_storeu_si512(to, value); }

// ``count`` numbers of a row as depth(count) pairs of neighbours; ``to`` has room for whole vectors.
inline void pair_neighbours(const float* from, int count, Pair* to) {
  int i = 0;
  for (; i + 2 * WIDTH <= count; i += 2 * WIDTH, to += WIDTH)
    store(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)load(from + i + WIDTH), (__m512)load(from + i)));
  if (i == count) return;
  float rest[2 * WIDTH] = {};
  std::copy_n(from + i, count - i, rest);
  store(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)load(rest + WIDTH), (__m512)load(rest)));
}

using Pairs = std::vector<Pair>;

// a (rows x inner) times packed panels; ``out(row, column, left, right)`` takes PANEL numbers of the product.
template <class Out>
inline void product(const float* a, std::ptrdiff_t a_row, int rows, int inner, const Packed* packed, int first_panel,
                    int end_panel, Out&& out) {
  thread_local Pairs left;
  const std::ptrdiff_t stride = row_stride(depth(inner));
  left.resize(rows * stride);
  for (int row = 0; row < rows; ++row) pair_neighbours(a + row * a_row, inner, left.data() + row * stride);
  times_panels(left.data(), stride, rows, depth(inner), packed, first_panel, end_panel, out);
}

constexpr int SAMPLES_AT_ONCE = 256;  // of a gradient: what is paired of both operands stays in the second cache

// ``samples`` rows of ``columns`` numbers, [sample][row], as pairs of samples that follow each other: panel by panel,
// each [pair][PANEL].
inline void pair_samples(const float* from, std::ptrdiff_t row, int columns, int samples, Pairs& to) {
  const int pairs = depth(samples);
  to.resize(static_cast<size_t>(panels(columns)) * pairs * PANEL);
  for (int p = 0; p < pairs; ++p) {
    const float *first = from + 2 * p * row, *second = first + row;
    const bool alone = 2 * p + 1 == samples;
    for (int c = 0; c < panels(columns) * PANEL; c += WIDTH) {
      Pair* at = to.data() + (static_cast<std::ptrdiff_t>(c / PANEL) * pairs + p) * PANEL + c % PANEL;
      store(at, paired(load(first + c), alone ? Vec{} : load(second + c)));
    }
  }
}

// Transposed product over ``samples``: into[r * stride + c] = sum over m of u[m * u_row + r] * v[m * v_row + c], r <
// rows, c < columns; ``stride`` and rows of u and v have room for whole panels.
inline void gradient_rows(const float* u, std::ptrdiff_t u_row, int rows, const float* v, std::ptrdiff_t v_row,
                          int columns, int samples, float* into, std::ptrdiff_t stride) {
  thread_local Pairs left, right;
  for (int done = 0; done < samples; done += SAMPLES_AT_ONCE) {
    const int count = std::min(SAMPLES_AT_ONCE, samples - done), pairs = depth(count);
    pair_samples(u + done * u_row, u_row, rows, count, left);
    pair_samples(v + done * v_row, v_row, columns, count, right);
    for (int row = 0; row < rows; row += PANEL)
      for (int column = 0; column < columns; column += PANEL)
        transposed_panel(left.data() + row * pairs, PANEL, std::min(PANEL, rows - row), right.data() + column * pairs,
                         PANEL, pairs, done > 0, into + row * stride + column, stride);
  }
}

// Rows ``first`` to ``end`` - 1 of ``width`` columns, [row][stride], into their panel, [pair of rows][PANEL]; ``first``
// is even, ``end`` too unless it is the last.
inline void pack_columns(const float* from, std::ptrdiff_t stride, int first, int end, int width, Packed* panel) {
  for (int r = first; r < end; r += 2) {
    float one[PANEL] = {}, other[PANEL] = {};
    std::copy_n(from + r * stride, width, one);
    if (r + 1 < end) std::copy_n(from + (r + 1) * stride, width, other);
    for (int c = 0; c < PANEL; c += WIDTH) store(panel + r / 2 * PANEL + c, paired(load(one + c), load(other + c)));
  }
}

// ``count`` rows of ``columns`` numbers, one after the other, into their panel, transposed: [pair of columns][PANEL].
inline void pack_rows(const float* from, int columns, int count, Packed* panel) {
  thread_local Pairs rows;
  const std::ptrdiff_t stride = row_stride(depth(columns));
  rows.resize(PANEL * stride);
  for (int r = 0; r < count; ++r)
    pair_neighbours(from + static_cast<std::ptrdiff_t>(r) * columns, columns, rows.data() + r * stride);
  for (int c = 0; c < depth(columns); ++c, panel += PANEL)
    for (int r = 0; r < count; ++r) panel[r] = rows[r * stride + c];
}
