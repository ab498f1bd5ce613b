// An input [leading axes..., inner axes...], or [members, leading axes..., inner axes...], as rows: what the ops that
// work on the last axes alone need to know of its strides.
#pragma once
#include "torch.h"

namespace emix {

// Row r's element (i, j) lies at data + r * row_stride + i * stride[0] + j * stride[1], in elements.
struct Rows {
  Tensor tensor;  // keeps the data alive, which may be a copy
  const void* data = nullptr;
  int64_t rows = 1;
  int64_t row_stride = 0;
  int64_t members = 1, member_stride = 0;  // of an axis before the rows
  std::vector<int64_t> inner;              // sizes of the inner axes
  std::vector<int64_t> stride;             // and their strides

  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

// The leading axes of any strides as one, without a copy where one stride can walk them all (contiguous, sliced,
// expanded whole), else with one.
inline Rows rows_of(const Tensor& input, size_t inner_axes, bool member_axis = false) {
  Rows result;
  result.tensor = input;
  const auto sizes = input.sizes();
  const size_t first = member_axis ? 1 : 0, leading = sizes.size() - inner_axes;
  const auto walk = [&](const Tensor& tensor) {  // false where the leading axes do not collapse
    const auto strides = tensor.strides();
    result.row_stride = 0;
    int64_t expected = 0;
    for (size_t axis = leading; axis-- > first;) {
      if (sizes[axis] == 1) continue;
      if (expected == 0) result.row_stride = strides[axis];
      if (expected != 0 && strides[axis] != expected) return false;
      expected = strides[axis] * sizes[axis];
      if (expected == 0 && strides[axis] == 0) {  // an expanded axis: all further ones must be, too
        for (size_t further = axis; further-- > first;)
          if (sizes[further] != 1 && strides[further] != 0) return false;
        break;
      }
    }
    return true;
  };
  if (input.numel() > 0 && !walk(input)) {
    result.tensor = torch::stable::contiguous(input);
    walk(result.tensor);
  }
  for (size_t axis = first; axis < leading; ++axis) result.rows *= sizes[axis];
  const auto strides = result.tensor.strides();
  if (member_axis) result.members = sizes[0], result.member_stride = strides[0];
  for (size_t axis = leading; axis < sizes.size(); ++axis) {
    result.inner.push_back(sizes[axis]);
    result.stride.push_back(strides[axis]);
  }
  result.data = result.tensor.const_data_ptr();
  return result;
}

}  // namespace emix
