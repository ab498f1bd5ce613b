// For the CPU: the moments of a tile of neighbouring places, and their gradient, as loops over the places that
// vectorise.
#pragma once
#include "ensemble/ensemble.h"

namespace emix::ensemble {

inline constexpr int kTile = 256;  // places whose intermediate results stay in the L1 cache
static_assert(kTile >= kMaxActions);

// A tile's values, contiguous over the places: where they lie, or gathered where their stride is not 1.
template <class T>
struct Gathered {
  const T* data;
  int64_t offset[kMaxMembers] = {};  // of the members; what lies past the last one is the first once more
  T copy[kMaxMembers * kTile];

  EMIX_HD Gathered(const View<2>& values, int64_t first, int count) {
    data = values.at<T>(0, first);
    const bool in_place = values.stride[1] == 1;
    for (int j = 0; j < members_of(values); ++j) {
      offset[j] = j * (in_place ? values.stride[0] : kTile);
      for (int k = 0; k < count && !in_place; ++k)
        copy[offset[j] + k] = data[j * values.stride[0] + k * values.stride[1]];
    }
    if (!in_place) data = copy;
  }
};

template <class F>
struct TileMoments {
  alignas(64) F mean[kTile], variance[kTile], kurtosis[kTile];
};

// f(capacity) for the members' number.
template <class Function>
EMIX_HD void with_members(int n, const Function& f) {
  with_capacity<5, 10, 16, 32, kMaxMembers>(n, f);
}

template <class T, class F>
EMIX_HD void take_moments(const View<2>& values, int64_t first, int count, F* __restrict mean, F* __restrict variance,
                          F* __restrict kurtosis) {
  const int n = members_of(values);
  const Gathered<T> q(values, first, count);
  with_members(n, [&](auto capacity) EMIX_INLINE {
#pragma GCC ivdep  // results are fresh memory
    for (int k = 0; k < count; ++k) {
      Members<F, capacity()> members([&](int j) EMIX_INLINE { return static_cast<F>(q.data[q.offset[j] + k]); });
      const Moments<F> moments = members.moments(n);
      mean[k] = moments.mean, variance[k] = moments.variance, kurtosis[k] = moments.kurtosis;
    }
  });
}

// The gradients that arrive at a tile's moments, then the slopes that they make.
template <class F>
struct Slopes {
  alignas(64) F mean[kTile], variance[kTile], kurtosis[kTile];
  alignas(64) F sum[kTile], offset[kTile], linear[kTile], cubic[kTile], inverse_deviation[kTile];
};

template <class F>
EMIX_HD void load_upstream(const View<1>& grad, int64_t first, int count, F* out) {
  const F* data = grad.at<F>(first);
  if (!grad.given())
    for (int k = 0; k < count; ++k) out[k] = 0;
  else if (grad.stride[0] == 1)
    for (int k = 0; k < count; ++k) out[k] = data[k];
  else
    for (int k = 0; k < count; ++k) out[k] = data[k * grad.stride[0]];
}

template <class T, class F>
EMIX_HD void take_gradients(const View<2>& values, const Upstreams& grads, T* out, int64_t first, int count) {
  const int n = members_of(values);
  const Gathered<T> q(values, first, count);
  const auto value = [&](int j, int k) EMIX_INLINE { return static_cast<F>(q.data[q.offset[j] + k]); };
  Slopes<F> s;
  load_upstream(grads.mean, first, count, s.mean);
  load_upstream(grads.variance, first, count, s.variance);
  load_upstream(grads.kurtosis, first, count, s.kurtosis);
  with_members(n, [&](auto capacity) EMIX_INLINE {
    for (int k = 0; k < count; ++k) {
      Members<F, capacity()> members([&](int j) EMIX_INLINE { return value(j, k); });
      const F kurtosis = members.moments(n).kurtosis;
      const Slope<F> slope = members.slope({s.mean[k], s.variance[k], s.kurtosis[k]}, n, kurtosis);
      s.sum[k] = members.sum, s.offset[k] = slope.offset, s.linear[k] = slope.linear, s.cubic[k] = slope.cubic;
      s.inverse_deviation[k] = slope.inverse_deviation, s.kurtosis[k] = kurtosis;
    }
  });
  const F each = F(1) / static_cast<F>(n);
  for (int j = 0; j < n; ++j) {
    T* target = out + j * values.size[1] + first;
#pragma GCC ivdep  // results are fresh memory
    for (int k = 0; k < count; ++k) {
      const Slope<F> slope{s.offset[k], s.linear[k], s.cubic[k], s.inverse_deviation[k], s.kurtosis[k]};
      target[k] = static_cast<T>(slope(deviation(value(j, k), value(0, k), s.sum[k], each)));
    }
  }
}

}  // namespace emix::ensemble
