// joint_values on the CPU: entry by entry. The members' values are read once, neighbouring actions in a vector; what is
// left of an entry then, a mean and a next value for each action, stays in the L1 cache.
#include <algorithm>

#include "instruction_sets.h"
#include "targets/ops.h"

namespace emix::targets {
namespace {

inline constexpr int kLanes = 16;         // of the widest vector
inline constexpr int64_t kGrain = 32768;  // values that are worth waking a thread

// The members' values of `count` actions side by side: member j's are at data[offset[j]].
template <class T>
struct MemberRows {
  const T* data;
  int64_t offset[ensemble::kMaxMembers];  // past the last member: the first one's

  EMIX_HD MemberRows(const Joint& p, const T* first, int64_t stride) : data(first) {
    for (int j = 0; j < ensemble::kMaxMembers; ++j) offset[j] = j < p.members ? j * stride : 0;
  }
};

template <bool kUncertain, class T, class F>
EMIX_HD void take_values(const Joint& p, const MemberRows<T>& q, int64_t count, F* __restrict mean,
                         F* __restrict next) {
  with_members(
      p.members, [&](auto capacity) __attribute__((always_inline)) {
#pragma GCC ivdep  // mean and next are fresh memory
        for (int64_t k = 0; k < count; ++k) {
          const auto value = action_value<kUncertain, F, capacity()>(
              p, [&](int j) __attribute__((always_inline)) { return static_cast<F>(q.data[q.offset[j] + k]); });
          mean[k] = value.mean, next[k] = value.next;
        }
      });
}

// An entry's working memory; `count` actions are looked at.
template <class T, class F>
struct Workspace {
  int64_t count;
  std::vector<F> mean, next;
  std::vector<int64_t> taken;  // where the agents' actions lie in a row
  std::vector<T> gathered;     // their members' values, [N, count], padded to whole vectors

  explicit Workspace(const Joint& p)
      : count(p.pi.given() ? p.agents * p.actions : (p.agents + kLanes - 1) / kLanes * kLanes),
        mean(count),
        next(count),
        taken(p.agents),
        gathered(p.pi.given() ? 0 : p.members * count) {}
};

// False where an action is out of range; its place is then the agent's first.
template <class T, class F>
EMIX_HD bool find_taken(const Joint& p, int64_t row, Workspace<T, F>& work) {
  bool known = true;
  for (int64_t i = 0; i < p.agents; ++i) {
    const int64_t action = p.taken_at(row, i);
    known &= action >= 0;
    work.taken[i] = i * p.actions + std::max<int64_t>(action, 0);
  }
  return known;
}

// The actions to look at: all of them where there is a policy, else those that were taken.
template <class T, class F>
EMIX_HD void take_values(const Joint& p, int64_t row, Workspace<T, F>& work) {
  const T* q = p.q.row<T>(row);
  int64_t stride = p.q.member_stride;
  if (!p.pi.given()) {
    for (int j = 0; j < p.members; ++j)
      for (int64_t i = 0; i < p.agents; ++i)
        work.gathered[j * work.count + i] = q[j * p.q.member_stride + work.taken[i]];
    q = work.gathered.data(), stride = work.count;
  }
  const MemberRows<T> rows(p, q, stride);
  if (p.uncertain)
    take_values<true>(p, rows, work.count, work.mean.data(), work.next.data());
  else
    take_values<false>(p, rows, work.count, work.mean.data(), work.next.data());
}

template <class F>
struct Sums {
  F q = 0, v = 0, weight = 0, probability = 1;
};

template <class T, class F>
EMIX_HD Sums<F> tree_backup_sums(const Joint& p, int64_t row, Workspace<T, F>& work) {
  const T *weight = p.weight.row<T>(row), *pi = p.pi.row<T>(row);
  F* next = work.next.data();
  for (int64_t k = 0; k < work.count; ++k) next[k] = mixing::expectation_term(static_cast<F>(pi[k]), next[k]);
  Sums<F> sum;
  for (int64_t i = 0; i < p.agents; ++i) {
    const F u = static_cast<F>(weight[i]);
    F expectation = 0;
    for (int64_t a = 0; a < p.actions; ++a) expectation += next[i * p.actions + a];
    sum.weight += u;
    sum.v += u * expectation;
    sum.q += u * work.mean[work.taken[i]];
    sum.probability *= static_cast<F>(pi[work.taken[i]]);
  }
  return sum;
}

template <class T, class F>
EMIX_HD Sums<F> taken_sums(const Joint& p, int64_t row, const Workspace<T, F>& work) {
  const T* weight = p.weight.row<T>(row);
  Sums<F> sum;
  for (int64_t i = 0; i < p.agents; ++i) {
    const F u = static_cast<F>(weight[i]);
    sum.weight += u;
    sum.v += u * work.next[i];
    sum.q += u * work.mean[i];
  }
  return sum;
}

template <class T, class F>
EMIX_HD void joint_rows(const Joint& p, const JointResults& out, int64_t begin, int64_t end) {
  Workspace<T, F> work(p);
  for (int64_t row = begin; row < end; ++row) {
    if (!p.needed(row)) {
      out.write(row, F(0), F(0), F(0));
      continue;
    }
    const F wrong = find_taken(p, row, work) ? F(0) : F(NAN);
    take_values(p, row, work);
    const Sums<F> sum = p.pi.given() ? tree_backup_sums(p, row, work) : taken_sums(p, row, work);
    const F bias = p.bias.given() ? static_cast<F>(*p.bias.row<T>(row)) : F(0), total = mixing::divisor(sum.weight);
    out.write(row, sum.q / total + bias + wrong, sum.v / total + bias + (p.pi.given() ? F(0) : wrong),
              sum.probability + wrong);
  }
}

// A function template cannot be cloned for several instruction sets, so the clones are named, one overload an element
// type.
#define EMIX_JOINT_CLONES(SETS, T)                                                          \
  SETS void joint(T, const Joint& p, const JointResults& out, int64_t begin, int64_t end) { \
    joint_rows<T, Wide<T>>(p, out, begin, end);                                             \
  }
EMIX_JOINT_CLONES(EMIX_INSTRUCTION_SETS, float)
EMIX_JOINT_CLONES(EMIX_BASELINE, double)
EMIX_JOINT_CLONES(EMIX_BASELINE, Half)
EMIX_JOINT_CLONES(EMIX_BASELINE, BFloat16)

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <class T>
  void joint_values(const Joint& p, const JointResults& out) const {
    const int64_t grain = kGrain / (p.members * p.agents * (p.pi.given() ? p.actions : 1) + 1) + 1;
    run_rows(p.rows, grain, [&](int64_t begin, int64_t end) { joint(T(), p, out, begin, end); });
  }
};

}  // namespace
}  // namespace emix::targets

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { emix::targets::register_ops<emix::targets::Cpu>(m); }
