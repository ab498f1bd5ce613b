// The stage of a product on matrix units: operands are rounded as they come into shared memory.
#pragma once
#include "matrix_units.h"
#include "recurrent/cuda_stage.h"

namespace emix::recurrent {

template <class Type>
class MatrixStage {
 public:
  using Number = float;
  static constexpr int kWords = 32;           // of depth
  static constexpr int kStride = kWords + 4;  // keeps a warp's rows in different banks
  static constexpr int kDepth = kWords * Type::kPerWord;
  static constexpr int kBytes = 2 * kSquare * kStride * int(sizeof(uint32_t));
  static constexpr int kTiles = 4;  // of 8 columns: a warp's
  static constexpr int kLoads = kSquare * kWords / kThreads;
  static_assert(kThreads == 8 * kWarp && kWords % kOperationWords == 0);
  using Sums = float[kTiles][4];
  using Held = float[kLoads][Type::kPerWord];  // of a side

  explicit __device__ __forceinline__ MatrixStage(int offset) : words_(offset, 2 * kSquare * kStride) {}

  static __device__ __forceinline__ float rounded(float x) { return emix::rounded<Type>(x); }

  // As PlainStage's.
  template <Side kSide, bool kAlongDepth, class Load>
  static __device__ __forceinline__ void fetch(Held& held, int count, const Load& load) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const Spot word = word_of<kAlongDepth>(i);
#pragma unroll
      for (int part = 0; part < Type::kPerWord; ++part) {
        const int d = word.d * Type::kPerWord + part;
        held[i][part] = d < count ? load(d, word.at) : 0.f;
      }
    }
  }

  template <Side kSide, bool kAlongDepth>
  __device__ __forceinline__ void put(const Held& held) const {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const Spot word = word_of<kAlongDepth>(i);
      words_[(kSide * kSquare + word.at) * kStride + word.d] = Type::word(held[i]);
    }
  }

  static __device__ __forceinline__ float total(const Held& held) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kLoads; ++i)
#pragma unroll
      for (int part = 0; part < Type::kPerWord; ++part) sum += held[i][part];
    return sum;
  }

  __device__ __forceinline__ void multiply(Sums& sum) const {
    warp_barrier();  // the lanes that a condition kept apart come together
#pragma unroll
    for (int k = 0; k < kWords; k += kOperationWords) {
      const uint4 left = left_words(
          [&](int row, int word) { return words_[(kLeft * kSquare + first_row() + row) * kStride + k + word]; });
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile)
        multiply_add<Type>(sum[tile], left, right_words([&](int column, int word) {
                             return words_[(kRight * kSquare + first_column(tile) + column) * kStride + k + word];
                           }));
    }
  }

  // f(row, column, sum) for each of this lane's.
  template <class F>
  __device__ __forceinline__ void each(const Sums& sum, const F& f) const {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i) f(first_row() + sum_row(i), first_column(tile) + sum_column(i), sum[tile][i]);
  }

 private:
  // The word's place in depth, in words.
  template <bool kAlongDepth>
  static __device__ __forceinline__ Spot word_of(int i) {
    const int k = static_cast<int>(threadIdx.x) + i * kThreads;
    if (kAlongDepth) return {k / kWords, k % kWords};
    return {k % kSquare, k / kSquare};
  }

  static __device__ __forceinline__ int first_row() { return threadIdx.x / kWarp % 4 * kOperationRows; }
  static __device__ __forceinline__ int first_column(int tile) {
    return (threadIdx.x / (4 * kWarp) * kTiles + tile) * kOperationColumns;
  }

  Shared<uint32_t> words_;
};

}  // namespace emix::recurrent
