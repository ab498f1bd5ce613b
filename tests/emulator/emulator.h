// A CUDA emulator: include it in place of <cuda_runtime.h>, compile the .cu file as plain C++17 with -fsanitize=thread,
// call emulator::launch in place of <<<>>>, and link races.cpp in place of ThreadSanitizer's library.
//
// It checks what a GPU would not say. A kernel that breaks a rule ends launch() with an emulator::Fault that names
// kernel, block and thread: a barrier or warp primitive that some thread never reaches, lanes at different primitives
// or with different masks, a read from a lane that takes no part, a data race in shared or global memory (a missing
// __syncwarp or __syncthreads, blocks that share a byte that one of them writes), shared memory out of bounds, a launch
// over CUDA's limits, an overflowing stack. Threads run one after another in an order that
// EMIX_EMULATOR_ORDER=ascending|descending|shuffled[:seed] sets, so what depends on the order changes results with it.
//
// Not emulated: the bounds of global memory, which is the process's own; atomics and fences; threads never run at the
// same time, so one that spins on memory until another writes it hangs; barriers and primitives are told apart by name
// and mask, not by the place of the call. What the race detection does not see stands in races.h.
//
//   emulator.h    launch, shared memory; barrier, warp primitives and integer intrinsics under CUDA's names (this file)
//   mma.h         the matrix units
//   scheduler.h   blocks, warps and threads: who runs, who waits for whom
//   races.h .cpp  who accessed which byte, and what orders two accesses
//   order.h       in which order
//   faults.h      the limits of a launch, the words of a fault
//   fiber.h       stacks, and the switch between them
//   cuda_types.h  keywords, vector types, threadIdx and its kin, the few runtime calls a launcher makes
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda_types.h"
#include "mma.h"
#include "scheduler.h"

namespace emulator {

inline Scheduler& own_scheduler() {
  static thread_local Scheduler own;
  scheduler = &own;
  return own;
}

// kernel<<<grid, block, shared_bytes>>>(arguments...), with a name for its faults. Returns when the grid has run;
// throws what a thread threw.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            const Arguments&... arguments) {
  own_scheduler().run_grid(name, grid, block, shared_bytes, [&] { kernel(arguments...); });
}

// The block's shared memory and its size in bytes. Filled with 0xff at the start of a block; its end is guarded.
inline void* dynamic_shared() { return scheduler->shared(); }
inline size_t dynamic_shared_bytes() { return scheduler->shared_bytes(); }

// Throws unless 0 <= index < size: for an array in shared memory that checks its accesses.
inline void shared_check(int64_t index, int64_t size) {
  if (index < 0 || index >= size) {
    throw scheduler->fault("index " + std::to_string(index) + " is out of the bounds of an array of " +
                           std::to_string(size) + " in shared memory");
  }
}

// A store that does not race with others like it.
[[gnu::noinline]] EMULATOR_UNWATCHED inline void strong_store(int& place, int value) { place = value; }

// Every lane of `mask` hands in a value and gets that of lane `source`.
template <class T>
T exchange(Primitive primitive, unsigned mask, const T& value, unsigned source) {
  scheduler->meet(primitive, mask, value);
  return scheduler->received<T>(source);
}

// First lane of the group of `width` lanes among which a shuffle stays.
inline unsigned group_start(int width) {
  if (width < 1 || width > warpSize || (width & (width - 1))) {
    throw scheduler->fault("a shuffle's width must be 1, 2, 4, 8, 16 or 32, got " + std::to_string(width));
  }
  return scheduler->lane() & ~(unsigned(width) - 1);
}

// One bit for each lane of `mask` whose predicate holds.
inline unsigned votes(Primitive primitive, unsigned mask, bool predicate) {
  scheduler->meet(primitive, mask, predicate);
  unsigned bits = 0;
  scheduler->for_each_lane(mask, [&](unsigned lane) { bits |= unsigned(scheduler->received<bool>(lane)) << lane; });
  return bits;
}

}  // namespace emulator

inline void __syncthreads() { emulator::scheduler->wait_at_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffff) {
  emulator::scheduler->meet(emulator::Primitive::kSyncwarp, mask, 0);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  return emulator::exchange(emulator::Primitive::kShfl, mask, value,
                            emulator::group_start(width) + (unsigned(source) & (width - 1)));
}

// As the hardware does, the three relative shuffles take a lane's own value where the source falls outside its group
// (xor: above it).
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const unsigned lane = emulator::scheduler->lane(), start = emulator::group_start(width);
  return emulator::exchange(emulator::Primitive::kShflUp, mask, value, lane - start >= delta ? lane - delta : lane);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const unsigned lane = emulator::scheduler->lane(), last = emulator::group_start(width) + width - 1;
  return emulator::exchange(emulator::Primitive::kShflDown, mask, value, last - lane >= delta ? lane + delta : lane);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize) {
  const unsigned lane = emulator::scheduler->lane(), last = emulator::group_start(width) + width - 1,
                 source = lane ^ unsigned(lane_mask);
  return emulator::exchange(emulator::Primitive::kShflXor, mask, value, source <= last ? source : lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return emulator::votes(emulator::Primitive::kBallot, mask, predicate);
}
inline int __any_sync(unsigned mask, int predicate) {
  return emulator::votes(emulator::Primitive::kAny, mask, predicate) != 0;
}
// No lane voted against: so lanes of the mask that the block does not have never count.
inline int __all_sync(unsigned mask, int predicate) {
  return emulator::votes(emulator::Primitive::kAll, mask, !predicate) == 0;
}

template <class T>
T __reduce_add_sync(unsigned mask, T value) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>, "__reduce_add_sync takes int or unsigned");
  emulator::scheduler->meet(emulator::Primitive::kReduceAdd, mask, value);
  unsigned sum = 0;  // wraps around, as the hardware's
  emulator::scheduler->for_each_lane(mask,
                                     [&](unsigned lane) { sum += unsigned(emulator::scheduler->received<T>(lane)); });
  return T(sum);
}

template <class T>
T __ldg(const T* address) {
  return *address;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(unsigned(bits)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
