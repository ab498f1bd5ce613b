// returns on the GPU, one launch each. A warp scans a row: all loads of up to 8 x 32 steps are issued before the first
// shuffle waits for one. Where there are many rows whose steps lie apart (time-major or agent-innermost storage), a
// thread walks a row and neighbours share cache lines.
#include "cuda_stream.h"
#include "returns/arguments.h"

namespace emix::returns {
namespace {

inline constexpr int kBlock = 128;
// Blocks on a multiprocessor at once: caps the registers, so that 16 warps keep enough loads in flight.
inline constexpr int kBlocks = 4;
inline constexpr int64_t kManyRows = 16384;  // enough threads to fill the device with one a row

// Lane i gets the composition of the maps of lanes i .. 31.
template <class F>
__device__ __forceinline__ Affine<F> scan_to_the_end(Affine<F> map, int lane) {
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const Affine<F> later{shuffle_down(map.offset, distance), shuffle_down(map.gain, distance)};
    if (lane + distance < kWarp) map = compose(map, later);
  }
  return map;
}

// Lane i gets the composition of the maps of lanes i .. 0, for a recursion that runs forward in time.
template <class F>
__device__ __forceinline__ Affine<F> scan_from_the_start(Affine<F> map, int lane) {
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const Affine<F> earlier{shuffle_up(map.offset, distance), shuffle_up(map.gain, distance)};
    if (lane >= distance) map = compose(map, earlier);
  }
  return map;
}

template <class T, int kChunks>
__global__ void __launch_bounds__(kBlock, kBlocks)
    forward_scan(const __grid_constant__ Problem p, const __grid_constant__ View out) {
  using F = Wide<T>;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const F gamma = static_cast<F>(p.gamma), lam = static_cast<F>(p.lam);
  for (int64_t i = thread_index() / kWarp; i < p.rows; i += thread_count() / kWarp) {
    const Row<T, F> row(p, i);
    const int64_t start = row_offset(p, out, i);
    F carry = 0;
    for (int64_t last = p.steps; last > 0; last -= kChunks * kWarp) {
      Affine<F> map[kChunks];
      F q[kChunks];
      bool valid[kChunks];
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int64_t t = last - (kChunks - c) * kWarp + lane;
        map[c] = {F(0), F(0)};
        valid[c] = false;
        if (t >= 0) {
          const Step<F> step = row[t];
          map[c] = affine(step, gamma, lam, p.clip);
          q[c] = p.advantage ? F(0) : step.q;
          valid[c] = step.valid;
        }
      }
#pragma unroll
      for (int c = 0; c < kChunks; ++c) map[c] = scan_to_the_end(map[c], lane);
#pragma unroll
      for (int c = kChunks - 1; c >= 0; --c) {
        const int64_t t = last - (kChunks - c) * kWarp + lane;
        const F x = apply(map[c], carry);
        if (t >= 0) element<F>(out, start + t * out.time) = valid[c] ? q[c] + x : F(0);
        carry = shuffle(x, 0);
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks)
    forward_walk(const __grid_constant__ Problem p, const __grid_constant__ View out) {
  using F = Wide<T>;
  const F gamma = static_cast<F>(p.gamma), lam = static_cast<F>(p.lam);
  for (int64_t i = thread_index(); i < p.rows; i += thread_count()) {
    const Row<T, F> row(p, i);
    const int64_t start = row_offset(p, out, i);
    F x = 0;
#pragma unroll 4
    for (int64_t t = p.steps - 1; t >= 0; --t) {
      const Step<F> step = row[t];
      x = apply(affine(step, gamma, lam, p.clip), x);
      element<F>(out, start + t * out.time) = result(step, x, p.advantage);
    }
  }
}

// A limited horizon: every step on its own.
template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks)
    forward_window(const __grid_constant__ Problem p, const __grid_constant__ View out) {
  using F = Wide<T>;
  const F gamma = static_cast<F>(p.gamma), lam = static_cast<F>(p.lam);
  for (int64_t i = thread_index(); i < p.rows * p.steps; i += thread_count()) {
    const int64_t t = i % p.steps;
    const Row<T, F> row(p, i / p.steps);
    const auto map_at = [&](int64_t s) { return affine(row[s], gamma, lam, p.clip); };
    element<F>(out, row_offset(p, out, i / p.steps) + t * out.time) =
        result(row[t], window<F>(map_at, t, p.steps, p.horizon), p.advantage);
  }
}

template <class T, class F>
struct Backward {
  const Row<T, F>& row;
  const Problem& p;
  const GradientViews& views;
  F gamma, lam;
  int64_t grad, reward, q, v, trace;  // offsets of step 0

  __device__ Backward(const Row<T, F>& row_, const Problem& p_, const GradientViews& views_, int64_t i)
      : row(row_),
        p(p_),
        views(views_),
        gamma(static_cast<F>(p_.gamma)),
        lam(static_cast<F>(p_.lam)),
        grad(row_offset(p_, views_.grad, i)),
        reward(row_offset(p_, views_.reward, i)),
        q(row_offset(p_, views_.q, i)),
        v(row_offset(p_, views_.v, i)),
        trace(row_offset(p_, views_.trace, i)) {}

  __device__ Affine<F> map(int64_t t) const { return affine(row[t], gamma, lam, p.clip); }
  __device__ F upstream(int64_t t) const {
    return row[t].valid ? element<F>(views.grad, grad + t * views.grad.time) : F(0);
  }

  __device__ void write(int64_t t, F x_grad, F trace_grad) const {
    const StepGradient<F> g = gradient(row[t], upstream(t), x_grad, trace_grad, gamma, lam, p.clip, p.advantage);
    element<F>(views.reward, reward + t * views.reward.time) = g.reward;
    element<F>(views.q, q + t * views.q.time) = g.q;
    element<F>(views.v, v + (t + 1) * views.v.time) = g.v_next;
    element<F>(views.trace, trace + (t + 1) * views.trace.time) = g.trace_next;
  }

  __device__ void write_ends() const {  // entries that no step reads
    element<F>(views.v, v) = element<F>(views.trace, trace) = 0;
    element<F>(views.q, q + p.steps * views.q.time) = 0;
  }
};

// Two scans: X from the end, kept where trace's gradient will be, then dL/dX from the start.
template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks)
    backward_scan(const __grid_constant__ Problem p, const __grid_constant__ GradientViews views) {
  using F = Wide<T>;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (int64_t i = thread_index() / kWarp; i < p.rows; i += thread_count() / kWarp) {
    const Row<T, F> row(p, i);
    const Backward<T, F> backward(row, p, views, i);
    F carry = 0;
    for (int64_t last = p.steps; last > 0; last -= kWarp) {
      const int64_t t = last - kWarp + lane;
      const F x = apply(scan_to_the_end(t >= 0 ? backward.map(t) : Affine<F>{F(0), F(0)}, lane), carry);
      if (t >= 0) element<F>(views.trace, backward.trace + t * views.trace.time) = x;
      carry = shuffle(x, 0);
    }
    warp_barrier();  // the X of step t + 1 was written by another lane
    carry = 0;
    for (int64_t first = 0; first < p.steps; first += kWarp) {
      const int64_t t = first + lane;
      const bool there = t < p.steps;
      const Affine<F> own{there ? backward.upstream(t) : F(0), there && t > 0 ? backward.map(t - 1).gain : F(0)};
      const F x_grad = apply(scan_from_the_start(own, lane), carry);
      const F x_next = t + 1 < p.steps ? element<F>(views.trace, backward.trace + (t + 1) * views.trace.time) : F(0);
      if (there) backward.write(t, x_grad, x_grad * x_next);
      carry = shuffle(x_grad, kWarp - 1);
    }
    warp_barrier();
    if (lane == 0) backward.write_ends();
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks)
    backward_window(const __grid_constant__ Problem p, const __grid_constant__ GradientViews views) {
  using F = Wide<T>;
  for (int64_t i = thread_index(); i < p.rows * p.steps; i += thread_count()) {
    const int64_t t = i % p.steps;
    const Row<T, F> row(p, i / p.steps);
    const Backward<T, F> backward(row, p, views, i / p.steps);
    const auto map_at = [&](int64_t s) { return backward.map(s); };
    const auto grad_at = [&](int64_t s) { return backward.upstream(s); };
    const WindowGradient<F> g = window_gradient<F>(map_at, grad_at, t, p.steps, p.horizon);
    backward.write(t, g.delta, g.gain);
    if (t == 0) backward.write_ends();
  }
}

// A few rows are spread over as many multiprocessors as there are warps.
int scan_block(const Problem& p) { return p.rows < 1024 ? kWarp : kBlock; }

template <class T>
void launch_forward(const Problem& p, const View& out, cudaStream_t stream) {
  if (p.horizon > 0)
    return launch("forward_window", forward_window<T>, blocks_for(p.rows * p.steps, kBlock), kBlock, stream, p, out);
  if (p.rows >= kManyRows && p.q.time != 1)
    return launch("forward_walk", forward_walk<T>, blocks_for(p.rows, kBlock), kBlock, stream, p, out);
  const int block = scan_block(p);
  const unsigned grid = blocks_for(p.rows * kWarp, block);
  if (p.steps <= 1 * kWarp) return launch("forward_scan", forward_scan<T, 1>, grid, block, stream, p, out);
  if (p.steps <= 2 * kWarp) return launch("forward_scan", forward_scan<T, 2>, grid, block, stream, p, out);
  if (p.steps <= 4 * kWarp) return launch("forward_scan", forward_scan<T, 4>, grid, block, stream, p, out);
  launch("forward_scan", forward_scan<T, 8>, grid, block, stream, p, out);
}

template <class T>
void launch_backward(const Problem& p, const GradientViews& views, cudaStream_t stream) {
  if (p.horizon > 0)
    return launch("backward_window", backward_window<T>, blocks_for(p.rows * p.steps, kBlock), kBlock, stream, p,
                  views);
  const int block = scan_block(p);
  launch("backward_scan", backward_scan<T>, blocks_for(p.rows * kWarp, block), block, stream, p, views);
}

Tensor trace_returns(const Tensor& reward, const Tensor& terminated, const Tensor& q, const Tensor& v, double gamma,
                     double lam, const OptionalTensor& trace, const OptionalTensor& truncated,
                     const OptionalTensor& valid, int64_t horizon, bool clip, bool advantage) {
  const CurrentStream current(reward);
  const Arguments a =
      arguments(reward, terminated, q, v, gamma, lam, trace, truncated, valid, horizon, clip, advantage);
  Tensor output = empty(a.shape, a.output, reward);
  const View out = output_view(output, a.problem);
  if (a.problem.rows > 0 && a.problem.steps > 0)
    dispatch_floating(a.input, [&](auto type) { launch_forward<decltype(type)>(a.problem, out, current.stream); });
  return output;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> trace_returns_backward(
    const Tensor& grad, const Tensor& reward, const Tensor& terminated, const Tensor& q, const Tensor& v, double gamma,
    double lam, const OptionalTensor& trace, const OptionalTensor& truncated, const OptionalTensor& valid,
    int64_t horizon, bool clip, bool advantage) {
  const CurrentStream current(reward);
  const Arguments a =
      arguments(reward, terminated, q, v, gamma, lam, trace, truncated, valid, horizon, clip, advantage);
  const Gradients gradients = empty_gradients(a, reward);
  const GradientViews views = gradient_views(a, grad, gradients);
  if (a.problem.rows > 0)
    dispatch_floating(a.input, [&](auto type) { launch_backward<decltype(type)>(a.problem, views, current.stream); });
  return gradients.tuple();
}

}  // namespace
}  // namespace emix::returns

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) {
  m.impl("trace_returns", TORCH_BOX(&emix::returns::trace_returns));
  m.impl("trace_returns_backward", TORCH_BOX(&emix::returns::trace_returns_backward));
}
