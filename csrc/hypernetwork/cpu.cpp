// hypernetwork on the CPU; a GPU has cuBLAS for it. A core takes blocks of rows through one member at a time, and of
// what lies between the layers only the hidden layers go to memory, where a backward pass follows. Gradients of weights
// are summed over fixed groups of blocks, then over the groups in order: the same bits whatever the number of threads.
#include "cpu_tasks.h"
#include "hypernetwork/cpu_backward.h"
#include "hypernetwork/cpu_forward.h"
#include "hypernetwork/ops.h"
#include "instruction_sets.h"

namespace emix::hypernetwork {
namespace {

inline constexpr int64_t kForwardBlocks = 4;   // of a task
inline constexpr int64_t kBackwardTasks = 16;  // at least, where there are blocks enough
inline constexpr int64_t kBackwardBlocks = 2;  // of a task, at least: it has its own sums

template <class F>
struct Forward {
  template <int kBytes>
  static EMIX_HD void run(const Hypernetwork& p, const ForwardWeights<F>& weights, const Results& results,
                          const Tasks& tasks, int64_t begin, int64_t end) {
    ForwardWalk<kBytes, F> walk(p, weights, results);
    for (int64_t task = begin; task < end; ++task)
      for (int64_t block = tasks.begin(task); block < tasks.end(task); ++block)
        walk.block(Block(p, block), tasks.member(task));
  }
};

template <class F>
struct Backward {
  template <int kBytes>
  static EMIX_HD void run(const Hypernetwork& p, const BackwardWeights<F>& weights, const Gradients& gradients,
                          const Tasks& tasks, F* sums, int64_t begin, int64_t end) {
    BackwardWalk<kBytes, F> walk(p, weights, gradients);
    const int64_t elements = Sums<F>(p, nullptr).elements;
    for (int64_t task = begin; task < end; ++task) {
      walk.begin(tasks.member(task), sums + task * elements);
      for (int64_t block = tasks.begin(task); block < tasks.end(task); ++block) walk.block(Block(p, block));
    }
  }
};

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class F>
  void forward(const Hypernetwork& p, const Results& results) const {
    const ForwardWeights<F> weights(p);
    const Tasks tasks = tasks_of_size(blocks(p), p.members, kForwardBlocks);
    run_rows(tasks.count(), tasks.grain(p.rows),
             [&](int64_t begin, int64_t end) { at_best_level<Forward<F>>(p, weights, results, tasks, begin, end); });
  }

  template <class F>
  void backward(const Hypernetwork& p, const Gradients& gradients) const {
    const BackwardWeights<F> weights(p, gradients);
    const Tasks tasks = tasks_of_number(blocks(p), p.members, kBackwardTasks, kBackwardBlocks);
    const int64_t elements = Sums<F>(p, nullptr).elements;
    const std::unique_ptr<F[]> sums(new F[tasks.count() * elements]);
    run_rows(tasks.count(), tasks.grain(p.rows), [&](int64_t begin, int64_t end) {
      at_best_level<Backward<F>>(p, weights, gradients, tasks, sums.get(), begin, end);
    });
    sum_groups(tasks, elements, sums.get(),
               [&](int64_t member, F* total) { Sums<F>(p, total).write(p, member, gradients); });
    if (gradients.state) sum_members<F>(gradients.state_parts, p.members, p.rows * p.states, gradients.state);
  }
};

}  // namespace
}  // namespace emix::hypernetwork

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::hypernetwork::register_ops<emix::hypernetwork::Cpu>(m); }
