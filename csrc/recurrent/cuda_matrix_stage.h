// The stage of a product on matrix units: operands are rounded as they come into shared memory.
#pragma once
#include "matrix_units.h"
#include "recurrent/cuda_stage.h"

namespace emix::recurrent {

template <class Type>
class MatrixStage {
 public:
  using Number = float;
  static constexpr int kBlocks = 2;           // on a multiprocessor at once
  static constexpr int kWords = 32;           // of depth
  static constexpr int kStride = kWords + 4;  // keeps a warp's rows in different banks
  static constexpr int kDepth = kWords * Type::kPerWord;
  static constexpr int kBytes = 2 * kSquare * kStride * int(sizeof(uint32_t));
  static constexpr int kTiles = 4;  // of 8 columns: a warp's
  static_assert(kThreads == 8 * kWarp && kWords == kWarp && kWords % kOperationWords == 0);
  using Sums = float[kTiles][4];
  static constexpr int kLines = kSquare * kWords / kThreads, kOfLine = Type::kPerWord;  // a word
  using Held = float[kLines * kOfLine];

  explicit __device__ __forceinline__ MatrixStage(int offset) : words_(offset, 2 * kSquare * kStride) {}

  // As PlainStage's. Along the depth a warp takes all of a line, across it 32 lines.
  template <Side>
  static __device__ __forceinline__ int line(int i) {
    return threadIdx.x / kWarp + kThreads / kWarp * i;
  }
  static __device__ __forceinline__ int depth_of_line(int i) { return threadIdx.x % kWarp * kOfLine + i; }
  static __device__ __forceinline__ int depth_across(int i) { return word_across(i / kOfLine) * kOfLine + i % kOfLine; }

  template <Side kOf, bool kAlongDepth>
  __device__ __forceinline__ void put(const Held& held) const {
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      const int at = kAlongDepth ? line<kOf>(i) : static_cast<int>(threadIdx.x) % kSquare,
                word = kAlongDepth ? static_cast<int>(threadIdx.x) % kWarp : word_across(i);
      words_[(kOf * kSquare + at) * kStride + word] = Type::word(held + i * kOfLine);
    }
  }

  static __device__ __forceinline__ float total(const Held& held) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kLines * kOfLine; ++i) sum += held[i];
    return sum;
  }

  // The sums begin with f(column).
  template <class F>
  static __device__ __forceinline__ void start(Sums& sum, const F& f) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int i = 0; i < 2; ++i) sum[tile][i] = sum[tile][i + 2] = f(first_column(tile) + sum_column(i));
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
  __device__ __forceinline__ void each(Sums& sum, const F& f) const {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i) f(first_row() + sum_row(i), first_column(tile) + sum_column(i), sum[tile][i]);
  }

  template <class F>
  static __device__ __forceinline__ void each_pair(Sums& a, const Sums& b, const F& f) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i) f(a[tile][i], b[tile][i]);
  }

 private:
  static __device__ __forceinline__ int word_across(int i) { return threadIdx.x / kSquare + kThreads / kSquare * i; }
  static __device__ __forceinline__ int first_row() { return threadIdx.x / kWarp % 4 * kOperationRows; }
  static __device__ __forceinline__ int first_column(int tile) {
    return (threadIdx.x / (4 * kWarp) * kTiles + tile) * kOperationColumns;
  }

  Shared<uint32_t> words_;
};

}  // namespace emix::recurrent
