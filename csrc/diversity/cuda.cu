// diversity on the GPU, one launch each way. A group of 8, 16 or 32 lanes takes a row, a lane up to four of its
// actions. The members are read twice, once for their mean and once, from the cache, each for itself.
#include "cuda_stream.h"
#include "diversity/arguments.h"
#include "mask.h"

namespace emix::diversity {
namespace {

inline constexpr int kBlock = 128;
// Blocks on a multiprocessor at once: caps the registers, so that enough rows are in flight.
template <class F>
inline constexpr int kBlocks = sizeof(F) == 8 ? 4 : 8;

// How many lanes take a row of A actions, and so how many actions each of them.
int group_width(int actions) { return actions <= 32 ? 8 : actions <= 64 ? 16 : 32; }

template <class F>
__device__ __forceinline__ F group_sum(F x, int width) {
  for (int distance = width / 2; distance > 0; distance /= 2) x += shuffle_xor(x, distance);
  return x;
}

template <class F>
__device__ __forceinline__ F group_max(F x, int width) {
  for (int distance = width / 2; distance > 0; distance /= 2) {
    const F other = shuffle_xor(x, distance);
    x = other > x ? other : x;
  }
  return x;
}

// Of one distribution: sqrt(softmax(q)), and the parts of LSE(q).
template <class F, int kSlots>
struct Roots {
  F root[kSlots], largest, sum;

  __device__ __forceinline__ Roots(const F (&q)[kSlots], int width) : largest(-static_cast<F>(INFINITY)), sum(0) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) largest = q[s] > largest ? q[s] : largest;
    largest = group_max(largest, width);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) root[s] = root_weight(q[s], largest), sum += root[s] * root[s];
    sum = group_sum(sum, width);
    const F scale = root_scale(sum);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) root[s] *= scale;
  }
};

// A row, seen by one lane of its group: slot s is action s * width + lane.
template <class T, int kSlots>
struct Row {
  using F = Wide<T>;
  const Problem& p;
  int64_t row;
  int width, lane;
  bool available[kSlots];
  F mean[kSlots];

  __device__ __forceinline__ Row(const Problem& p_, int64_t row_, int width_, int lane_)
      : p(p_), row(row_), width(width_), lane(lane_) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int a = s * width + lane;
      available[s] = a < p.actions &&
                     (!p.avail.data || mask_at(p.avail.data, p.avail.itemsize, row * p.avail.row + a * p.avail.action));
      mean[s] = 0;
    }
#pragma unroll 4
    for (int j = 0; j < p.members; ++j) {
      F q[kSlots];
      load(j, q);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) mean[s] += q[s];
    }
    const F each = F(1) / static_cast<F>(p.members);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) mean[s] *= each;
  }

  // Member j's logits, -inf where not available.
  __device__ __forceinline__ void load(int j, F (&q)[kSlots]) const {
    const T* data = static_cast<const T*>(p.q.data) + j * p.member_stride + row * p.q.row;
#pragma unroll
    for (int s = 0; s < kSlots; ++s)
      q[s] = available[s] ? static_cast<F>(data[(s * width + lane) * p.q.action]) : -static_cast<F>(INFINITY);
  }
};

// What a member and the mean share. `middle` = softmax((mean + q) / 2).
template <class F, int kSlots>
struct Overlap {
  F difference = 0, shared = 0, middle[kSlots];
  F middle_log_sum = 0;  // only where far
  bool far = false;

  __device__ __forceinline__ Overlap(const F (&mean)[kSlots], const Roots<F, kSlots>& mean_roots, const F (&q)[kSlots],
                                     const Roots<F, kSlots>& roots, int width) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const F d = mean_roots.root[s] - roots.root[s];
      difference += F(0.5) * d * d;
      middle[s] = mean_roots.root[s] * roots.root[s];
      shared += middle[s];
    }
    difference = group_sum(difference, width), shared = group_sum(shared, width);
    const F inverse = policy::inverse(shared);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) middle[s] *= inverse;
    far = shared < kFar<F> && mean_roots.sum > 0;
    if (ballot(far)) take_middle(mean, q, width);
  }

  // All groups of a warp that has a far one take part in the shuffles; only the far ones keep the result.
  __device__ __forceinline__ void take_middle(const F (&mean)[kSlots], const F (&q)[kSlots], int width) {
    F largest = -static_cast<F>(INFINITY), sum = 0, x[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      x[s] = F(0.5) * (mean[s] + q[s]);
      largest = x[s] > largest ? x[s] : largest;
    }
    largest = group_max(largest, width);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) x[s] = exponential(x[s] - origin(largest)), sum += x[s];
    sum = group_sum(sum, width);
    if (!far) return;
    middle_log_sum = log_sum(largest, sum);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) middle[s] = x[s] / sum;
  }
};

// f(row, whether it is there): every lane of a warp takes part in each round, so that all can shuffle.
template <class Function>
__device__ __forceinline__ void for_each_row(int64_t rows, int width, const Function& f) {
  for (int64_t first = thread_index() / kWarp * (kWarp / width); first < rows;
       first += thread_count() / kWarp * (kWarp / width)) {
    const int64_t row = first + threadIdx.x % kWarp / width;
    f(row < rows ? row : rows - 1, row < rows);
  }
}

template <class T, int kSlots>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    forward(const __grid_constant__ Problem p, int width, Wide<T>* out) {
  using F = Wide<T>;
  const int lane = static_cast<int>(threadIdx.x) % width;
  for_each_row(p.rows, width, [&](int64_t i, bool there) {
    const Row<T, kSlots> row(p, i, width, lane);
    const Roots<F, kSlots> mean(row.mean, width);
    F total = 0;
    for (int j = 0; j < p.members; ++j) {
      F q[kSlots];
      row.load(j, q);
      const Roots<F, kSlots> member(q, width);
      const Overlap<F, kSlots> overlap(row.mean, mean, q, member, width);
      total += overlap.far ? F(0.5) * (log_sum(mean.largest, mean.sum) + log_sum(member.largest, member.sum)) -
                                 overlap.middle_log_sum
                           : distance(overlap.difference, overlap.shared);
    }
    if (there && lane == 0) out[i] = total;
  });
}

template <class T, int kSlots>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    backward(const __grid_constant__ Problem p, int width, T* out) {
  using F = Wide<T>;
  const int lane = static_cast<int>(threadIdx.x) % width;
  for_each_row(p.rows, width, [&](int64_t i, bool there) {
    const Row<T, kSlots> row(p, i, width, lane);
    const Roots<F, kSlots> mean(row.mean, width);
    const F grad = static_cast<const F*>(p.grad.data)[i * p.grad.row];
    F to_mean[kSlots] = {};  // each member's share of the mean's gradient
    if (!p.detach_mean) {
      for (int j = 0; j < p.members; ++j) {
        F q[kSlots];
        row.load(j, q);
        const Overlap<F, kSlots> overlap(row.mean, mean, q, Roots<F, kSlots>(q, width), width);
#pragma unroll
        for (int s = 0; s < kSlots; ++s) to_mean[s] += slope(mean.root[s], overlap.middle[s]);
      }
#pragma unroll
      for (int s = 0; s < kSlots; ++s) to_mean[s] /= static_cast<F>(p.members);
    }
    for (int j = 0; j < p.members; ++j) {
      F q[kSlots];
      row.load(j, q);
      const Roots<F, kSlots> member(q, width);
      const Overlap<F, kSlots> overlap(row.mean, mean, q, member, width);
      T* target = out + (j * p.rows + i) * p.actions;
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        const int a = s * width + lane;
        if (there && a < p.actions)
          target[a] = static_cast<T>(scaled(grad, slope(member.root[s], overlap.middle[s]) + to_mean[s]));
      }
    }
  });
}

// f(slots) with the actions of a lane as a compile-time constant.
template <class Function>
void with_slots(int actions, const Function& f) {
  const int width = group_width(actions);
  if (actions <= width) return f(std::integral_constant<int, 1>());
  if (actions <= 2 * width) return f(std::integral_constant<int, 2>());
  if (actions <= 3 * width) return f(std::integral_constant<int, 3>());
  f(std::integral_constant<int, 4>());
}

Tensor bhattacharyya(const Tensor& q, const OptionalTensor& avail) {
  const CurrentStream current(q);
  const Arguments a = arguments(q, avail);
  const Problem& p = a.problem;
  Tensor output = empty(a.shape, a.output, q);
  const int width = group_width(p.actions);
  dispatch_floating(a.type, [&](auto type) {
    using T = decltype(type);
    with_slots(p.actions, [&](auto slots) {
      launch("bhattacharyya", forward<T, slots()>, blocks_for(p.rows * width, kBlock), kBlock, current.stream, p, width,
             static_cast<Wide<T>*>(output.mutable_data_ptr()));
    });
  });
  return output;
}

Tensor bhattacharyya_backward(const Tensor& grad, const Tensor& q, const OptionalTensor& avail, bool detach_mean) {
  const CurrentStream current(q);
  const Arguments a = arguments(grad, q, avail, detach_mean);
  const Problem& p = a.problem;
  const auto sizes = q.sizes();
  Tensor output = empty({sizes.begin(), sizes.end()}, a.type, q);
  const int width = group_width(p.actions);
  dispatch_floating(a.type, [&](auto type) {
    using T = decltype(type);
    with_slots(p.actions, [&](auto slots) {
      launch("bhattacharyya_backward", backward<T, slots()>, blocks_for(p.rows * width, kBlock), kBlock, current.stream,
             p, width, static_cast<T*>(output.mutable_data_ptr()));
    });
  });
  return output;
}

}  // namespace
}  // namespace emix::diversity

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) {
  m.impl("bhattacharyya", TORCH_BOX(&emix::diversity::bhattacharyya));
  m.impl("bhattacharyya_backward", TORCH_BOX(&emix::diversity::bhattacharyya_backward));
}
