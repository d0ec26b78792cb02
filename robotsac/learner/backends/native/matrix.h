// Products of matrices of a few hundred rows and columns, whose operands lie in the caches.
//
// A product goes panel by panel (PANEL columns of the right operand) and tile by tile (TILE_ROWS rows of the left one);
// a tile's sums stay in registers over the whole inner dimension. Every sum runs in one order, whoever does it: the
// number of threads does not show in the results.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "vector.h"

// Keeps the compiler from taking ``value`` apart again: a vector that is used often stays in its register, a pointer is
// not replaced by one per row, which would not fit the registers.
template <class T>
inline void keep(T& value) {
#if defined(__x86_64__)
  if constexpr (std::is_pointer_v<T>)
    asm("" : "+r"(value));
  else
    asm("" : "+v"(value));
#else
  (void)value;
#endif
}

// tile[i] = sum over k of a[i * a_row + k * a_inner] * b[k * b_inner + 0 .. PANEL), added to what is there if MORE.
// Which of a's strides is 1 is known when this is compiled: ADJACENT says that it is the rows'.
template <int ROWS, bool ADJACENT, bool MORE>
[[gnu::noinline]] void multiply(Vec (&tile)[ROWS][2], const float* a, std::ptrdiff_t a_stride, const float* b,
                                std::ptrdiff_t b_inner, int inner) {
  constexpr int POINTERS = ADJACENT ? 1 : (ROWS + 2) / 3;
  const float* from[POINTERS];
  Vec left_sums[ROWS], right_sums[ROWS];
#pragma GCC unroll 16
  for (int t = 0; t < POINTERS; ++t) from[t] = a + 3 * t * a_stride;
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) left_sums[i] = MORE ? tile[i][0] : Vec{}, right_sums[i] = MORE ? tile[i][1] : Vec{};
  for (const float* end = b + inner * b_inner; b != end; b += b_inner) {
    Vec left = load(b), right = load(b + WIDTH);
    keep(left), keep(right);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const Vec x = broadcast(ADJACENT ? from[0][i] : from[i / 3 % POINTERS][(i % 3) * a_stride]);
      left_sums[i] += x * left;
      right_sums[i] += x * right;
    }
#pragma GCC unroll 16
    for (int t = 0; t < POINTERS; ++t) {
      from[t] += ADJACENT ? a_stride : 1;
      keep(from[t]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) tile[i][0] = left_sums[i], tile[i][1] = right_sums[i];
}

// Calls ``work`` with std::integral_constant<int, rows> and the first row, for all rows, TILE_ROWS at a time.
template <int ROWS, class Work>
inline void rest(int rows, int first, Work&& work) {
  if constexpr (ROWS > 0) {
    if (rows == ROWS) return work(std::integral_constant<int, ROWS>{}, first);
    rest<ROWS - 1>(rows, first, work);
  }
}

template <class Work>
inline void by_tiles(int rows, Work&& work) {
  int first = 0;
  for (; first + TILE_ROWS <= rows; first += TILE_ROWS) work(std::integral_constant<int, TILE_ROWS>{}, first);
  rest<TILE_ROWS - 1>(rows - first, first, work);
}

// a (rows x inner) times packed panels; ``out(row, column, left, right)`` takes PANEL numbers of the product.
template <class Out>
inline void product(const float* a, std::ptrdiff_t a_row, int rows, int inner, const float* packed, int first_panel,
                    int end_panel, Out&& out) {
  for (int panel = first_panel; panel < end_panel; ++panel) {
    const float* b = packed + static_cast<std::ptrdiff_t>(panel) * inner * PANEL;
    by_tiles(rows, [&](auto count, int first) {
      Vec tile[count()][2];
      multiply<count(), false, false>(tile, a + first * a_row, a_row, b, PANEL, inner);
      for (int i = 0; i < count(); ++i) out(first + i, panel * PANEL, tile[i][0], tile[i][1]);
    });
  }
}

constexpr int SAMPLES_AT_ONCE = 128;  // of a gradient: what both operands have of so many fits the first cache

// Transposed product over ``samples``: into[r * PANEL + c] = sum over m of u[m * u_row + r] * v[m * v_row + c], r <
// rows.
inline void gradient_panel(const float* u, std::ptrdiff_t u_row, int rows, const float* v, std::ptrdiff_t v_row,
                           int samples, float* into) {
  for (int done = 0; done < samples; done += SAMPLES_AT_ONCE) {
    const int count = std::min(SAMPLES_AT_ONCE, samples - done);
    const float *u_part = u + done * u_row, *v_part = v + done * v_row;
    by_tiles(rows, [&](auto tile_rows, int first) {
      Vec tile[tile_rows()][2];
      if (done == 0) {
        multiply<tile_rows(), true, false>(tile, u_part + first, u_row, v_part, v_row, count);
      } else {
        for (int i = 0; i < tile_rows(); ++i) {
          const float* at = into + (first + i) * PANEL;
          tile[i][0] = load(at), tile[i][1] = load(at + WIDTH);
        }
        multiply<tile_rows(), true, true>(tile, u_part + first, u_row, v_part, v_row, count);
      }
      for (int i = 0; i < tile_rows(); ++i) {
        store(into + (first + i) * PANEL, tile[i][0]);
        store(into + (first + i) * PANEL + WIDTH, tile[i][1]);
      }
    });
  }
}
