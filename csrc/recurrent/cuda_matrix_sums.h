// On matrix units, the weights' gradients: the sums of cuda_sums.h. What a layer read and what came back are rounded;
// the gradients of biases, which are no products, are added up as they are.
#pragma once
#include "recurrent/cuda_matrix_layers.h"
#include "recurrent/cuda_sums.h"

namespace emix::recurrent {

static_assert(kTile == kSquare);

template <class Type>
inline constexpr int kMatrixSumBytes =
    MatrixStage<Type>::kBytes + MatrixStage<Type>::kDepth * sizeof(Source<float>) + kThreads * sizeof(float);

template <class Type>
__global__ void __launch_bounds__(kThreads)
    matrix_sum_slices(const __grid_constant__ Sequence p, const __grid_constant__ Gradients g,
                      const __grid_constant__ Work<float> work, const __grid_constant__ Jobs jobs, float* partial) {
  using Stage = MatrixStage<Type>;
  const Stage stage(0);
  const Shared<Source<float>> sources(Stage::kBytes, Stage::kDepth);
  const Shared<float> biases(Stage::kBytes + Stage::kDepth * sizeof(Source<float>), kThreads);
  const Part part(jobs, p.time * p.rows());
  const Job& job = part.job;
  const Terms<float> terms{p, g, work, job};
  typename Stage::Sums sum = {};
  float bias = 0;  // of column threadIdx.x % kSquare
  for (int64_t from = part.begin; from < part.end; from += Stage::kDepth) {
    const int64_t k = from + threadIdx.x;
    if (threadIdx.x < Stage::kDepth) sources[threadIdx.x] = k < part.end ? terms.source(k) : Source<float>();
    block_barrier();
    stage.template fill<false>(Stage::kLeft, Stage::kDepth,
                               [&](int d, int m) { return terms.left(sources[d], part.first_m + m); });
    stage.template fill<false>(Stage::kRight, Stage::kDepth, [&](int d, int n) {
      const float grad = terms.grad(sources[d], part.first_n + n);
      bias += grad;
      return grad;
    });
    block_barrier();
    stage.multiply(sum);
  }
  biases[threadIdx.x] = bias;
  block_barrier();
  float* out = partial + part.slice * jobs.elements + job.offset;
  stage.each(sum, [&](int row, int column, float total) {
    const int64_t m = part.first_m + row, n = part.first_n + column;
    if (m < job.width && n < job.columns) out[m * job.columns + n] = total;
  });
  const int64_t n = part.first_n + threadIdx.x;
  if (part.first_m != 0 || threadIdx.x >= kSquare || n >= job.columns) return;
  float total = 0;
  for (int k = threadIdx.x; k < kThreads; k += kSquare) total += biases[k];
  out[job.width * job.columns + n] = total;
}

}  // namespace emix::recurrent
