// What a formula and a kernel may use: host/device macros, warp primitives, the one way to launch. No torch here.
//
// The same .cu file is compiled three ways: by nvcc; as plain C++ with EMIX_EMULATED, where tests/emulator/ supplies
// CUDA's names and runs a block's threads as fibers; and its <word>.h also by the CPU kernels, where only the macros
// below matter.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(EMIX_EMULATED)
#include "emulator.h"
#elif defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

#if defined(__CUDACC__) || defined(EMIX_EMULATED)
#define EMIX_HD __host__ __device__ __forceinline__
#else
#define EMIX_HD \
  inline __attribute__((always_inline))  // must be inlined: only then is it compiled for the caller's instruction set
#endif

#if defined(__CUDACC__) || defined(EMIX_EMULATED)
#include <stdexcept>
#include <string>

namespace emix {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// The value of the lane `distance` above this one; lanes past the end get their own.
template <class T>
__device__ __forceinline__ T shuffle_down(T value, int distance) {
  return __shfl_down_sync(kAllLanes, value, distance);
}

// The value of the lane `distance` below this one; lanes before the start get their own.
template <class T>
__device__ __forceinline__ T shuffle_up(T value, int distance) {
  return __shfl_up_sync(kAllLanes, value, distance);
}

template <class T>
__device__ __forceinline__ T shuffle(T value, int lane) {
  return __shfl_sync(kAllLanes, value, lane);
}

// Orders the memory accesses of a warp's lanes.
__device__ __forceinline__ void warp_barrier() { __syncwarp(kAllLanes); }

// Index of this thread, and their number, over the whole grid (one-dimensional launches).
__device__ __forceinline__ int64_t thread_index() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t thread_count() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// Blocks that cover `threads`; kernels step by thread_count(), so a capped grid is still right.
inline unsigned blocks_for(int64_t threads, int block) {
  const int64_t blocks = (threads + block - 1) / block;
  return static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff);
}

// Every kernel is launched here, so that the emulator can take its place.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), unsigned grid, int block, cudaStream_t stream,
            Arguments... arguments) {
  if (grid == 0) return;
#if defined(EMIX_EMULATED)
  (void)stream;
  emulator::launch(name, kernel, dim3(grid), dim3(block), 0, arguments...);
#else
  // clang-format off: it takes the brackets apart
  kernel<<<grid, block, 0, stream>>>(arguments...);
  // clang-format on
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("emix: launch of ") + name + " failed: " + cudaGetErrorString(error));
#endif
}

}  // namespace emix
#endif
