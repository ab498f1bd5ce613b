// How kernels see a tensor: where its elements lie. No torch here; call_arguments.h makes views of a call's inputs.
#pragma once
#include <cstdint>

#include "device.h"
#include "divider.h"

namespace emix {

// Element (i, j, ...) lies at data + i stride[0] + j stride[1] + ..., in elements; strides may be 0 (broadcast) or
// negative. An input that was not given has no data; an empty one has, though nothing of it is read.
template <int kAxes>
struct View {
  const void* data = nullptr;
  int64_t size[kAxes] = {}, stride[kAxes] = {};
  int itemsize = 0;  // bytes of an element

  EMIX_HD bool given() const { return data != nullptr; }

  template <class T>
  EMIX_HD const T* as() const {
    return static_cast<const T*>(data);
  }

  // The element with these indices on the first axes, and 0 on the others.
  template <class T, class... Index>
  EMIX_HD const T* at(Index... index) const {
    int64_t offset = 0;
    int axis = 0;
    ((offset += index * stride[axis++]), ...);
    return as<T>() + offset;
  }
};

// Rows whose elements lie side by side. Their leading axes need two strides where time was sliced, as in [B, T + 1,
// ...][:, :-1]: [groups, rows of a group].
struct RowView : View<2> {
  Divider<int64_t> group;     // rows of a group
  int64_t member_stride = 0;  // of an axis before the rows, an ensemble's members; the view is of the first one

  EMIX_HD int64_t offset(int64_t r) const {
    if (size[0] == 1) return r * stride[1];
    const int64_t in_group = group.divide(r);
    return r * stride[0] + in_group * stride[1];
  }

  template <class T>
  EMIX_HD const T* row(int64_t r) const {
    return as<T>() + offset(r);
  }
};

// An element of a tensor of any integer dtype. uint64's largest become negative: no index is among them.
EMIX_HD int64_t integer_at(const void* data, int itemsize, int64_t offset) {
  switch (itemsize) {
    case 1:  // int8's negative numbers are as far out of range as uint8's large ones
      return static_cast<const uint8_t*>(data)[offset];
    case 2:
      return static_cast<const int16_t*>(data)[offset];
    case 4:
      return static_cast<const int32_t*>(data)[offset];
    default:
      return static_cast<const int64_t*>(data)[offset];
  }
}

}  // namespace emix
