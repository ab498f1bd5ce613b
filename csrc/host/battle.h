// NumPy access to one battle's observations, reward and end, for who brings the units from elsewhere: StarCraft II.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "battle/loops.h"
#include "battle/simulate.h"

namespace emix::host {

namespace py = pybind11;
using namespace emix::battle;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

// An array's memory, of which the caller says how many rows and columns it must have; columns 0: it is a vector.
template <class T>
T* memory(const char* name, const Array<T>& array, py::ssize_t rows, py::ssize_t columns) {
  const bool fits = columns == 0 ? array.ndim() == 1 && array.shape(0) == rows
                                 : array.ndim() == 2 && array.shape(0) == rows && array.shape(1) == columns;
  if (!fits)
    throw std::invalid_argument(std::string(name) + " expects shape [" + std::to_string(rows) +
                                (columns ? ", " + std::to_string(columns) : "") + "], got another one");
  return const_cast<T*>(array.data());
}

struct Tables {
  Array<float> units;
  Array<int32_t> minds;
  Array<int64_t> clock;
  Array<float> stats;
  Array<int32_t> traits;
  Array<double> rules;
  Array<uint8_t> terrain;  // [2 * 32, 32]
};

inline Scenario scenario_of(const std::vector<int>& layout) {
  if (layout.size() != 6) throw std::invalid_argument("layout expects 6 numbers");
  if (layout[0] < 1 || layout[1] < 1 || slots_of(layout[0]) + slots_of(layout[1]) > kMaxSlots)
    throw std::invalid_argument("layout expects at least one ally and one enemy and no more than " +
                                std::to_string(kMaxSlots) + " slots");
  return battle::scenario_of(layout[0], layout[1], layout[2], layout[3], layout[4], layout[5]);
}

inline Battle battle_of(Scenario& s, const Tables& t) {
  s.rules = memory("rules", t.rules, rule::rows, 0);
  s.terrain = memory("terrain", t.terrain, 2 * kMap, kMap);
  Battle b;
  b.scenario = &s, b.slots = s.slots;
  b.units = memory("units", t.units, unit::rows, s.slots);
  b.minds = memory("minds", t.minds, mind::rows, s.slots);
  b.clock = memory("clock", t.clock, clock::rows, 0);
  b.stats = s.stats = memory("stats", t.stats, stat::rows, s.slots);
  b.traits = s.traits = memory("traits", t.traits, trait::rows, s.slots);
  return b;
}

inline py::tuple observe(Array<float> units, Array<int32_t> minds, Array<int64_t> clock, Array<float> stats,
                         Array<int32_t> traits, Array<double> rules, Array<uint8_t> terrain,
                         const std::vector<int>& layout) {
  Scenario s = scenario_of(layout);
  const Battle b = battle_of(s, {units, minds, clock, stats, traits, rules, terrain});
  Array<float> obs({s.allies, s.obs_size}), state(s.state_size);
  Array<bool> avail({s.allies, s.actions});
  battle::observe(Loops(), b, {obs.mutable_data(), state.mutable_data(), avail.mutable_data()});
  return py::make_tuple(obs, state, avail);
}

inline py::tuple score(Array<float> before, Array<float> units, Array<int32_t> minds, Array<int64_t> clock,
                       Array<float> stats, Array<int32_t> traits, Array<double> rules, Array<uint8_t> terrain,
                       const std::vector<int>& layout) {
  Scenario s = scenario_of(layout);
  Battle b = battle_of(s, {units, minds, clock, stats, traits, rules, terrain});
  std::vector<float> notes(static_cast<size_t>(note::rows) * s.slots);
  b.notes = notes.data();
  const float* life = memory("before", before, s.slots, 0);
  std::copy(life, life + s.slots, b[note::before]);
  float reward = 0;
  bool terminated = false, truncated = false, won = false;
  int64_t dead_allies = 0, dead_enemies = 0;
  report(b, 0, battle::score(b), {&reward, &terminated, &truncated, &won, &dead_allies, &dead_enemies});
  return py::make_tuple(reward, terminated, truncated, won, dead_allies, dead_enemies);
}

}  // namespace emix::host
