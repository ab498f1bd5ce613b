// Runs a grid on one OS thread, block after block, a block's threads as fibers. Each OS thread has its own scheduler.
//
// A warp runs until its lanes all stand at the block's barrier or have exited, then the next warp does; when all have,
// the barrier opens. Warps so run as far ahead of each other as barriers allow: of two that should have waited for each
// other, one order shows it.
#pragma once

#include <cstring>
#include <exception>
#include <functional>
#include <type_traits>

#include "cuda_types.h"
#include "faults.h"
#include "fiber.h"
#include "order.h"
#include "races.h"

namespace emulator {

class Scheduler {
 public:
  static constexpr size_t kMaxValueBytes = 16;  // of what a lane hands in at a warp primitive

  void run_grid(const char* kernel, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
    check_launch(kernel, grid, block, shared_bytes);
    kernel_ = kernel;
    gridDim = grid;
    blockDim = block;
    body_ = &body;
    shared_bytes_ = shared_bytes;
    shared_.resize((shared_bytes + kGuardBytes) / sizeof(float4) + 1);
    count_ = block.x * block.y * block.z;
    while (threads_.size() < count_) threads_.emplace_back();
    for (unsigned rank = 0; rank < count_; ++rank) {
      threads_[rank].rank = rank;
      threads_[rank].index = {rank % block.x, rank / block.x % block.y, rank / block.x / block.y};
    }
    Dealer dealer(current_schedule());
    lanes_ = dealer.numbers(warpSize);
    warps_ = dealer.numbers((count_ + warpSize - 1) / warpSize);
    races_.start_launch();
    for (uint64_t rank : dealer.numbers(uint64_t(grid.x) * grid.y * grid.z)) {
      blockIdx = index_of_block(rank);
      races_.start_block(rank, shared_.data(), shared_bytes_);
      run_block(dealer);
    }
  }

  // ---- what the running thread calls

  unsigned lane() const { return current_->rank % warpSize; }
  void* shared() { return shared_.data(); }
  size_t shared_bytes() const { return shared_bytes_; }
  void wait_at_barrier() { wait(At::kBarrier); }

  // Hands in `value` and waits until every lane of `mask` has come to the same primitive; received() then tells what
  // they handed in.
  template <class T>
  EMULATOR_UNWATCHED void meet(Primitive primitive, unsigned mask, const T& value) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kMaxValueBytes);
    current_->call = {primitive, mask, sizeof(T)};
    if (!(mask >> lane() & 1)) {
      throw fault(text(current_->call) + " is called by lane " + std::to_string(lane()) +
                  ", which its mask must contain");
    }
    std::memcpy(current_->sent, &value, sizeof(T));
    wait(At::kPrimitive);
  }

  template <class T>
  T received(unsigned lane) const {
    const bool exists = warp_ + lane < count_;
    if (!exists || !(current_->call.mask >> lane & 1)) {
      throw fault(
          text(current_->call) + " reads lane " + std::to_string(lane) +
          (exists ? ", which its mask must contain" : ", which this warp, the last of its block, does not have"));
    }
    T value;
    std::memcpy(&value, threads_[warp_ + lane].received, sizeof(T));
    return value;
  }

  // f(lane) for the lanes of `mask` that exist: bits past the end of a partial warp stand for nobody, as on a GPU.
  template <class F>
  void for_each_lane(unsigned mask, const F& f) const {
    for (unsigned lane = 0; lane < unsigned(warpSize) && warp_ + lane < count_; ++lane) {
      if (mask >> lane & 1) f(lane);
    }
  }

  Fault fault(const std::string& what) const { return fault_of(*current_, what); }

  // Ends the launch where the running thread stands: no exception leaves an access to memory.
  void stop(const Race& race) {
    error_ = std::make_exception_ptr(fault(why_race(race)));
    wait(At::kReady);  // so that it is abandoned
  }

 private:
  enum class At : uint8_t { kReady, kBarrier, kPrimitive, kExit };

  struct Thread {
    Fiber fiber{run_threads};
    At at = At::kReady;
    unsigned rank = 0;  // in the block
    uint3 index{};
    Call call{};
    unsigned char sent[kMaxValueBytes];
    unsigned char received[kMaxValueBytes];  // a copy of `sent`, as a lane may send again before the others have read
  };

  // A fiber's main: once a thread has exited, its fiber serves the thread of the same rank in the next block.
  static void run_threads();

  EMULATOR_UNWATCHED void wait(At at) {
    Races::stop();
    current_->at = at;
    current_->fiber.yield();
    watch();
  }

  void watch() { races_.watch(current_->rank, current_->fiber.stack(), Stack::kUsableBytes); }

  void run_block(Dealer& dealer) {
    std::memset(shared_.data(), 0xff, shared_bytes_);  // NaN, or -1: what a kernel reads before it writes shows
    std::memset(guard(), kGuardByte, kGuardBytes);
    for (unsigned rank = 0; rank < count_; ++rank) {
      Thread& thread = threads_[rank];
      if (thread.at != At::kExit) thread.fiber.abandon();  // left behind by a launch that ended in a fault
      thread.at = At::kReady;
    }
    do {
      dealer.deal_again(warps_);
      for (uint64_t warp : warps_) run_warp(unsigned(warp) * warpSize, dealer);
    } while (open_barrier());
    const unsigned char* changed =
        std::find_if(guard(), guard() + kGuardBytes, [](unsigned char byte) { return byte != kGuardByte; });
    if (changed != guard() + kGuardBytes) {
      throw Fault(place() + ": some thread wrote byte " + std::to_string(shared_bytes_ + (changed - guard())) + " of " +
                  std::to_string(shared_bytes_) + " bytes of shared memory");
    }
  }

  void run_warp(unsigned first_rank, Dealer& dealer) {
    warp_ = first_rank;
    do {
      dealer.deal_again(lanes_);
      for (uint64_t lane : lanes_) {
        if (warp_ + lane < count_ && threads_[warp_ + lane].at == At::kReady) resume(threads_[warp_ + lane]);
      }
    } while (release_lanes());
  }

  void resume(Thread& thread) {
    current_ = &thread;
    threadIdx = thread.index;
    thread.fiber.resume();
    if (thread.fiber.overflowed()) {
      thread.at = At::kReady;  // so that it is abandoned
      error_ = nullptr;
      throw fault("the stack of " + std::to_string(Stack::kUsableBytes >> 10) +
                  " KiB overflowed; keep large arrays out of local variables");
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  // Lets the lanes go on whose whole mask has come to the same primitive. False when none waits; a fault when all that
  // do wait in vain.
  bool release_lanes() {
    bool released = false;
    const Thread* stuck = nullptr;
    for_each_lane(~0u, [&](unsigned lane) {
      const Thread& first = threads_[warp_ + lane];
      if (first.at != At::kPrimitive) return;
      bool complete = true;
      for_each_lane(first.call.mask,
                    [&](unsigned other) { complete &= has_come(threads_[warp_ + other], first.call); });
      if (!complete) {
        stuck = stuck ? stuck : &first;
        return;
      }
      released = true;
      if (first.call.primitive == Primitive::kSyncwarp) races_.warp_barrier(warp_, first.call.mask, existing_lanes());
      for_each_lane(first.call.mask, [&](unsigned other) {
        Thread& thread = threads_[warp_ + other];
        std::memcpy(thread.received, thread.sent, kMaxValueBytes);
        thread.at = At::kReady;
      });
    });
    if (stuck && !released) throw fault_of(*stuck, why_stuck(*stuck));
    return released;
  }

  static bool has_come(const Thread& thread, const Call& call) {
    return thread.at == At::kPrimitive && thread.call == call;
  }

  std::string why_stuck(const Thread& stuck) const {
    std::string why;
    for_each_lane(stuck.call.mask, [&](unsigned lane) {
      const Thread& other = threads_[warp_ + lane];
      if (!why.empty() || has_come(other, stuck.call)) return;
      why = text(stuck.call) + " waits in vain for lane " + std::to_string(lane) + ", thread " + text(other.index) +
            ", which " +
            (other.at == At::kExit ? "has exited"
                                   : "stands at " + (other.at == At::kBarrier ? "__syncthreads" : text(other.call))) +
            "; all lanes of a mask must come to the same primitive";
    });
    return why;
  }

  // False when all threads have exited; a fault when only some have.
  bool open_barrier() {
    const Thread *waiting = nullptr, *exited = nullptr;
    for (unsigned rank = count_; rank-- > 0;) (threads_[rank].at == At::kExit ? exited : waiting) = &threads_[rank];
    if (waiting && exited) {
      throw fault_of(*waiting, "__syncthreads waits in vain for thread " + text(exited->index) +
                                   ", which has exited; all threads of a block must reach each barrier");
    }
    if (!waiting) return false;
    for (unsigned rank = 0; rank < count_; ++rank) threads_[rank].at = At::kReady;
    races_.block_barrier();
    return true;
  }

  unsigned existing_lanes() const { return count_ - warp_ < unsigned(warpSize) ? (1u << (count_ - warp_)) - 1 : ~0u; }

  std::string why_race(const Race& race) const {
    std::string other = "thread " + text(threads_[race.other_rank].index);
    if (race.missing == Race::kLaunch) other += " of block " + text(index_of_block(race.other_block));
    return text(race) + ", which " + other + (race.other_wrote ? " wrote" : " read") + " before; " +
           kMissingNames[race.missing];
  }

  static uint3 index_of_block(uint64_t rank) {
    return {unsigned(rank % gridDim.x), unsigned(rank / gridDim.x % gridDim.y), unsigned(rank / gridDim.x / gridDim.y)};
  }
  std::string place() const { return "kernel " + std::string(kernel_) + ", block " + text(blockIdx); }
  Fault fault_of(const Thread& thread, const std::string& what) const {
    return Fault(place() + ", thread " + text(thread.index) + ": " + what);
  }
  unsigned char* guard() { return reinterpret_cast<unsigned char*>(shared_.data()) + shared_bytes_; }

  static constexpr size_t kGuardBytes = 256;
  static constexpr unsigned char kGuardByte = 0xa5;

  const char* kernel_ = "";
  const std::function<void()>* body_ = nullptr;
  std::vector<Thread> threads_;  // never shrinks: stacks are kept from launch to launch
  unsigned count_ = 0;           // threads of a block of this launch
  unsigned warp_ = 0;            // rank of the first lane of the warp that runs
  Thread* current_ = nullptr;
  std::exception_ptr error_;  // what the thread that ran last threw
  std::vector<uint64_t> lanes_, warps_;
  Races races_;
  std::vector<float4> shared_;  // float4 for its alignment
  size_t shared_bytes_ = 0;
};

// The one of this OS thread, from its first launch on. A plain pointer, as a thread_local object checks at each access
// whether it has been constructed.
inline thread_local Scheduler* scheduler = nullptr;

EMULATOR_UNWATCHED inline void Scheduler::run_threads() {
  for (;;) {
    try {
      scheduler->watch();
      (*scheduler->body_)();
    } catch (...) {
      scheduler->error_ = std::current_exception();
    }
    scheduler->wait(At::kExit);
  }
}

}  // namespace emulator
