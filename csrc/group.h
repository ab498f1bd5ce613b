// For the GPU: a warp in groups of neighbouring lanes, as many of them as a power of two, where each group takes a row.
#pragma once
#include "device.h"

namespace emix {

struct Group {
  int shift = 0;  // 1 << shift lanes

  __device__ __forceinline__ int width() const { return 1 << shift; }
  __device__ __forceinline__ int lane() const { return static_cast<int>(threadIdx.x) & (width() - 1); }
  __device__ __forceinline__ int in_warp() const { return static_cast<int>(threadIdx.x % kWarp) >> shift; }
  __device__ __forceinline__ int per_warp() const { return kWarp >> shift; }

  template <class F>
  __device__ __forceinline__ F sum(F x) const {
    for (int mask = width() / 2; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    return x;
  }

  template <class F>
  __device__ __forceinline__ F max(F x) const {
    for (int mask = width() / 2; mask > 0; mask /= 2) {
      const F other = shuffle_xor(x, mask);
      x = other > x ? other : x;
    }
    return x;
  }
};

}  // namespace emix
