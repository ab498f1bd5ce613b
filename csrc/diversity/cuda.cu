// diversity on the GPU, one launch each way. A group of 8, 16 or 32 lanes takes a row, a lane up to four of its
// actions. The members are read twice, once for their mean and once, from the cache, each for itself.
#include "cuda_stream.h"
#include "diversity/ops.h"
#include "group.h"
#include "mask.h"

namespace emix::diversity {
namespace {

inline constexpr int kBlock = 128;
// Blocks on a multiprocessor at once: caps the registers, so that enough rows are in flight.
template <class F>
inline constexpr int kBlocks = sizeof(F) == 8 ? 3 : 8;

// The lanes that take a row of A actions, and so how many actions each of them.
Group group_of(int actions) { return {actions <= 32 ? 3 : actions <= 64 ? 4 : 5}; }

// Of one distribution: sqrt(softmax(q)), and the parts of LSE(q).
template <class F, int kSlots>
struct Roots {
  F root[kSlots], largest, sum;

  __device__ __forceinline__ Roots(const F (&q)[kSlots], const Group& group)
      : largest(-static_cast<F>(INFINITY)), sum(0) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) largest = q[s] > largest ? q[s] : largest;
    largest = group.max(largest);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) root[s] = root_weight(q[s], largest), sum += root[s] * root[s];
    sum = group.sum(sum);
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
  Group group;
  const T* q;  // of the first member, at slot 0
  bool available[kSlots];
  F mean[kSlots];

  __device__ __forceinline__ Row(const Problem& p_, int64_t row, const Group& group_)
      : p(p_), group(group_), q(p.q.at<T>(0, row, group.lane())) {
    Masks<kSlots> mask;
    const int64_t at = row * p.avail.stride[0] + group.lane() * p.avail.stride[1];
    mask.load(
        p.avail.data, p.avail.itemsize, [&](int s) { return at + s * group.width() * p.avail.stride[1]; },
        [&](int s) { return there(s); });
    F sum[kSlots] = {};
#pragma unroll 4
    for (int j = 0; j < p.members; ++j) {
      T x[kSlots];
      load(j, x);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) sum[s] += static_cast<F>(x[s]);
    }
    const F each = F(1) / static_cast<F>(p.members);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      available[s] = mask[s];
      mean[s] = available[s] ? sum[s] * each : -static_cast<F>(INFINITY);
    }
  }

  __device__ __forceinline__ int action(int s) const { return s * group.width() + group.lane(); }
  __device__ __forceinline__ bool there(int s) const { return action(s) < p.actions; }

  // Member j's logits.
  __device__ __forceinline__ void load(int j, T (&x)[kSlots]) const {
#pragma unroll
    for (int s = 0; s < kSlots; ++s)
      x[s] = there(s) ? q[j * p.q.stride[0] + s * group.width() * p.q.stride[2]] : static_cast<T>(0.0f);
  }

  // f(j, member j's logits, -inf where not available). The next member's are loaded meanwhile.
  template <class Function>
  __device__ __forceinline__ void for_each_member(const Function& f) const {
    T next[kSlots];
    load(0, next);
    for (int j = 0; j < p.members; ++j) {
      F x[kSlots];
#pragma unroll
      for (int s = 0; s < kSlots; ++s) x[s] = available[s] ? static_cast<F>(next[s]) : -static_cast<F>(INFINITY);
      if (j + 1 < p.members) load(j + 1, next);
      f(j, x);
    }
  }
};

// What a member and the mean share. `middle` = softmax((mean + q) / 2).
template <class F, int kSlots>
struct Overlap {
  F difference = 0, shared = 0, middle[kSlots];
  F middle_log_sum = 0;  // only where far
  bool far = false;

  __device__ __forceinline__ Overlap(const F (&mean)[kSlots], const Roots<F, kSlots>& mean_roots, const F (&q)[kSlots],
                                     const Roots<F, kSlots>& roots, const Group& group) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const F d = mean_roots.root[s] - roots.root[s];
      difference += F(0.5) * d * d;
      middle[s] = mean_roots.root[s] * roots.root[s];
      shared += middle[s];
    }
    difference = group.sum(difference), shared = group.sum(shared);
    const F inverse = policy::inverse(shared);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) middle[s] *= inverse;
    far = shared < kFar<F> && mean_roots.sum > 0;
    if (ballot(far)) take_middle(mean, q, group);
  }

  // All groups of a warp that has a far one take part in the shuffles; only the far ones keep the result.
  __device__ __forceinline__ void take_middle(const F (&mean)[kSlots], const F (&q)[kSlots], const Group& group) {
    F largest = -static_cast<F>(INFINITY), sum = 0, x[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      x[s] = F(0.5) * (mean[s] + q[s]);
      largest = x[s] > largest ? x[s] : largest;
    }
    largest = group.max(largest);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) x[s] = exponential(x[s] - origin(largest)), sum += x[s];
    sum = group.sum(sum);
    if (!far) return;
    middle_log_sum = log_sum(largest, sum);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) middle[s] = x[s] / sum;
  }
};

// f(row, whether it is there): every lane of a warp takes part in each round, so that all can shuffle.
template <class Function>
__device__ __forceinline__ void for_each_row(int64_t rows, const Group& group, const Function& f) {
  for (int64_t first = thread_index() / kWarp * group.per_warp(); first < rows;
       first += thread_count() / kWarp * group.per_warp()) {
    const int64_t row = first + group.in_warp();
    f(row < rows ? row : rows - 1, row < rows);
  }
}

template <class T, int kSlots>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    forward(const __grid_constant__ Problem p, Group group, Wide<T>* out) {
  using F = Wide<T>;
  for_each_row(p.rows, group, [&](int64_t i, bool there) {
    const Row<T, kSlots> row(p, i, group);
    const Roots<F, kSlots> mean(row.mean, group);
    F total = 0;
    row.for_each_member([&](int, const F(&q)[kSlots]) {
      const Roots<F, kSlots> member(q, group);
      const Overlap<F, kSlots> overlap(row.mean, mean, q, member, group);
      total += overlap.far ? F(0.5) * (log_sum(mean.largest, mean.sum) + log_sum(member.largest, member.sum)) -
                                 overlap.middle_log_sum
                           : distance(overlap.difference, overlap.shared);
    });
    if (there && group.lane() == 0) out[i] = total;
  });
}

template <class T, int kSlots>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    backward(const __grid_constant__ Problem p, Group group, T* out) {
  using F = Wide<T>;
  for_each_row(p.rows, group, [&](int64_t i, bool there) {
    const F grad = *p.grad.at<F>(i);
    const Row<T, kSlots> row(p, i, group);
    const Roots<F, kSlots> mean(row.mean, group);
    F to_mean[kSlots] = {};  // each member's share of the mean's gradient
    if (!p.detach_mean) {
      row.for_each_member([&](int, const F(&q)[kSlots]) {
        const Overlap<F, kSlots> overlap(row.mean, mean, q, Roots<F, kSlots>(q, group), group);
#pragma unroll
        for (int s = 0; s < kSlots; ++s) to_mean[s] += slope(mean.root[s], overlap.middle[s]);
      });
#pragma unroll
      for (int s = 0; s < kSlots; ++s) to_mean[s] /= static_cast<F>(p.members);
    }
    row.for_each_member([&](int j, const F(&q)[kSlots]) {
      const Roots<F, kSlots> member(q, group);
      const Overlap<F, kSlots> overlap(row.mean, mean, q, member, group);
      T* target = out + (j * p.rows + i) * p.actions;
#pragma unroll
      for (int s = 0; s < kSlots; ++s)
        if (there && row.there(s))
          target[row.action(s)] = static_cast<T>(scaled(grad, slope(member.root[s], overlap.middle[s]) + to_mean[s]));
    });
  });
}

// f(slots) with the actions of a lane as a compile-time constant.
template <class Function>
void with_slots(int actions, const Function& f) {
  const int width = 1 << group_of(actions).shift;
  if (actions <= width) return f(std::integral_constant<int, 1>());
  if (actions <= 2 * width) return f(std::integral_constant<int, 2>());
  if (actions <= 3 * width) return f(std::integral_constant<int, 3>());
  f(std::integral_constant<int, 4>());
}

struct Cuda {
  CurrentStream current;
  explicit Cuda(const Tensor& like) : current(like) {}

  template <class T>
  void forward(const Problem& p, Wide<T>* out) const {
    with_slots(p.actions, [&](auto slots) { run("bhattacharyya", diversity::forward<T, slots()>, p, out); });
  }
  template <class T>
  void backward(const Problem& p, T* out) const {
    with_slots(p.actions, [&](auto slots) { run("bhattacharyya_backward", diversity::backward<T, slots()>, p, out); });
  }

 private:
  template <class Kernel, class Out>
  void run(const char* name, Kernel* kernel, const Problem& p, Out* out) const {
    const Group group = group_of(p.actions);
    launch(name, kernel, blocks_for(p.rows << group.shift, kBlock), kBlock, current.stream, p, group, out);
  }
};

}  // namespace
}  // namespace emix::diversity

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::diversity::register_ops<emix::diversity::Cuda>(m); }
