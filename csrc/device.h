// What a formula and a kernel may use: host/device macros, warp primitives, the one way to launch. No torch here.
//
// The same .cu file is compiled three ways: by nvcc; as plain C++ with EMIX_EMULATED, where tests/emulator/ supplies
// CUDA's names and runs a block's threads as fibers; and its <word>.h also by the CPU kernels, where only the macros
// below matter.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#if defined(EMIX_EMULATED)
#include "emulator.h"
#elif defined(__CUDACC__)
#include <cuda_runtime.h>

#include "cuda_versions.h"
#endif

#if defined(__CUDACC__) || defined(EMIX_EMULATED)
#define EMIX_HD __host__ __device__ __forceinline__
#else
#define EMIX_HD \
  inline __attribute__((always_inline))  // must be inlined: only then is it compiled for the caller's instruction set
#endif

// Behind a lambda's parameters, for the same reason.
#define EMIX_INLINE __attribute__((always_inline))

// Before a loop whose length the compiler knows: unrolled in full, so that its arrays can live in registers.
#if defined(__CUDA_ARCH__)
#define EMIX_UNROLL _Pragma("unroll")
#elif defined(__CUDACC__)
#define EMIX_UNROLL  // nvcc's pass over host code knows neither form
#else
#define EMIX_UNROLL _Pragma("GCC unroll 64")
#endif

namespace emix {

// What inputs of type T are computed in.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace emix

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

// The value of the lane whose index differs in the bits of `mask`.
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}

// Orders the memory accesses of a warp's lanes.
__device__ __forceinline__ void warp_barrier() { __syncwarp(kAllLanes); }

// One bit for each lane whose predicate holds.
__device__ __forceinline__ unsigned ballot(bool predicate) { return __ballot_sync(kAllLanes, predicate); }

__device__ __forceinline__ void block_barrier() { __syncthreads(); }

// Sets a flag that several threads may set before a barrier. A volatile store is a strong one in the PTX memory model,
// in which ordinary stores, even of the same value, would race.
__device__ __forceinline__ void raise(int& flag) {
#if defined(EMIX_EMULATED)
  emulator::strong_store(flag, 1);
#else
  *static_cast<volatile int*>(&flag) = 1;
#endif
}

// `size` elements of the block's dynamic shared memory, from byte `offset` on (a multiple of sizeof(T)). The emulator
// checks every access.
template <class T>
class Shared {
 public:
  __device__ __forceinline__ Shared(int offset, int size) : size_(size) {
#if defined(EMIX_EMULATED)
    void* memory = emulator::dynamic_shared();
#else
    extern __shared__ __align__(16) unsigned char memory[];
#endif
    data_ = reinterpret_cast<T*>(static_cast<unsigned char*>(memory) + offset);
  }
  __device__ __forceinline__ T& operator[](int i) const {
#if defined(EMIX_EMULATED)
    emulator::shared_check(i, size_);
#endif
    return data_[i];
  }

 private:
  T* data_;
  int size_;
};

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

// Bytes of shared memory that a block may have on the current device: 64 KiB or more, 227 on an H100.
inline int shared_limit() {
#if defined(EMIX_EMULATED)
  return 227 << 10;
#else
  int device = 0, bytes = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return bytes;
#endif
}

// Of the current device. The emulated one has few, so that a test's small batch is a large one there.
inline int multiprocessors() {
#if defined(EMIX_EMULATED)
  return 2;
#else
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
#endif
}

#if !defined(EMIX_EMULATED)
inline std::string launch_error(const char* name, cudaError_t error) {
  std::string text = std::string("emix: launch of ") + name + " failed: " + cudaGetErrorString(error);
  int driver = 0;
  if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess)
    text += ". " + driver_problem(CUDART_VERSION, driver) + ": " + driver_remedy(CUDART_VERSION, driver);
  return text;
}
#endif

// Every kernel is launched here, so that the emulator can take its place. `shared`: bytes of dynamic shared memory, up
// to shared_limit().
template <class... Parameters, class... Arguments>
void launch_shared(const char* name, void (*kernel)(Parameters...), unsigned grid, int block, int shared,
                   cudaStream_t stream, Arguments... arguments) {
  if (grid == 0) return;
#if defined(EMIX_EMULATED)
  (void)stream;
  emulator::launch(name, kernel, dim3(grid), dim3(block), shared, arguments...);
#else
  if (shared > 48 << 10)  // more than that is for kernels that ask for it
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
  // clang-format off: it takes the brackets apart
  kernel<<<grid, block, shared, stream>>>(arguments...);
  // clang-format on
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(launch_error(name, error));
#endif
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), unsigned grid, int block, cudaStream_t stream,
            Arguments... arguments) {
  launch_shared(name, kernel, grid, block, 0, stream, arguments...);
}

}  // namespace emix
#endif
