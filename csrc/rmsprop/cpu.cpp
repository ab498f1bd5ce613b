// RMSprop's step on the CPU. torch's optimiser passes over memory some ten times: here the gradients are read twice,
// for their norm and for the step, and everything else once.
#include "instruction_sets.h"
#include "rmsprop/ops.h"

namespace emix::rmsprop {
namespace {

inline constexpr int64_t kLanes = 16;  // sums in flight

template <class F>
EMIX_HD double sum_of_squares(const F* __restrict x, int64_t size) {
  F sums[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= size; k += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[k + lane] * x[k + lane];
  double total = 0;
  for (; k < size; ++k) total += static_cast<double>(x[k]) * x[k];
  for (const F sum : sums) total += sum;
  return total;
}

#define EMIX_RMSPROP_CLONE(SETS, F)                                                                        \
  SETS double squares(F, const Chunk& c) { return sum_of_squares(static_cast<const F*>(c.grad), c.size); } \
  SETS void step(F, const Chunk& c, const Rates& rates) {                                                  \
    F *parameter = static_cast<F*>(c.parameter), *grad = static_cast<F*>(c.grad);                          \
    F* square_avg = static_cast<F*>(c.square_avg);                                                         \
    if (rates.scale == 1)                                                                                  \
      update<false>(parameter, grad, square_avg, c.size, rates);                                           \
    else                                                                                                   \
      update<true>(parameter, grad, square_avg, c.size, rates);                                            \
  }
EMIX_RMSPROP_CLONE(EMIX_INSTRUCTION_SETS, float)
EMIX_RMSPROP_CLONE(EMIX_BASELINE, double)

struct Cpu {
  explicit Cpu(const Tensor&) {}

  // norm: the one that the gradients have.
  template <class F>
  void step(const std::vector<Chunk>& chunks, Rates rates, double max_norm, F* norm) const {
    const double length = length_of<F>(chunks);
    *norm = static_cast<F>(length);
    rates.scale = length + 1e-6 > max_norm ? max_norm / (length + 1e-6) : 1;  // a NaN changes nothing here, and goes on
    run_rows(static_cast<int64_t>(chunks.size()), 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) rmsprop::step(F(), chunks[i], rates);
    });
  }

 private:
  template <class F>
  static double length_of(const std::vector<Chunk>& chunks) {
    std::vector<double> sums(chunks.size());
    run_rows(static_cast<int64_t>(chunks.size()), 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sums[i] = squares(F(), chunks[i]);
    });
    double total = 0;
    for (const double sum : sums) total += sum;
    return std::sqrt(total);
  }
};

}  // namespace
}  // namespace emix::rmsprop

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::rmsprop::register_ops<emix::rmsprop::Cpu>(m); }
