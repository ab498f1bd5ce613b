// ensemble on the GPU, one launch each. The moments: a place a thread, its members in registers, all loads in flight.
// Exploration: a row a warp, an action a lane, up to four; sums run in the order of the actions, as on the CPU.
#include "cuda_stream.h"
#include "ensemble/ops.h"
#include "mask.h"

namespace emix::ensemble {
namespace {

inline constexpr int kBlock = 128;
// Blocks on a multiprocessor at once: caps the registers, where many members would take them all.
template <class F>
inline constexpr int kBlocks = sizeof(F) == 8 ? 2 : 4;
inline constexpr int kSlots = kMaxActions / kWarp;  // actions of a lane

// The members' values at offset `i`; past the last member the first's.
template <class T, int kCapacity>
__device__ __forceinline__ Members<Wide<T>, kCapacity> members_at(const void* data, int members, int64_t member_stride,
                                                                  int64_t i) {
  const T* at = static_cast<const T*>(data) + i;
  const Wide<T> first = static_cast<Wide<T>>(*at);
  return Members<Wide<T>, kCapacity>([&](int j) {
    if (j == 0) return first;
    at += member_stride;
    return j < members ? static_cast<Wide<T>>(*at) : first;
  });
}

template <class T, int kCapacity>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    moments(const __grid_constant__ View<2> values, const __grid_constant__ MomentsResults out) {
  using F = Wide<T>;
  for (int64_t i = thread_index(); i < values.size[1]; i += thread_count()) {
    auto members = members_at<T, kCapacity>(values.data, members_of(values), values.stride[0], i * values.stride[1]);
    const Moments<F> m = members.moments(members_of(values));
    static_cast<F*>(out.mean)[i] = m.mean, static_cast<F*>(out.variance)[i] = m.variance;
    static_cast<F*>(out.kurtosis)[i] = m.kurtosis;
  }
}

// Up to kHeld members stay in registers until their gradients are written; more are read once more.
template <class T, int kCapacity>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    moments_backward(const __grid_constant__ View<2> values, const __grid_constant__ Upstreams grads,
                     T* __restrict__ out) {
  using F = Wide<T>;
  constexpr int kHeld = 32;
  for (int64_t i = thread_index(); i < values.size[1]; i += thread_count()) {
    auto members = members_at<T, kCapacity>(values.data, members_of(values), values.stride[0], i * values.stride[1]);
    const F kurtosis = members.moments(members_of(values)).kurtosis;
    const Slope<F> slope = members.slope(grads.at<F>(i), members_of(values), kurtosis);
    T* target = out + i;
    if constexpr (kCapacity <= kHeld) {
#pragma unroll
      for (int j = 0; j < kCapacity; ++j, target += values.size[1])
        if (j < members_of(values)) *target = static_cast<T>(slope(members.x[j]));
    } else {
      const T* at = static_cast<const T*>(values.data) + i * values.stride[1];
      const F first = static_cast<F>(*at), each = F(1) / static_cast<F>(members_of(values));
#pragma unroll 4
      for (int j = 0; j < members_of(values); ++j, target += values.size[1], at += values.stride[0])
        *target = static_cast<T>(slope(deviation(static_cast<F>(*at), first, members.sum, each)));
    }
  }
}

template <class T, int kCapacity>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    weights(const __grid_constant__ View<2> values, Wide<T> scale, Wide<T>* out) {
  for (int64_t i = thread_index(); i < values.size[1]; i += thread_count()) {
    auto members = members_at<T, kCapacity>(values.data, members_of(values), values.stride[0], i * values.stride[1]);
    out[i] = weight(members.moments(members_of(values)).kurtosis, scale);
  }
}

// x[s] of lane l belongs to action s * kWarp + l. Every lane gets the sum, and in `own`, if asked, the sum up to its
// own actions.
template <class F>
__device__ __forceinline__ F sum_in_order(const F (&x)[kSlots], int actions, int lane, F* own = nullptr) {
  F sum = 0;
#pragma unroll
  for (int s = 0; s < kSlots; ++s)
    for (int l = 0; l < kWarp && s * kWarp + l < actions; ++l) {
      sum += shuffle(x[s], l);
      if (own && l == lane) own[s] = sum;
    }
  return sum;
}

// One row's explored logits, an action in each slot of each lane.
template <class F>
struct Row {
  F logit[kSlots];
  bool available[kSlots], open;
};

template <class T, int kCapacity>
__device__ __forceinline__ Row<Wide<T>> explore(const Exploration& e, int64_t row, int lane) {
  using F = Wide<T>;
  Row<F> result;
  F kurtosis[kSlots], added[kSlots];
  T logit[kSlots];
  Masks<kSlots> available;
  const auto there = [&](int s) { return s * kWarp + lane < e.actions; };
  const auto offset = [&](const int64_t* stride, int s) { return row * stride[0] + (s * kWarp + lane) * stride[1]; };
  available.load(e.avail.data, e.avail.itemsize, [&](int s) { return offset(e.avail.stride, s); }, there);
#pragma unroll
  for (int s = 0; s < kSlots; ++s)
    logit[s] = there(s) ? static_cast<const T*>(e.logits.data)[offset(e.logits.stride, s)] : static_cast<T>(0.0f);
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    kurtosis[s] = 0;
    if (there(s)) {
      auto members = members_at<T, kCapacity>(e.q.data, e.members, e.q.stride[0], offset(e.q.stride + 1, s));
      kurtosis[s] = members.moments(e.members).kurtosis;
    }
    result.available[s] = available[s];
    result.logit[s] = static_cast<F>(logit[s]);
    added[s] = there(s) ? excess(kurtosis[s], result.available[s]) : F(0);
  }
  result.open = sum_in_order(added, e.actions, lane) > 0;
#pragma unroll
  for (int s = 0; s < kSlots; ++s)
    result.logit[s] = explored(result.logit[s], kurtosis[s], static_cast<F>(e.bonus), result.available[s], result.open);
  return result;
}

template <class T, int kCapacity>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    explore_rows(const __grid_constant__ Exploration e, Wide<T>* out) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (int64_t i = thread_index() / kWarp; i < e.rows; i += thread_count() / kWarp) {
    const Row<Wide<T>> row = explore<T, kCapacity>(e, i, lane);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int a = s * kWarp + lane;
      if (a < e.actions) out[i * e.actions + a] = row.available[s] ? row.logit[s] : -static_cast<Wide<T>>(INFINITY);
    }
  }
}

// As in sampling, one draw a row.
template <class T, int kCapacity>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    draw_rows(const __grid_constant__ Exploration e, const __grid_constant__ Drawn out) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int64_t seed = *e.seed;
  for (int64_t i = thread_index() / kWarp; i < e.rows; i += thread_count() / kWarp) {
    const Row<Wide<T>> row = explore<T, kCapacity>(e, i, lane);
    const auto floor = e.floor.read<float>(e.actions);
    float weight[kSlots], cumulative[kSlots] = {}, largest = -INFINITY;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const float logit = static_cast<float>(row.logit[s]);
      weight[s] = s * kWarp + lane < e.actions ? policy::counted(logit, row.available[s], floor) : -INFINITY;
      largest = weight[s] > largest ? weight[s] : largest;
    }
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      const float other = shuffle_xor(largest, distance);
      largest = other > largest ? other : largest;
    }
#pragma unroll
    for (int s = 0; s < kSlots; ++s) weight[s] = sampling::relative_exponential(weight[s], largest);
    const float sum = sum_in_order(weight, e.actions, lane);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) weight[s] = policy::weight(weight[s], sum, row.available[s], floor);
    const float total = sum_in_order(weight, e.actions, lane, cumulative);

    const int32_t uniform = sampling::uniform_bits(philox(seed, 0, i).word[0]);
    int action = 0;
#pragma unroll
    for (int s = 0; s < kSlots; ++s)
      action += __popc(ballot(s * kWarp + lane < e.actions - 1 && uniform > sampling::threshold(cumulative[s], total)));
    float chosen = 0;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const float there = shuffle(weight[s], action % kWarp);
      if (action / kWarp == s) chosen = there;
    }
    if (lane == 0) out.action[i] = action, out.probability[i] = probability(chosen, total), out.open[i] = row.open;
  }
}

// f(capacity) for the members' number.
template <class Function>
void with_members(int n, const Function& f) {
  with_capacity<5, 10, 16, 32, kMaxMembers>(n, f);
}

struct Cuda {
  CurrentStream current;
  explicit Cuda(const Tensor& like) : current(like) {}

  template <class T>
  void moments(const View<2>& values, const MomentsResults& out) const {
    with_members(members_of(values),
                 [&](auto capacity) { run("moments", ensemble::moments<T, capacity()>, values.size[1], values, out); });
  }

  template <class T>
  void moments_backward(const View<2>& values, const Upstreams& grads, T* out) const {
    with_members(members_of(values), [&](auto capacity) {
      run("moments_backward", ensemble::moments_backward<T, capacity()>, values.size[1], values, grads, out);
    });
  }

  template <class T>
  void weights(const View<2>& values, Wide<T> scale, Wide<T>* out) const {
    with_members(members_of(values), [&](auto capacity) {
      run("weights", ensemble::weights<T, capacity()>, values.size[1], values, scale, out);
    });
  }

  template <class T>
  void explore(const Exploration& e, Wide<T>* out) const {
    with_members(e.members,
                 [&](auto capacity) { run("explore_rows", explore_rows<T, capacity()>, e.rows * kWarp, e, out); });
  }

  template <class T>
  void draw(const Exploration& e, const Drawn& out) const {
    with_members(e.members, [&](auto capacity) { run("draw_rows", draw_rows<T, capacity()>, e.rows * kWarp, e, out); });
  }

 private:
  template <class Kernel, class... Rest>
  void run(const char* name, Kernel* kernel, int64_t threads, const Rest&... rest) const {
    launch(name, kernel, blocks_for(threads, kBlock), kBlock, current.stream, rest...);
  }
};

}  // namespace
}  // namespace emix::ensemble

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::ensemble::register_ops<emix::ensemble::Cuda>(m); }
