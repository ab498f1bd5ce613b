// RMSprop's step with the gradients scaled down to a norm before it, on the CPU; on a GPU torch's own is one launch for
// all tensors. torch's optimiser passes over memory some ten times: here the gradients are read twice, for their norm
// and for the step, and everything else once. Gradients that are too long are scaled in place, as torch does.
//
//   g' = g min(1, max_norm / (|g| + 1e-6)),  s = alpha s + (1 - alpha) g'^2,  p = p - lr g' / (sqrt(s) + eps)
#include <cmath>

#include "checks.h"
#include "device.h"
#include "instruction_sets.h"

namespace emix::rmsprop {
namespace {

inline constexpr int64_t kChunk = 1 << 14;  // elements that a task takes
inline constexpr int64_t kLanes = 16;       // sums in flight

// A part of one tensor and of what belongs to it.
struct Chunk {
  void *parameter, *grad, *square_avg;
  int64_t size;
};

struct Rates {
  double lr, alpha, eps, scale;
};

template <class F>
EMIX_HD double sum_of_squares(const F* __restrict x, int64_t size) {
  F sums[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= size; k += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[k + lane] * x[k + lane];
  double total = 0;
  for (; k < size; ++k) total += static_cast<double>(x[k]) * x[k];
  for (const F sum : sums) total += sum;
  return total;
}

template <bool kScaled, class F>
EMIX_HD void update(F* __restrict parameter, F* __restrict grad, F* __restrict square_avg, int64_t size,
                    const Rates& rates) {
  const F lr = static_cast<F>(rates.lr), alpha = static_cast<F>(rates.alpha), eps = static_cast<F>(rates.eps);
  const F rest = static_cast<F>(1 - rates.alpha), scale = static_cast<F>(rates.scale);
  for (int64_t k = 0; k < size; ++k) {
    const F g = kScaled ? grad[k] *= scale : grad[k];
    square_avg[k] = alpha * square_avg[k] + rest * g * g;
    parameter[k] -= lr * g / (std::sqrt(square_avg[k]) + eps);
  }
}

#define EMIX_RMSPROP_CLONE(SETS, F)                                                                        \
  SETS double squares(F, const Chunk& c) { return sum_of_squares(static_cast<const F*>(c.grad), c.size); } \
  SETS void step(F, const Chunk& c, const Rates& rates) {                                                  \
    F *parameter = static_cast<F*>(c.parameter), *grad = static_cast<F*>(c.grad);                          \
    F* square_avg = static_cast<F*>(c.square_avg);                                                         \
    if (rates.scale == 1)                                                                                  \
      update<false>(parameter, grad, square_avg, c.size, rates);                                           \
    else                                                                                                   \
      update<true>(parameter, grad, square_avg, c.size, rates);                                            \
  }
EMIX_RMSPROP_CLONE(EMIX_INSTRUCTION_SETS, float)
EMIX_RMSPROP_CLONE(EMIX_BASELINE, double)

using Tensors = std::vector<Tensor>;

void check(const char* name, const Tensors& tensors, const Tensors& parameters) {
  if (tensors.size() != parameters.size())
    fail("`", name, "` must have as many tensors as `parameters` (", parameters.size(), "), got ", tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    check_shape(name, tensors[i], parameters[i].sizes(), " like its parameter");
    if (tensors[i].scalar_type() != parameters[i].scalar_type()) fail("`", name, "` must have its parameter's dtype");
    if (!tensors[i].is_contiguous()) fail("`", name, "` must be contiguous");
  }
}

ScalarType checked_type(const Tensors& parameters, const Tensors& grads, const Tensors& square_avgs) {
  const ScalarType type = parameters.empty() ? ScalarType::Float : parameters[0].scalar_type();
  for (const Tensor& each : parameters)
    if (each.scalar_type() != type || (type != ScalarType::Float && type != ScalarType::Double))
      fail("`parameters` must be float32, or all float64");
  check("parameters", parameters, parameters), check("grads", grads, parameters);
  check("square_avgs", square_avgs, parameters);
  return type;
}

std::vector<Chunk> chunks_of(const Tensors& parameters, const Tensors& grads, const Tensors& square_avgs,
                             int64_t element) {
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const int64_t size = parameters[i].numel();
    for (int64_t at = 0; at < size; at += kChunk)
      chunks.push_back({static_cast<char*>(parameters[i].mutable_data_ptr()) + at * element,
                        static_cast<char*>(grads[i].mutable_data_ptr()) + at * element,
                        static_cast<char*>(square_avgs[i].mutable_data_ptr()) + at * element,
                        std::min(kChunk, size - at)});
  }
  return chunks;
}

template <class F>
double clipped_step(const std::vector<Chunk>& chunks, Rates rates, double max_norm) {
  const int64_t count = static_cast<int64_t>(chunks.size());
  std::vector<double> sums(chunks.size());
  run_rows(count, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sums[i] = squares(F(), chunks[i]);
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  const double norm = std::sqrt(total);
  rates.scale = norm + 1e-6 > max_norm ? max_norm / (norm + 1e-6) : 1;  // a NaN changes nothing here, and goes on
  run_rows(count, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) step(F(), chunks[i], rates);
  });
  return norm;
}

Tensor rmsprop_step(const Tensors& parameters, const Tensors& grads, const Tensors& square_avgs, double lr,
                    double alpha, double eps, double max_norm) {
  const ScalarType type = checked_type(parameters, grads, square_avgs);
  if (parameters.empty()) fail("`parameters` must have at least one tensor");
  const bool wide = type == ScalarType::Double;
  const std::vector<Chunk> chunks = chunks_of(parameters, grads, square_avgs, wide ? sizeof(double) : sizeof(float));
  const Rates rates{lr, alpha, eps, 1};
  const double norm =
      wide ? clipped_step<double>(chunks, rates, max_norm) : clipped_step<float>(chunks, rates, max_norm);
  Tensor result = empty({}, type, parameters[0]);
  if (wide)
    *static_cast<double*>(result.mutable_data_ptr()) = norm;
  else
    *static_cast<float*>(result.mutable_data_ptr()) = static_cast<float>(norm);
  return result;
}

}  // namespace
}  // namespace emix::rmsprop

STABLE_TORCH_LIBRARY_IMPL(emix, CPU, m) { m.impl("rmsprop_step", TORCH_BOX(&emix::rmsprop::rmsprop_step)); }
