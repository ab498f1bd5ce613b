// A block's matrix product C [64, 64] = left [64, depth] right [depth, 64], a stage of the depth after the other: what
// a thread loads of the next stage stays in its registers while this one, in shared memory, is multiplied. Two kinds of
// stage do so: PlainStage in ordinary arithmetic, of any type, and MatrixStage on matrix units (cuda_matrix_stage.h).
#pragma once
#include "recurrent/cuda_block.h"

namespace emix::recurrent {

inline constexpr int kSquare = 64;  // rows and columns of a block's product; a warp's part is 16 x 32
enum Side { kLeft, kRight };

// A thread's part of C is 4 x 4. Both operands lie with their depth first, so that four rows, or columns, are one load.
template <class F>
class PlainStage {
 public:
  using Number = F;
  static constexpr int kBlocks = sizeof(F) == sizeof(float) ? 3 : 2;  // on a multiprocessor at once
  static constexpr int kDepth = 128 / sizeof(F), kSide = 4;
  static constexpr int kStride = kSquare + kSide;  // fills from memory along the depth spread over the banks
  static constexpr int kBytes = 2 * kDepth * kStride * int(sizeof(F));
  using Sums = F[kSide][kSide];
  // What a thread has of a side: of two lines (rows of left, columns of right), or of one across the depth.
  static constexpr int kLines = 2, kOfLine = kSquare * kDepth / kThreads / kLines;
  using Held = F[kLines * kOfLine];

  explicit __device__ __forceinline__ PlainStage(int offset)
      : numbers_(offset, 2 * kDepth * kStride), quads_(offset, 2 * kDepth * kStride / kSide) {}

  // Along the depth a warp takes 8 of it of four lines at once.
  template <Side kOf>
  static __device__ __forceinline__ int line(int i) {
    const int place = (threadIdx.x / kWarp + kThreads / kWarp * i) * 4 + threadIdx.x % kWarp / 8;
    return kOf == kRight ? column_of(place) : place;
  }
  static __device__ __forceinline__ int depth_of_line(int i) { return i * 8 + threadIdx.x % 8; }
  // Across it a warp takes 32 lines, a thread always the same one, threadIdx.x % kSquare.
  static __device__ __forceinline__ int depth_across(int i) { return threadIdx.x / kSquare + kThreads / kSquare * i; }

  template <Side kOf, bool kAlongDepth>
  __device__ __forceinline__ void put(const Held& held) const {
#pragma unroll
    for (int i = 0; i < kLines * kOfLine; ++i) {
      const int at = kAlongDepth ? line<kOf>(i / kOfLine) : static_cast<int>(threadIdx.x) % kSquare,
                d = kAlongDepth ? depth_of_line(i % kOfLine) : depth_across(i);
      numbers_[(kOf * kDepth + d) * kStride + (kOf == kRight ? place_of(at) : at)] = held[i];
    }
  }

  static __device__ __forceinline__ F total(const Held& held) {
    F sum = 0;
#pragma unroll
    for (int i = 0; i < kLines * kOfLine; ++i) sum += held[i];
    return sum;
  }

  // The sums begin with f(column).
  template <class Function>
  static __device__ __forceinline__ void start(Sums& sum, const Function& f) {
#pragma unroll
    for (int j = 0; j < kSide; ++j) {
      const F value = f(column_of(first_place() + j));
#pragma unroll
      for (int i = 0; i < kSide; ++i) sum[i][j] = value;
    }
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
  __device__ __forceinline__ void each(Sums& sum, const Function& f) const {
#pragma unroll
    for (int i = 0; i < kSide; ++i)
#pragma unroll
      for (int j = 0; j < kSide; ++j) f(first_row() + i, column_of(first_place() + j), sum[i][j]);
  }

  template <class Function>
  static __device__ __forceinline__ void each_pair(Sums& a, const Sums& b, const Function& f) {
#pragma unroll
    for (int i = 0; i < kSide; ++i)
#pragma unroll
      for (int j = 0; j < kSide; ++j) f(a[i][j], b[i][j]);
  }

 private:
  // The four columns of a thread lie eight apart, so that neighbouring threads store neighbours.
  static __device__ __forceinline__ int place_of(int column) {
    return column / 32 * 32 + column % 8 * kSide + column / 8 % kSide;
  }
  static __device__ __forceinline__ int column_of(int place) {
    return place / 32 * 32 + place % kSide * 8 + place / kSide % 8;
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

// A side of a product whose lines lie along the depth in memory: line(at) is where row or column `at` begins, nullptr
// one of zeros.
template <class Stage, Side kOf>
class Lines {
 public:
  static constexpr bool kAlongDepth = true;
  using F = typename Stage::Number;

  template <class Line>
  explicit __device__ __forceinline__ Lines(const Line& line) {
#pragma unroll
    for (int i = 0; i < Stage::kLines; ++i) lines_[i] = line(Stage::template line<kOf>(i));
  }

  // `count` of the depth from `from` on.
  __device__ __forceinline__ void fetch(typename Stage::Held& held, int64_t from, int count) const {
#pragma unroll
    for (int line = 0; line < Stage::kLines; ++line)
#pragma unroll
      for (int i = 0; i < Stage::kOfLine; ++i) {
        const int d = Stage::depth_of_line(i);
        held[line * Stage::kOfLine + i] = lines_[line] != nullptr && d < count ? lines_[line][from + d] : F(0);
      }
  }

 private:
  const F* lines_[Stage::kLines];
};

// Where a number lies, if it is no zero.
template <class F>
struct Element {
  const F* at;
  bool exists;
};

// And one whose lines lie across it, neighbours beside each other: number(k, at) is an Element. It is asked for every k
// of a stage, so that nothing but the load itself depends on a condition: a branch would make each load wait for the
// one before.
template <class Stage, class Number>
class Across {
 public:
  static constexpr bool kAlongDepth = false;
  using F = typename Stage::Number;

  explicit __device__ __forceinline__ Across(const Number& number) : number_(number) {}

  __device__ __forceinline__ void fetch(typename Stage::Held& held, int64_t from, int count) const {
#pragma unroll
    for (int i = 0; i < Stage::kLines * Stage::kOfLine; ++i) {
      const int d = Stage::depth_across(i);
      const Element<F> number = number_(from + d, static_cast<int>(threadIdx.x) % kSquare);
      held[i] = number.exists & (d < count) ? *number.at : F(0);
    }
  }

 private:
  const Number& number_;
};

// sum += left right over the depth. seen(held) for what a thread has of right, stage by stage.
template <class Stage, class Left, class Right, class Seen>
__device__ __forceinline__ void accumulate(const Stage& stage, typename Stage::Sums& sum, int64_t depth,
                                           const Left& left, const Right& right, const Seen& seen) {
  typename Stage::Held of_left, of_right;
  const auto fetch = [&](int64_t from) {
    const int count = static_cast<int>(depth - from < Stage::kDepth ? depth - from : Stage::kDepth);
    left.fetch(of_left, from, count);
    right.fetch(of_right, from, count);
  };
  fetch(0);
  for (int64_t from = 0; from < depth; from += Stage::kDepth) {
    if (from > 0) block_barrier();
    stage.template put<kLeft, Left::kAlongDepth>(of_left);
    stage.template put<kRight, Right::kAlongDepth>(of_right);
    seen(of_right);
    block_barrier();
    if (from + Stage::kDepth < depth) fetch(from + Stage::kDepth);
    stage.multiply(sum);
  }
}

}  // namespace emix::recurrent
