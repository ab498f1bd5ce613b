// Data races of a launch: two accesses of a byte by different threads, one of them a write, that nothing orders.
//
// What orders accesses, in the words of the CUDA C++ Programming Guide:
//
//   __syncwarp      "guarantees memory ordering among threads participating in the barrier": the lanes of its mask
//   __syncthreads   all "global and shared memory accesses made by these threads prior to __syncthreads() are visible
//                   to all threads in the block"
//   a launch's end  everything, for the launches after it in its stream
//
// Shuffles, votes and reductions do not: "These intrinsics do not imply a memory barrier. They do not guarantee any
// memory ordering." The PTX ISA promises none for mma.sync either. Threads of different blocks are ordered by nothing
// within a launch: fences and atomics, which could, are not emulated. Two writes of the same value race too: the PTX
// memory model makes no exception for them.
//
// How accesses are seen: g++ -fsanitize=thread puts a call before each one; it comes here (races.cpp) instead of to
// libtsan, which knows nothing of fibers. A memcpy or memset of a length that the compiler does not know is not seen,
// nor is a file compiled without the flag, nor a thread's own stack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace emulator {

// On the emulator's own work in a kernel's midst: a kernel has no part in that memory.
#define EMULATOR_UNWATCHED __attribute__((no_sanitize("thread")))

// An access that nothing orders behind an earlier one of another thread.
struct Race {
  enum Missing { kSyncwarp, kSyncthreads, kLaunch };

  uintptr_t address;  // of the access; in shared memory: from its start
  size_t bytes;
  bool in_shared, writes, other_wrote;
  Missing missing;       // what would have ordered the two
  unsigned other_rank;   // of the other thread in its block
  uint64_t other_block;  // of its block in the grid
};

// One to an OS thread. Each access leaves a stamp on its bytes: a time, which goes on at every barrier, and the
// thread's rank. The threads run one after another, so that an earlier stamp than that of the launch, the block's start
// or the block's barrier tells by itself whether it is ordered; within a warp a clock per pair of lanes tells.
//
// Of a byte the last write is kept, and two of the reads that no barrier orders: enough to find one that races with a
// write, since a warp runs to the block's barrier before another one does, and as long as __syncwarp has the whole
// warp's mask. With smaller masks a third lane's read may be forgotten.
class Races {
 public:
  void start_launch();
  void start_block(uint64_t rank, const void* shared, size_t shared_bytes);
  void block_barrier();
  void warp_barrier(unsigned first_rank, unsigned mask, unsigned existing);

  // From here to stop() this thread of the block makes the OS thread's accesses.
  void watch(unsigned rank, const void* stack, size_t stack_bytes);
  static void stop();

  // Of the watched thread. True when it races; race() then tells with what.
  template <bool kWrites>
  bool access(uintptr_t address, size_t bytes);
  const Race& race() const { return race_; }

 private:
  using Stamp = uint64_t;
  static constexpr unsigned kRankBits = 10, kWarp = 32;
  static constexpr size_t kPageBytes = 4096, kWordBytes = 4, kCachedPages = 256, kKeptPages = 4096;

  struct Cell {
    Stamp write, read, other_read;
  };
  // A cell for each word, or, once a part of it was accessed, for each of its bytes.
  struct Page {
    Cell words[kPageBytes / kWordBytes];
    bool split[kPageBytes / kWordBytes];
    std::unique_ptr<Cell[]> bytes;
  };
  struct CachedPage {
    uintptr_t number = ~uintptr_t(0);
    Page* page = nullptr;
  };

  Page& page(uintptr_t number);
  Page& page_not_cached(uintptr_t number);
  template <bool kWrites>
  bool access_bytes(Page& page, size_t first, size_t count);
  template <bool kWrites>
  bool access_cell(Cell& cell);
  bool ordered(Stamp stamp) const;
  bool found(Stamp stamp, bool other_wrote);

  static unsigned rank_of(Stamp stamp) { return stamp & ((1u << kRankBits) - 1); }
  Stamp first_stamp() const { return time_ << kRankBits; }

  uint64_t time_ = 1;
  Stamp launch_ = 0, block_ = 0, barrier_ = 0;  // first stamps since the start of each, and since __syncthreads
  Stamp oldest_ = 0;                            // that can race: block_ in shared memory, launch_ elsewhere
  Stamp now_ = 0;                               // of the watched thread
  uintptr_t stack_ = 0, shared_ = 0;
  size_t stack_bytes_ = 0, shared_bytes_ = 0;
  // First stamps that are not behind a __syncwarp: of the whole warp, and by pairs of lanes.
  std::vector<Stamp> warps_ = std::vector<Stamp>(kWarp);
  std::vector<Stamp> pairs_ = std::vector<Stamp>(kWarp * kWarp * kWarp);
  struct Block {
    Stamp start;
    uint64_t rank;
  };
  std::vector<Block> blocks_;  // of this launch, in the order in which they ran
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  std::vector<CachedPage> cache_ = std::vector<CachedPage>(kCachedPages);
  Race race_{};
};

}  // namespace emulator
