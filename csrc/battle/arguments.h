// The tensors of a call, checked, and what the call returns. All are contiguous and of one dtype, for the state is changed
// in place: there is nothing to convert (call_arguments.h).
#pragma once
#include <tuple>
#include <vector>

#include "battle/simulate.h"
#include "checks.h"

namespace emix::battle {

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// The state of the battles, which the ops change in place, and the map.
struct Tensors {
  const Tensor &units, &minds, &clock, &stats, &traits, &rules, &terrain, &waypoints;
};

inline void check_table(const char* name, const Tensor& tensor, ScalarType type, const char* type_name,
                        const std::vector<int64_t>& shape, const Tensor& like) {
  if (!tensor.defined()) fail("`", name, "` must be a tensor, got None");
  if (tensor.scalar_type() != type) fail("`", name, "` must be ", type_name, ", got another dtype");
  check_shape(name, tensor, shape);
  check_device(name, tensor, "units", like);
  if (!tensor.is_contiguous()) fail("`", name, "` must be contiguous, got a strided view");
}

// What the devices run: the battles' state, one after the other, and where results go.
struct Run {
  Scenario scenario;
  int64_t battles;
  float* units;
  int* minds;
  int64_t* clock;
  Observed observed;
  Outcome outcome;
};

// Which battles start, and with what.
struct Start {
  const bool* where;
  int64_t seed, first;  // first: the number of battle 0
  bool closed;
};

// What is changed in place must share no memory with anything else.
struct Memory {
  const char* name;
  const char* begin;
  int64_t bytes;

  Memory(const char* name_, const Tensor& tensor)
      : name(name_),
        begin(static_cast<const char*>(tensor.const_data_ptr())),
        bytes(tensor.numel() * tensor.element_size()) {}

  void check_apart(const Memory& other) const {
    if (begin < other.begin + other.bytes && other.begin < begin + bytes)
      fail("`", other.name, "` must share no memory with `", name, "`, which is changed in place");
  }
};

struct Call {
  Scenario scenario;
  int64_t battles = 0;
  float* units = nullptr;
  int* minds = nullptr;
  int64_t* clock = nullptr;
  Tensor obs, state, avail, reward, terminated, truncated, won, dead_allies, dead_enemies;

  Call(const Tensors& t, const std::vector<int64_t>& layout) {
    read_layout(layout);
    check_tensors(t);
    check_apart(t);
    const int64_t B = battles, n = scenario.allies;
    obs = empty({B, n, scenario.obs_size}, ScalarType::Float, t.units);
    state = empty({B, scenario.state_size}, ScalarType::Float, t.units);
    avail = empty({B, n, scenario.actions}, ScalarType::Bool, t.units);
    reward = empty({B}, ScalarType::Float, t.units);
    for (Tensor* flag : {&terminated, &truncated, &won}) *flag = empty({B}, ScalarType::Bool, t.units);
    for (Tensor* count : {&dead_allies, &dead_enemies}) *count = empty({B}, ScalarType::Long, t.units);
  }

  Run run() const {
    return {scenario,
            battles,
            units,
            minds,
            clock,
            {data<float>(obs), data<float>(state), data<bool>(avail)},
            {data<float>(reward), data<bool>(terminated), data<bool>(truncated), data<bool>(won),
             data<int64_t>(dead_allies), data<int64_t>(dead_enemies)}};
  }

  Result result() const { return {obs, state, avail, reward, terminated, truncated, won, dead_allies, dead_enemies}; }

 private:
  template <class T>
  static T* data(const Tensor& tensor) {
    return static_cast<T*>(tensor.mutable_data_ptr());
  }

  void read_layout(const std::vector<int64_t>& layout) {
    if (layout.size() != 6) fail("`layout` must have 6 numbers, got ", layout.size());
    if (std::min(layout[0], layout[1]) < 1 || std::max(layout[0], layout[1]) > kMaxSlots ||
        slots_of(layout[0]) + slots_of(layout[1]) > kMaxSlots)
      fail("`layout` must name at least one ally and one enemy and no more than ", kMaxSlots, " slots, got ", layout[0],
           " and ", layout[1]);
    const auto number = [&](size_t at, int most) {
      if (layout[at] < 0 || layout[at] > most)
        fail("`layout[", at, "]` must lie between 0 and ", most, ", got ", layout[at]);
      return static_cast<int>(layout[at]);
    };
    scenario = scenario_of(static_cast<int>(layout[0]), static_cast<int>(layout[1]), number(2, kMaxSlots), number(3, 1),
                           number(4, 1), number(5, kAllFeatures));
  }

  void check_tensors(const Tensors& t) {
    if (!t.units.defined() || t.units.dim() != 3) fail("`units` must have shape [B, rows, slots], got another one");
    battles = t.units.size(0);
    const int64_t slots = scenario.slots, cells = int64_t(kMap) * kMap;
    check_table("units", t.units, ScalarType::Float, "float32", {battles, unit::rows, slots}, t.units);
    check_table("minds", t.minds, ScalarType::Int, "int32", {battles, mind::rows, slots}, t.units);
    check_table("clock", t.clock, ScalarType::Long, "int64", {battles, clock::rows}, t.units);
    check_table("stats", t.stats, ScalarType::Float, "float32", {stat::rows, slots}, t.units);
    check_table("traits", t.traits, ScalarType::Int, "int32", {trait::rows, slots}, t.units);
    check_table("rules", t.rules, ScalarType::Double, "float64", {rule::rows}, t.units);
    check_table("terrain", t.terrain, ScalarType::Byte, "uint8", {2, kMap, kMap}, t.units);
    const bool open = t.waypoints.numel() == 0;
    if (!open) check_table("waypoints", t.waypoints, ScalarType::Short, "int16", {2, cells, cells}, t.units);
    units = static_cast<float*>(t.units.mutable_data_ptr());
    minds = static_cast<int*>(t.minds.mutable_data_ptr());
    clock = static_cast<int64_t*>(t.clock.mutable_data_ptr());
    scenario.stats = static_cast<const float*>(t.stats.const_data_ptr());
    scenario.traits = static_cast<const int*>(t.traits.const_data_ptr());
    scenario.rules = static_cast<const double*>(t.rules.const_data_ptr());
    scenario.terrain = static_cast<const uint8_t*>(t.terrain.const_data_ptr());
    scenario.waypoints = open ? nullptr : static_cast<const int16_t*>(t.waypoints.const_data_ptr());
  }

  static void check_apart(const Tensors& t) {
    const Memory state[] = {{"units", t.units}, {"minds", t.minds}, {"clock", t.clock}};
    const Memory tables[] = {{"stats", t.stats},
                             {"traits", t.traits},
                             {"rules", t.rules},
                             {"terrain", t.terrain},
                             {"waypoints", t.waypoints}};
    for (const Memory& changed : state) {
      for (const Memory& other : state)
        if (other.name != changed.name) changed.check_apart(other);
      for (const Memory& table : tables) changed.check_apart(table);
    }
  }
};

inline void check_apart(const char* name, const Tensor& tensor, const Tensors& t) {
  const Memory input(name, tensor);
  for (const Memory& changed : {Memory("units", t.units), Memory("minds", t.minds), Memory("clock", t.clock)})
    changed.check_apart(input);
}

inline const int64_t* check_actions(const Tensor& actions, const Call& call, const Tensors& t) {
  check_table("actions", actions, ScalarType::Long, "int64", {call.battles, call.scenario.allies}, t.units);
  check_apart("actions", actions, t);
  return static_cast<const int64_t*>(actions.const_data_ptr());
}

inline const bool* check_where(const Tensor& where, const Call& call, const Tensors& t) {
  check_table("where", where, ScalarType::Bool, "bool", {call.battles}, t.units);
  check_apart("where", where, t);
  return static_cast<const bool*>(where.const_data_ptr());
}

// Random numbers know 2^32 battles apart.
inline void check_first(int64_t first, const Call& call) {
  if (first < 0 || first > (int64_t(1) << 32) - call.battles)
    fail("`first` must be from 0 to 2^32 - B, the number of the first battle, got ", first);
}

// Battle number `index`, whose state lies in place.
EMIX_HD Battle battle_at(const Run& run, int64_t index) {
  const int slots = run.scenario.slots;
  Battle b;
  b.scenario = &run.scenario, b.slots = slots;
  b.units = run.units + index * unit::rows * slots;
  b.minds = run.minds + index * mind::rows * slots;
  b.clock = run.clock + index * clock::rows;
  return b;
}

EMIX_HD Observed observed_at(const Run& run, int64_t index) {
  const Scenario& s = run.scenario;
  const Observed& all = run.observed;
  return {all.obs + index * s.allies * s.obs_size, all.state + index * s.state_size,
          all.avail + index * s.allies * s.actions};
}

}  // namespace emix::battle
