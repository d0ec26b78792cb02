// Vectors of the widest kind this processor has, by the compiler's own vector types: x86 and ARM alike.
#pragma once

#include <cstddef>

#if defined(__AVX512F__)
constexpr int WIDTH = 16, TILE_ROWS = 12;
#elif defined(__AVX__)
constexpr int WIDTH = 8, TILE_ROWS = 6;
#elif defined(__aarch64__)
constexpr int WIDTH = 4, TILE_ROWS = 12;
#else
constexpr int WIDTH = 4, TILE_ROWS = 6;
#endif

// Columns of one panel: a tile is TILE_ROWS x PANEL numbers, and fills the registers but for what is read.
constexpr int PANEL = 2 * WIDTH;

typedef float Vec __attribute__((vector_size(WIDTH * sizeof(float))));
typedef float Unaligned __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4), may_alias));

inline Vec load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Vec value) { *reinterpret_cast<Unaligned*>(to) = value; }

// The first ``count`` numbers, at most WIDTH; the others are 0, and are not written.
inline Vec load(const float* from, int count) {
  Vec value{};
  for (int i = 0; i < count; ++i) value[i] = from[i];
  return value;
}
inline void store(float* to, Vec value, int count) {
  for (int i = 0; i < count; ++i) to[i] = value[i];
}

inline Vec broadcast(float value) { return value - Vec{}; }

// max(x, 0) that lets a NaN through, as torch's relu does.
inline Vec relu(Vec x) { return x < 0.0f ? Vec{} : x; }
// x where h > 0, else 0.
inline Vec where_positive(Vec h, Vec x) { return h > 0.0f ? x : Vec{}; }

inline float sum(Vec x) {
  float total = 0.0f;
  for (int i = 0; i < WIDTH; ++i) total += x[i];
  return total;
}

inline int panels(int columns) { return (columns + PANEL - 1) / PANEL; }

// Numbers from one row of a buffer to the next: room for whole panels, and an odd number of cache lines, so that a
// column's rows do not fall into the same few sets of a cache.
inline std::ptrdiff_t row_stride(int columns) {
  const std::ptrdiff_t lines = static_cast<std::ptrdiff_t>(panels(columns)) * PANEL / 16 + 1;
  return (lines | 1) * 16;
}
