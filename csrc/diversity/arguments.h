// From tensors to a Problem, with the checks that both devices share.
#pragma once
#include "checks.h"
#include "diversity/diversity.h"
#include "rows.h"

namespace emix::diversity {

struct Arguments {
  Rows q, avail, grad;  // keep the data alive
  Problem problem;
  ScalarType type = ScalarType::Undefined;    // of q
  ScalarType output = ScalarType::Undefined;  // float64 for float64, else float32
  std::vector<int64_t> shape;                 // of the distances, [...]
};

inline Strided strided(const Rows& rows) {
  return {rows.data, rows.row_stride, rows.stride.empty() ? 0 : rows.stride[0],
          static_cast<int>(rows.tensor.element_size())};
}

inline Arguments arguments(const Tensor& q, const OptionalTensor& avail) {
  check_floating("q", q);
  const auto sizes = q.sizes();
  const size_t dims = sizes.size();
  if (dims < 2 || sizes[0] < 1 || sizes[0] > kMaxMembers || sizes[dims - 1] < 1 || sizes[dims - 1] > kMaxActions)
    fail("`q` must have shape [N, ..., A] with 1 to ", kMaxMembers, " members N and 1 to ", kMaxActions,
         " actions A, got ", shape_text(sizes.data(), static_cast<int64_t>(dims)));
  Arguments result;
  result.type = q.scalar_type();
  result.output = result.type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  result.shape.assign(sizes.begin() + 1, sizes.end());
  if (avail) {
    check_real("avail", *avail);
    check_shape("avail", *avail, result.shape, " like a member of `q`");
    check_device("avail", *avail, "q", q);
    result.avail = rows_of(*avail, 1);
    result.problem.avail = strided(result.avail);
  }
  result.shape.pop_back();
  result.q = rows_of(q, 1, true);
  Problem& p = result.problem;
  p.q = strided(result.q), p.member_stride = result.q.member_stride, p.rows = result.q.rows;
  p.members = static_cast<int>(sizes[0]), p.actions = static_cast<int>(sizes[dims - 1]);
  return result;
}

inline Arguments arguments(const Tensor& grad, const Tensor& q, const OptionalTensor& avail, bool detach_mean) {
  Arguments result = arguments(q, avail);
  check_shape("grad", grad, result.shape);
  check_device("grad", grad, "q", q);
  if (grad.scalar_type() != result.output) fail("`grad` must have the dtype of the result");
  result.grad = rows_of(grad, 0);
  result.problem.grad = strided(result.grad), result.problem.detach_mean = detach_mean;
  return result;
}

}  // namespace emix::diversity
