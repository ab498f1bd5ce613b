// From tensors to a Problem, with the checks that both devices share.
#pragma once
#include <algorithm>
#include <utility>

#include "returns/returns.h"
#include "torch.h"

namespace emix::returns {

struct Arguments {
  Problem problem;
  ScalarType input = ScalarType::Undefined;   // element type of reward, q, v and trace
  ScalarType output = ScalarType::Undefined;  // float64 for float64 inputs, else float32
  std::vector<int64_t> shape;                 // [B, T, trailing axes]
  std::vector<Tensor> converted;              // keeps the inputs alive whose dtype had to be changed
};

struct Input {
  const char* name;
  const Tensor* tensor;
  bool next;  // has an entry more than there are steps
  bool mask;
  View* view;
};

inline void check_shape(const Input& input, const int64_t* sizes, int64_t dims, const std::vector<int64_t>& shape) {
  const int64_t steps = shape[1] + (input.next ? 1 : 0);
  if (dims < 2 || sizes[0] != shape[0] || sizes[1] != steps)
    fail("`", input.name, "` must have shape [", shape[0], ", ", steps, "] or [", shape[0], ", ", steps,
         ", ...] because `reward` has ", shape[0], " episodes of ", shape[1], " steps",
         input.next ? " and this one also has the entry after the last" : "", ", got ", shape_text(sizes, dims));
}

// The trailing axes of all inputs together; each input has all of them, or size 1 in their place, or none.
inline void merge_trailing(const Input& input, const int64_t* sizes, int64_t dims, std::vector<int64_t>& shape) {
  if (dims == 2) return;
  if (shape.size() == 2) shape.insert(shape.end(), sizes + 2, sizes + dims);
  bool fits = static_cast<int64_t>(shape.size()) == dims;
  for (int64_t i = 2; fits && i < dims; ++i) {
    if (shape[i] == 1) shape[i] = sizes[i];
    fits = sizes[i] == shape[i] || sizes[i] == 1;
  }
  if (!fits)
    fail("`", input.name, "` must have the trailing axes ", shape_text(shape.data() + 2, shape.size() - 2),
         " of the inputs before it, or none, got ", shape_text(sizes, dims));
}

inline void check_type(const Input& input, ScalarType type) {
  if (type == ScalarType::ComplexFloat || type == ScalarType::ComplexDouble || type == ScalarType::ComplexHalf)
    fail("`", input.name, "` must be real, got a complex tensor");
  if (!input.mask && !is_floating(type))
    fail("`", input.name, "` must be a float16, bfloat16, float32 or float64 tensor, got an integer or bool one");
}

inline void check_device(const Input& input, const Tensor& reward) {
  const bool same = input.tensor->is_cpu()
                        ? reward.is_cpu()
                        : !reward.is_cpu() && input.tensor->get_device_index() == reward.get_device_index();
  if (!same)
    fail("`", input.name, "` must be on ", device_text(reward), " like `reward`, got ", device_text(*input.tensor));
}

inline View view_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  View view;
  view.data = tensor.const_data_ptr();
  if (!view.data) view.data = "";  // an empty tensor is there all the same; nothing of it is read
  view.itemsize = static_cast<int>(tensor.element_size());
  view.time = strides[1];
  view.row[0] = strides[0];
  for (size_t i = 2; i < sizes.size(); ++i) view.row[i - 1] = sizes[i] == 1 ? 0 : strides[i];
  return view;
}

inline Arguments arguments(const Tensor& reward, const Tensor& terminated, const Tensor& q, const Tensor& v,
                           double gamma, double lam, const OptionalTensor& trace, const OptionalTensor& truncated,
                           const OptionalTensor& valid, int64_t horizon, bool clip, bool advantage) {
  if (!(gamma >= 0 && gamma <= 1)) fail("`gamma` must lie in [0, 1], got ", gamma);
  if (!(lam >= 0 && lam <= 1)) fail("`lam` must lie in [0, 1], got ", lam);
  if (horizon < 0) fail("`horizon` must be at least 1");

  Arguments result;
  Problem& problem = result.problem;
  problem.gamma = gamma, problem.lam = lam, problem.clip = clip, problem.advantage = advantage;
  const Input inputs[] = {{"reward", &reward, false, false, &problem.reward},
                          {"terminated", &terminated, false, true, &problem.terminated},
                          {"q", &q, true, false, &problem.q},
                          {"v", &v, true, false, &problem.v},
                          {"trace", trace ? &*trace : nullptr, true, false, &problem.trace},
                          {"truncated", truncated ? &*truncated : nullptr, false, true, &problem.truncated},
                          {"valid", valid ? &*valid : nullptr, false, true, &problem.valid}};

  for (const Input& input : inputs)
    if (input.tensor && !input.tensor->defined()) fail("`", input.name, "` must be a tensor, got None");
  const auto sizes = reward.sizes();
  if (sizes.size() < 2)
    fail("`reward` must have shape [B, T] or [B, T, ...], got ", shape_text(sizes.data(), sizes.size()));
  result.shape = {sizes[0], sizes[1]};
  problem.steps = sizes[1];
  problem.horizon = horizon >= problem.steps ? 0 : horizon;

  bool mixed = false, wide = false;
  for (const Input& input : inputs) {
    if (!input.tensor) continue;
    const auto own = input.tensor->sizes();
    check_shape(input, own.data(), own.size(), result.shape);
    merge_trailing(input, own.data(), own.size(), result.shape);
    if (result.shape.size() > kMaxRowAxes + 1)
      fail("`", input.name, "` may have ", kMaxRowAxes - 1, " trailing axes at most, got ", result.shape.size() - 2);
    const ScalarType type = input.tensor->scalar_type();
    check_type(input, type);
    check_device(input, reward);
    *input.view = view_of(*input.tensor);
    if (input.mask) continue;
    if (result.input == ScalarType::Undefined) result.input = type;
    mixed |= type != result.input;
    wide |= type == ScalarType::Double;
  }
  result.output = wide ? ScalarType::Double : ScalarType::Float;

  if (mixed) {
    result.input = result.output;
    for (const Input& input : inputs) {
      if (!input.tensor || input.mask || input.tensor->scalar_type() == result.input) continue;
      result.converted.push_back(torch::stable::to(*input.tensor, result.input));
      *input.view = view_of(result.converted.back());
    }
  }

  problem.row_axes = static_cast<int>(result.shape.size()) - 1;
  problem.rows = result.shape[0];
  for (int axis = 1; axis < problem.row_axes; ++axis) {
    const int64_t size = result.shape[axis + 1];
    problem.rows *= size;
    problem.row_size[axis] = Divider<int64_t>(std::max<int64_t>(1, size));
  }
  return result;
}

// The view of a fresh contiguous output [B, T or T + 1, trailing axes].
inline View output_view(const Tensor& output, const Problem& problem) {
  View view;
  view.data = output.mutable_data_ptr();
  view.itemsize = static_cast<int>(output.element_size());
  int64_t stride = 1;
  for (int axis = problem.row_axes - 1; axis > 0; --axis)
    view.row[axis] = stride, stride *= problem.row_size[axis].divisor();
  view.time = stride;
  view.row[0] = stride * output.sizes()[1];
  return view;
}

// Fresh outputs of the backward pass: reward's [B, T, ...], then q's, v's and trace's [B, T + 1, ...].
struct Gradients {
  Tensor reward, q, v, trace;
  std::tuple<Tensor, Tensor, Tensor, Tensor> tuple() const { return {reward, q, v, trace}; }
};

inline Gradients empty_gradients(const Arguments& arguments, const Tensor& like) {
  std::vector<int64_t> next = arguments.shape;
  next[1] += 1;
  const ScalarType type = arguments.output;
  return {empty(arguments.shape, type, like), empty(next, type, like), empty(next, type, like),
          empty(next, type, like)};
}

// `grad` is the upstream gradient, in the shape and dtype of the forward's result.
inline GradientViews gradient_views(const Arguments& arguments, const Tensor& grad, const Gradients& gradients) {
  const auto sizes = grad.sizes();
  if (grad.scalar_type() != arguments.output || sizes.size() != arguments.shape.size() ||
      !std::equal(sizes.begin(), sizes.end(), arguments.shape.begin()))
    fail("`grad` must have the shape ", shape_text(arguments.shape.data(), arguments.shape.size()),
         " and the dtype of the result, got ", shape_text(sizes.data(), sizes.size()));
  const Problem& problem = arguments.problem;
  GradientViews views{{},
                      output_view(gradients.reward, problem),
                      output_view(gradients.q, problem),
                      output_view(gradients.v, problem),
                      output_view(gradients.trace, problem)};
  const auto strides = grad.strides();
  views.grad.data = grad.const_data_ptr();
  views.grad.time = strides[1];
  views.grad.row[0] = strides[0];
  for (size_t i = 2; i < sizes.size(); ++i) views.grad.row[i - 1] = strides[i];
  return views;
}

}  // namespace emix::returns
