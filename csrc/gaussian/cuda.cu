// gaussian on the GPU, one launch each: a thread a row, which reads its D neighbouring numbers and sums in their order.
#include "cuda_stream.h"
#include "gaussian/ops.h"

namespace emix::gaussian {
namespace {

inline constexpr int kBlock = 128;

template <class F>
__device__ __forceinline__ F of_row(const void* data, int64_t row) {
  return data ? static_cast<const F*>(data)[row] : F(0);
}

template <class F>
__global__ void __launch_bounds__(kBlock)
    terms_of(const __grid_constant__ Problem p, const __grid_constant__ Results out) {
  for (int64_t row = thread_index(); row < p.rows; row += thread_count()) {
    const F *mean = p.mean.at<F>(row), *log_std = p.log_std.at<F>(row), *action = p.action.at<F>(row);
    F log_prob = 0, entropy = 0;
    for (int64_t d = 0; d < p.numbers; ++d) {
      const Terms<F> terms(mean[d], log_std[d], action[d]);
      log_prob += terms.log_prob, entropy += terms.entropy;
    }
    static_cast<F*>(out.log_prob)[row] = log_prob, static_cast<F*>(out.entropy)[row] = entropy;
  }
}

template <class F>
__global__ void __launch_bounds__(kBlock)
    terms_gradient(const __grid_constant__ Problem p, const __grid_constant__ Results out) {
  for (int64_t row = thread_index(); row < p.rows; row += thread_count()) {
    const F *mean = p.mean.at<F>(row), *log_std = p.log_std.at<F>(row), *action = p.action.at<F>(row);
    const F log_prob_grad = of_row<F>(p.log_prob_grad, row), entropy_grad = of_row<F>(p.entropy_grad, row);
    for (int64_t d = 0; d < p.numbers; ++d) {
      const TermsGradient<F> grad(mean[d], log_std[d], action[d], log_prob_grad, entropy_grad);
      static_cast<F*>(out.mean_grad)[row * p.numbers + d] = grad.mean;
      static_cast<F*>(out.log_std_grad)[row * p.numbers + d] = grad.log_std;
    }
  }
}

template <class F>
__global__ void __launch_bounds__(kBlock) draw(const __grid_constant__ Problem p, const __grid_constant__ Results out) {
  const int64_t seed = *p.seed;
  for (int64_t row = thread_index(); row < p.rows; row += thread_count()) {
    const F *mean = p.mean.at<F>(row), *log_std = p.log_std.at<F>(row);
    F log_prob = 0;
    for (int block = 0; block * kWords < p.numbers; ++block) {
      float e[kWords];
      normal_numbers(seed, row, block, e);
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        const int64_t d = int64_t(block) * kWords + w;
        if (d >= p.numbers) break;
        const Sample<F> sample(mean[d], log_std[d], static_cast<F>(e[w]), p.squash);
        static_cast<F*>(out.action)[row * p.numbers + d] = sample.action;
        log_prob += sample.log_prob;
      }
    }
    static_cast<F*>(out.log_prob)[row] = log_prob;
  }
}

template <class F>
__global__ void __launch_bounds__(kBlock)
    draw_gradient(const __grid_constant__ Problem p, const __grid_constant__ Results out) {
  const int64_t seed = *p.seed;
  for (int64_t row = thread_index(); row < p.rows; row += thread_count()) {
    const F *mean = p.mean.at<F>(row), *log_std = p.log_std.at<F>(row);
    const F log_prob_grad = of_row<F>(p.log_prob_grad, row);
    for (int block = 0; block * kWords < p.numbers; ++block) {
      float e[kWords];
      normal_numbers(seed, row, block, e);
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        const int64_t d = int64_t(block) * kWords + w, at = row * p.numbers + d;
        if (d >= p.numbers) break;
        const F action_grad = of_row<F>(p.action_grad, at);
        const SampleGradient<F> grad(mean[d], log_std[d], static_cast<F>(e[w]), p.squash, action_grad, log_prob_grad);
        static_cast<F*>(out.mean_grad)[at] = grad.mean;
        static_cast<F*>(out.log_std_grad)[at] = grad.log_std;
      }
    }
  }
}

struct Cuda {
  const CurrentStream current;

  explicit Cuda(const Tensor& like) : current(like) {}

  template <class F>
  void terms(F, const Problem& p, const Results& out) const {
    run("gaussian_terms", terms_of<F>, p, out);
  }
  template <class F>
  void terms_backward(F, const Problem& p, const Results& out) const {
    run("gaussian_terms_backward", terms_gradient<F>, p, out);
  }
  template <class F>
  void sample(F, const Problem& p, const Results& out) const {
    run("gaussian_sample", draw<F>, p, out);
  }
  template <class F>
  void sample_backward(F, const Problem& p, const Results& out) const {
    run("gaussian_sample_backward", draw_gradient<F>, p, out);
  }

 private:
  void run(const char* name, void (*kernel)(Problem, Results), const Problem& p, const Results& out) const {
    launch(name, kernel, blocks_for(p.rows, kBlock), kBlock, current.stream, p, out);
  }
};

}  // namespace
}  // namespace emix::gaussian

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::gaussian::register_ops<emix::gaussian::Cuda>(m); }
