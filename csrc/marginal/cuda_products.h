// How a warp multiplies numbers of type F: D [16, 8] += A [16, 8] B [8, 8], a lane's four numbers of A and of D and two
// of B in the places that matrix_units.h names. `multiply` has some of A below each other and some of B side by side,
// and goes over all of D once for each product of parts: an operation that adds to what the one before it gave would
// wait for it.
#pragma once
#include "matrix_units.h"

namespace emix::marginal {

// On the matrix units, to the accuracy of float32: each number as the sum of two tf32, of whose four products the
// smallest, 2^-22 of the whole, is left out. With what two tf32 cannot hold 2^-20 of a product at most is lost.
struct SplitTf32 {
  using Number = float;
  struct Left {
    uint4 high, low;
  };
  struct alignas(16) Right {
    uint2 high, low;
  };
  struct ExactLeft {  // of ones and zeros
    uint4 high;
  };
  struct ExactRight {
    uint2 high;
  };

  static __device__ __forceinline__ Left left(const float (&x)[4]) {
    const uint4 words = {high(x[0]), high(x[1]), high(x[2]), high(x[3])};
    return {words, {low(x[0], words.x), low(x[1], words.y), low(x[2], words.z), low(x[3], words.w)}};
  }
  static __device__ __forceinline__ Right right(float a, float b) {
    const uint2 words = {high(a), high(b)};
    return {words, {low(a, words.x), low(b, words.y)}};
  }
  // A one or a zero, for what is exact; bit() has one where the word's bit, one of the lowest 24, is set.
  using Exact = uint32_t;
  static __device__ __forceinline__ Exact one(bool x) { return x ? kOne : 0u; }
  static __device__ __forceinline__ Exact bit(uint32_t word, int at) { return (word & 1u << at) * (kOne >> at); }
  static __device__ __forceinline__ ExactLeft exact_left(const Exact (&x)[4]) { return {{x[0], x[1], x[2], x[3]}}; }
  static __device__ __forceinline__ ExactRight exact_right(Exact a, Exact b) { return {{a, b}}; }

  // Of `sum` the tiles of columns `first` ..
  template <int kHigh, int kAll, int kWide>
  static __device__ __forceinline__ void multiply(float (&sum)[kHigh][kAll][4], int first, const Left (&a)[kHigh],
                                                  const Right (&b)[kWide]) {
    each(sum, first, a, b, [](const Left& x) { return x.low; }, [](const Right& x) { return x.high; });
    each(sum, first, a, b, [](const Left& x) { return x.high; }, [](const Right& x) { return x.low; });
    each(sum, first, a, b, [](const Left& x) { return x.high; }, [](const Right& x) { return x.high; });
  }
  template <int kHigh, int kAll, int kWide>
  static __device__ __forceinline__ void multiply(float (&sum)[kHigh][kAll][4], int first, const ExactLeft (&a)[kHigh],
                                                  const Right (&b)[kWide]) {
    each(sum, first, a, b, [](const ExactLeft& x) { return x.high; }, [](const Right& x) { return x.low; });
    each(sum, first, a, b, [](const ExactLeft& x) { return x.high; }, [](const Right& x) { return x.high; });
  }
  template <int kHigh, int kAll, int kWide>
  static __device__ __forceinline__ void multiply(float (&sum)[kHigh][kAll][4], int first, const Left (&a)[kHigh],
                                                  const ExactRight (&b)[kWide]) {
    each(sum, first, a, b, [](const Left& x) { return x.low; }, [](const ExactRight& x) { return x.high; });
    each(sum, first, a, b, [](const Left& x) { return x.high; }, [](const ExactRight& x) { return x.high; });
  }

 private:
  // Three instructions in place of the eight of two conversions: to the nearest tf32, and of the rest what a unit reads.
  // A NaN may round to a number, but then its rest is NaN.
  static __device__ __forceinline__ uint32_t high(float x) { return (bits_of(x) + 0x1000u) & 0xffffe000u; }
  static __device__ __forceinline__ uint32_t low(float x, uint32_t high) { return bits_of(x - float_of(high)); }
  static constexpr uint32_t kOne = 0x3f800000u;

  template <int kHigh, int kAll, int kWide, class A, class B, class PartA, class PartB>
  static __device__ __forceinline__ void each(float (&sum)[kHigh][kAll][4], int first, const A (&a)[kHigh],
                                              const B (&b)[kWide], const PartA& part_a, const PartB& part_b) {
#pragma unroll
    for (int t = 0; t < kWide; ++t)
#pragma unroll
      for (int high = 0; high < kHigh; ++high) multiply_add<Tf32>(sum[high][first + t], part_a(a[high]), part_b(b[t]));
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
  using Exact = F;
  static __device__ __forceinline__ Exact one(bool x) { return F(x); }
  static __device__ __forceinline__ Exact bit(uint32_t word, int at) { return F(word >> at & 1u); }
  static __device__ __forceinline__ Left exact_left(const F (&x)[4]) { return left(x); }
  static __device__ __forceinline__ Right exact_right(F a, F b) { return right(a, b); }

  template <int kHigh, int kAll, int kWide>
  static __device__ __forceinline__ void multiply(F (&sum)[kHigh][kAll][4], int first, const Left (&a)[kHigh],
                                                  const Right (&b)[kWide]) {
#pragma unroll
    for (int t = 0; t < kWide; ++t)
#pragma unroll
      for (int high = 0; high < kHigh; ++high) add(sum[high][first + t], a[high], b[t]);
  }

 private:
  static __device__ __forceinline__ void add(F (&sum)[4], const Left& a, const Right& b) {
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
