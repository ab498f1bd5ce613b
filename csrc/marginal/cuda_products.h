// How a warp multiplies numbers of type F: D [16, 8] += A [16, 8] B [8, 8], a lane's four numbers of A and of D and two
// of B in the places that matrix_units.h names.
#pragma once
#include "matrix_units.h"

namespace emix::marginal {

// On the matrix units, to the accuracy of float32: each number as the sum of two tf32, of whose four products the
// smallest, 2^-22 of the whole, is left out.
struct SplitTf32 {
  using Number = float;
  struct Left {
    uint4 high, low;
  };
  struct alignas(16) Right {
    uint2 high, low;
  };
  struct ExactLeft {  // of numbers that a tf32 holds
    uint4 high;
  };
  struct ExactRight {
    uint2 high;
  };

  static __device__ __forceinline__ Left left(const float (&x)[4]) {
    const uint4 high = exact_left(x).high;
    return {high, {low(x[0], high.x), low(x[1], high.y), low(x[2], high.z), low(x[3], high.w)}};
  }
  static __device__ __forceinline__ Right right(float a, float b) {
    const uint2 high = exact_right(a, b).high;
    return {high, {low(a, high.x), low(b, high.y)}};
  }
  static __device__ __forceinline__ ExactLeft exact_left(const float (&x)[4]) {
    return {{Tf32::word(&x[0]), Tf32::word(&x[1]), Tf32::word(&x[2]), Tf32::word(&x[3])}};
  }
  static __device__ __forceinline__ ExactRight exact_right(float a, float b) {
    return {{Tf32::word(&a), Tf32::word(&b)}};
  }

  static __device__ __forceinline__ void multiply(float (&sum)[4], const Left& a, const Right& b) {
    multiply_add<Tf32>(sum, a.low, b.high);
    multiply_add<Tf32>(sum, a.high, b.low);
    multiply_add<Tf32>(sum, a.high, b.high);
  }
  static __device__ __forceinline__ void multiply(float (&sum)[4], const ExactLeft& a, const Right& b) {
    multiply_add<Tf32>(sum, a.high, b.low);
    multiply_add<Tf32>(sum, a.high, b.high);
  }
  static __device__ __forceinline__ void multiply(float (&sum)[4], const Left& a, const ExactRight& b) {
    multiply_add<Tf32>(sum, a.low, b.high);
    multiply_add<Tf32>(sum, a.high, b.high);
  }

 private:
  static __device__ __forceinline__ uint32_t low(float x, uint32_t high) {
    const float rest = x - Tf32::value(high, 0);
    return Tf32::word(&rest);
  }
};

// In ordinary arithmetic, for float64 and for GPUs without such units.
template <class F>
struct Shuffled {
  using Number = F;
  struct Left {
    F x[4];
  };
  struct alignas(2 * sizeof(F)) Right {
    F x[2];
  };
  using ExactLeft = Left;
  using ExactRight = Right;

  static __device__ __forceinline__ Left left(const F (&x)[4]) { return {{x[0], x[1], x[2], x[3]}}; }
  static __device__ __forceinline__ Right right(F a, F b) { return {{a, b}}; }
  static __device__ __forceinline__ Left exact_left(const F (&x)[4]) { return left(x); }
  static __device__ __forceinline__ Right exact_right(F a, F b) { return right(a, b); }

  static __device__ __forceinline__ void multiply(F (&sum)[4], const Left& a, const Right& b) {
    const int group = threadIdx.x % kWarp / 4, item = threadIdx.x % 4;
#pragma unroll
    for (int word = 0; word < kOperationWords; ++word) {
      const int from = word % 4, half = word / 4;
      const F upper = shuffle(a.x[2 * half], 4 * group + from), lower = shuffle(a.x[2 * half + 1], 4 * group + from);
      const F even = shuffle(b.x[half], 8 * item + from), odd = shuffle(b.x[half], 8 * item + 4 + from);
      sum[0] += upper * even, sum[1] += upper * odd;
      sum[2] += lower * even, sum[3] += lower * odd;
    }
  }
};

}  // namespace emix::marginal
