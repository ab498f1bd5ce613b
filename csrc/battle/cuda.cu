// battle on the GPU, one launch: a block has a battle, a thread a unit. The state is in shared memory from the first
// game loop to the observation.
#include "battle/ops.h"
#include "cuda_stream.h"

namespace emix::battle {
namespace {

inline constexpr int kMaxBlock = kMaxSlots;
// Blocks on a multiprocessor at once, which grants 80 registers: without a word the compiler takes 64, and spills.
inline constexpr int kStepBlocks = 6;

struct Threads {
  static constexpr bool kTablesAreNear = false;

  template <class V, class F>
  EMIX_HD void each(int slots, const F& f) const {
    each_one(slots, f);
  }
  template <class F>
  __device__ __forceinline__ void each_one(int count, const F& f) const {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) f(i);
    block_barrier();
  }
  template <class F>
  __device__ __forceinline__ void each_pair(int rows, int columns, const F& f) const {
    each_one(rows * columns, [&](int k) EMIX_INLINE { f(k / columns, k % columns); });
  }
  template <class F>
  __device__ __forceinline__ void once(const F& f) const {
    if (threadIdx.x == 0) f();
    block_barrier();
  }
};

// Where the parts of a battle lie in the block's shared memory.
struct Shape {
  int clock = 0, units = 0, minds = 0, stats = 0, traits = 0, notes = 0, marks = 0, bytes = 0;

  explicit Shape(int slots) {
    const auto take = [this](int& offset, int elements, int size) {
      offset = bytes;
      bytes += elements * size;
    };
    take(clock, clock::rows, sizeof(int64_t));
    take(units, unit::rows * slots, sizeof(float));
    take(minds, mind::rows * slots, sizeof(int));
    take(stats, stat::rows * slots, sizeof(float));
    take(traits, trait::rows * slots, sizeof(int));
    take(notes, note::rows * slots, sizeof(float));
    take(marks, mark::rows * slots, sizeof(int));
  }
};

template <class T>
__device__ __forceinline__ T* shared(int offset, int size) {
  return &Shared<T>(offset, size)[0];
}

template <class T>
__device__ __forceinline__ void copy(const Threads& block, const T* from, T* to, int size) {
  block.each_one(size, [&](int k) EMIX_INLINE { to[k] = from[k]; });
}

// f(block, battle, index) for every battle of this block, with the state in shared memory; then the observations.
template <class F>
__device__ __forceinline__ void run_battles(const Run& run, const Shape& shape, const F& f) {
  const Scenario& s = run.scenario;
  const Threads block;
  for (int64_t index = blockIdx.x; index < run.battles; index += gridDim.x) {
    const Battle far = battle_at(run, index);
    Battle b;
    b.scenario = &s, b.slots = s.slots;
    b.clock = shared<int64_t>(shape.clock, clock::rows);
    b.units = shared<float>(shape.units, unit::rows * s.slots);
    b.minds = shared<int>(shape.minds, mind::rows * s.slots);
    b.notes = shared<float>(shape.notes, note::rows * s.slots);
    b.marks = shared<int>(shape.marks, mark::rows * s.slots);
    copy(block, far.clock, b.clock, clock::rows);
    copy(block, far.units, b.units, unit::rows * s.slots);
    copy(block, far.minds, b.minds, mind::rows * s.slots);
    block.each_one(s.slots, [&](int i) EMIX_INLINE { mend(b, i); });
    const double reward = f(block, b, index);
    observe(block, b, observed_at(run, index));
    block.once([&]() EMIX_INLINE { report(b, index, reward, run.outcome); });
    copy(block, b.clock, far.clock, clock::rows);
    copy(block, b.units, far.units, unit::rows * s.slots);
    copy(block, b.minds, far.minds, mind::rows * s.slots);
  }
}

__device__ __forceinline__ void read_kinds(const Threads& block, const Shape& shape, Battle& b) {
  read_kinds(block, b, shared<float>(shape.stats, stat::rows * b.slots),
             shared<int>(shape.traits, trait::rows * b.slots));
}

__global__ void __launch_bounds__(kMaxBlock, kStepBlocks)
    step_battles(const __grid_constant__ Run run, const __grid_constant__ Shape shape, const int64_t* actions) {
  run_battles(run, shape, [&](const Threads& block, Battle& b, int64_t index) EMIX_INLINE {
    read_kinds(block, shape, b);
    if (b[clock::status] != static_cast<int64_t>(Status::running)) return 0.0;
    return play<One>(block, b, actions + index * run.scenario.allies);
  });
}

__global__ void __launch_bounds__(kMaxBlock)
    reset_battles(const __grid_constant__ Run run, const __grid_constant__ Shape shape,
                  const __grid_constant__ Start start) {
  run_battles(run, shape, [&](const Threads& block, Battle& b, int64_t index) EMIX_INLINE {
    if (start.where[index]) begin_episode(block, b, start.seed, start.first + index, start.closed);
    read_kinds(block, shape, b);
    return 0.0;
  });
}

struct Cuda {
  CurrentStream current;
  explicit Cuda(const Tensor& like) : current(like) {}

  void step(const Run& run, const int64_t* actions) const { launch_block("step_battles", step_battles, run, actions); }
  void reset(const Run& run, const Start& start) const { launch_block("reset_battles", reset_battles, run, start); }

 private:
  // A block for each battle, a thread for each slot.
  template <class Kernel, class Last>
  void launch_block(const char* name, Kernel* kernel, const Run& run, const Last& last) const {
    const Shape shape(run.scenario.slots);
    const int block = (run.scenario.slots + kWarp - 1) / kWarp * kWarp;
    launch_shared(name, kernel, blocks_for(run.battles, 1), block, shape.bytes, current.stream, run, shape, last);
  }
};

}  // namespace
}  // namespace emix::battle

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::battle::register_ops<emix::battle::Cuda>(m); }
