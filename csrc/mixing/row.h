// What the mixers' loops on the CPU read and write of a row.
#pragma once
#include "mixing/mixing.h"

namespace emix::mixing {

template <class T, class F>
EMIX_HD F bias_at(const RowView& bias, int64_t row) {
  return bias.given() ? static_cast<F>(*bias.row<T>(row)) : F(0);
}

template <class F>
EMIX_HD F grad_at(const RowView& grad, int64_t row) {
  return grad.given() ? *grad.row<F>(row) : F(1);
}

// Row `row` of a contiguous output; nullptr where it is not wanted.
template <class T>
EMIX_HD T* output_row(void* data, int64_t row, int64_t elements) {
  return data ? static_cast<T*>(data) + row * elements : nullptr;
}

}  // namespace emix::mixing
