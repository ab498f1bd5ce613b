// What a recursion of returns.h reads at each entry s of an episode, from the members' values (Ensemble-MIX eq. 9 and
// 10, DOP), with mean and weight as in ensemble.h and m_i as in mixing.h:
//
//   q_s     = sum_i m_i mean_i(a_i) + bias                                  of the actions taken
//   v_s     = sum_i m_i sum_a pi_i(a) weight_i(a) mean_i(a) + bias          tree backup
//           = sum_i m_i weight_i(a_i) mean_i(a_i) + bias                    without pi: on-policy
//   trace_s = prod_i pi_i(a_i)
//
// An entry is left out, unread, where no valid step needs it: step s reads q_s and the entry s + 1.
#pragma once
#include "ensemble/ensemble.h"
#include "mask.h"
#include "mixing/mixing.h"

namespace emix::targets {

// Rows are the entries: row = episode (T + 1) + s. Strides are in elements.
struct Joint {
  int64_t rows = 0;          // B (T + 1)
  Divider<int64_t> entries;  // T + 1
  int64_t agents = 0, actions = 0;
  int members = 1;
  RowView q, pi, weight, bias, taken;
  View<2> valid;           // [B, T]
  bool uncertain = false;  // weigh the next values
  double scale = 0;

  // Whether step s or step s - 1 is valid.
  EMIX_HD bool needed(int64_t row) const {
    if (!valid.given()) return true;
    const int64_t s = entries.divide(row), at = row * valid.stride[0] + s * valid.stride[1];
    Masks<2> masks;
    masks.load(
        valid.data, valid.itemsize, [&](int i) { return at - i * valid.stride[1]; },
        [&](int i) { return i == 0 ? s + 1 < entries.divisor() : s > 0; });
    return masks[0] || masks[1];
  }

  // Agent i's action, or -1 where it is none of 0 .. A - 1.
  EMIX_HD int64_t taken_at(int64_t row, int64_t i) const {
    const int64_t action = integer_at(taken.data, taken.itemsize, taken.offset(row) + i);
    return action >= 0 && action < actions ? action : -1;
  }
};

// One action of one agent: what its members say on average, and how much of it a next value counts.
template <class F>
struct ActionValue {
  F mean, next;
};

// load(j): member j's value, past the last one any member's. kUncertain: p.uncertain, for the compiler.
template <bool kUncertain, class F, int kCapacity, class Load>
EMIX_HD ActionValue<F> action_value(const Joint& p, const Load& load) {
  ensemble::Members<F, kCapacity> members(load);
  const ensemble::Moments<F> moments = members.moments(p.members);
  if constexpr (!kUncertain) return {moments.mean, moments.mean};
  return {moments.mean, ensemble::weight(moments.kurtosis, static_cast<F>(p.scale)) * moments.mean};
}

// f(capacity) for the number of members.
template <class Function>
inline __attribute__((always_inline)) void with_members(int members, const Function& f) {
  ensemble::with_capacity<1, 5, 10, 20, ensemble::kMaxMembers>(members, f);
}

// The results at every entry.
struct JointResults {
  void *q = nullptr, *v = nullptr, *trace = nullptr;  // [B, T + 1], in the wide type; trace: null without pi

  template <class F>
  EMIX_HD void write(int64_t row, F q_tot, F v_tot, F pi) const {
    static_cast<F*>(q)[row] = q_tot, static_cast<F*>(v)[row] = v_tot;
    if (trace) static_cast<F*>(trace)[row] = pi;
  }
};

}  // namespace emix::targets
