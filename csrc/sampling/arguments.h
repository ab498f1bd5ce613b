// From tensors to a Problem, with the checks that both devices share.
#pragma once
#include "checks.h"
#include "policy/floor.h"
#include "rows.h"
#include "sampling/sampling.h"
#include "torch.h"

namespace emix::sampling {

struct Arguments {
  Problem problem;
  ScalarType type = ScalarType::Undefined;  // of the logits
  std::vector<int64_t> shape;               // of the result
  Rows logits, avail;                       // keep the inputs alive
  OptionalTensor floor;
};

inline Strided view_of(const Rows& rows) {
  return {rows.data, rows.row_stride, rows.stride[0], static_cast<int>(rows.tensor.element_size())};
}

// samples 0: one draw a row, as int64, else so many, as bytes.
inline Arguments arguments(const Tensor& logits, const OptionalTensor& avail, const Tensor& seed, double floor,
                           const OptionalTensor& floor_tensor, int64_t samples) {
  if (samples < 0) fail("`samples` must be at least 1, got ", samples);
  Arguments result;
  check_floating("logits", logits);
  result.type = logits.scalar_type();
  const auto sizes = logits.sizes();
  const std::vector<int64_t> shape(sizes.begin(), sizes.end());
  if (shape.empty() || shape.back() < 1 || shape.back() > kMaxActions)
    fail("`logits` must have shape [..., A] with 1 to ", kMaxActions, " actions, got ",
         shape_text(shape.data(), shape.size()));
  if (shape.size() > kMaxDims - 1) fail("`logits` may have ", kMaxDims - 1, " axes at most, got ", shape.size());

  Problem& problem = result.problem;
  result.logits = rows_of(logits, 1);
  problem.logits = view_of(result.logits);
  problem.rows = result.logits.rows;
  problem.actions = static_cast<int>(shape.back());
  problem.draws = samples > 0 ? samples : 1;
  problem.floor = policy::floor_source(floor, floor_tensor, problem.actions, logits, result.floor);
  if (avail) {
    check_real("avail", *avail);
    check_shape("avail", *avail, shape, " like `logits`");
    check_device("avail", *avail, "logits", logits);
    result.avail = rows_of(*avail, 1);
    problem.avail = view_of(result.avail);
    if (!problem.avail.data) problem.avail.data = &problem;  // empty, but there
  }
  check_real("seed", seed);
  check_device("seed", seed, "logits", logits);
  if (seed.scalar_type() != ScalarType::Long || seed.numel() != 1)
    fail("`seed` must be an int64 tensor of one element");
  problem.seed = static_cast<const int64_t*>(seed.const_data_ptr());

  if (samples > 0) result.shape.push_back(samples);
  result.shape.insert(result.shape.end(), shape.begin(), shape.end() - 1);
  return result;
}

inline Tensor empty_result(const Arguments& arguments, int64_t samples, const Tensor& like) {
  return empty(arguments.shape, samples > 0 ? ScalarType::Byte : ScalarType::Long, like);
}

}  // namespace emix::sampling
