// policy on the CPU: 32 rows at a time, a row a lane, so that every loop vectorises over the rows. Each op is compiled
// with a floor and without, where the formulas lose their logarithms.
#include <algorithm>

#include "instruction_sets.h"
#include "lanes.h"
#include "policy/ops.h"

namespace emix::policy {
namespace {

inline constexpr int64_t kGrain = 32768;  // elements that are worth waking a thread

template <class F>
using Plane = F[kMaxActions][kLanes];

template <class F>
struct Tile {
  alignas(64) Plane<F> available, relative, e, w;               // relative: z_a - max z, e: its exponential
  alignas(64) F sum[kLanes], scale[kLanes], log_total[kLanes];  // scale: 1 / W
};

// Rows [first, first + rows) as a tile.
template <class T, class F>
EMIX_HD void load_policy(const Problem& p, const Floor<F>& floor, int64_t first, int rows, Tile<F>& tile) {
  load_values<T>(p.logits, first, rows, p.actions, tile.relative);
  load_mask(p.avail, first, rows, p.actions, tile.available);
  alignas(64) F start[kLanes], total[kLanes];
  for (int row = 0; row < kLanes; ++row) start[row] = F(-INFINITY), tile.sum[row] = total[row] = 0;
  for (int a = 0; a < p.actions; ++a)
    for (int row = 0; row < kLanes; ++row) {
      const F logit = tile.relative[a][row] = counted(tile.relative[a][row], tile.available[a][row] != 0, floor);
      start[row] = logit > start[row] ? logit : start[row];
    }
  for (int row = 0; row < kLanes; ++row) start[row] = origin(start[row]);
  for (int a = 0; a < p.actions; ++a)
    for (int row = 0; row < kLanes; ++row) {
      const F relative = tile.relative[a][row] = tile.relative[a][row] - start[row];
      tile.sum[row] += tile.e[a][row] = exponential(relative);
    }
  for (int a = 0; a < p.actions; ++a)
    for (int row = 0; row < kLanes; ++row)
      total[row] += tile.w[a][row] = weight(tile.e[a][row], tile.sum[row], tile.available[a][row] != 0, floor);
  for (int row = 0; row < kLanes; ++row) {
    tile.scale[row] = inverse(total[row]);
    tile.log_total[row] = logarithm(total[row]);
  }
}

// -log pi. A loop of its own: together with what uses it, it would not vectorise.
template <class F>
EMIX_HD void find_surprise(const Floor<F>& floor, int actions, const Tile<F>& tile, Plane<F>& result) {
  for (int a = 0; a < actions; ++a)
    for (int row = 0; row < kLanes; ++row)
      result[a][row] = surprise(tile.relative[a][row], tile.w[a][row], tile.log_total[row], floor);
}

// From h_a = pi_a dL/dpi_a to dL/dz_a, in place.
template <class F>
EMIX_HD void logits_gradient(const Floor<F>& floor, int actions, const Tile<F>& tile, Plane<F>& h) {
  alignas(64) F sum[kLanes] = {}, arrived[kLanes] = {};
  for (int a = 0; a < actions; ++a)
    for (int row = 0; row < kLanes; ++row) sum[row] += h[a][row];
  for (int a = 0; a < actions; ++a)
    for (int row = 0; row < kLanes; ++row) {
      const F own = own_share(tile.e[a][row], tile.w[a][row], floor);
      arrived[row] += h[a][row] = own * (h[a][row] - tile.w[a][row] * tile.scale[row] * sum[row]);
    }
  if (!(floor.share > 0)) return;  // what arrived sums to 0
  for (int row = 0; row < kLanes; ++row) arrived[row] *= tile.scale[row] == 0 ? F(0) : 1 / tile.sum[row];
  for (int a = 0; a < actions; ++a)
    for (int row = 0; row < kLanes; ++row) h[a][row] -= tile.e[a][row] * arrived[row];
}

template <class F>
EMIX_HD void load_row_values(const View<1>& view, int64_t first, int rows, F* values) {
  for (int row = 0; row < kLanes; ++row) values[row] = view.given() && row < rows ? *view.at<F>(first + row) : F(0);
}

template <class F>
EMIX_HD void load_actions(const Problem& p, int64_t first, int rows, F* action) {
  for (int row = 0; row < kLanes; ++row) action[row] = row < rows ? static_cast<F>(action_at(p, first + row)) : F(0);
}

template <class T, class F>
EMIX_HD void policy_rows(const Problem& p, const Floor<F>& floor, F* out, int64_t begin, int64_t end) {
  Tile<F> tile;
  for (int64_t first = begin; first < end; first += kLanes) {
    const int rows = static_cast<int>(std::min<int64_t>(kLanes, end - first));
    load_policy<T>(p, floor, first, rows, tile);
    for (int a = 0; a < p.actions; ++a)
      for (int row = 0; row < kLanes; ++row) tile.w[a][row] *= tile.scale[row];
    store_values(out, first, rows, p.actions, tile.w);
  }
}

template <class T, class F>
EMIX_HD void policy_backward_rows(const Problem& p, const Floor<F>& floor, T* out, int64_t begin, int64_t end) {
  Tile<F> tile;
  alignas(64) Plane<F> h;
  for (int64_t first = begin; first < end; first += kLanes) {
    const int rows = static_cast<int>(std::min<int64_t>(kLanes, end - first));
    load_policy<T>(p, floor, first, rows, tile);
    load_values<F>(p.policy_grad, first, rows, p.actions, h);
    for (int a = 0; a < p.actions; ++a)
      for (int row = 0; row < kLanes; ++row) h[a][row] = expected(tile.w[a][row] * tile.scale[row], h[a][row]);
    logits_gradient(floor, p.actions, tile, h);
    store_values(out, first, rows, p.actions, h);
  }
}

template <class T, class F>
EMIX_HD void terms_rows(const Problem& p, const Floor<F>& floor, const Terms& out, int64_t begin, int64_t end) {
  Tile<F> tile;
  alignas(64) Plane<F> minus_log, value;
  alignas(64) F action[kLanes], log_prob[kLanes], entropy[kLanes], expectation[kLanes];
  for (int64_t first = begin; first < end; first += kLanes) {
    const int rows = static_cast<int>(std::min<int64_t>(kLanes, end - first));
    load_policy<T>(p, floor, first, rows, tile);
    load_actions(p, first, rows, action);
    find_surprise(floor, p.actions, tile, minus_log);
    for (int row = 0; row < kLanes; ++row) {
      log_prob[row] = tile.scale[row] == 0 ? F(0) : F(NAN);  // of an action out of range
      entropy[row] = expectation[row] = 0;
    }
    for (int a = 0; a < p.actions; ++a)
      for (int row = 0; row < kLanes; ++row) {
        const bool can = possible(tile.relative[a][row], tile.available[a][row] != 0, floor);
        const F taken = log_probability(can, minus_log[a][row], tile.scale[row]);
        log_prob[row] = action[row] == F(a) ? taken : log_prob[row];
        entropy[row] += expected(tile.w[a][row] * tile.scale[row], minus_log[a][row]);
      }
    if (p.value.given()) {
      load_values<T>(p.value, first, rows, p.actions, value);
      for (int a = 0; a < p.actions; ++a)
        for (int row = 0; row < kLanes; ++row)
          expectation[row] += expected(tile.w[a][row] * tile.scale[row], value[a][row]);
      std::copy_n(expectation, rows, static_cast<F*>(out.expected_value) + first);
    }
    std::copy_n(log_prob, rows, static_cast<F*>(out.log_prob) + first);
    std::copy_n(entropy, rows, static_cast<F*>(out.entropy) + first);
  }
}

template <class T, class F>
EMIX_HD void terms_backward_rows(const Problem& p, const Floor<F>& floor, const TermsGradients& out, int64_t begin,
                                 int64_t end) {
  Tile<F> tile;
  alignas(64) Plane<F> minus_log, h, value;
  alignas(64) F action[kLanes], log_prob_grad[kLanes], entropy_grad[kLanes], value_grad[kLanes];
  for (int64_t first = begin; first < end; first += kLanes) {
    const int rows = static_cast<int>(std::min<int64_t>(kLanes, end - first));
    load_policy<T>(p, floor, first, rows, tile);
    load_actions(p, first, rows, action);
    find_surprise(floor, p.actions, tile, minus_log);
    load_row_values(p.log_prob_grad, first, rows, log_prob_grad);
    load_row_values(p.entropy_grad, first, rows, entropy_grad);
    load_row_values(p.value_grad, first, rows, value_grad);
    for (int a = 0; a < p.actions; ++a)
      for (int row = 0; row < kLanes; ++row) {
        const bool can = possible(tile.relative[a][row], tile.available[a][row] != 0, floor);
        const F moved = (can & (action[row] == F(a))) ? log_prob_grad[row] : F(0);
        h[a][row] = moved + expected(tile.w[a][row] * tile.scale[row], entropy_grad[row] * minus_log[a][row]);
      }
    if (p.value.given()) {
      load_values<T>(p.value, first, rows, p.actions, value);
      for (int a = 0; a < p.actions; ++a)
        for (int row = 0; row < kLanes; ++row) {
          const F pi = tile.w[a][row] * tile.scale[row];
          h[a][row] += expected(pi, value_grad[row] * value[a][row]);
          value[a][row] = pi * value_grad[row];
        }
      if (out.value) store_values(static_cast<T*>(out.value), first, rows, p.actions, value);
    }
    logits_gradient(floor, p.actions, tile, h);
    store_values(static_cast<T*>(out.logits), first, rows, p.actions, h);
  }
}

// A function template cannot be cloned for several instruction sets, so the clones are named, one overload an element
// type. For float, without a floor its numbers are constants, and the compiler drops what they make void.
#define EMIX_POLICY_CLONE(SETS, T, name, rows, Out)                          \
  SETS void name(T, const Problem& p, Out out, int64_t begin, int64_t end) { \
    const Floor<Wide<T>> floor = p.floor.read<Wide<T>>(p.actions);           \
    if (floor.share > 0 || !std::is_same_v<T, float>)                        \
      rows<T, Wide<T>>(p, floor, out, begin, end);                           \
    else                                                                     \
      rows<T, Wide<T>>(p, Floor<Wide<T>>{}, out, begin, end);                \
  }
#define EMIX_POLICY_CLONES(SETS, T)                                     \
  EMIX_POLICY_CLONE(SETS, T, policy, policy_rows, Wide<T>*)             \
  EMIX_POLICY_CLONE(SETS, T, policy_backward, policy_backward_rows, T*) \
  EMIX_POLICY_CLONE(SETS, T, terms, terms_rows, const Terms&)           \
  EMIX_POLICY_CLONE(SETS, T, terms_backward, terms_backward_rows, const TermsGradients&)
EMIX_POLICY_CLONES(EMIX_INSTRUCTION_SETS, float)
EMIX_POLICY_CLONES(EMIX_BASELINE, double)
EMIX_POLICY_CLONES(EMIX_BASELINE, Half)
EMIX_POLICY_CLONES(EMIX_BASELINE, BFloat16)

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class T>
  void policy(const Problem& p, void* out) const {
    for_rows(p, [&](int64_t begin, int64_t end) { policy::policy(T(), p, static_cast<Wide<T>*>(out), begin, end); });
  }
  template <class T>
  void policy_backward(const Problem& p, void* out) const {
    for_rows(p, [&](int64_t begin, int64_t end) { policy::policy_backward(T(), p, static_cast<T*>(out), begin, end); });
  }
  template <class T>
  void terms(const Problem& p, const Terms& out) const {
    for_rows(p, [&](int64_t begin, int64_t end) { policy::terms(T(), p, out, begin, end); });
  }
  template <class T>
  void terms_backward(const Problem& p, const TermsGradients& out) const {
    for_rows(p, [&](int64_t begin, int64_t end) { policy::terms_backward(T(), p, out, begin, end); });
  }

 private:
  template <class F>
  static void for_rows(const Problem& p, const F& f) {
    run_rows(p.rows, std::max<int64_t>(kLanes, kGrain / p.actions / kLanes * kLanes), f);
  }
};

}  // namespace
}  // namespace emix::policy

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::policy::register_ops<emix::policy::Cpu>(m); }
