// For the CPU: a last layer w2 [E, m] of several values, whose rows of m elements are read and written in registers of
// kLanes. Lanes past a row's end hold what begins the next one: sums leave them out, and what is written there is
// written again by the next row, if the last columns come first. The last rows, which have no such neighbours, go
// element by element.
#pragma once
#include <algorithm>
#include <cmath>

#include "lanes.h"
#include "mixing/mixing.h"

namespace emix::mixing {

template <class F, int kLanes>
struct Register {
  typedef F type __attribute__((vector_size(kLanes * sizeof(F))));
  typedef typename Four<F>::Integer Integer;
  typedef Integer bits __attribute__((vector_size(kLanes * sizeof(F))));
  static constexpr Integer kSign = Integer(1) << (8 * sizeof(F) - 1);
};

template <class F, int kLanes, class T>
EMIX_HD void load_lanes(const T* data, typename Register<F, kLanes>::type& x) {
  if constexpr (std::is_same_v<T, F>)
    memcpy(&x, data, sizeof x);
  else
    for (int k = 0; k < kLanes; ++k) x[k] = static_cast<F>(data[k]);
}

template <class F, int kLanes, class T>
EMIX_HD void store_lanes(T* data, const typename Register<F, kLanes>::type& x) {
  if constexpr (std::is_same_v<T, F>)
    memcpy(data, &x, sizeof x);
  else
    for (int k = 0; k < kLanes; ++k) data[k] = static_cast<T>(x[k]);
}

// The columns first .. first + count - 1 of [embed, outputs], count <= kLanes.
template <class T, class F, int kLanes>
struct Columns {
  typedef typename Register<F, kLanes>::type V;
  typedef typename Register<F, kLanes>::bits Bits;

  const T* weight;  // from `first` on
  int64_t embed, outputs;
  int count;
  int64_t whole;  // rows that can be read as registers

  EMIX_HD Columns(const T* w2, int64_t embed_, int64_t outputs_, int64_t first)
      : weight(w2 + first),
        embed(embed_),
        outputs(outputs_),
        count(static_cast<int>(std::min<int64_t>(kLanes, outputs_ - first))),
        whole(std::clamp<int64_t>((embed_ * outputs_ - first - kLanes + outputs_) / outputs_, 0, embed_)) {
    if (embed_ * outputs_ - first < kLanes) whole = 0;
  }

  // sum_k += sum_e value_e |w_ek|
  EMIX_HD void mix(const F* value, F* sum) const {
    V total = {};
    for (int k = 0; k < count; ++k) total[k] = sum[k];
    for (int64_t e = 0; e < whole; ++e) {
      V w;
      load_lanes<F, kLanes>(weight + e * outputs, w);
      total += value[e] * reinterpret_cast<V>(reinterpret_cast<Bits>(w) & ~Register<F, kLanes>::kSign);
    }
    for (int64_t e = whole; e < embed; ++e)
      for (int k = 0; k < count; ++k) total[k] += value[e] * std::fabs(static_cast<F>(weight[e * outputs + k]));
    for (int k = 0; k < count; ++k) sum[k] = total[k];
  }

  // sum_e += sum_k grad_k |w_ek|
  EMIX_HD void sums(const F* grad, F* sum) const {
    V g = {};
    for (int k = 0; k < count; ++k) g[k] = grad[k];
    Bits counted;  // all bits of the lanes that are this row's, none of the others
    for (int k = 0; k < kLanes; ++k) counted[k] = k < count ? ~Register<F, kLanes>::kSign : 0;
    int64_t e = 0;
    for (; e + 4 <= whole; e += 4) {
      typename Four<F>::type part[4], total;
      EMIX_UNROLL
      for (int j = 0; j < 4; ++j) {
        V w;
        load_lanes<F, kLanes>(weight + (e + j) * outputs, w);
        const V term = g * reinterpret_cast<V>(reinterpret_cast<Bits>(w) & counted);
        F lane[kLanes];
        memcpy(lane, &term, sizeof lane);
        load_four<F>(lane, part[j]);
        EMIX_UNROLL
        for (int k = 4; k < kLanes; k += 4) {
          typename Four<F>::type more;
          load_four<F>(lane + k, more);
          part[j] += more;
        }
      }
      transpose<F>(part);
      load_four<F>(sum + e, total);
      total += (part[0] + part[1]) + (part[2] + part[3]);
      store_four<F, F>(sum + e, total);
    }
    for (; e < embed; ++e)
      for (int k = 0; k < count; ++k) sum[e] += grad[k] * std::fabs(static_cast<F>(weight[e * outputs + k]));
  }

  // result_ek = d|w_ek| / dw times value_e grad_k; `result` as `weight`.
  EMIX_HD void gradients(const F* grad, const F* value, T* result) const {
    V g = {};
    for (int k = 0; k < count; ++k) g[k] = grad[k];
    for (int64_t e = 0; e < whole; ++e) {
      V w;
      load_lanes<F, kLanes>(weight + e * outputs, w);
      const Bits y = reinterpret_cast<Bits>(g * value[e]) ^ (reinterpret_cast<Bits>(w) & Register<F, kLanes>::kSign);
      store_lanes<F, kLanes>(result + e * outputs, reinterpret_cast<V>(y & (w != 0)));
    }
    for (int64_t e = whole; e < embed; ++e)
      for (int k = 0; k < count; ++k)
        result[e * outputs + k] =
            static_cast<T>(with_sign(static_cast<F>(weight[e * outputs + k]), grad[k] * value[e]));
  }
};

// f(lanes) with the width that goes with so many values.
template <class Each>
EMIX_HD void with_lanes(int64_t outputs, const Each& f) {
  if (outputs <= 4) return f(std::integral_constant<int, 4>());
  if (outputs <= 8) return f(std::integral_constant<int, 8>());
  f(std::integral_constant<int, 16>());
}

}  // namespace emix::mixing
