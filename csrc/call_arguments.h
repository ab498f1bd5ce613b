// From the tensors of a call to the views and pointers that kernels read: how every word's <word>/arguments.h does it.
//
//   Arguments arguments{{"q", q}, {"weight", weight}, {"bias", bias}};          the floating inputs
//   problem.q = arguments.view<2>(arguments.floating("q", q, shape));           each: checked and converted, then seen
//   problem.avail = arguments.view<2>(arguments.mask("avail", avail, shape));
//   const Tensor grad = arguments.fresh(shape, arguments.wide, g.q, q_wanted);  a result, and where it is written
//
// What is not given stays so: an OptionalTensor without a value becomes a view or pointer that is null.
#pragma once
#include "checks.h"
#include "view.h"

namespace emix {

// What the pointer of an empty tensor becomes: that is there all the same, and null means that it is not.
alignas(16) inline char nothing[16];

inline const void* data_of(const Tensor& tensor) { return tensor.numel() > 0 ? tensor.const_data_ptr() : nothing; }

// One stride that walks the axes first .. last - 1 of a tensor that has elements, if there is one.
inline std::optional<int64_t> merged_stride(const Tensor& tensor, size_t first, size_t last) {
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  int64_t stride = 0, expected = 0;  // expected: of the next axis that is not of size 1
  bool found = false;
  for (size_t axis = last; axis-- > first;) {
    if (sizes[axis] == 1) continue;
    if (found && strides[axis] != expected) return {};
    if (!found) stride = strides[axis];
    found = true;
    expected = strides[axis] * sizes[axis];
  }
  return stride;
}

// The axes of a tensor. Where it has more than kAxes, those from `merged` on are seen as one; where it has one axis
// less, an axis of size 1 stands in that place. False where no single stride walks the merged ones.
template <int kAxes>
bool view_of(const Tensor& tensor, size_t merged, View<kAxes>& view) {
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  const size_t rest = sizes.size() + 1 - kAxes + merged;  // the first axis after the merged ones
  view.data = data_of(tensor), view.itemsize = static_cast<int>(tensor.element_size());
  size_t to = 0;
  for (size_t axis = 0; axis < merged; ++axis, ++to) view.size[to] = sizes[axis], view.stride[to] = strides[axis];
  view.size[to] = 1;
  for (size_t axis = merged; axis < rest; ++axis) view.size[to] *= sizes[axis];
  const std::optional<int64_t> stride = tensor.numel() > 0 ? merged_stride(tensor, merged, rest) : 0;
  view.stride[to++] = stride.value_or(0);
  for (size_t axis = rest; axis < sizes.size(); ++axis, ++to)
    view.size[to] = sizes[axis], view.stride[to] = strides[axis];
  return stride.has_value();
}

// The axes first .. leading - 1 of a tensor as rows; where first is 1, the axis 0 is the members'. False where two
// strides do not walk them, or where a row's elements do not lie side by side.
inline bool view_of(const Tensor& tensor, size_t first, size_t leading, RowView& view) {
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  view.data = data_of(tensor), view.itemsize = static_cast<int>(tensor.element_size());
  if (tensor.numel() == 0) return true;
  int64_t dense = 1;
  for (size_t axis = sizes.size(); axis-- > leading; dense *= sizes[axis])
    if (sizes[axis] != 1 && strides[axis] != dense) return false;
  int found = 0;
  int64_t size[2] = {1, 1}, stride[2] = {0, 0};  // from the last axis on
  for (size_t axis = leading; axis-- > first;) {
    if (sizes[axis] == 1) continue;
    if (found > 0 && strides[axis] == stride[found - 1] * size[found - 1]) {
      size[found - 1] *= sizes[axis];
    } else {
      if (found == 2) return false;
      size[found] = sizes[axis], stride[found] = strides[axis], ++found;
    }
  }
  if (first > 0) view.member_stride = strides[0];
  for (int axis = 0; axis < 2; ++axis) view.size[axis] = size[1 - axis], view.stride[axis] = stride[1 - axis];
  view.group = Divider<int64_t>(size[0]);
  return true;
}

// A floating input by its name.
struct Input {
  const char* name;
  const Tensor* tensor;  // nullptr: not given

  Input(const char* name_, const Tensor& given) : name(name_), tensor(&given) {}
  Input(const char* name_, const OptionalTensor& given) : name(name_), tensor(given ? &*given : nullptr) {}
};

class Arguments {
 public:
  ScalarType type = ScalarType::Undefined;  // that floating inputs are read in: theirs where they agree, else `wide`
  ScalarType wide = ScalarType::Float;      // float64 where an input is, else float32: of what is computed

  // The floating inputs; the first one says on which device all of them must be.
  Arguments(std::initializer_list<Input> inputs) : name_(inputs.begin()->name), first_(*inputs.begin()->tensor) {
    bool mixed = false;
    for (const Input& input : inputs) {
      if (!input.tensor) continue;
      check_floating(input.name, *input.tensor);
      check_device(input.name, *input.tensor, name_, first_);
      const ScalarType own = input.tensor->scalar_type();
      if (type == ScalarType::Undefined) type = own;
      mixed |= own != type;
      if (own == ScalarType::Double) wide = own;
    }
    if (mixed) type = wide;
    kept_.reserve(8);
  }

  // For kernels that know float32 and float64 alone.
  void widen() { type = wide; }

  const Tensor& first() const { return first_; }

  // ---- checked and converted. `why` ends the sentence about the shape, as in " because `q` has 3 actions".

  // An input that was named at the start.
  template <class Shape, class... Why>
  OptionalTensor floating(const char* name, const OptionalTensor& tensor, const Shape& shape, const Why&... why) const {
    if (!tensor) return {};
    check_shape(name, *tensor, shape, why...);
    return converted(*tensor, type);
  }

  // An upstream gradient, or what the forward pass has saved.
  template <class Shape, class... Why>
  OptionalTensor upstream(const char* name, const OptionalTensor& tensor, const Shape& shape, const Why&... why) const {
    if (!tensor) return {};
    check_floating(name, *tensor);
    check(name, *tensor, shape, why...);
    return converted(*tensor, wide);
  }

  // Of any dtype that holds 0 and 1 (mask.h).
  template <class Shape, class... Why>
  OptionalTensor mask(const char* name, const OptionalTensor& tensor, const Shape& shape, const Why&... why) const {
    if (!tensor) return {};
    check_real(name, *tensor);
    check(name, *tensor, shape, why...);
    return tensor;
  }

  // Of any integer dtype. What they hold is not looked at: kernels must.
  template <class Shape, class... Why>
  OptionalTensor indices(const char* name, const OptionalTensor& tensor, const Shape& shape, const Why&... why) const {
    if (!tensor) return {};
    check_real(name, *tensor);
    if (is_floating(tensor->scalar_type()) || tensor->scalar_type() == ScalarType::Bool)
      fail("`", name, "` must be an integer tensor, such as int64");
    check(name, *tensor, shape, why...);
    return tensor;
  }

  // What keys random numbers.
  const int64_t* seed(const char* name, const Tensor& tensor) const {
    check_real(name, tensor);
    check_device(name, tensor, name_, first_);
    if (tensor.scalar_type() != ScalarType::Long || tensor.numel() != 1)
      fail("`", name, "` must be an int64 tensor of one element");
    return static_cast<const int64_t*>(tensor.const_data_ptr());
  }

  // A number that kernels read when they run, so that a replay of a CUDA graph sees what it is by then.
  template <class... Why>
  const double* number(const char* name, const Tensor& tensor, const Why&... why) {
    check_floating(name, tensor);
    check(name, tensor, std::vector<int64_t>{}, why...);
    return static_cast<const double*>(keep(converted(tensor, ScalarType::Double)).const_data_ptr());
  }

  // ---- as kernels see it: copied where strides want it, and kept alive

  const Tensor& keep(const Tensor& tensor) { return kept_.emplace_back(tensor); }

  // The leading axes from `merged` on as one (view_of).
  template <int kAxes>
  View<kAxes> view(const OptionalTensor& tensor, size_t merged = 0) {
    View<kAxes> result;
    if (tensor && !view_of(keep(*tensor), merged, result))
      view_of(keep(torch::stable::contiguous(*tensor)), merged, result);
    return result;
  }

  // With the elements of the last axis side by side, too.
  template <int kAxes>
  View<kAxes> dense_view(const OptionalTensor& tensor, size_t merged = 0) {
    const size_t last = tensor->sizes().size() - 1;
    const bool dense = tensor->sizes()[last] <= 1 || tensor->strides()[last] == 1;
    return view<kAxes>(dense ? tensor : OptionalTensor(torch::stable::contiguous(*tensor)), merged);
  }

  // The axes first .. leading - 1 as rows.
  RowView rows(const OptionalTensor& tensor, size_t leading, size_t first = 0) {
    RowView result;
    if (tensor && !view_of(keep(*tensor), first, leading, result))
      view_of(keep(torch::stable::contiguous(*tensor)), first, leading, result);
    return result;
  }

  const void* contiguous(const OptionalTensor& tensor) {
    if (!tensor) return nullptr;
    return data_of(keep(torch::stable::contiguous(*tensor)));
  }

  const int64_t* contiguous_integers(const OptionalTensor& tensor) {
    return static_cast<const int64_t*>(contiguous(tensor ? converted(*tensor, ScalarType::Long) : tensor));
  }

  // ---- results

  // A fresh one, and where it is written; without elements, and null, where it is not wanted.
  Tensor fresh(const std::vector<int64_t>& shape, ScalarType of_type, void*& data, bool wanted = true) const {
    const Tensor tensor = empty(wanted ? shape : std::vector<int64_t>{0}, of_type, first_);
    data = !wanted ? nullptr : tensor.numel() > 0 ? tensor.mutable_data_ptr() : nothing;
    return tensor;
  }

 private:
  template <class Shape, class... Why>
  void check(const char* name, const Tensor& tensor, const Shape& shape, const Why&... why) const {
    check_shape(name, tensor, shape, why...);
    check_device(name, tensor, name_, first_);
  }

  static Tensor converted(const Tensor& tensor, ScalarType type) {
    return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
  }

  const char* name_;
  const Tensor& first_;
  std::vector<Tensor> kept_;  // the data that is read
};

}  // namespace emix
