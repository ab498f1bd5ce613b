// From tensors to views of values and of rows of actions, with the checks that both devices share.
#pragma once
#include "call_arguments.h"
#include "ensemble/ensemble.h"
#include "policy/floor.h"

namespace emix::ensemble {

inline void check_members(const Tensor& q) {
  const auto sizes = q.sizes();
  if (sizes.size() < 1) fail("`q` must have shape [N, ...], got []");
  if (sizes[0] < 1 || sizes[0] > kMaxMembers)
    fail("`q` must have 1 to ", kMaxMembers, " members on its first axis, got shape ", shape_of(sizes));
}

// q [N, ...]
struct ValuesCall {
  Arguments arguments;
  View<2> values;
  std::vector<int64_t> shape;  // of a result, [...]

  explicit ValuesCall(const Tensor& q) : arguments{{"q", q}} {
    check_members(q);
    const auto sizes = q.sizes();
    shape.assign(sizes.begin() + 1, sizes.end());
    values = arguments.view<2>(arguments.floating("q", q, sizes), 1);
  }

  View<1> upstream(const char* name, const OptionalTensor& grad) {
    return arguments.view<1>(arguments.upstream(name, grad, shape));
  }
};

// logits [..., A], q [N, ..., A]
struct ExplorationCall {
  Arguments arguments;
  Exploration exploration;
  std::vector<int64_t> shape;  // of logits

  ExplorationCall(const Tensor& logits, const Tensor& q, const OptionalTensor& avail, double bonus)
      : arguments{{"logits", logits}, {"q", q}} {
    check_members(q);
    const auto sizes = logits.sizes();
    if (sizes.size() < 1 || sizes.back() < 1 || sizes.back() > kMaxActions)
      fail("`logits` must have shape [..., A] with 1 to ", kMaxActions, " actions, got ", shape_of(sizes));
    shape.assign(sizes.begin(), sizes.end());
    std::vector<int64_t> q_shape = shape;
    q_shape.insert(q_shape.begin(), q.sizes()[0]);
    Exploration& e = exploration;
    e.logits = arguments.view<2>(arguments.floating("logits", logits, shape));
    e.q = arguments.view<3>(arguments.floating("q", q, q_shape, ", the members' axis before those of `logits`"), 1);
    e.avail = arguments.view<2>(arguments.mask("avail", avail, shape, " like `logits`"));
    e.rows = e.logits.size[0], e.members = static_cast<int>(e.q.size[0]), e.actions = static_cast<int>(shape.back());
    e.bonus = bonus;
  }

  // For drawn actions.
  ExplorationCall(const Tensor& logits, const Tensor& q, const OptionalTensor& avail, const Tensor& seed, double bonus,
                  double floor, const OptionalTensor& floor_tensor)
      : ExplorationCall(logits, q, avail, bonus) {
    exploration.seed = arguments.seed("seed", seed);
    exploration.floor = policy::floor_source(floor, floor_tensor, exploration.actions, arguments);
  }
};

}  // namespace emix::ensemble
