// A block's matrix product C [64, 64] = left [64, depth] right [depth, 64], a stage of the depth after the other: what
// a thread loads of the next stage stays in its registers while this one, in shared memory, is multiplied. Two kinds of
// stage do so: PlainStage in ordinary arithmetic, of any type, and MatrixStage on matrix units (cuda_matrix_stage.h).
#pragma once
#include "recurrent/cuda_block.h"

namespace emix::recurrent {

inline constexpr int kSquare = 64;  // rows and columns of a block's product; a warp's part is 16 x 32
enum Side { kLeft, kRight };

// A number of an operand: a row of left or column of right, and its depth in the stage.
struct Spot {
  int at, d;
};

// A thread's part of C is 4 x 4. Both operands lie with their depth first, so that four rows, or columns, are one load.
template <class F>
class PlainStage {
 public:
  using Number = F;
  static constexpr int kDepth = 32, kSide = 4;
  static constexpr int kStride = kSquare + kSide;  // fills from memory along the depth spread over the banks
  static constexpr int kBytes = 2 * kDepth * kStride * int(sizeof(F));
  static constexpr int kLoads = kSquare * kDepth / kThreads;
  using Sums = F[kSide][kSide];
  using Held = F[kLoads];  // of a side

  explicit __device__ __forceinline__ PlainStage(int offset)
      : numbers_(offset, 2 * kDepth * kStride), quads_(offset, 2 * kDepth * kStride / kSide) {}

  static __device__ __forceinline__ F rounded(F x) { return x; }

  // load(d, at) for `count` of the depth and each row of left or column of right; neighbouring threads take neighbours
  // in depth, or else neighbours in `at` (and a thread always the same one).
  template <Side kSideOf, bool kAlongDepth, class Load>
  static __device__ __forceinline__ void fetch(Held& held, int count, const Load& load) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const Spot spot = spot_of<kSideOf, kAlongDepth>(i);
      held[i] = spot.d < count ? load(spot.d, spot.at) : F(0);
    }
  }

  template <Side kSideOf, bool kAlongDepth>
  __device__ __forceinline__ void put(const Held& held) const {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const Spot spot = spot_of<kSideOf, kAlongDepth>(i);
      numbers_[(kSideOf * kDepth + spot.d) * kStride + (kSideOf == kRight ? place_of(spot.at) : spot.at)] = held[i];
    }
  }

  static __device__ __forceinline__ F total(const Held& held) {
    F sum = 0;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) sum += held[i];
    return sum;
  }

  __device__ __forceinline__ void multiply(Sums& sum) const {
#pragma unroll 8
    for (int d = 0; d < kDepth; ++d) {
      const Quad<F> left = quads_[(kLeft * kDepth + d) * (kStride / kSide) + first_row() / kSide],
                    right = quads_[(kRight * kDepth + d) * (kStride / kSide) + first_place() / kSide];
#pragma unroll
      for (int i = 0; i < kSide; ++i)
#pragma unroll
        for (int j = 0; j < kSide; ++j) sum[i][j] += left.row[i] * right.row[j];
    }
  }

  // f(row, column, sum) for each of this thread's.
  template <class Function>
  __device__ __forceinline__ void each(const Sums& sum, const Function& f) const {
#pragma unroll
    for (int i = 0; i < kSide; ++i)
#pragma unroll
      for (int j = 0; j < kSide; ++j) f(first_row() + i, column_of(first_place() + j), sum[i][j]);
  }

 private:
  // The four columns of a thread lie eight apart, so that neighbouring threads store neighbours.
  static __device__ __forceinline__ int place_of(int column) {
    return column / 32 * 32 + column % 8 * kSide + column / 8 % kSide;
  }
  static __device__ __forceinline__ int column_of(int place) {
    return place / 32 * 32 + place % kSide * 8 + place / kSide % 8;
  }

  template <Side kSideOf, bool kAlongDepth>
  static __device__ __forceinline__ Spot spot_of(int i) {
    const int k = static_cast<int>(threadIdx.x) + i * kThreads;
    if (!kAlongDepth) return {k % kSquare, k / kSquare};
    // A warp takes 8 of the depth of four places.
    const int place = k / kWarp % (kSquare / 4) * 4 + k % kWarp / 8;
    return {kSideOf == kRight ? column_of(place) : place, k / (kWarp * kSquare / 4) * 8 + k % 8};
  }

  static __device__ __forceinline__ int first_row() {
    return threadIdx.x / kWarp % 4 * 16 + threadIdx.x % kWarp / 8 * kSide;
  }
  static __device__ __forceinline__ int first_place() {
    return threadIdx.x / (4 * kWarp) * 32 + threadIdx.x % 8 * kSide;
  }

  Shared<F> numbers_;
  Shared<Quad<F>> quads_;  // the same
};

// sum += left right, from left(k, row) and right(k, column) for all k below `depth`. k{Left,Right}AlongDepth:
// neighbours in k are neighbours in memory. seen(held) for what a thread has of right, stage by stage.
template <bool kLeftAlongDepth, bool kRightAlongDepth, class Stage, class Left, class Right, class Seen>
__device__ __forceinline__ void accumulate(const Stage& stage, typename Stage::Sums& sum, int64_t depth,
                                           const Left& left, const Right& right, const Seen& seen) {
  typename Stage::Held of_left, of_right;
  const auto fetch = [&](int64_t from) {
    const int count = static_cast<int>(depth - from < Stage::kDepth ? depth - from : Stage::kDepth);
    Stage::template fetch<kLeft, kLeftAlongDepth>(of_left, count, [&](int d, int m) { return left(from + d, m); });
    Stage::template fetch<kRight, kRightAlongDepth>(of_right, count, [&](int d, int n) { return right(from + d, n); });
  };
  block_barrier();  // what `left` and `right` read may have been written by other threads
  fetch(0);
  for (int64_t from = 0; from < depth; from += Stage::kDepth) {
    if (from > 0) block_barrier();
    stage.template put<kLeft, kLeftAlongDepth>(of_left);
    stage.template put<kRight, kRightAlongDepth>(of_right);
    seen(of_right);
    block_barrier();
    if (from + Stage::kDepth < depth) fetch(from + Stage::kDepth);
    stage.multiply(sum);
  }
}

}  // namespace emix::recurrent
