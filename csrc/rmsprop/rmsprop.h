// RMSprop's step after the gradients of all parameters were scaled down to a norm of max_norm together:
//
//   g' = g min(1, max_norm / (|g| + 1e-6)),  s = alpha s + (1 - alpha) g'^2,  p = p - lr g' / (sqrt(s) + eps)
//
// Gradients that are too long are scaled in place, as torch does.
#pragma once
#include <cmath>

#include "device.h"

namespace emix::rmsprop {

// A part of one parameter, and of what belongs to it.
struct Chunk {
  void *parameter, *grad, *square_avg;
  int64_t size;
};

struct Rates {
  double lr, alpha, eps;
  double scale = 1;  // of the gradients
};

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

}  // namespace emix::rmsprop
