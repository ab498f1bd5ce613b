// recurrent on the CPU. A core walks time for a block of rows, a chunk of steps at once: what does not depend on the
// step before (the first layer, the input's part of the gates, the last layer; backward all gradients of weights) is a
// product over the whole chunk, so that weights and intermediates stay in the second cache and none but the gates for
// the backward pass ever reaches memory. Gradients of weights are summed over fixed groups of blocks, then over the
// groups in order: the same bits whatever the number of threads.
#include <algorithm>

#include "instruction_sets.h"
#include "recurrent/cpu_backward.h"
#include "recurrent/cpu_forward.h"
#include "recurrent/ops.h"

namespace emix::recurrent {
namespace {

inline constexpr int64_t kMaxGroups = 32;
inline constexpr int64_t kWorthAThread = 128;  // rows x steps

template <class F>
struct Forward {
  template <int kBytes>
  static EMIX_HD void run(const Sequence& p, const ForwardWeights<F>& weights, const Results& results, int64_t begin,
                          int64_t end) {
    ForwardWalk<kBytes, F> walk(p, weights, results);
    for (int64_t block = begin; block < end; ++block) walk.block(block * kBlockRows);
  }
};

template <class F>
struct Backward {
  template <int kBytes>
  static EMIX_HD void run(const Sequence& p, const BackwardWeights<F>& weights, const Gradients& gradients, F* sums,
                          int64_t begin, int64_t end) {
    BackwardWalk<kBytes, F> walk(p, weights, gradients, sums);
    for (int64_t block = begin; block < end; ++block) walk.block(block * kBlockRows);
  }
};

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class F>
  void forward(const Sequence& p, const Results& results) const {
    const ForwardWeights<F> weights(p);
    run_rows(blocks(p), grain(p),
             [&](int64_t begin, int64_t end) { at_best_level<Forward<F>>(p, weights, results, begin, end); });
  }

  template <class F>
  void backward(const Sequence& p, const Gradients& gradients) const {
    const BackwardWeights<F> weights(p, gradients.x != nullptr);
    const int64_t groups = std::max<int64_t>(1, std::min(blocks(p), kMaxGroups));
    const int64_t elements = WeightGradients<F>(p, nullptr).elements;
    const std::unique_ptr<F[]> sums(new F[groups * elements]);
    const int64_t group_grain = std::max<int64_t>(1, grain(p) * groups / std::max<int64_t>(1, blocks(p)));
    run_rows(groups, group_grain, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group)
        at_best_level<Backward<F>>(p, weights, gradients, sums.get() + group * elements, group * blocks(p) / groups,
                                   (group + 1) * blocks(p) / groups);
    });
    run_rows(elements, 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t group = 1; group < groups; ++group)
        for (int64_t j = begin; j < end; ++j) sums[j] += sums[group * elements + j];
    });
    WeightGradients<F>(p, sums.get()).write(p, gradients);
  }

 private:
  static int64_t blocks(const Sequence& p) { return (p.rows() + kBlockRows - 1) / kBlockRows; }
  static int64_t grain(const Sequence& p) {
    return std::max<int64_t>(1, kWorthAThread / (kBlockRows * std::max<int64_t>(1, p.time)));
  }
};

}  // namespace
}  // namespace emix::recurrent

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::recurrent::register_ops<emix::recurrent::Cpu>(m); }
