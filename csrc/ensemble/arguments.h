// From tensors to Values and ActionRows, with the checks that both devices share.
#pragma once
#include "checks.h"
#include "ensemble/ensemble.h"
#include "policy/floor.h"
#include "rows.h"

namespace emix::ensemble {

inline ScalarType wide(ScalarType type) { return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float; }

inline void check_members(const Tensor& q) {
  check_floating("q", q);
  const auto sizes = q.sizes();
  if (sizes.size() < 1) fail("`q` must have shape [N, ...], got []");
  if (sizes[0] < 1 || sizes[0] > kMaxMembers)
    fail("`q` must have 1 to ", kMaxMembers, " members on its first axis, got shape ",
         shape_text(sizes.data(), sizes.size()));
}

struct ValuesArguments {
  Rows q;  // keeps the data alive
  Values values;
  std::vector<int64_t> shape;  // of a result, [...]
};

inline ValuesArguments values_arguments(const Tensor& q) {
  check_members(q);
  ValuesArguments result{rows_of(q, 0, true), {}, {}};
  const Rows& rows = result.q;
  result.values = {rows.data, static_cast<int>(rows.members), rows.rows, rows.row_stride, rows.member_stride};
  const auto sizes = q.sizes();
  result.shape.assign(sizes.begin() + 1, sizes.end());
  return result;
}

struct BackwardArguments {
  ValuesArguments forward;
  Rows grads[3];  // keep the data alive
  Upstreams upstreams;
  Tensor output;
};

inline BackwardArguments backward_arguments(const Tensor& q, const OptionalTensor& mean, const OptionalTensor& variance,
                                            const OptionalTensor& kurtosis) {
  BackwardArguments result{values_arguments(q), {}, {}, {}};
  const ScalarType type = wide(q.scalar_type());
  const auto read = [&](const char* name, const OptionalTensor& grad, Rows& rows, Upstream& upstream) {
    if (!grad) return;
    check_shape(name, *grad, result.forward.shape);
    check_device(name, *grad, "q", q);
    if (grad->scalar_type() != type) fail("`", name, "` must have the dtype of the moments");
    rows = rows_of(*grad, 0);
    upstream = {rows.data, rows.row_stride};
  };
  read("mean_grad", mean, result.grads[0], result.upstreams.mean);
  read("variance_grad", variance, result.grads[1], result.upstreams.variance);
  read("kurtosis_grad", kurtosis, result.grads[2], result.upstreams.kurtosis);
  const auto sizes = q.sizes();
  result.output = empty({sizes.begin(), sizes.end()}, q.scalar_type(), q);
  return result;
}

struct ExploreArguments {
  Rows logits, q, avail;  // keep the data alive
  OptionalTensor floor;
  Exploration exploration;
  ScalarType input = ScalarType::Undefined;   // element type of logits and q
  ScalarType output = ScalarType::Undefined;  // float64 where one of them is, else float32
  std::vector<int64_t> shape;                 // of logits, [..., A]
};

inline Strided strided(const Rows& rows) {
  return {rows.data, rows.row_stride, rows.stride[0], static_cast<int>(rows.tensor.element_size())};
}

inline ExploreArguments explore_arguments(const Tensor& logits, const Tensor& q, const OptionalTensor& avail,
                                          double bonus) {
  check_floating("logits", logits);
  check_members(q);
  const auto sizes = logits.sizes();
  if (sizes.size() < 1 || sizes[sizes.size() - 1] < 1 || sizes[sizes.size() - 1] > kMaxActions)
    fail("`logits` must have shape [..., A] with 1 to ", kMaxActions, " actions, got ",
         shape_text(sizes.data(), sizes.size()));
  ExploreArguments result;
  result.shape.assign(sizes.begin(), sizes.end());
  std::vector<int64_t> expected = result.shape;
  expected.insert(expected.begin(), q.sizes()[0]);
  check_shape("q", q, expected, ", the members' axis before those of `logits`");
  check_device("q", q, "logits", logits);

  const ScalarType types[] = {logits.scalar_type(), q.scalar_type()};
  result.output = types[0] == ScalarType::Double ? types[0] : wide(types[1]);
  result.input = types[0] == types[1] ? types[0] : result.output;
  const auto converted = [&](const Tensor& tensor) {
    return tensor.scalar_type() == result.input ? tensor : torch::stable::to(tensor, result.input);
  };
  result.logits = rows_of(converted(logits), 1);
  result.q = rows_of(converted(q), 1, true);
  Exploration& e = result.exploration;
  e.logits = strided(result.logits), e.q = strided(result.q), e.member_stride = result.q.member_stride;
  e.rows = result.logits.rows, e.members = static_cast<int>(result.q.members);
  e.actions = static_cast<int>(result.shape.back()), e.bonus = bonus;
  if (avail) {
    check_real("avail", *avail);
    check_shape("avail", *avail, result.shape, " like `logits`");
    check_device("avail", *avail, "logits", logits);
    result.avail = rows_of(*avail, 1);
    e.avail = strided(result.avail);
  }
  return result;
}

// The same for drawn actions.
inline ExploreArguments explore_arguments(const Tensor& logits, const Tensor& q, const OptionalTensor& avail,
                                          const Tensor& seed, double bonus, double floor,
                                          const OptionalTensor& floor_tensor) {
  ExploreArguments result = explore_arguments(logits, q, avail, bonus);
  check_device("seed", seed, "logits", logits);
  if (seed.scalar_type() != ScalarType::Long || seed.numel() != 1)
    fail("`seed` must be an int64 tensor of one element");
  Exploration& e = result.exploration;
  e.seed = static_cast<const int64_t*>(seed.const_data_ptr());
  e.floor = policy::floor_source(floor, floor_tensor, e.actions, logits, result.floor);
  result.shape.pop_back();  // of an action, [...]
  return result;
}

}  // namespace emix::ensemble
