// Kernels that break CUDA's rules, each in one way.
#include "kernels.h"

using emulator::launch;

namespace {

constexpr unsigned kAll = 0xffffffff;

__global__ void missing_barrier_kernel() {
  if (threadIdx.x != 70) __syncthreads();
}
void missing_barrier() { launch("missing_barrier", missing_barrier_kernel, dim3(1, 2), 96, 0); }

__global__ void barrier_beside_shuffle_kernel() {
  if (threadIdx.x < 5) {
    __syncthreads();
  } else {
    __shfl_sync(kAll, 1.f, 0);
  }
}
void barrier_beside_shuffle() { launch("barrier_beside_shuffle", barrier_beside_shuffle_kernel, 1, 64, 0); }

__global__ void divergent_shuffle_kernel(float* out) {
  float x = float(threadIdx.x);
  if (threadIdx.x % 2) x += __shfl_xor_sync(kAll, x, 2);
  __syncthreads();
  out[threadIdx.x] = x;
}
void divergent_shuffle() {
  std::vector<float> out(32);
  launch("divergent_shuffle", divergent_shuffle_kernel, 1, 32, 0, out.data());
}

__global__ void exited_lane_kernel(int rows) {
  if (int(threadIdx.x) >= rows) return;
  __shfl_down_sync(kAll, 1, 1);
}
void exited_lane() { launch("exited_lane", exited_lane_kernel, 1, 64, 0, 40); }

__global__ void exited_lane_ballot_kernel() {
  if (threadIdx.x != 9) __ballot_sync(kAll, 1);
}
void exited_lane_ballot() { launch("exited_lane_ballot", exited_lane_ballot_kernel, 1, 32, 0); }

__global__ void different_primitives_kernel() {
  if (threadIdx.x == 3) {
    __ballot_sync(kAll, 1);
  } else {
    __any_sync(kAll, 1);
  }
}
void different_primitives() { launch("different_primitives", different_primitives_kernel, 1, 32, 0); }

__global__ void different_masks_kernel() { __syncwarp(threadIdx.x < 16 ? kAll : 0xffff8000); }
void different_masks() { launch("different_masks", different_masks_kernel, 1, 32, 0); }

__global__ void different_sizes_kernel() {
  if (threadIdx.x < 16) {
    __shfl_sync(kAll, 1.f, 0);
  } else {
    __shfl_sync(kAll, 1., 0);
  }
}
void different_sizes() { launch("different_sizes", different_sizes_kernel, 1, 32, 0); }

struct Word {
  static constexpr int kPerWord = 1;
  static float value(unsigned word, int) { return float(word); }
};

__global__ void mma_without_a_lane_kernel() {
  float sum[4] = {};
  if (threadIdx.x != 11) emulator::mma_m16n8<Word>(sum, {}, {});
}
void mma_without_a_lane() { launch("mma_without_a_lane", mma_without_a_lane_kernel, 1, 32, 0); }

__global__ void mask_without_caller_kernel() { __syncwarp(0xfffffffe); }
void mask_without_caller() { launch("mask_without_caller", mask_without_caller_kernel, 1, 32, 0); }

__global__ void source_outside_mask_kernel() {
  if (threadIdx.x < 16) __shfl_sync(0xffff, 1, 20);
}
void source_outside_mask() { launch("source_outside_mask", source_outside_mask_kernel, 1, 32, 0); }

__global__ void source_outside_block_kernel() { __shfl_down_sync(kAll, 1, 8); }
void source_outside_block() { launch("source_outside_block", source_outside_block_kernel, 1, 48, 0); }

__global__ void bad_width_kernel() { __shfl_sync(kAll, 1, 0, 24); }
void bad_width() { launch("bad_width", bad_width_kernel, 1, 32, 0); }

__global__ void out_of_bounds_kernel() {
  emulator::shared_check(threadIdx.x, 64);
  emulator::shared_check(int(threadIdx.x) - 60, 64);
}
void out_of_bounds() { launch("out_of_bounds", out_of_bounds_kernel, 1, 128, 256); }

__global__ void guard_kernel() {
  if (blockIdx.x == 1) static_cast<char*>(emulator::dynamic_shared())[100 + threadIdx.x] = 0;
}
void guard() { launch("guard", guard_kernel, 2, 4, 101); }

template <size_t kBytes>
__global__ void stack_kernel() {
  volatile char local[kBytes];
  for (size_t i = 0; i < kBytes; ++i) local[i] = 1;
  if (local[0]) throw std::out_of_range("an overflow matters more than this");
}
void stack_overflow() { launch("stack_overflow", stack_kernel<emulator::Stack::kUsableBytes + 1024>, 1, 4, 0); }
void stack_overrun() {
  launch("stack_overrun", stack_kernel<emulator::Stack::kUsableBytes + emulator::Stack::kRedZoneBytes>, 1, 4, 0);
}

__global__ void nothing_kernel() {}
void large_block() { launch("nothing", nothing_kernel, 1, dim3(32, 33), 0); }
void huge_block() { launch("nothing", nothing_kernel, 1, dim3(65536, 65536), 0); }
void empty_block() { launch("nothing", nothing_kernel, 1, dim3(32, 0), 0); }
void empty_grid() { launch("nothing", nothing_kernel, dim3(3, 0, 1), 32, 0); }
void large_grid() { launch("nothing", nothing_kernel, dim3(1, 65536), 32, 0); }
void large_shared() { launch("nothing", nothing_kernel, 1, 32, (227 << 10) + 1); }

__global__ void throwing_kernel() {
  __syncthreads();
  if (threadIdx.x == 5) throw std::out_of_range("thrown by thread 5");
  __syncthreads();
}
void thrown() { launch("throwing", throwing_kernel, 1, 64, 0); }

}  // namespace

const Cases kBrokenCases = {
    CASE(missing_barrier),
    CASE(barrier_beside_shuffle),
    CASE(divergent_shuffle),
    CASE(exited_lane),
    CASE(exited_lane_ballot),
    CASE(different_primitives),
    CASE(different_masks),
    CASE(different_sizes),
    CASE(mma_without_a_lane),
    CASE(mask_without_caller),
    CASE(source_outside_mask),
    CASE(source_outside_block),
    CASE(bad_width),
    CASE(out_of_bounds),
    CASE(guard),
    CASE(stack_overflow),
    CASE(large_block),
    CASE(huge_block),
    CASE(empty_block),
    CASE(empty_grid),
    CASE(large_grid),
    CASE(large_shared),
    CASE(thrown),
};

// Not one to recover from: it ends the process.
const Cases kFatalCases = {CASE(stack_overrun)};
