// joint_values on the GPU, one launch: a warp takes an entry, its lanes neighbouring actions, with all members' loads
// in flight at once. The recursion over the entries is the launch after it (trace_returns).
#include "cuda_stream.h"
#include "targets/ops.h"

namespace emix::targets {
namespace {

inline constexpr int kBlock = 128;
// Blocks on a multiprocessor at once: caps the registers, so that 16 warps keep enough loads in flight. More than 20
// members keep enough on their own, and need the registers.
constexpr int blocks(int members) { return members > 20 ? 2 : 4; }

template <class F>
__device__ __forceinline__ F warp_sum(F value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += shuffle_xor(value, distance);
  return value;
}

template <class F>
__device__ __forceinline__ F warp_product(F value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value *= shuffle_xor(value, distance);
  return value;
}

// The members are loaded in order, from one address that walks: each its own would take most registers of 64 members.
template <class T, int kCapacity>
__device__ __forceinline__ ActionValue<Wide<T>> value_at(const Joint& p, const T* q) {
  using F = Wide<T>;
  const F first = static_cast<F>(*q);
  const auto load = [&](int j) {
    if (j == 0) return first;
    q += p.q.member_stride;
    return j < p.members ? static_cast<F>(*q) : first;
  };
  return p.uncertain ? action_value<true, F, kCapacity>(p, load) : action_value<false, F, kCapacity>(p, load);
}

template <class T, int kCapacity>
__global__ void __launch_bounds__(kBlock, blocks(kCapacity))
    joint(const __grid_constant__ Joint p, const __grid_constant__ JointResults out) {
  using F = Wide<T>;
  const unsigned lane = threadIdx.x % kWarp, actions = static_cast<unsigned>(p.actions);
  const unsigned agents = static_cast<unsigned>(p.agents);
  for (int64_t row = thread_index() / kWarp; row < p.rows; row += thread_count() / kWarp) {
    if (!p.needed(row)) {
      if (lane == 0) out.write(row, F(0), F(0), F(0));
      continue;
    }
    const T *q = p.q.row<T>(row), *weight = p.weight.row<T>(row);
    const T* pi = p.pi.given() ? p.pi.row<T>(row) : nullptr;
    F q_sum = 0, v_sum = 0, weight_sum = 0, probability = 1;
    if (pi)
      for (unsigned k = lane; k < agents * actions; k += kWarp)
        v_sum += static_cast<F>(weight[k / actions]) *
                 mixing::expectation_term(static_cast<F>(pi[k]), value_at<T, kCapacity>(p, q + k).next);
    for (unsigned i = lane; i < agents; i += kWarp) {
      const F u = static_cast<F>(weight[i]);
      const int64_t action = p.taken_at(row, i), taken = i * p.actions + (action < 0 ? 0 : action);
      ActionValue<F> value = value_at<T, kCapacity>(p, q + taken);
      if (action < 0) value = {F(NAN), F(NAN)};
      weight_sum += u;
      q_sum += u * value.mean;
      if (pi)
        probability *= action < 0 ? F(NAN) : static_cast<F>(pi[taken]);
      else
        v_sum += u * value.next;
    }
    const F bias = p.bias.given() ? static_cast<F>(*p.bias.row<T>(row)) : F(0);
    const F total = mixing::divisor(warp_sum(weight_sum));
    q_sum = warp_sum(q_sum), v_sum = warp_sum(v_sum), probability = warp_product(probability);
    if (lane == 0) out.write(row, q_sum / total + bias, v_sum / total + bias, probability);
  }
}

struct Cuda {
  CurrentStream current;
  explicit Cuda(const Tensor& like) : current(like) {}

  template <class T>
  void joint_values(const Joint& p, const JointResults& out) const {
    with_members(p.members, [&](auto capacity) {
      launch("joint_values", joint<T, capacity()>, blocks_for(p.rows * kWarp, kBlock), kBlock, current.stream, p, out);
    });
  }
};

}  // namespace
}  // namespace emix::targets

STABLE_TORCH_LIBRARY_IMPL(emix, EMIX_CUDA_KEY, m) { emix::targets::register_ops<emix::targets::Cuda>(m); }
