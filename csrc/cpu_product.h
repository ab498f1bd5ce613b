// Matrix products of a core on its own memory, in registers.
#pragma once
#include "cpu_memory.h"

namespace emix {

// A(i, k) lies at data + i * row + k * column: a matrix, or with the strides exchanged its transpose.
template <class F>
struct Left {
  const F* data;
  int64_t row, column;
};

// `stride` elements from a row to the next; 0: the same row again.
template <class F>
struct Matrix {
  F* data;
  int64_t stride;
};

// C = start + A B for a tile of kRows x kVectors registers of kBytes: enough sums in flight to hide the latency of a
// fused multiply-add, each element of B loaded for kRows of them. kStreamed: on the way the next tile's rows of A, which
// lie behind these, are fetched from memory.
template <int kBytes, int kRows, int kVectors, bool kStreamed, class F>
EMIX_HD void product_tile(const Left<F>& a, const Matrix<const F>& b, const Matrix<const F>& start, const Matrix<F>& c,
                          int64_t depth) {
  typedef F V __attribute__((vector_size(kBytes), aligned(sizeof(F)), may_alias));
  constexpr int kLanes = kBytes / sizeof(F);
  V sum[kRows][kVectors];
  EMIX_UNROLL
  for (int i = 0; i < kRows; ++i) {
    EMIX_UNROLL
    for (int v = 0; v < kVectors; ++v)
      sum[i][v] = *reinterpret_cast<const V*>(start.data + i * start.stride + v * kLanes);
  }
  for (int64_t k = 0; k < depth; ++k) {
    if constexpr (kStreamed) __builtin_prefetch(a.data + kRows * (a.row + k));
    V right[kVectors];
    EMIX_UNROLL
    for (int v = 0; v < kVectors; ++v) right[v] = *reinterpret_cast<const V*>(b.data + k * b.stride + v * kLanes);
    EMIX_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const F left = a.data[i * a.row + k * a.column];
      EMIX_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[i][v] += left * right[v];
    }
  }
  EMIX_UNROLL
  for (int i = 0; i < kRows; ++i) {
    EMIX_UNROLL
    for (int v = 0; v < kVectors; ++v) *reinterpret_cast<V*>(c.data + i * c.stride + v * kLanes) = sum[i][v];
  }
}

inline constexpr int64_t kWorthTall = 32;  // rows: of few the low tiles that remain are too large a part

// C [rows, columns] = start + A [rows, depth] B [depth, columns]; rows a multiple of kPadRows, columns of kColumns.
// `start` may be C. Columns outside, so that their strip of B stays in the first cache. kStreamed: A's rows lie one after
// the other and are not in a cache yet, so the first strip fetches them ahead.
template <int kBytes, class F, bool kStreamed = false>
EMIX_HD void product(const Left<F>& a, const Matrix<const F>& b, const Matrix<const F>& start, const Matrix<F>& c,
                     int64_t rows, int64_t depth, int64_t columns) {
  // As many sums as fill the registers: 32 of AVX-512; of AVX2's 16, twelve, with two of b and one of a.
  constexpr int64_t kLanes = kBytes / sizeof(F), kRows = kBytes == 64 ? 8 : 4, kTall = kBytes == 32 ? 6 : kRows;
  static_assert(kPadRows % kRows == 0 && 2 * kTall % kRows == 0);
  const int64_t tall = rows < kWorthTall ? 0 : rows / (2 * kTall) * (2 * kTall);
  const auto strip = [&](auto vectors, auto streamed, int64_t j) __attribute__((always_inline)) {
    const auto tile = [&](auto height, int64_t i) __attribute__((always_inline)) {
      product_tile<kBytes, decltype(height)::value, decltype(vectors)::value, decltype(streamed)::value, F>(
          {a.data + i * a.row, a.row, a.column}, {b.data + j, b.stride},
          {start.data + i * start.stride + j, start.stride}, {c.data + i * c.stride + j, c.stride}, depth);
    };
    int64_t i = 0;
    if constexpr (kTall > kRows)
      for (; i < tall; i += kTall) tile(std::integral_constant<int, kTall>(), i);
    for (; i < rows; i += kRows) tile(std::integral_constant<int, kRows>(), i);
  };
  int64_t j = 0;
  if (kStreamed && 2 * kLanes <= columns) {
    strip(std::integral_constant<int, 2>(), std::true_type(), j);
    j += 2 * kLanes;
  }
  for (; j + 2 * kLanes <= columns; j += 2 * kLanes) strip(std::integral_constant<int, 2>(), std::false_type(), j);
  for (; j < columns; j += kLanes) strip(std::integral_constant<int, 1>(), std::false_type(), j);
}

}  // namespace emix
