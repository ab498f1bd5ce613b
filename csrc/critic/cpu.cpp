// critic on the CPU; a GPU has cuBLAS for it. A core takes blocks of rows through one member at a time, with its
// weights in the second cache, and of what lies between the layers only y goes to memory, for the backward pass, which
// computes x again. Gradients of weights are summed over fixed groups of blocks, then over the groups in order: the
// same bits whatever the number of threads.
#include "critic/cpu_backward.h"
#include "critic/cpu_forward.h"
#include "critic/ops.h"
#include "instruction_sets.h"

namespace emix::critic {
namespace {

inline constexpr int64_t kForwardBlocks = 8;   // of a task
inline constexpr int64_t kBackwardTasks = 16;  // at least, where there are blocks enough
inline constexpr int64_t kBackwardBlocks = 4;  // of a task, at least: it transposes weights and has its own sums
inline constexpr int64_t kWorthAThread = 64;   // rows x members

// A task is a group of neighbouring blocks, and one member.
struct Tasks {
  int64_t blocks, groups, members;

  int64_t count() const { return groups * members; }
  EMIX_HD int64_t member(int64_t task) const { return task / groups; }
  EMIX_HD int64_t begin(int64_t task) const { return task % groups * blocks / groups; }
  EMIX_HD int64_t end(int64_t task) const { return (task % groups + 1) * blocks / groups; }
  int64_t grain(const Critic& p) const {
    return std::max<int64_t>(1, kWorthAThread * groups / std::max<int64_t>(1, p.rows()));
  }
};

template <class F>
struct Forward {
  template <int kBytes>
  static EMIX_HD void run(const Critic& p, const Weights<F>& weights, const Results& results, const Tasks& tasks,
                          int64_t begin, int64_t end) {
    ForwardWalk<kBytes, F> walk(p, weights, results);
    for (int64_t task = begin; task < end; ++task)
      for (int64_t block = tasks.begin(task); block < tasks.end(task); ++block) walk.block(block, tasks.member(task));
  }
};

template <class F>
struct Backward {
  template <int kBytes>
  static EMIX_HD void run(const Critic& p, const Weights<F>& weights, const Gradients& gradients, const Tasks& tasks,
                          F* sums, int64_t begin, int64_t end) {
    BackwardWalk<kBytes, F> walk(p, weights, gradients);
    const int64_t elements = Sums<F>(p, nullptr).elements;
    for (int64_t task = begin; task < end; ++task) {
      walk.begin(tasks.member(task), sums + task * elements);
      for (int64_t block = tasks.begin(task); block < tasks.end(task); ++block) walk.block(block);
    }
  }
};

// [N, size] summed over the members in order.
template <class F>
void sum_members(const void* parts, int64_t members, int64_t size, void* result) {
  const F* part = static_cast<const F*>(parts);
  F* total = static_cast<F*>(result);
  run_rows(size, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) total[k] = part[k];
    for (int64_t member = 1; member < members; ++member)
      for (int64_t k = begin; k < end; ++k) total[k] += part[member * size + k];
  });
}

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class F>
  void forward(const Critic& p, const Results& results) const {
    const Weights<F> weights(p);
    const Tasks tasks{blocks(p), (blocks(p) + kForwardBlocks - 1) / kForwardBlocks, p.members};
    run_rows(tasks.count(), tasks.grain(p),
             [&](int64_t begin, int64_t end) { at_best_level<Forward<F>>(p, weights, results, tasks, begin, end); });
  }

  template <class F>
  void backward(const Critic& p, const Gradients& gradients) const {
    const Weights<F> weights(p);
    const int64_t wanted = (kBackwardTasks + p.members - 1) / p.members;
    const Tasks tasks{blocks(p), std::max<int64_t>(1, std::min(blocks(p) / kBackwardBlocks, wanted)), p.members};
    const int64_t elements = Sums<F>(p, nullptr).elements;
    const std::unique_ptr<F[]> sums(new F[tasks.count() * elements]);
    run_rows(tasks.count(), tasks.grain(p), [&](int64_t begin, int64_t end) {
      at_best_level<Backward<F>>(p, weights, gradients, tasks, sums.get(), begin, end);
    });
    run_rows(p.members, std::max<int64_t>(1, (1 << 14) / elements), [&](int64_t begin, int64_t end) {
      for (int64_t member = begin; member < end; ++member) {
        F* total = sums.get() + member * tasks.groups * elements;
        for (int64_t group = 1; group < tasks.groups; ++group)
          for (int64_t k = 0; k < elements; ++k) total[k] += total[group * elements + k];
        Sums<F>(p, total).write(p, member, gradients);
      }
    });
    if (gradients.state) sum_members<F>(gradients.state_parts, p.members, p.steps * p.states, gradients.state);
    if (gradients.obs) sum_members<F>(gradients.obs_parts, p.members, p.rows() * p.features, gradients.obs);
  }
};

}  // namespace
}  // namespace emix::critic

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::critic::register_ops<emix::critic::Cpu>(m); }
