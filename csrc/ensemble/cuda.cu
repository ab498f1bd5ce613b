// ensemble on the GPU, one launch each. The moments: a place a thread, its members in registers, all loads in flight.
// Exploration: a row a warp, an action a lane, up to four; sums run in the order of the actions, as on the CPU.
#include "cuda_stream.h"
#include "ensemble/arguments.h"
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

template <class F>
struct Outputs {
  F *mean, *variance, *kurtosis;
};

template <class T, int kCapacity>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    moments(const __grid_constant__ Values values, const __grid_constant__ Outputs<Wide<T>> out) {
  for (int64_t i = thread_index(); i < values.count; i += thread_count()) {
    auto members = members_at<T, kCapacity>(values.data, values.members, values.member_stride, i * values.stride);
    const Moments<Wide<T>> m = members.moments(values.members);
    out.mean[i] = m.mean, out.variance[i] = m.variance, out.kurtosis[i] = m.kurtosis;
  }
}

// Up to kHeld members stay in registers until their gradients are written; more are read once more.
template <class T, int kCapacity>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    moments_backward(const __grid_constant__ Values values, const __grid_constant__ Upstreams grads,
                     T* __restrict__ out) {
  using F = Wide<T>;
  constexpr int kHeld = 32;
  for (int64_t i = thread_index(); i < values.count; i += thread_count()) {
    auto members = members_at<T, kCapacity>(values.data, values.members, values.member_stride, i * values.stride);
    const F kurtosis = members.moments(values.members).kurtosis;
    const Slope<F> slope = members.slope(grads.at<F>(i), values.members, kurtosis);
    T* target = out + i;
    if constexpr (kCapacity <= kHeld) {
#pragma unroll
      for (int j = 0; j < kCapacity; ++j, target += values.count)
        if (j < values.members) *target = static_cast<T>(slope(members.x[j]));
    } else {
      const T* at = static_cast<const T*>(values.data) + i * values.stride;
      const F first = static_cast<F>(*at), each = F(1) / static_cast<F>(values.members);
#pragma unroll 4
      for (int j = 0; j < values.members; ++j, target += values.count, at += values.member_stride)
        *target = static_cast<T>(slope(deviation(static_cast<F>(*at), first, members.sum, each)));
    }
  }
}

template <class T, int kCapacity>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    weights(const __grid_constant__ Values values, Wide<T> scale, Wide<T>* out) {
  for (int64_t i = thread_index(); i < values.count; i += thread_count()) {
    auto members = members_at<T, kCapacity>(values.data, values.members, values.member_stride, i * values.stride);
    out[i] = weight(members.moments(values.members).kurtosis, scale);
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
  const auto offset = [&](const Strided& view, int s) { return row * view.row + (s * kWarp + lane) * view.action; };
  available.load(e.avail.data, e.avail.itemsize, [&](int s) { return offset(e.avail, s); }, there);
#pragma unroll
  for (int s = 0; s < kSlots; ++s)
    logit[s] = there(s) ? static_cast<const T*>(e.logits.data)[offset(e.logits, s)] : static_cast<T>(0.0f);
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    kurtosis[s] = 0;
    if (there(s)) {
      auto members = members_at<T, kCapacity>(e.q.data, e.members, e.member_stride, offset(e.q, s));
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

struct Drawn {
  int64_t* action;
  float* probability;
  bool* open;
};

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

std::tuple<Tensor, Tensor, Tensor> ensemble_moments(const Tensor& q) {
  const CurrentStream current(q);
  const ValuesArguments a = values_arguments(q);
  const ScalarType type = wide(q.scalar_type());
  Tensor mean = empty(a.shape, type, q), variance = empty(a.shape, type, q), kurtosis = empty(a.shape, type, q);
  dispatch_floating(q.scalar_type(), [&](auto element) {
    using F = Wide<decltype(element)>;
    const Outputs<F> out{static_cast<F*>(mean.mutable_data_ptr()), static_cast<F*>(variance.mutable_data_ptr()),
                         static_cast<F*>(kurtosis.mutable_data_ptr())};
    with_members(a.values.members, [&](auto capacity) {
      launch("moments", moments<decltype(element), capacity()>, blocks_for(a.values.count, kBlock), kBlock,
             current.stream, a.values, out);
    });
  });
  return {mean, variance, kurtosis};
}

Tensor ensemble_moments_backward(const Tensor& q, const OptionalTensor& mean_grad, const OptionalTensor& variance_grad,
                                 const OptionalTensor& kurtosis_grad) {
  const CurrentStream current(q);
  const BackwardArguments a = backward_arguments(q, mean_grad, variance_grad, kurtosis_grad);
  const Values& values = a.forward.values;
  dispatch_floating(q.scalar_type(), [&](auto element) {
    using T = decltype(element);
    with_members(values.members, [&](auto capacity) {
      launch("moments_backward", moments_backward<T, capacity()>, blocks_for(values.count, kBlock), kBlock,
             current.stream, values, a.upstreams, static_cast<T*>(a.output.mutable_data_ptr()));
    });
  });
  return a.output;
}

Tensor uncertainty_weight(const Tensor& q, double scale) {
  const CurrentStream current(q);
  const ValuesArguments a = values_arguments(q);
  Tensor output = empty(a.shape, wide(q.scalar_type()), q);
  dispatch_floating(q.scalar_type(), [&](auto element) {
    using F = Wide<decltype(element)>;
    with_members(a.values.members, [&](auto capacity) {
      launch("weights", weights<decltype(element), capacity()>, blocks_for(a.values.count, kBlock), kBlock,
             current.stream, a.values, static_cast<F>(scale), static_cast<F*>(output.mutable_data_ptr()));
    });
  });
  return output;
}

Tensor explore_logits(const Tensor& logits, const Tensor& q, const OptionalTensor& avail, double bonus) {
  const CurrentStream current(logits);
  const ExploreArguments a = explore_arguments(logits, q, avail, bonus);
  const Exploration& e = a.exploration;
  Tensor output = empty(a.shape, a.output, logits);
  dispatch_floating(a.input, [&](auto element) {
    using T = decltype(element);
    with_members(e.members, [&](auto capacity) {
      launch("explore_rows", explore_rows<T, capacity()>, blocks_for(e.rows * kWarp, kBlock), kBlock, current.stream, e,
             static_cast<Wide<T>*>(output.mutable_data_ptr()));
    });
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> explore_actions(const Tensor& logits, const Tensor& q, const OptionalTensor& avail,
                                                   const Tensor& seed, double bonus, double floor,
                                                   const OptionalTensor& floor_tensor) {
  const CurrentStream current(logits);
  const ExploreArguments a = explore_arguments(logits, q, avail, seed, bonus, floor, floor_tensor);
  const Exploration& e = a.exploration;
  Tensor action = empty(a.shape, ScalarType::Long, logits), probability = empty(a.shape, ScalarType::Float, logits),
         open = empty(a.shape, ScalarType::Bool, logits);
  const Drawn out{static_cast<int64_t*>(action.mutable_data_ptr()), static_cast<float*>(probability.mutable_data_ptr()),
                  static_cast<bool*>(open.mutable_data_ptr())};
  dispatch_floating(a.input, [&](auto element) {
    using T = decltype(element);
    with_members(e.members, [&](auto capacity) {
      launch("draw_rows", draw_rows<T, capacity()>, blocks_for(e.rows * kWarp, kBlock), kBlock, current.stream, e, out);
    });
  });
  return {action, probability, open};
}

}  // namespace
}  // namespace emix::ensemble

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) {
  m.impl("ensemble_moments", TORCH_BOX(&emix::ensemble::ensemble_moments));
  m.impl("ensemble_moments_backward", TORCH_BOX(&emix::ensemble::ensemble_moments_backward));
  m.impl("uncertainty_weight", TORCH_BOX(&emix::ensemble::uncertainty_weight));
  m.impl("explore_logits", TORCH_BOX(&emix::ensemble::explore_logits));
  m.impl("explore_actions", TORCH_BOX(&emix::ensemble::explore_actions));
}
