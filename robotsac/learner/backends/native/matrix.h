// Tiles of products of matrices of a few hundred rows and columns, whose operands lie in the caches.
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

// What is multiplied: one number a lane, or several, whose products a lane adds up (pairs.h).
template <class Number>
struct Lanes;

template <>
struct Lanes<float> {
  using Vector = Vec;
  static Vector load(const float* from) { return ::load(from); }
  static Vector spread(float value) { return broadcast(value); }
  static void add_product(Vec& sum, Vector x, Vector y) { sum += x * y; }
};

// tile[i] = sum over k of a[i * a_row + k * a_inner] * b[k * b_inner + 0 .. PANEL), added to what is there if MORE.
// Which of a's strides is 1 is known when this is compiled: ADJACENT says that it is the rows'.
template <int ROWS, bool ADJACENT, bool MORE, class Number>
[[gnu::noinline]] void multiply(Vec (&tile)[ROWS][2], const Number* a, std::ptrdiff_t a_stride, const Number* b,
                                std::ptrdiff_t b_inner, int inner) {
  using In = Lanes<Number>;
  constexpr int POINTERS = ADJACENT ? 1 : (ROWS + 2) / 3;
  const Number* from[POINTERS];
  Vec left_sums[ROWS], right_sums[ROWS];
#pragma GCC unroll 16
  for (int t = 0; t < POINTERS; ++t) from[t] = a + 3 * t * a_stride;
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) left_sums[i] = MORE ? tile[i][0] : Vec{}, right_sums[i] = MORE ? tile[i][1] : Vec{};
  for (const Number* end = b + inner * b_inner; b != end; b += b_inner) {
    typename In::Vector left = In::load(b), right = In::load(b + WIDTH);
    keep(left), keep(right);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const auto x = In::spread(ADJACENT ? from[0][i] : from[i / 3 % POINTERS][(i % 3) * a_stride]);
      In::add_product(left_sums[i], x, left);
      In::add_product(right_sums[i], x, right);
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
template <class Number, class Out>
inline void times_panels(const Number* a, std::ptrdiff_t a_row, int rows, int inner, const Number* packed,
                         int first_panel, int end_panel, Out&& out) {
  for (int panel = first_panel; panel < end_panel; ++panel) {
    const Number* b = packed + static_cast<std::ptrdiff_t>(panel) * inner * PANEL;
    by_tiles(rows, [&](auto count, int first) {
      Vec tile[count()][2];
      multiply<count(), false, false>(tile, a + first * a_row, a_row, b, PANEL, inner);
      for (int i = 0; i < count(); ++i) out(first + i, panel * PANEL, tile[i][0], tile[i][1]);
    });
  }
}

// One panel of a transposed product: into[r * stride + 0 .. PANEL) = sum over k of u[k * u_inner + r] * v[k * v_inner +
// 0 .. PANEL), r < rows, added to what is there if ``more``.
template <class Number>
inline void transposed_panel(const Number* u, std::ptrdiff_t u_inner, int rows, const Number* v, std::ptrdiff_t v_inner,
                             int inner, bool more, float* into, std::ptrdiff_t stride) {
  by_tiles(rows, [&](auto tile_rows, int first) {
    Vec tile[tile_rows()][2];
    float* at = into + first * stride;
    if (!more) {
      multiply<tile_rows(), true, false>(tile, u + first, u_inner, v, v_inner, inner);
    } else {
      for (int i = 0; i < tile_rows(); ++i)
        tile[i][0] = load(at + i * stride), tile[i][1] = load(at + i * stride + WIDTH);
      multiply<tile_rows(), true, true>(tile, u + first, u_inner, v, v_inner, inner);
    }
    for (int i = 0; i < tile_rows(); ++i)
      store(at + i * stride, tile[i][0]), store(at + i * stride + WIDTH, tile[i][1]);
  });
}
