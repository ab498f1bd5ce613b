// policy on the GPU, one launch each. A row is spread over a group of lanes, 2 to 32 of them, with up to four of its
// actions in the registers of each: neighbouring lanes read neighbouring actions, all loads before the first shuffle.
#include "cuda_stream.h"
#include "group.h"
#include "mask.h"
#include "policy/ops.h"

namespace emix::policy {
namespace {

inline constexpr int kBlock = 128;
// Blocks on a multiprocessor at once: caps the registers.
template <class F>
inline constexpr int kBlocks = sizeof(F) == 8 ? 4 : 8;

// This lane's part of a row: slot i is action lane + i * width. Absent rows and actions read nothing and count for
// nothing.
template <class T, int kSlots>
struct Place {
  using F = Wide<T>;
  const Problem& p;
  Group group;
  int64_t row;

  __device__ __forceinline__ Place(const Problem& problem, const Group& group_, int64_t first)
      : p(problem), group(group_), row(first + group_.in_warp()) {}

  __device__ __forceinline__ int action(int slot) const { return group.lane() + slot * group.width(); }
  __device__ __forceinline__ bool there(int slot) const { return row < p.rows && action(slot) < p.actions; }

  template <class Element>
  __device__ __forceinline__ void load(const View<2>& view, Element (&x)[kSlots]) const {
    const Element* at = view.at<Element>(row, action(0));
#pragma unroll
    for (int i = 0; i < kSlots; ++i)
      x[i] = there(i) ? at[i * group.width() * view.stride[1]] : static_cast<Element>(0.0f);
  }

  template <class Element>
  __device__ __forceinline__ void store(const F (&x)[kSlots], Element* out) const {
#pragma unroll
    for (int i = 0; i < kSlots; ++i)
      if (there(i)) out[row * p.actions + action(i)] = static_cast<Element>(x[i]);
  }

  __device__ __forceinline__ F row_value(const View<1>& view) const {
    return view.given() && row < p.rows ? *view.at<F>(row) : F(0);
  }
  __device__ __forceinline__ int64_t taken() const { return row < p.rows ? action_at(p, row) : 0; }
};

// What every op reads. It is loaded before any of it is looked at, the narrow integers last: they are widened at once.
template <class T, int kSlots>
struct Inputs {
  T logits[kSlots];
  Masks<kSlots> available;
  double floor;

  __device__ __forceinline__ explicit Inputs(const Place<T, kSlots>& place) {
    const Problem& p = place.p;
    floor = p.floor.load();
    place.load(p.logits, logits);
    const int64_t at = place.row * p.avail.stride[0] + place.action(0) * p.avail.stride[1];
    available.load(
        p.avail.data, p.avail.itemsize, [&](int i) { return at + i * place.group.width() * p.avail.stride[1]; },
        [&](int i) { return place.there(i); });
  }
};

template <class T, int kSlots>
struct Policy {
  using F = Wide<T>;
  Floor<F> floor;
  bool available[kSlots];
  F relative[kSlots], e[kSlots], w[kSlots];  // relative: z_a - max z, e: its exponential
  F sum, scale, log_total;                   // scale: 1 / W

  __device__ __forceinline__ Policy(const Place<T, kSlots>& place, const Inputs<T, kSlots>& inputs)
      : floor(place.p.floor.template convert<F>(inputs.floor, place.p.actions)) {
    F start = -INFINITY, total = 0;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      available[i] = inputs.available[i];
      relative[i] = place.there(i) ? counted(static_cast<F>(inputs.logits[i]), available[i], floor) : F(-INFINITY);
      start = relative[i] > start ? relative[i] : start;
    }
    start = origin(place.group.max(start));
    sum = 0;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      relative[i] -= start;
      sum += e[i] = exponential(relative[i]);
    }
    sum = place.group.sum(sum);
#pragma unroll
    for (int i = 0; i < kSlots; ++i) total += w[i] = weight(e[i], sum, available[i], floor);
    total = place.group.sum(total);
    scale = inverse(total);
    log_total = logarithm(total);
  }

  // From h_a = pi_a dL/dpi_a to dL/dz_a, in place.
  __device__ __forceinline__ void logits_gradient(const Place<T, kSlots>& place, F (&h)[kSlots]) const {
    F total = 0, arrived = 0;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) total += h[i];
    total = place.group.sum(total);
#pragma unroll
    for (int i = 0; i < kSlots; ++i) arrived += h[i] = own_share(e[i], w[i], floor) * (h[i] - w[i] * scale * total);
    if (!(floor.share > 0)) return;  // what arrived sums to 0
    arrived = place.group.sum(arrived) * (scale == 0 ? F(0) : 1 / sum);
#pragma unroll
    for (int i = 0; i < kSlots; ++i) h[i] -= e[i] * arrived;
  }
};

// f(place) for the rows of this warp: the whole warp together, for the shuffles.
template <class T, int kSlots, class Each>
__device__ __forceinline__ void for_rows(const Problem& p, const Group& group, const Each& each) {
  const int rows = group.per_warp();
  for (int64_t first = thread_index() / kWarp * rows; first < p.rows; first += thread_count() / kWarp * rows)
    each(Place<T, kSlots>(p, group, first));
}

template <class T, int kSlots>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    policy_forward(const __grid_constant__ Problem p, Group group, Wide<T>* out) {
  for_rows<T, kSlots>(p, group, [&](const Place<T, kSlots>& place) {
    Policy<T, kSlots> policy(place, Inputs<T, kSlots>(place));
#pragma unroll
    for (int i = 0; i < kSlots; ++i) policy.w[i] *= policy.scale;
    place.store(policy.w, out);
  });
}

template <class T, int kSlots>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    policy_backward(const __grid_constant__ Problem p, Group group, T* out) {
  using F = Wide<T>;
  for_rows<T, kSlots>(p, group, [&](const Place<T, kSlots>& place) {
    F h[kSlots];
    place.load(p.policy_grad, h);
    const Policy<T, kSlots> policy(place, Inputs<T, kSlots>(place));
#pragma unroll
    for (int i = 0; i < kSlots; ++i) h[i] = expected(policy.w[i] * policy.scale, h[i]);
    policy.logits_gradient(place, h);
    place.store(h, out);
  });
}

template <class T, int kSlots>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    terms_forward(const __grid_constant__ Problem p, Group group, const __grid_constant__ Terms out) {
  using F = Wide<T>;
  for_rows<T, kSlots>(p, group, [&](const Place<T, kSlots>& place) {
    T value[kSlots] = {};
    if (p.value.given()) place.load(p.value, value);
    const Inputs<T, kSlots> inputs(place);
    const int64_t action = place.taken();
    const Policy<T, kSlots> policy(place, inputs);
    F log_prob = 0, entropy = 0, expectation = 0;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const F pi = policy.w[i] * policy.scale;
      const F minus_log = surprise(policy.relative[i], policy.w[i], policy.log_total, policy.floor);
      const bool can = possible(policy.relative[i], policy.available[i], policy.floor);
      if (place.action(i) == action) log_prob = log_probability(can, minus_log, policy.scale);
      entropy += expected(pi, minus_log);
      expectation += expected(pi, static_cast<F>(value[i]));
    }
    log_prob = group.sum(log_prob);  // one lane has it
    entropy = group.sum(entropy);
    expectation = group.sum(expectation);
    if (group.lane() != 0 || place.row >= p.rows) return;
    const bool out_of_range = action < 0 || action >= p.actions;
    static_cast<F*>(out.log_prob)[place.row] = out_of_range && policy.scale != 0 ? F(NAN) : log_prob;
    static_cast<F*>(out.entropy)[place.row] = entropy;
    if (p.value.given()) static_cast<F*>(out.expected_value)[place.row] = expectation;
  });
}

template <class T, int kSlots>
__global__ void __launch_bounds__(kBlock, kBlocks<Wide<T>>)
    terms_backward(const __grid_constant__ Problem p, Group group, const __grid_constant__ TermsGradients out) {
  using F = Wide<T>;
  for_rows<T, kSlots>(p, group, [&](const Place<T, kSlots>& place) {
    T value[kSlots] = {};
    F value_slope[kSlots], h[kSlots];
    if (p.value.given()) place.load(p.value, value);
    const F log_prob_grad = place.row_value(p.log_prob_grad), entropy_grad = place.row_value(p.entropy_grad),
            value_grad = place.row_value(p.value_grad);
    const Inputs<T, kSlots> inputs(place);
    const int64_t action = place.taken();
    const Policy<T, kSlots> policy(place, inputs);
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const F pi = policy.w[i] * policy.scale;
      const F minus_log = surprise(policy.relative[i], policy.w[i], policy.log_total, policy.floor);
      const bool can = possible(policy.relative[i], policy.available[i], policy.floor);
      const F moved = can && place.action(i) == action ? log_prob_grad : F(0);
      h[i] = moved + expected(pi, entropy_grad * minus_log) + expected(pi, value_grad * static_cast<F>(value[i]));
      value_slope[i] = pi * value_grad;
    }
    if (out.value) place.store(value_slope, static_cast<T*>(out.value));
    policy.logits_gradient(place, h);
    place.store(h, static_cast<T*>(out.logits));
  });
}

// Lanes a row, so that few idle: 3 or 4 actions a lane. f(group, constant with the number of slots)
template <class F>
void with_group(int actions, const F& f) {
  Group three, four;
  while ((3 << three.shift) < actions) ++three.shift;
  while ((4 << four.shift) < actions) ++four.shift;
  if (3 << three.shift <= 4 << four.shift && 1 << three.shift <= kWarp)
    f(three, std::integral_constant<int, 3>());
  else
    f(four, std::integral_constant<int, 4>());
}

struct Cuda {
  CurrentStream current;
  explicit Cuda(const Tensor& like) : current(like) {}

  template <class T>
  void policy(const Problem& p, void* out) const {
    with_group(p.actions, [&](const Group& group, auto slots) {
      run("policy_forward", policy_forward<T, slots()>, p, group, static_cast<Wide<T>*>(out));
    });
  }
  template <class T>
  void policy_backward(const Problem& p, void* out) const {
    with_group(p.actions, [&](const Group& group, auto slots) {
      run("policy_backward", policy::policy_backward<T, slots()>, p, group, static_cast<T*>(out));
    });
  }
  template <class T>
  void terms(const Problem& p, const Terms& out) const {
    with_group(p.actions,
               [&](const Group& group, auto slots) { run("terms_forward", terms_forward<T, slots()>, p, group, out); });
  }
  template <class T>
  void terms_backward(const Problem& p, const TermsGradients& out) const {
    with_group(p.actions, [&](const Group& group, auto slots) {
      run("terms_backward", policy::terms_backward<T, slots()>, p, group, out);
    });
  }

 private:
  template <class Kernel, class Out>
  void run(const char* name, Kernel* kernel, const Problem& p, const Group& group, const Out& out) const {
    launch(name, kernel, blocks_for(p.rows << group.shift, kBlock), kBlock, current.stream, p, group, out);
  }
};

}  // namespace
}  // namespace emix::policy

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::policy::register_ops<emix::policy::Cuda>(m); }
