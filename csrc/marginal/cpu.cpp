// marginal on the CPU. A core takes up to 64 joint actions through the two layers, an agent after the other, with the
// weights in the second cache; nothing that lies between the layers goes to memory. A joint action that a state has
// drawn several times is computed once. Gradients of weights are summed over fixed groups of states, then over the
// groups in order: the same bits whatever the number of threads.
#include "instruction_sets.h"
#include "marginal/cpu_backward.h"
#include "marginal/cpu_forward.h"
#include "marginal/ops.h"

namespace emix::marginal {
namespace {

inline constexpr int64_t kGroups = 16;               // whose sums of gradients are kept apart, unless that is
inline constexpr int64_t kGroupElements = 16 << 20;  // more than so many numbers
inline constexpr int64_t kWorthAThread = 1 << 20;    // multiplications

template <class F>
struct Forward {
  template <int kBytes>
  static EMIX_HD void run(const Problem& p, const Weights<F>& weights, F* value, int64_t begin, int64_t end) {
    ForwardWalk<kBytes, F>(p, weights, value).states(begin, end);
  }
};

template <class F>
struct Backward {
  template <int kBytes>
  static EMIX_HD void run(const Problem& p, const Weights<F>& weights, const Gradients& g, int64_t groups, F* sums,
                          int64_t begin, int64_t end) {
    BackwardWalk<kBytes, F> walk(p, weights, g);
    const int64_t elements = Sums<F>(p, nullptr).elements;
    for (int64_t group = begin; group < end; ++group)
      walk.states(group * p.states / groups, (group + 1) * p.states / groups, sums + group * elements);
  }
};

int64_t grain(const Problem& p, int64_t tasks) {
  const int64_t work = p.states * p.samples * p.agents * p.hidden * p.outputs;
  return std::max<int64_t>(1, kWorthAThread * tasks / std::max<int64_t>(1, work));
}

// None that would not fill a block were all joint actions different.
int64_t group_count(const Problem& p, int64_t elements) {
  const int64_t rows = std::max<int64_t>(1, most_rows(p)), blocks = (p.states * p.samples + rows - 1) / rows;
  return std::max<int64_t>(1, std::min({kGroups, kGroupElements / elements, blocks, p.states}));
}

void check_indices(const Problem& p) {
  if (p.continuous) return;
  const int64_t count = p.samples * p.states * p.agents;
  for (int64_t i = 0; i < count; ++i)
    if (p.index(i) < 0 || p.index(i) >= p.choices)
      fail("`actions` must lie in [0, ", p.choices, "), the actions of `w_action`, got ", p.index(i));
}

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class F>
  void forward(const Problem& p, F* value, const Tensor&) const {
    check_indices(p);
    const Weights<F> weights(p);
    run_rows(p.states, grain(p, p.states),
             [&](int64_t begin, int64_t end) { at_best_level<Forward<F>>(p, weights, value, begin, end); });
  }

  template <class F>
  void backward(F, const Problem& p, const Gradients& g, const Tensor&) const {
    check_indices(p);
    const Weights<F> weights(p);
    const int64_t elements = std::max<int64_t>(1, Sums<F>(p, nullptr).elements);
    const int64_t groups = group_count(p, elements);
    const std::unique_ptr<F[]> sums(new F[groups * elements]);
    run_rows(groups, grain(p, groups), [&](int64_t begin, int64_t end) {
      at_best_level<Backward<F>>(p, weights, g, groups, sums.get(), begin, end);
    });
    F* total = sums.get();
    for (int64_t group = 1; group < groups; ++group)
      for (int64_t k = 0; k < elements; ++k) total[k] += total[group * elements + k];
    Sums<F>(p, total).write(p, g);
  }
};

}  // namespace
}  // namespace emix::marginal

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::marginal::register_ops<emix::marginal::Cpu>(m); }
