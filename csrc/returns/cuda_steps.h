// What a GPU thread reads of a row: several steps at once, all loaded before any of it is looked at.
#pragma once
#include "returns/returns.h"

namespace emix::returns {

inline constexpr int kSteps = 4;  // that a lane of a scan takes at a time

// The steps first, first + kApart, ... of a row. Those past its end are absent: not valid, so that they add nothing.
template <class T, int kCount, int kApart>
class Steps {
  using F = Wide<T>;

 public:
  __device__ __forceinline__ Steps(const Row<T, F>& row, int64_t first, bool row_there = true)
      : left_(row_there ? remaining(row.problem.steps - first) : 0) {
    const Problem& p = row.problem;
    const auto is_there = [this](int c) { return there(c); };
    load(p.reward, row.reward, first, reward_);
    load(p.q, row.q, first, q_);
    load(p.v, row.v, first + 1, v_next_);
    if (p.trace.given()) {
      load(p.trace, row.trace, first + 1, trace_next_);
    } else {
      EMIX_UNROLL
      for (int c = 0; c < kCount; ++c) trace_next_[c] = static_cast<T>(1.0f);
    }
    load(p.terminated, row.terminated, first, terminated_, is_there);
    load(p.truncated, row.truncated, first, truncated_, [&](int c) { return p.truncated.given() && there(c); });
    load(p.valid, row.valid, first, valid_, is_there);
    load(p.valid, row.valid, first + 1, valid_next_, [this](int c) { return c * kApart + 1 < left_; });
  }

  __device__ __forceinline__ bool there(int c) const { return c * kApart < left_; }

  __device__ __forceinline__ Step<F> operator[](int c) const {
    return {static_cast<F>(reward_[c]),
            static_cast<F>(q_[c]),
            static_cast<F>(v_next_[c]),
            static_cast<F>(trace_next_[c]),
            terminated_[c],
            truncated_[c],
            valid_[c],
            valid_next_[c]};
  }

  // Of the same steps, into a row of `out` that starts at `start`.
  __device__ __forceinline__ void store(const F (&x)[kCount], const Series& out, int64_t start, int64_t first) const {
    F* const target = &element<F>(out, start + first * out.stride[kTime]);
    EMIX_UNROLL
    for (int c = 0; c < kCount; ++c)
      if (there(c)) target[c * kApart * out.stride[kTime]] = x[c];
  }

 private:
  // How many steps there are from the first on, as far as that matters: the comparisons are of 32 bits.
  static __device__ __forceinline__ int remaining(int64_t steps) {
    constexpr int kMost = kCount * kApart + 1;
    return steps < kMost ? static_cast<int>(steps) : kMost;
  }

  __device__ __forceinline__ void load(const Series& view, int64_t start, int64_t first, T (&x)[kCount]) const {
    const T* at = static_cast<const T*>(view.data) + start + first * view.stride[kTime];
    EMIX_UNROLL
    for (int c = 0; c < kCount; ++c) x[c] = there(c) ? at[c * kApart * view.stride[kTime]] : static_cast<T>(0.0f);
  }

  template <class There>
  __device__ __forceinline__ void load(const Series& view, int64_t start, int64_t first, Masks<kCount>& x,
                                       const There& is_there) const {
    const int64_t at = start + first * view.stride[kTime];
    x.load(view.data, view.itemsize, [&](int c) { return at + c * kApart * view.stride[kTime]; }, is_there);
  }

  int left_;
  T reward_[kCount], q_[kCount], v_next_[kCount], trace_next_[kCount];
  Masks<kCount> terminated_, truncated_, valid_, valid_next_;
};

// Neighbours in memory, in one access of up to 16 bytes.
template <class T>
struct alignas(sizeof(T) <= 4 ? kSteps * sizeof(T) : 16) Neighbours {
  T x[kSteps];
};

// The steps first, ..., first + kSteps - 1 of a row, of which all are there or none, in as few loads as alignment
// allows.
template <class T>
class DenseSteps {
  using F = Wide<T>;

 public:
  // What it takes. Rows of q, v and trace have a step more than a multiple of kSteps: nothing is asked of those.
  static bool fit(const Problem& p, const Series& out) {
    const auto neighbours = [](const Series& view) { return !view.given() || view.stride[kTime] == 1; };
    const auto aligned = [&](const Series& view, int size) {
      bool fits = neighbours(view) && reinterpret_cast<uintptr_t>(view.data) % size == 0;
      for (int axis = 0; axis <= p.row_axes; ++axis) fits = fits && (axis == kTime || view.stride[axis] % kSteps == 0);
      return fits;
    };
    const auto bytes = [&](const Series& mask) {
      return !mask.given() || (mask.itemsize == 1 && aligned(mask, kSteps));
    };
    return p.steps % kSteps == 0 && neighbours(p.q) && neighbours(p.v) && neighbours(p.trace) &&
           aligned(p.reward, alignof(Neighbours<T>)) && aligned(out, alignof(Neighbours<F>)) && bytes(p.terminated) &&
           bytes(p.truncated) && bytes(p.valid);
  }

  __device__ __forceinline__ DenseSteps(const Row<T, F>& row, int64_t first, bool row_there)
      : there_(row_there && first < row.problem.steps) {
    if (!there_) return;
    const Problem& p = row.problem;
    const T *q = at(p.q, row.q + first), *v_next = at(p.v, row.v + first + 1);
    reward_ = *reinterpret_cast<const Neighbours<T>*>(at(p.reward, row.reward + first));
    EMIX_UNROLL
    for (int c = 0; c < kSteps; ++c) q_[c] = q[c], v_next_[c] = v_next[c];
    EMIX_UNROLL
    for (int c = 0; c < kSteps; ++c) trace_next_[c] = static_cast<T>(1.0f);
    if (p.trace.given()) {
      const T* trace_next = at(p.trace, row.trace + first + 1);
      EMIX_UNROLL
      for (int c = 0; c < kSteps; ++c) trace_next_[c] = trace_next[c];
    }
    terminated_ = mask(p.terminated, row.terminated + first);
    if (p.truncated.given()) truncated_ = mask(p.truncated, row.truncated + first);
    valid_ = p.valid.given() ? mask(p.valid, row.valid + first) : kAllSet;
    after_ = first + kSteps < p.steps;
    if (p.valid.given() && after_) after_ = static_cast<const uint8_t*>(p.valid.data)[row.valid + first + kSteps];
  }

  __device__ __forceinline__ Step<F> operator[](int c) const {
    return {static_cast<F>(reward_.x[c]),
            static_cast<F>(q_[c]),
            static_cast<F>(v_next_[c]),
            static_cast<F>(trace_next_[c]),
            set(terminated_, c),
            set(truncated_, c),
            set(valid_, c),
            c + 1 < kSteps ? set(valid_, c + 1) : after_ != 0};
  }

  __device__ __forceinline__ void store(const F (&x)[kSteps], const Series& out, int64_t start, int64_t first) const {
    Neighbours<F> results;
    EMIX_UNROLL
    for (int c = 0; c < kSteps; ++c) results.x[c] = x[c];
    if (there_) *reinterpret_cast<Neighbours<F>*>(&element<F>(out, start + first)) = results;
  }

 private:
  static constexpr uint32_t kAllSet = 0x01010101u;
  static_assert(kSteps == 4);  // bytes of a word

  static __device__ __forceinline__ const T* at(const Series& view, int64_t offset) {
    return static_cast<const T*>(view.data) + offset;
  }
  static __device__ __forceinline__ uint32_t mask(const Series& view, int64_t offset) {
    return *reinterpret_cast<const uint32_t*>(static_cast<const uint8_t*>(view.data) + offset);
  }
  static __device__ __forceinline__ bool set(uint32_t mask, int c) { return (mask & 0xffu << 8 * c) != 0; }

  bool there_;
  Neighbours<T> reward_ = {};
  T q_[kSteps] = {}, v_next_[kSteps] = {}, trace_next_[kSteps] = {};
  uint32_t terminated_ = 0, truncated_ = 0, valid_ = 0, after_ = 0;
};

}  // namespace emix::returns
