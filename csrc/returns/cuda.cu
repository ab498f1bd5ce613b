// returns on the GPU, one launch each. Forward, a lane composes the maps of four neighbouring steps, and lanes scan
// what they have: 2 to 32 lanes a row, or the warps of a block, so that all loads of a row of up to 1024 steps are
// under way at once. Where there are many rows whose steps lie apart (time-major or agent-innermost storage), a thread
// walks a row and neighbours share cache lines.
#include "cuda_stream.h"
#include "returns/cuda_steps.h"
#include "returns/ops.h"

namespace emix::returns {
namespace {

inline constexpr int kBlock = 128;
inline constexpr int kMaxBlock = 256;        // a row's threads at most
inline constexpr int64_t kManyRows = 16384;  // enough threads to fill the device with one a row
// Blocks on a multiprocessor at once: caps the registers, so that enough loads are in flight.
template <class F>
inline constexpr int kBlocks = sizeof(F) == 8 ? 3 : 5;
template <class F>
inline constexpr int kScanBlocks = sizeof(F) == 8 ? 2 : 3;  // of kMaxBlock threads

// Lane i of a group of `width` gets the composition of the maps of lanes i .. width - 1.
template <class F>
__device__ __forceinline__ Affine<F> scan_to_the_end(Affine<F> map, int lane, int width) {
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    if (distance >= width) break;
    const Affine<F> later{shuffle_down(map.offset, distance), shuffle_down(map.gain, distance)};
    append(map, later, lane + distance < width);
  }
  return map;
}

// Lane i gets the composition of the maps of lanes i .. 0, for a recursion that runs forward in time.
template <class F>
__device__ __forceinline__ Affine<F> scan_from_the_start(Affine<F> map, int lane) {
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const Affine<F> earlier{shuffle_up(map.offset, distance), shuffle_up(map.gain, distance)};
    append(map, earlier, lane >= distance);
  }
  return map;
}

// Who takes a row: `threads` of them, a power of two, each kSteps neighbouring steps at a time. More than a warp are a
// block.
struct Team {
  int threads = 1, shift = 0;  // 1 << shift
  int64_t last = 0;            // the first step of the last steps that they take together; they begin there

  explicit Team(int64_t steps) {
    while (threads < kMaxBlock && threads * kSteps < steps) threads *= 2, ++shift;
    last = (steps - 1) / (threads * kSteps) * (threads * kSteps);
  }
};

// Of the maps of a block's warps: what arrives at this one from the later ones. `carry`: what arrives at the last warp;
// becomes what leaves the first.
template <class F>
__device__ __forceinline__ F pass_on(const Affine<F>& own, int warps, F& carry) {
  const Shared<Affine<F>> maps(0, warps);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  block_barrier();  // the last maps have been read
  if (threadIdx.x % kWarp == 0) maps[warp] = own;
  block_barrier();
  F arrived = carry;
#pragma unroll 1
  for (int w = warps - 1; w >= 0; --w) {
    if (w == warp) arrived = carry;
    carry = apply(maps[w], carry);
  }
  return arrived;
}

template <class T, class StepsOf>
__global__ void __launch_bounds__(kMaxBlock, kScanBlocks<Wide<T>>)
    forward_scan(const __grid_constant__ Problem p, const __grid_constant__ Series out,
                 const __grid_constant__ Team team) {
  using F = Wide<T>;
  const int width = team.threads < kWarp ? team.threads : kWarp;
  const int lane = static_cast<int>(threadIdx.x) & (width - 1);
  const int row_of_warp = static_cast<int>(threadIdx.x % kWarp) >> team.shift;
  const F gamma = static_cast<F>(p.gamma), lam = static_cast<F>(p.lam);
  int64_t i = thread_index() >> team.shift, begin = team.last;
  F carry = 0;
  while (i - row_of_warp < p.rows) {  // a warp's rows together, for the shuffles
    const int64_t t = begin + (static_cast<int>(threadIdx.x) & (team.threads - 1)) * kSteps;
    const Row<T, F> row(p, i, out);
    const StepsOf steps(row, t, i < p.rows);
    Affine<F> map[kSteps];
#pragma unroll
    for (int c = 0; c < kSteps; ++c) map[c] = affine(steps[c], gamma, lam, p.clip);
    Affine<F> all = map[0];
#pragma unroll
    for (int c = 1; c < kSteps; ++c) append(all, map[c]);
    all = scan_to_the_end(all, lane, width);
    F warp_carry = carry;
    if (team.threads > kWarp) warp_carry = pass_on(all, team.threads / kWarp, carry);
    F x = apply(Affine<F>{shuffle_down(all.offset, 1), shuffle_down(all.gain, 1)}, warp_carry);
    if (lane == width - 1) x = warp_carry;
    F results[kSteps];
#pragma unroll
    for (int c = kSteps - 1; c >= 0; --c) {
      x = apply(map[c], x);
      results[c] = result(steps[c], x, p.advantage);
    }
    steps.store(results, out, row.out, t);
    if (team.threads <= kWarp) carry = shuffle(x, static_cast<int>(threadIdx.x % kWarp) - lane);
    begin -= team.threads * kSteps;
    if (begin < 0) begin = team.last, carry = 0, i += thread_count() >> team.shift;
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    forward_walk(const __grid_constant__ Problem p, const __grid_constant__ Series out) {
  using F = Wide<T>;
  const F gamma = static_cast<F>(p.gamma), lam = static_cast<F>(p.lam);
  for (int64_t i = thread_index(); i < p.rows; i += thread_count()) {
    const Row<T, F> row(p, i, out);
    F* const target = &element<F>(out, row.out);
    F x = 0;
    for (int64_t t = (p.steps - 1) / kSteps * kSteps; t >= 0; t -= kSteps) {
      const Steps<T, kSteps, 1> steps(row, t);
#pragma unroll
      for (int c = kSteps - 1; c >= 0; --c) {
        x = apply(affine(steps[c], gamma, lam, p.clip), x);
        if (steps.there(c)) target[(t + c) * out.stride[kTime]] = result(steps[c], x, p.advantage);
      }
    }
  }
}

// A limited horizon: every step on its own.
template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    forward_window(const __grid_constant__ Problem p, const __grid_constant__ Series out, Divider<int64_t> row_steps) {
  using F = Wide<T>;
  const F gamma = static_cast<F>(p.gamma), lam = static_cast<F>(p.lam);
  for (int64_t i = thread_index(); i < p.rows * p.steps; i += thread_count()) {
    int64_t row_index = i;
    const int64_t t = row_steps.divide(row_index);
    const Row<T, F> row(p, row_index, out);
    WindowSum<F> window;
    Step<F> own;
    for (int64_t l = 0; l < p.horizon && t + l < p.steps && window.open(); l += kSteps) {
      const Steps<T, kSteps, 1> steps(row, t + l);
      if (l == 0) own = steps[0];
#pragma unroll
      for (int c = 0; c < kSteps; ++c)
        if (l + c < p.horizon && window.open()) window.add(affine(steps[c], gamma, lam, p.clip));
    }
    element<F>(out, row.out + t * out.stride[kTime]) = result(own, window.sum, p.advantage);
  }
}

// Two scans: X from the end, kept where trace's gradient will be, then dL/dX from the start.
template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    backward_scan(const __grid_constant__ Problem p, const __grid_constant__ GradientViews views) {
  using F = Wide<T>;
  constexpr int kChunks = 2, kLength = kChunks * kWarp;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const F gamma = static_cast<F>(p.gamma), lam = static_cast<F>(p.lam);
  for (int64_t i = thread_index() / kWarp; i < p.rows; i += thread_count() / kWarp) {
    const Row<T, F> row(p, i);
    const GradientRow<F> gradients(p, views, i);
    F carry = 0;
    for (int64_t begin = (p.steps - 1) / kLength * kLength; begin >= 0; begin -= kLength) {
      const Steps<T, kChunks, kWarp> steps(row, begin + lane);
#pragma unroll
      for (int c = kChunks - 1; c >= 0; --c) {
        const F x = apply(scan_to_the_end(affine(steps[c], gamma, lam, p.clip), lane, kWarp), carry);
        if (steps.there(c)) gradients.trace_at(begin + c * kWarp + lane) = x;
        carry = shuffle(x, 0);
      }
    }
    warp_barrier();  // the X of step t + 1 was written by another lane
    carry = 0;
    F last_gain = 0;  // of the step before these
    for (int64_t begin = 0; begin < p.steps; begin += kLength) {
      const Steps<T, kChunks, kWarp> steps(row, begin + lane);
      F upstream[kChunks], x_next[kChunks];
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int64_t t = begin + c * kWarp + lane;
        upstream[c] = t < p.steps ? gradients.upstream(t) : F(0);
        x_next[c] = t + 1 < p.steps ? gradients.trace_at(t + 1) : F(0);
      }
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const Step<F> step = steps[c];
        const F gain = affine(step, gamma, lam, p.clip).gain, gain_before = shuffle_up(gain, 1);
        const Affine<F> own{step.valid ? upstream[c] : F(0), lane > 0 ? gain_before : last_gain};
        const F x_grad = apply(scan_from_the_start(own, lane), carry);
        if (steps.there(c))
          gradients.write(begin + c * kWarp + lane,
                          gradient(step, own.offset, x_grad, x_grad * x_next[c], gamma, lam, p.clip, p.advantage));
        carry = shuffle(x_grad, kWarp - 1), last_gain = shuffle(gain, kWarp - 1);
      }
    }
    if (lane == 0) gradients.write_ends();  // which no other lane reads or writes
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    backward_window(const __grid_constant__ Problem p, const __grid_constant__ GradientViews views,
                    Divider<int64_t> row_steps) {
  using F = Wide<T>;
  const F gamma = static_cast<F>(p.gamma), lam = static_cast<F>(p.lam);
  for (int64_t i = thread_index(); i < p.rows * p.steps; i += thread_count()) {
    int64_t row_index = i;
    const int64_t t = row_steps.divide(row_index);
    const Row<T, F> row(p, row_index);
    const GradientRow<F> gradients(p, views, row_index);
    const auto step_at = [&](int64_t s) { return Steps<T, 1, 1>(row, s)[0]; };
    const auto map_at = [&](int64_t s) { return affine(step_at(s), gamma, lam, p.clip); };
    const auto grad_at = [&](int64_t s) {
      const F upstream = gradients.upstream(s);
      return step_at(s).valid ? upstream : F(0);
    };
    const WindowGradient<F> g = window_gradient<F>(map_at, grad_at, t, p.steps, p.horizon);
    gradients.write(t, gradient(step_at(t), grad_at(t), g.delta, g.gain, gamma, lam, p.clip, p.advantage));
    if (t == 0) gradients.write_ends();
  }
}

// A few rows are spread over as many multiprocessors as there are warps.
int scan_block(const Problem& p) { return p.rows < 1024 ? kWarp : kBlock; }

struct Cuda {
  CurrentStream current;
  explicit Cuda(const Tensor& like) : current(like) {}

  template <class T>
  void forward(const Problem& p, const Series& out) const {
    if (p.horizon > 0)
      return run("forward_window", forward_window<T>, p.rows * p.steps, kBlock, p, out, Divider<int64_t>(p.steps));
    if (p.rows >= kManyRows && p.q.stride[kTime] != 1)
      return run("forward_walk", forward_walk<T>, p.rows, kBlock, p, out);
    if (DenseSteps<T>::fit(p, out)) return scan<T, DenseSteps<T>>(p, out);
    scan<T, Steps<T, kSteps, 1>>(p, out);
  }

  template <class T>
  void backward(const Problem& p, const GradientViews& views) const {
    if (p.horizon > 0)
      return run("backward_window", backward_window<T>, p.rows * p.steps, kBlock, p, views, Divider<int64_t>(p.steps));
    run("backward_scan", backward_scan<T>, p.rows * kWarp, scan_block(p), p, views);
  }

 private:
  template <class Kernel, class... Rest>
  void run(const char* name, Kernel* kernel, int64_t threads, int block, const Rest&... rest) const {
    launch(name, kernel, blocks_for(threads, block), block, current.stream, rest...);
  }

  template <class T, class StepsOf>
  void scan(const Problem& p, const Series& out) const {
    const Team team(p.steps);
    const int block = team.threads > kWarp ? team.threads : scan_block(p);
    const int shared = team.threads > kWarp ? team.threads / kWarp * static_cast<int>(sizeof(Affine<Wide<T>>)) : 0;
    launch_shared("forward_scan", forward_scan<T, StepsOf>, blocks_for(p.rows * team.threads, block), block, shared,
                  current.stream, p, out, team);
  }
};

}  // namespace
}  // namespace emix::returns

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::returns::register_ops<emix::returns::Cuda>(m); }
