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

// Calls ``work`` with std::integral_constant<int, count> and ``first``; ``count`` is 1 to ROWS.
template <int ROWS, class Work>
inline void tile_of(int count, int first, Work&& work) {
  if constexpr (ROWS > 0) {
    if (count == ROWS) return work(std::integral_constant<int, ROWS>{}, first);
    tile_of<ROWS - 1>(count, first, work);
  }
}

// All rows in tiles. The last two share what is left rather than that one is full and the other has too few sums at
// once to keep the processor busy while each waits for its predecessor.
template <class Work>
inline void by_tiles(int rows, Work&& work) {
  int first = 0, left = rows;
  for (; left == TILE_ROWS || left > TILE_ROWS + TILE_ROWS / 2; first += TILE_ROWS, left -= TILE_ROWS)
    work(std::integral_constant<int, TILE_ROWS>{}, first);
  if (left > TILE_ROWS) {
    const int half = (left + 1) / 2;
    tile_of<TILE_ROWS>(half, first, work);
    first += half, left -= half;
  }
  if (left > 0) tile_of<TILE_ROWS>(left, first, work);
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

constexpr int SAMPLES_AT_ONCE =
    64;  // of a gradient: what both operands have of so many fits the first cache, and leaves room

// Transposed product over ``samples``: into[r * stride + c] = sum over m of u[m * u_row + r] * v[m * v_row + c], r <
// rows, c < columns; ``stride`` has room for whole panels.
inline void gradient_rows(const float* u, std::ptrdiff_t u_row, int rows, const float* v, std::ptrdiff_t v_row,
                          int columns, int samples, float* into, std::ptrdiff_t stride) {
  for (int done = 0; done < samples; done += SAMPLES_AT_ONCE) {
    const int count = std::min(SAMPLES_AT_ONCE, samples - done);
    for (int column = 0; column < columns; column += PANEL) {
      const float *u_part = u + done * u_row, *v_part = v + done * v_row + column;
      by_tiles(rows, [&](auto tile_rows, int first) {
        Vec tile[tile_rows()][2];
        float* at = into + first * stride + column;
        if (done == 0) {
          multiply<tile_rows(), true, false>(tile, u_part + first, u_row, v_part, v_row, count);
        } else {
          for (int i = 0; i < tile_rows(); ++i)
            tile[i][0] = load(at + i * stride), tile[i][1] = load(at + i * stride + WIDTH);
          multiply<tile_rows(), true, true>(tile, u_part + first, u_row, v_part, v_row, count);
        }
        for (int i = 0; i < tile_rows(); ++i)
          store(at + i * stride, tile[i][0]), store(at + i * stride + WIDTH, tile[i][1]);
      });
    }
  }
}
