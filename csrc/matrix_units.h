// A warp's matrix units: D [16, 8] += A [16, k] B [k, 8], operands of a narrow type, their products added up in
// float32.
//
// Operands lie in 32-bit words along k: a tf32 each, or two bf16, the lower k in the lower half. One operation takes 8
// words of depth, k = 8 or 16, and in words both types have the same layout (PTX ISA 9.2, section 9.7.14.5, "Matrix
// Fragments" of mma.m16n8k8 and mma.m16n8k16). With group = lane / 4 and item = lane % 4 a lane hands in
//
//   A as (row, word):     (group, item), (group + 8, item), (group, item + 4), (group + 8, item + 4)
//   B as (column, word):  (group, item), (group, item + 4)
//   D as (row, column):   (group, 2 item), (group, 2 item + 1), (group + 8, 2 item), (group + 8, 2 item + 1)
#pragma once
#include "elementary.h"

namespace emix {

inline constexpr int kOperationWords = 8;  // of depth of one operation
inline constexpr int kOperationRows = 16, kOperationColumns = 8;

// 8 bits of exponent, 10 of mantissa; to the nearest, ties away from 0.
struct Tf32 {
  static constexpr int kPerWord = 1;

  static EMIX_HD uint32_t word(const float* x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t word;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x[0]));
    return word;
#else
    return x[0] != x[0] ? bits_of(x[0]) : (bits_of(x[0]) + 0x1000u) & 0xffffe000u;
#endif
  }
  static EMIX_HD float value(uint32_t word, int) { return float_of(word & 0xffffe000u); }  // no unit reads the rest
};

// 8 bits of exponent, 7 of mantissa; to the nearest, ties to even.
struct Bf16 {
  static constexpr int kPerWord = 2;

  static EMIX_HD uint32_t word(const float* x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(x[1]), "f"(x[0]));
    return word;
#else
    return half(x[0]) | half(x[1]) << 16;
#endif
  }
  static EMIX_HD float value(uint32_t word, int part) { return float_of(part ? word & 0xffff0000u : word << 16); }

 private:
  static EMIX_HD uint32_t half(float x) {
    const uint32_t bits = bits_of(x);
    return x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  }
};

// What a unit sees of x.
template <class Type>
EMIX_HD float rounded(float x) {
  const float values[Type::kPerWord] = {x};
  return Type::value(Type::word(values), 0);
}

}  // namespace emix

#if defined(__CUDACC__) || defined(EMIX_EMULATED)
namespace emix {

// Whether the current device has units for Tf32 and Bf16: compute capability 8.0 or later.
inline bool has_matrix_units() {
#if defined(EMIX_EMULATED)
  return true;
#else
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  return major >= 8;
#endif
}

// This lane's words of A, from at(row, word), and of B, from at(column, word).
template <class At>
__device__ __forceinline__ uint4 left_words(const At& at) {
  const int group = threadIdx.x % kWarp / 4, item = threadIdx.x % 4;
  return {at(group, item), at(group + 8, item), at(group, item + 4), at(group + 8, item + 4)};
}
template <class At>
__device__ __forceinline__ uint2 right_words(const At& at) {
  const int group = threadIdx.x % kWarp / 4, item = threadIdx.x % 4;
  return {at(group, item), at(group, item + 4)};
}

// Where this lane's sum i stands in D.
__device__ __forceinline__ int sum_row(int i) { return threadIdx.x % kWarp / 4 + i / 2 * 8; }
__device__ __forceinline__ int sum_column(int i) { return threadIdx.x % 4 * 2 + i % 2; }

// One operation; all lanes of a warp come here together.
template <class Type>
__device__ __forceinline__ void multiply_add(float (&sum)[4], const uint4& a, const uint2& b) {
#if defined(EMIX_EMULATED)
  emulator::mma_m16n8<Type>(sum, a, b);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  __trap();  // has_matrix_units() says so before
#else
  if constexpr (Type::kPerWord == 1)
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
#endif
}

}  // namespace emix
#endif
