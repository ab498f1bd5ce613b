// critic on the CPU; a GPU has cuBLAS for it. A core takes blocks of rows through one member at a time, with its
// weights in the second cache, and of what lies between the layers only y goes to memory, for the backward pass, and x
// where that is not much. Gradients of weights are summed over fixed groups of units, then over the groups in order:
// the same bits whatever the number of threads.
#include "critic/cpu_backward.h"
#include "critic/cpu_forward.h"
#include "critic/ops.h"
#include "instruction_sets.h"

namespace emix::critic {
namespace {

inline constexpr int64_t kForwardUnits = 8;    // of a task
inline constexpr int64_t kBackwardTasks = 16;  // at least, where there are units enough
inline constexpr int64_t kBackwardUnits = 4;   // of a task, at least: it transposes weights and has its own sums

template <class F>
struct Forward {
  template <int kBytes>
  static EMIX_HD void run(const Critic& p, const Weights<F>& weights, const Results& results, const Tasks& tasks,
                          int64_t begin, int64_t end) {
    ForwardWalk<kBytes, F> walk(p, weights, results);
    for (int64_t task = begin; task < end; ++task)
      for_each_block(p, tasks, task, [&](const Block& block) EMIX_INLINE { walk.run(block, tasks.member(task)); });
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
      for_each_block(p, tasks, task, [&](const Block& block) EMIX_INLINE { walk.run(block); });
    }
  }
};

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class F>
  void forward(const Critic& p, const Results& results) const {
    const Weights<F> weights(p);
    const Tasks tasks = tasks_of_size(units(p), p.members, kForwardUnits);
    run_rows(tasks.count(), tasks.grain(p.rows()),
             [&](int64_t begin, int64_t end) { at_best_level<Forward<F>>(p, weights, results, tasks, begin, end); });
  }

  template <class F>
  void backward(const Critic& p, const Gradients& gradients) const {
    const Weights<F> weights(p);
    const Tasks tasks = tasks_of_number(units(p), p.members, kBackwardTasks, kBackwardUnits);
    const int64_t elements = Sums<F>(p, nullptr).elements;
    const std::unique_ptr<F[]> sums(new F[tasks.count() * elements]);
    run_rows(tasks.count(), tasks.grain(p.rows()), [&](int64_t begin, int64_t end) {
      at_best_level<Backward<F>>(p, weights, gradients, tasks, sums.get(), begin, end);
    });
    sum_groups(tasks, elements, sums.get(),
               [&](int64_t member, F* total) { Sums<F>(p, total).write(p, member, gradients); });
    if (gradients.state) sum_members<F>(gradients.state_parts, p.members, p.steps * p.states, gradients.state);
    if (gradients.obs) sum_members<F>(gradients.obs_parts, p.members, p.rows() * p.features, gradients.obs);
  }
};

}  // namespace
}  // namespace emix::critic

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::critic::register_ops<emix::critic::Cpu>(m); }
