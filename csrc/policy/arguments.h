// From tensors to a Problem, with the checks that both devices share.
#pragma once
#include <tuple>
#include <utility>

#include "checks.h"
#include "policy/floor.h"
#include "rows.h"

namespace emix::policy {

struct Arguments {
  Problem problem;
  ScalarType input = ScalarType::Undefined;   // element type of logits and value
  ScalarType output = ScalarType::Undefined;  // float64 for float64 inputs, else float32
  std::vector<int64_t> shape;                 // [..., A]
  std::vector<Tensor> kept;                   // copies that had to be made
  OptionalTensor kept_floor;
};

inline Strided strided(Arguments& arguments, const Tensor& tensor, size_t inner_axes) {
  Rows rows = rows_of(tensor, inner_axes);
  Strided result{rows.data, rows.row_stride, inner_axes > 0 ? rows.stride[0] : 0,
                 static_cast<int>(tensor.element_size())};
  if (!result.data) result.data = &arguments;  // an empty tensor is there all the same; nothing of it is read
  arguments.kept.push_back(std::move(rows.tensor));
  return result;
}

inline Arguments policy_arguments(const Tensor& logits, const OptionalTensor& avail, double floor,
                                  const OptionalTensor& floor_tensor, const Tensor* value = nullptr) {
  check_floating("logits", logits);
  Arguments result;
  const auto sizes = logits.sizes();
  result.shape.assign(sizes.begin(), sizes.end());
  if (result.shape.empty() || result.shape.back() < 1 || result.shape.back() > kMaxActions ||
      result.shape.size() > kMaxDims)
    fail("`logits` must have shape [..., A] with 1 to ", kMaxActions, " actions and ", kMaxDims, " axes at most, got ",
         shape_text(result.shape.data(), static_cast<int64_t>(result.shape.size())));

  result.input = logits.scalar_type();
  if (value) {
    check_floating("value", *value);
    check_shape("value", *value, result.shape, " like `logits`");
    check_device("value", *value, "logits", logits);
    const bool wide = result.input == ScalarType::Double || value->scalar_type() == ScalarType::Double;
    if (value->scalar_type() != result.input) result.input = wide ? ScalarType::Double : ScalarType::Float;
  }
  result.output = result.input == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const auto as_input = [&](const Tensor& tensor) {
    return tensor.scalar_type() == result.input ? tensor : torch::stable::to(tensor, result.input);
  };

  Problem& problem = result.problem;
  problem.actions = static_cast<int>(result.shape.back());
  problem.floor = floor_source(floor, floor_tensor, problem.actions, logits, result.kept_floor);
  problem.rows = 1;
  for (size_t axis = 0; axis + 1 < result.shape.size(); ++axis) problem.rows *= result.shape[axis];
  problem.logits = strided(result, as_input(logits), 1);
  if (value) problem.value = strided(result, as_input(*value), 1);
  if (avail) {
    check_real("avail", *avail);
    check_shape("avail", *avail, result.shape, " like `logits`");
    check_device("avail", *avail, "logits", logits);
    problem.avail = strided(result, *avail, 1);
  }
  return result;
}

// An upstream gradient has the dtype of the result that it belongs to.
template <class Shape>
Strided gradient(Arguments& arguments, const char* name, const Tensor& grad, const Shape& shape, size_t inner_axes) {
  check_shape(name, grad, shape);
  if (grad.scalar_type() != arguments.output) fail("`", name, "` must have the dtype of the result");
  return strided(arguments, grad, inner_axes);
}

inline Arguments policy_backward_arguments(const Tensor& grad, const Tensor& logits, const OptionalTensor& avail,
                                           double floor, const OptionalTensor& floor_tensor) {
  Arguments result = policy_arguments(logits, avail, floor, floor_tensor);
  result.problem.policy_grad = gradient(result, "grad", grad, result.shape, 1);
  return result;
}

inline Arguments terms_arguments(const Tensor& logits, const Tensor& action, const OptionalTensor& avail,
                                 const OptionalTensor& value, double floor, const OptionalTensor& floor_tensor) {
  Arguments result = policy_arguments(logits, avail, floor, floor_tensor, value ? &*value : nullptr);
  check_real("action", action);
  const ScalarType type = action.scalar_type();
  if (type != ScalarType::Long && type != ScalarType::Int && type != ScalarType::Short && type != ScalarType::Char &&
      type != ScalarType::Byte)
    fail("`action` must be an integer tensor, such as int64");
  const std::vector<int64_t> rows(result.shape.begin(), result.shape.end() - 1);
  check_shape("action", action, rows, ", that of `logits` without its last axis");
  check_device("action", action, "logits", logits);
  result.problem.action = strided(result, action, 0);
  return result;
}

inline Arguments terms_backward_arguments(const OptionalTensor& log_prob_grad, const OptionalTensor& entropy_grad,
                                          const OptionalTensor& value_grad, const Tensor& logits, const Tensor& action,
                                          const OptionalTensor& avail, const OptionalTensor& value, double floor,
                                          const OptionalTensor& floor_tensor) {
  Arguments result = terms_arguments(logits, action, avail, value, floor, floor_tensor);
  const std::vector<int64_t> rows(result.shape.begin(), result.shape.end() - 1);
  Problem& problem = result.problem;
  if (log_prob_grad) problem.log_prob_grad = gradient(result, "log_prob_grad", *log_prob_grad, rows, 0);
  if (entropy_grad) problem.entropy_grad = gradient(result, "entropy_grad", *entropy_grad, rows, 0);
  if (value_grad) problem.value_grad = gradient(result, "value_grad", *value_grad, rows, 0);
  return result;
}

template <class F>
F* pointer(const Tensor& tensor) {
  return static_cast<F*>(tensor.mutable_data_ptr());
}

struct TermsTensors {
  Tensor log_prob, entropy, expected_value;
  std::tuple<Tensor, Tensor, Tensor> tuple() const { return {log_prob, entropy, expected_value}; }
  template <class F>
  Terms<F> pointers() const {
    return {pointer<F>(log_prob), pointer<F>(entropy), pointer<F>(expected_value)};
  }
};

// Without a value the expectation has no elements.
inline TermsTensors empty_terms(const Arguments& arguments, const Tensor& like) {
  const std::vector<int64_t> rows(arguments.shape.begin(), arguments.shape.end() - 1);
  const std::vector<int64_t> none{0};
  return {empty(rows, arguments.output, like), empty(rows, arguments.output, like),
          empty(arguments.problem.value.data ? rows : none, arguments.output, like)};
}

struct GradientTensors {
  Tensor logits, value;
  bool value_wanted;
  std::tuple<Tensor, Tensor> tuple() const { return {logits, value}; }
  template <class T>
  TermsGradients<T> pointers() const {
    return {pointer<T>(logits), value_wanted ? pointer<T>(value) : nullptr};
  }
};

inline GradientTensors empty_gradients(const Arguments& arguments, bool value_wanted, const Tensor& like) {
  const std::vector<int64_t> none{0};
  return {empty(arguments.shape, arguments.input, like),
          empty(value_wanted ? arguments.shape : none, arguments.input, like), value_wanted};
}

}  // namespace emix::policy
