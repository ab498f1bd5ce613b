// From tensors to the structs of mixing.h, with the checks that both devices share.
#pragma once
#include "checks.h"
#include "mixing/mixing.h"

namespace emix::mixing {

// The axes first .. leading - 1 of a tensor as a RowView's two strides. False where it takes more, or where the inner
// axes are not contiguous.
inline bool view_rows(const Tensor& tensor, size_t leading, RowView& view, size_t first = 0) {
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  view.data = tensor.const_data_ptr();
  if (!view.data) view.data = &view;  // an empty tensor is there all the same; nothing of it is read
  if (tensor.numel() == 0) return true;
  int64_t dense = 1;
  for (size_t axis = sizes.size(); axis-- > leading; dense *= sizes[axis])
    if (sizes[axis] != 1 && strides[axis] != dense) return false;
  int found = 0;
  int64_t size[2] = {1, 1}, stride[2] = {0, 0};
  for (size_t axis = leading; axis-- > first;) {
    if (sizes[axis] == 1) continue;
    if (found > 0 && strides[axis] == stride[found - 1] * size[found - 1]) {
      size[found - 1] *= sizes[axis];
    } else {
      if (found == 2) return false;
      size[found] = sizes[axis], stride[found] = strides[axis], ++found;
    }
  }
  view.stride = stride[0];
  view.grouped = found == 2;
  view.group = Divider<int64_t>(size[0]);
  view.group_stride = stride[1];
  return true;
}

// Collects the inputs of one call. All have the leading axes of the first one, `q`.
class Arguments {
 public:
  ScalarType input = ScalarType::Undefined;   // element type that the inputs are read in
  ScalarType output = ScalarType::Undefined;  // float64 where an input is float64, else float32
  std::vector<int64_t> leading;
  int64_t rows = 1;

  Arguments(const Tensor& q, size_t inner_axes) : q_(q) {
    if (!q.defined()) fail("`q` must be a tensor, got None");
    const auto sizes = q.sizes();
    if (sizes.size() < inner_axes)
      fail("`q` must have shape ", inner_axes == 1 ? "[..., n]" : "[..., n, A]", ", got ",
           shape_text(sizes.data(), sizes.size()));
    leading.assign(sizes.begin(), sizes.end() - inner_axes);
    for (const int64_t size : leading) rows *= size;
    if (sizes.size() > kMaxDims) fail("`q` may have ", kMaxDims, " axes at most, got ", sizes.size());
  }

  // An input [leading axes, inner axes], whose view finish() fills in.
  void read(const char* name, const Tensor& tensor, std::initializer_list<int64_t> inner, RowView& view) {
    if (!tensor.defined()) fail("`", name, "` must be a tensor, got None");
    const auto sizes = tensor.sizes();
    if (sizes.size() != leading.size() + inner.size() || !std::equal(leading.begin(), leading.end(), sizes.begin()) ||
        !std::equal(inner.begin(), inner.end(), sizes.begin() + leading.size())) {
      const auto q = q_.sizes();
      check_shape(name, tensor, shape(inner), " because `q` has shape ", shape_text(q.data(), q.size()));
    }
    check_floating(name, tensor);
    check_device(name, tensor, "q", q_);
    const ScalarType type = tensor.scalar_type();
    if (count_ == 0) input = type;
    mixed_ |= type != input;
    if (type == ScalarType::Double) output = ScalarType::Double;
    tensors_[count_] = &tensor, views_[count_] = &view;
    ++count_;
  }

  void read(const char* name, const OptionalTensor& tensor, std::initializer_list<int64_t> inner, RowView& view) {
    if (tensor) read(name, *tensor, inner, view);
  }

  // Fills in the views, once every input is known: several element types become the widest, other strides a copy.
  void finish() {
    if (output == ScalarType::Undefined) output = ScalarType::Float;
    if (mixed_) input = output;
    for (int i = 0; i < count_; ++i) {
      if (tensors_[i]->scalar_type() == input) {
        view(*tensors_[i], *views_[i]);
      } else {
        copies_.push_back(torch::stable::to(*tensors_[i], input));
        view(copies_.back(), *views_[i]);
      }
    }
  }

  // The upstream gradient, in the shape of the forward's result; its type may be wider, where an input was that the
  // gradients do not depend on.
  void read_gradient(const Tensor& grad, RowView& grad_view) {
    check_shape("grad", grad, leading, " like the result");
    check_device("grad", grad, "q", q_);
    check_floating("grad", grad);
    if (grad.scalar_type() == output) return view(grad, grad_view);
    copies_.push_back(torch::stable::to(grad, output));
    view(copies_.back(), grad_view);
  }

  // A fresh tensor [leading axes, inner axes]; one without elements where it is not wanted.
  Tensor fresh(bool wanted, std::initializer_list<int64_t> inner, ScalarType type) const {
    return empty(wanted ? shape(inner) : std::vector<int64_t>{0}, type, q_);
  }

 private:
  std::vector<int64_t> shape(std::initializer_list<int64_t> inner) const {
    std::vector<int64_t> shape = leading;
    shape.insert(shape.end(), inner);
    return shape;
  }

  void view(const Tensor& tensor, RowView& view) {
    if (view_rows(tensor, leading.size(), view)) return;
    copies_.push_back(torch::stable::contiguous(tensor));
    view_rows(copies_.back(), leading.size(), view);
  }

  const Tensor& q_;
  const Tensor* tensors_[5] = {};
  RowView* views_[5] = {};
  std::vector<Tensor> copies_;  // keeps the data of the views alive
  int count_ = 0;
  bool mixed_ = false;
};

struct LinearCall {
  Arguments arguments;
  Linear problem;

  LinearCall(const Tensor& q, const Tensor& weight, const OptionalTensor& bias) : arguments(q, 1) {
    const int64_t n = problem.agents = q.sizes().back();
    problem.rows = arguments.rows;
    arguments.read("q", q, {n}, problem.q);
    arguments.read("weight", weight, {n}, problem.weight);
    arguments.read("bias", bias, {}, problem.bias);
    arguments.finish();
  }
};

struct ExpectedCall {
  Arguments arguments;
  Expected problem;

  ExpectedCall(const Tensor& q, const Tensor& pi, const Tensor& weight, const OptionalTensor& bias,
               const OptionalTensor& uncertainty)
      : arguments(q, 2) {
    const auto sizes = q.sizes();
    const int64_t n = problem.agents = sizes[sizes.size() - 2], A = problem.actions = sizes.back();
    problem.rows = arguments.rows;
    arguments.read("q", q, {n, A}, problem.q);
    arguments.read("pi", pi, {n, A}, problem.pi);
    arguments.read("weight", weight, {n}, problem.weight);
    arguments.read("bias", bias, {}, problem.bias);
    arguments.read("uncertainty", uncertainty, {n, A}, problem.uncertainty);
    arguments.finish();
  }
};

struct MonotonicCall {
  Arguments arguments;
  Monotonic problem;

  MonotonicCall(const Tensor& q, const Tensor& w1, const Tensor& b1, const Tensor& w2, const OptionalTensor& v)
      : arguments(q, 1) {
    const int64_t n = problem.agents = q.sizes().back();
    if (!b1.defined() || b1.sizes().size() == 0) fail("`b1` must have shape [..., E]");
    const int64_t E = problem.embed = b1.sizes().back();
    problem.rows = arguments.rows;
    arguments.read("q", q, {n}, problem.q);
    arguments.read("b1", b1, {E}, problem.b1);
    arguments.read("w1", w1, {n, E}, problem.w1);
    arguments.read("w2", w2, {E}, problem.w2);
    arguments.read("v", v, {}, problem.v);
    arguments.finish();
  }
};

}  // namespace emix::mixing
