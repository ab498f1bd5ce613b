// returns on the CPU. Forward: eight rows at a time, in tiles that stay in the L1 cache; loading and the maps vectorise
// over time, the eight recursions hide each other's latency. Backward and the limited horizon: row by row.
#include <algorithm>

#include "instruction_sets.h"
#include "returns/ops.h"

namespace emix::returns {
namespace {

inline constexpr int kRows = 8;
inline constexpr int kSteps = 64;
inline constexpr int64_t kGrain = 16384;  // steps that are worth waking a thread

template <class F>
struct Tile {
  alignas(64) F reward[kRows][kSteps], q[kRows][kSteps], v_next[kRows][kSteps], trace_next[kRows][kSteps];
  alignas(64) F terminated[kRows][kSteps], truncated[kRows][kSteps], valid[kRows][kSteps], valid_next[kRows][kSteps];
  alignas(64) F offset[kRows][kSteps], gain[kRows][kSteps];
};

// tile[row][k] = element k of a row that starts at start[row]
template <class F, class Element>
EMIX_HD void load_elements(int rows, const int64_t* start, int64_t stride, int count, F (*tile)[kSteps],
                           const Element& element) {
  if (stride == 1) {
    for (int row = 0; row < rows; ++row)
      for (int k = 0; k < count; ++k) tile[row][k] = element(start[row] + k);
  } else {
    for (int k = 0; k < count; ++k)
      for (int row = 0; row < rows; ++row) tile[row][k] = element(start[row] + k * stride);
  }
}

template <class T, class F>
EMIX_HD void load_values(const Series& view, const int64_t* row_start, int64_t first, int rows, int count,
                         F (*tile)[kSteps]) {
  int64_t start[kRows];
  for (int row = 0; row < rows; ++row) start[row] = row_start[row] + first * view.stride[kTime];
  const T* data = static_cast<const T*>(view.data);
  load_elements(
      rows, start, view.stride[kTime], count,
      tile, [&](int64_t i) __attribute__((always_inline)) { return static_cast<F>(data[i]); });
}

template <class F>
EMIX_HD void load_mask(const Series& view, const int64_t* row_start, int64_t first, int rows, int count,
                       F (*tile)[kSteps]) {
  int64_t start[kRows];
  for (int row = 0; row < rows; ++row) start[row] = row_start[row] + first * view.stride[kTime];
  if (view.itemsize == 1) {  // bool, the common case, without a switch in the loop
    const uint8_t* data = static_cast<const uint8_t*>(view.data);
    load_elements(
        rows, start, view.stride[kTime], count,
        tile, [&](int64_t i) __attribute__((always_inline)) { return data[i] ? F(1) : F(0); });
  } else {
    load_elements(
        rows, start, view.stride[kTime], count,
        tile, [&](int64_t i) __attribute__((always_inline)) { return mask_at(view, i) ? F(1) : F(0); });
  }
}

template <class F>
EMIX_HD void fill(int rows, int count, F value, F (*tile)[kSteps]) {
  for (int row = 0; row < rows; ++row)
    for (int k = 0; k < count; ++k) tile[row][k] = value;
}

template <class F>
EMIX_HD Step<F> step_of(const Tile<F>& tile, int row, int k) {
  return {tile.reward[row][k],          tile.q[row][k],
          tile.v_next[row][k],          tile.trace_next[row][k],
          tile.terminated[row][k] != 0, tile.truncated[row][k] != 0,
          tile.valid[row][k] != 0,      tile.valid_next[row][k] != 0};
}

struct RowStarts {
  int64_t reward[kRows], terminated[kRows], truncated[kRows], valid[kRows], q[kRows], v[kRows], trace[kRows];
};

template <class T, class F>
EMIX_HD void load_tile(const Problem& p, const RowStarts& start, int rows, int64_t first, int count, Tile<F>& tile) {
  load_values<T>(p.reward, start.reward, first, rows, count, tile.reward);
  load_values<T>(p.q, start.q, first, rows, count, tile.q);
  load_values<T>(p.v, start.v, first + 1, rows, count, tile.v_next);
  if (p.trace.given()) load_values<T>(p.trace, start.trace, first + 1, rows, count, tile.trace_next);
  load_mask(p.terminated, start.terminated, first, rows, count, tile.terminated);
  if (p.truncated.given()) load_mask(p.truncated, start.truncated, first, rows, count, tile.truncated);
  const int has_next = first + count < p.steps ? count : count - 1;  // the very last step has none
  if (p.valid.given()) {
    load_mask(p.valid, start.valid, first, rows, count, tile.valid);
    load_mask(p.valid, start.valid, first + 1, rows, has_next, tile.valid_next);
  } else {
    fill(rows, count, F(1), tile.valid_next);
  }
  for (int row = 0; row < rows && has_next < count; ++row) tile.valid_next[row][has_next] = 0;
}

template <class T, class F>
EMIX_HD void forward_rows(const Problem& p, const Series& out, int64_t begin, int64_t end) {
  Tile<F> tile;
  const F gamma = static_cast<F>(p.gamma), lam = static_cast<F>(p.lam);
  for (int64_t row0 = begin; row0 < end; row0 += kRows) {
    const int rows = static_cast<int>(std::min<int64_t>(kRows, end - row0));
    RowStarts start;
    int64_t out_start[kRows];
    for (int row = 0; row < rows; ++row) {
      const Row<T, F> one(p, row0 + row, out);
      start.reward[row] = one.reward, start.q[row] = one.q, start.v[row] = one.v, start.trace[row] = one.trace;
      start.terminated[row] = one.terminated, start.truncated[row] = one.truncated, start.valid[row] = one.valid;
      out_start[row] = one.out;
    }
    const int most = static_cast<int>(std::min<int64_t>(kSteps, p.steps));
    if (!p.trace.given()) fill(rows, most, F(1), tile.trace_next);
    if (!p.truncated.given()) fill(rows, most, F(0), tile.truncated);
    if (!p.valid.given()) fill(rows, most, F(1), tile.valid);
    if (rows < kRows)
      fill(kRows, most, F(0), tile.offset),
          fill(kRows, most, F(0), tile.gain);  // absent rows still take part in the recursion

    F x[kRows] = {};
    for (int64_t last = p.steps; last > 0; last -= kSteps) {
      const int64_t first = std::max<int64_t>(0, last - kSteps);
      const int count = static_cast<int>(last - first);
      load_tile<T, F>(p, start, rows, first, count, tile);
      for (int row = 0; row < rows; ++row)
        for (int k = 0; k < count; ++k) {
          const Affine<F> map = affine(step_of(tile, row, k), gamma, lam, p.clip);
          tile.offset[row][k] = map.offset, tile.gain[row][k] = map.gain;
        }
      for (int k = count - 1; k >= 0; --k)
        for (int row = 0; row < kRows; ++row)
          tile.offset[row][k] = x[row] = apply(Affine<F>{tile.offset[row][k], tile.gain[row][k]}, x[row]);
      for (int row = 0; row < rows; ++row)
        for (int k = 0; k < count; ++k)
          element<F>(out, out_start[row] + (first + k) * out.stride[kTime]) =
              result(step_of(tile, row, k), tile.offset[row][k], p.advantage);
    }
  }
}

// X^(n) is the one-step map applied n times to 0; each pass reads ahead of what it writes, so it vectorises over time.
template <class T, class F>
EMIX_HD void forward_windows(const Problem& p, const Series& out, int64_t begin, int64_t end) {
  const F gamma = static_cast<F>(p.gamma), lam = static_cast<F>(p.lam);
  std::vector<F> buffer(3 * p.steps + 1);
  F *offset = buffer.data(), *gain = offset + p.steps, *x = gain + p.steps;
  for (int64_t i = begin; i < end; ++i) {
    const Row<T, F> row(p, i, out);
    for (int64_t t = 0; t < p.steps; ++t) {
      const Affine<F> map = affine(row[t], gamma, lam, p.clip);
      offset[t] = map.offset, gain[t] = map.gain;
    }
    std::fill(x, x + p.steps + 1, F(0));
    for (int64_t pass = 0; pass < p.horizon; ++pass)
      for (int64_t t = 0; t < p.steps; ++t) x[t] = apply(Affine<F>{offset[t], gain[t]}, x[t + 1]);
    for (int64_t t = 0; t < p.steps; ++t)
      element<F>(out, row.out + t * out.stride[kTime]) = result(row[t], x[t], p.advantage);
  }
}

template <class T, class F>
EMIX_HD void backward_rows(const Problem& p, const GradientViews& views, int64_t begin, int64_t end) {
  const F gamma = static_cast<F>(p.gamma), lam = static_cast<F>(p.lam);
  std::vector<Affine<F>> map(p.steps);
  std::vector<F> x(p.steps + 1);
  for (int64_t i = begin; i < end; ++i) {
    const Row<T, F> row(p, i);
    const GradientRow<F> to(p, views, i);
    const auto map_at = [&](int64_t t) { return map[t]; };
    const auto grad_at = [&](int64_t t) { return row[t].valid ? to.upstream(t) : F(0); };
    for (int64_t t = p.steps; t-- > 0;) {
      map[t] = affine(row[t], gamma, lam, p.clip);
      x[t] = apply(map[t], x[t + 1]);
    }
    F x_grad = 0;
    to.write_ends();
    for (int64_t t = 0; t < p.steps; ++t) {
      const F upstream = grad_at(t);
      WindowGradient<F> arrived;
      if (p.horizon > 0) {
        arrived = window_gradient<F>(map_at, grad_at, t, p.steps, p.horizon);
      } else {
        x_grad = apply(Affine<F>{upstream, t > 0 ? map[t - 1].gain : F(0)}, x_grad);
        arrived = {x_grad, x_grad * x[t + 1]};
      }
      to.write(t, gradient(row[t], upstream, arrived.delta, arrived.gain, gamma, lam, p.clip, p.advantage));
    }
  }
}

// A function template cannot be cloned for several instruction sets, so the clones are named, one overload an element
// type.
#define EMIX_RETURNS_CLONES(SETS, T)                                                                                \
  SETS void forward(T, const Problem& p, const Series& out, int64_t begin, int64_t end) {                           \
    p.horizon > 0 ? forward_windows<T, Wide<T>>(p, out, begin, end) : forward_rows<T, Wide<T>>(p, out, begin, end); \
  }                                                                                                                 \
  SETS void backward(T, const Problem& p, const GradientViews& views, int64_t begin, int64_t end) {                 \
    backward_rows<T, Wide<T>>(p, views, begin, end);                                                                \
  }
EMIX_RETURNS_CLONES(EMIX_INSTRUCTION_SETS, float)
EMIX_RETURNS_CLONES(EMIX_BASELINE, double)
EMIX_RETURNS_CLONES(EMIX_BASELINE, Half)
EMIX_RETURNS_CLONES(EMIX_BASELINE, BFloat16)

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class T>
  void forward(const Problem& p, const Series& out) const {
    run_rows(p.rows, grain(p), [&](int64_t begin, int64_t end) { returns::forward(T(), p, out, begin, end); });
  }
  template <class T>
  void backward(const Problem& p, const GradientViews& views) const {
    run_rows(p.rows, grain(p), [&](int64_t begin, int64_t end) { returns::backward(T(), p, views, begin, end); });
  }

 private:
  static int64_t grain(const Problem& p) { return std::max<int64_t>(kRows, kGrain / std::max<int64_t>(1, p.steps)); }
};

}  // namespace
}  // namespace emix::returns

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::returns::register_ops<emix::returns::Cpu>(m); }
