// The ops: schemas, then each for either device, from the tensors to a Run and from there to what a step returns.
// `Device` runs the battles.
#pragma once
#include "battle/arguments.h"

namespace emix::battle {

// The state of B battles, which is changed in place, and the map (fields.h) -> obs, state, avail, reward, terminated,
// truncated, battle_won, dead_allies, dead_enemies. layout: allies, enemies, type bits, whether allies and enemies have
// shields, features.
inline void define_ops(Library& m) {
  m.def(
      "battle_step(Tensor(a!) units, Tensor(b!) minds, Tensor(c!) clock, Tensor actions, Tensor stats, Tensor traits, "
      "Tensor rules, Tensor terrain, Tensor waypoints, int[] layout) -> (Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "battle_reset(Tensor(a!) units, Tensor(b!) minds, Tensor(c!) clock, Tensor where, Tensor stats, Tensor traits, "
      "Tensor rules, Tensor terrain, Tensor waypoints, int[] layout, int seed, int first, bool closed) -> (Tensor, "
      "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

template <class Device>
Result battle_step(const Tensor& units, const Tensor& minds, const Tensor& clock, const Tensor& actions,
                   const Tensor& stats, const Tensor& traits, const Tensor& rules, const Tensor& terrain,
                   const Tensor& waypoints, const std::vector<int64_t>& layout) {
  const Device device(units);
  const Tensors tensors{units, minds, clock, stats, traits, rules, terrain, waypoints};
  const Call call(tensors, layout);
  device.step(call.run(), check_actions(actions, call, tensors));
  return call.result();
}

template <class Device>
Result battle_reset(const Tensor& units, const Tensor& minds, const Tensor& clock, const Tensor& where,
                    const Tensor& stats, const Tensor& traits, const Tensor& rules, const Tensor& terrain,
                    const Tensor& waypoints, const std::vector<int64_t>& layout, int64_t seed, int64_t first,
                    bool closed) {
  const Device device(units);
  const Tensors tensors{units, minds, clock, stats, traits, rules, terrain, waypoints};
  const Call call(tensors, layout);
  check_first(first, call);
  device.reset(call.run(), {check_where(where, call, tensors), seed, first, closed});
  return call.result();
}

template <class Device>
void register_ops(Library& m) {
  m.impl("battle_step", TORCH_BOX(&battle_step<Device>));
  m.impl("battle_reset", TORCH_BOX(&battle_reset<Device>));
}

}  // namespace emix::battle
