// diversity on the CPU: 32 rows at a time, a row a lane (lanes.h), all members of these in a buffer that mostly stays
// in the L1 cache.
#include <algorithm>
#include <memory>

#include "diversity/ops.h"
#include "instruction_sets.h"
#include "lanes.h"

namespace emix::diversity {
namespace {

inline constexpr int64_t kGrain = 8192;  // values that are worth waking a thread

template <class F>
using Lanes = F (*)[kLanes];  // [A][kLanes]

// Of one distribution: sqrt(softmax(q)), before its scale is multiplied in, and the parts of LSE(q).
template <class F>
struct Roots {
  alignas(64) F root[kMaxActions][kLanes], largest[kLanes], sum[kLanes], scale[kLanes];
};

template <class F>
struct Overlap {
  alignas(64) F difference[kLanes], shared[kLanes];  // h and the overlap
};

template <class F>
EMIX_HD void take_roots(const F (*q)[kLanes], int actions, Roots<F>& roots) {
  for (int row = 0; row < kLanes; ++row) roots.largest[row] = -static_cast<F>(INFINITY), roots.sum[row] = 0;
  for (int a = 0; a < actions; ++a)
    for (int row = 0; row < kLanes; ++row)
      roots.largest[row] = q[a][row] > roots.largest[row] ? q[a][row] : roots.largest[row];
  for (int a = 0; a < actions; ++a)
    for (int row = 0; row < kLanes; ++row) {
      const F w = roots.root[a][row] = root_weight(q[a][row], roots.largest[row]);
      roots.sum[row] += w * w;
    }
  for (int row = 0; row < kLanes; ++row) roots.scale[row] = root_scale(roots.sum[row]);
}

template <class F>
EMIX_HD void multiply_scale(int actions, Roots<F>& roots) {
  for (int a = 0; a < actions; ++a)
    for (int row = 0; row < kLanes; ++row) roots.root[a][row] *= roots.scale[row];
}

// Multiplies the member's scale in.
template <class F>
EMIX_HD void take_overlap(const Roots<F>& mean, Roots<F>& member, int actions, Overlap<F>& overlap) {
  for (int row = 0; row < kLanes; ++row) overlap.difference[row] = overlap.shared[row] = 0;
  for (int a = 0; a < actions; ++a)
    for (int row = 0; row < kLanes; ++row) {
      const F root = member.root[a][row] *= member.scale[row], difference = mean.root[a][row] - root;
      overlap.difference[row] += F(0.5) * difference * difference;
      overlap.shared[row] += mean.root[a][row] * root;
    }
}

template <class F>
EMIX_HD bool is_far(const Overlap<F>& overlap, const Roots<F>& mean, int row) {
  return overlap.shared[row] < kFar<F> && mean.sum[row] > 0;
}

template <class F>
EMIX_HD bool any_far(const Overlap<F>& overlap, const Roots<F>& mean) {
  int count = 0;
  for (int row = 0; row < kLanes; ++row) count += is_far(overlap, mean, row);
  return count > 0;
}

// softmax((mean + q) / 2) of one row, by its own largest logit; returns its LSE.
template <class F>
EMIX_HD F take_middle(const F (*mean)[kLanes], const F (*q)[kLanes], int actions, int row, F (*middle)[kLanes]) {
  F largest = -static_cast<F>(INFINITY), sum = 0;
  for (int a = 0; a < actions; ++a) {
    const F x = middle[a][row] = F(0.5) * (mean[a][row] + q[a][row]);
    largest = x > largest ? x : largest;
  }
  for (int a = 0; a < actions; ++a) sum += middle[a][row] = exponential(middle[a][row] - largest);
  for (int a = 0; a < actions; ++a) middle[a][row] /= sum;
  return log_sum(largest, sum);
}

// The members' logits of one tile of rows, -inf where not available, and their mean.
template <class F>
struct Tile {
  std::unique_ptr<F[]> storage;
  int actions;

  Tile(const Problem& p) : storage(new F[size_t(p.members + 2) * p.actions * kLanes]), actions(p.actions) {}
  EMIX_HD Lanes<F> at(int i) const { return reinterpret_cast<Lanes<F>>(storage.get() + size_t(i) * actions * kLanes); }
  EMIX_HD Lanes<F> mean() const { return at(0); }
  EMIX_HD Lanes<F> middle() const { return at(1); }
  EMIX_HD Lanes<F> member(int j) const { return at(2 + j); }
};

template <class T, class F>
EMIX_HD void load_members(const Problem& p, int64_t first, int rows, const Tile<F>& tile) {
  alignas(64) F available[kMaxActions][kLanes];
  if (p.avail.given()) load_mask(p.avail, first, rows, p.actions, available);
  const Lanes<F> mean = tile.mean();
  for (int j = 0; j < p.members; ++j) {
    const View<2> view{p.q.at<T>(j), {p.rows, p.actions}, {p.q.stride[1], p.q.stride[2]}, sizeof(T)};
    const Lanes<F> q = tile.member(j);
    load_values<T>(view, first, rows, p.actions, q);
    for (int a = 0; a < p.actions; ++a)
      for (int row = 0; row < kLanes; ++row) {
        if (p.avail.given()) q[a][row] = available[a][row] != 0 ? q[a][row] : -static_cast<F>(INFINITY);
        mean[a][row] = j > 0 ? mean[a][row] + q[a][row] : q[a][row];
      }
  }
  const F each = F(1) / static_cast<F>(p.members);
  for (int a = 0; a < p.actions; ++a)
    for (int row = 0; row < kLanes; ++row) mean[a][row] *= each;
}

// Asks for the next tile's values of one member while this tile's are worked on.
template <class T>
EMIX_HD void prefetch_member(const Problem& p, int j, int64_t next, int64_t end) {
  if (next >= end || p.q.stride[1] != p.actions * p.q.stride[2]) return;  // not in one line: left to the hardware
  const char* data = reinterpret_cast<const char*>(p.q.at<T>(j, next));
  const int64_t bytes = std::min<int64_t>(kLanes, end - next) * p.q.stride[1] * static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(data + i);
}

template <class T, class F>
EMIX_HD void forward_rows(const Problem& p, F* out, int64_t begin, int64_t end) {
  const Tile<F> tile(p);
  Roots<F> mean, member;
  Overlap<F> overlap;
  for (int64_t first = begin; first < end; first += kLanes) {
    const int rows = static_cast<int>(std::min<int64_t>(kLanes, end - first));
    alignas(64) F total[kLanes] = {}, own[kLanes];
    load_members<T>(p, first, rows, tile);
    take_roots<F>(tile.mean(), p.actions, mean);
    multiply_scale(p.actions, mean);
    for (int j = 0; j < p.members; ++j) {
      prefetch_member<T>(p, j, first + kLanes, end);
      take_roots<F>(tile.member(j), p.actions, member);
      take_overlap(mean, member, p.actions, overlap);
      for (int row = 0; row < kLanes; ++row) own[row] = distance(overlap.difference[row], overlap.shared[row]);
      if (any_far(overlap, mean))
        for (int row = 0; row < rows; ++row)
          if (is_far(overlap, mean, row))
            own[row] =
                F(0.5) * (log_sum(mean.largest[row], mean.sum[row]) + log_sum(member.largest[row], member.sum[row])) -
                take_middle<F>(tile.mean(), tile.member(j), p.actions, row, tile.middle());
      for (int row = 0; row < kLanes; ++row) total[row] += own[row];
    }
    for (int row = 0; row < rows; ++row) out[first + row] = total[row];
  }
}

// Each member's logits are overwritten with its gradient.
template <class T, class F>
EMIX_HD void backward_rows(const Problem& p, T* out, int64_t begin, int64_t end) {
  const Tile<F> tile(p);
  Roots<F> mean, member;
  Overlap<F> overlap;
  alignas(64) F to_mean[kMaxActions][kLanes], grad[kLanes], inverse[kLanes];
  const F each = F(1) / static_cast<F>(p.members);
  for (int64_t first = begin; first < end; first += kLanes) {
    const int rows = static_cast<int>(std::min<int64_t>(kLanes, end - first));
    for (int row = 0; row < kLanes; ++row) grad[row] = row < rows ? *p.grad.at<F>(first + row) : F(0);
    load_members<T>(p, first, rows, tile);
    take_roots<F>(tile.mean(), p.actions, mean);
    multiply_scale(p.actions, mean);
    for (int a = 0; a < p.actions; ++a)
      for (int row = 0; row < kLanes; ++row) to_mean[a][row] = 0;
    const Lanes<F> middle = tile.middle();
    for (int j = 0; j < p.members; ++j) {
      const Lanes<F> q = tile.member(j);
      prefetch_member<T>(p, j, first + kLanes, end);
      take_roots<F>(q, p.actions, member);
      take_overlap(mean, member, p.actions, overlap);
      for (int row = 0; row < kLanes; ++row) inverse[row] = policy::inverse(overlap.shared[row]);
      for (int a = 0; a < p.actions; ++a)
        for (int row = 0; row < kLanes; ++row) middle[a][row] = mean.root[a][row] * member.root[a][row] * inverse[row];
      if (any_far(overlap, mean))
        for (int row = 0; row < rows; ++row)
          if (is_far(overlap, mean, row)) take_middle<F>(tile.mean(), q, p.actions, row, middle);
      for (int a = 0; a < p.actions; ++a)
        for (int row = 0; row < kLanes; ++row) {
          q[a][row] = slope(member.root[a][row], middle[a][row]);
          to_mean[a][row] += slope(mean.root[a][row], middle[a][row]);
        }
    }
    for (int j = 0; j < p.members; ++j) {
      const Lanes<F> q = tile.member(j);
      for (int a = 0; a < p.actions; ++a)
        for (int row = 0; row < kLanes; ++row)
          q[a][row] = scaled(grad[row], q[a][row] + (p.detach_mean ? F(0) : each * to_mean[a][row]));
      store_values<T>(out + j * p.rows * p.actions, first, rows, p.actions, q);
    }
  }
}

// A function template cannot be cloned for several instruction sets, so the clones are named.
#define EMIX_DIVERSITY_CLONES(SETS, T)                                               \
  SETS void forward(T, const Problem& p, Wide<T>* out, int64_t begin, int64_t end) { \
    forward_rows<T>(p, out, begin, end);                                             \
  }                                                                                  \
  SETS void backward(const Problem& p, T* out, int64_t begin, int64_t end) {         \
    backward_rows<T, Wide<T>>(p, out, begin, end);                                   \
  }
EMIX_DIVERSITY_CLONES(EMIX_INSTRUCTION_SETS, float)
EMIX_DIVERSITY_CLONES(EMIX_BASELINE, double)
EMIX_DIVERSITY_CLONES(EMIX_BASELINE, Half)
EMIX_DIVERSITY_CLONES(EMIX_BASELINE, BFloat16)

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class T>
  void forward(const Problem& p, Wide<T>* out) const {
    run_rows(p.rows, grain(p), [&](int64_t begin, int64_t end) { diversity::forward(T(), p, out, begin, end); });
  }
  template <class T>
  void backward(const Problem& p, T* out) const {
    run_rows(p.rows, grain(p), [&](int64_t begin, int64_t end) { diversity::backward(p, out, begin, end); });
  }

 private:
  static int64_t grain(const Problem& p) {
    return std::max<int64_t>(kLanes, kGrain / (int64_t(p.members) * p.actions) / kLanes * kLanes);
  }
};

}  // namespace
}  // namespace emix::diversity

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::diversity::register_ops<emix::diversity::Cpu>(m); }
