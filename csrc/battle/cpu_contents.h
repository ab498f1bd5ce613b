// What is in the state and the tables, looked at before any of it is used.
#pragma once
#include "battle/arguments.h"

namespace emix::battle {

// The first of a row's numbers that f refuses.
template <class T, class F>
const T* find(const T* row, int count, const F& f) {
  for (int i = 0; i < count; ++i)
    if (f(row[i])) return row + i;
  return nullptr;
}

// Rows of the minds that name a slot, or nobody.
struct Naming {
  mind::Row row;
  const char* name;
};
inline constexpr Naming kNaming[] = {
    {mind::kind, "kind"}, {mind::order_target, "order_target"}, {mind::target, "target"}, {mind::attacker, "attacker"}};

inline void check_minds(const Battle& b, int64_t index) {
  const int slots = b.slots;
  for (const auto& [row, name] : kNaming)
    if (const int* wrong = find(b[row], slots, [&](int slot) { return !names_slot_or_nobody(slot, slots); }))
      fail("`minds` must hold slots from 0 to ", slots - 1, ", or -1, in its row `", name, "`, got ", *wrong,
           " in battle ", index);
  for (int i = 0; i < slots; ++i)
    if (has_subject(b[mind::order][i]) && b[mind::order_target][i] == kNobody)
      fail("`minds` must hold a slot in its row `order_target` where `order` is to attack or heal, got -1 in battle ",
           index);
}

inline void check_places(const Battle& b, int64_t index) {
  for (int i = 0; i < b.slots; ++i)
    if (!inside(b[unit::x][i], b[unit::y][i]))
      fail("`units` must be on the map, x and y from 0 to ", kMap, ", got ", b[unit::x][i], " and ", b[unit::y][i],
           " in battle ", index);
}

inline void check_tables(const Scenario& s) {
  const auto row = [&](trait::Row name) { return s.traits + int64_t(name) * s.slots; };
  if (const int* wrong = find(row(trait::place), s.slots, [&](int place) { return !names_slot(place, s.slots); }))
    fail("`traits` must hold slots from 0 to ", s.slots - 1, " in its row `place`, got ", *wrong);
  constexpr int kLayers = static_cast<int>(Layer::air) + 1;
  if (const int* wrong = find(row(trait::layer), s.slots, [&](int layer) { return !names_slot(layer, kLayers); }))
    fail("`traits` must hold layers from 0 to ", kLayers - 1, " in its row `layer`, got ", *wrong);
  const float *x = s.stats + int64_t(stat::spawn_x) * s.slots, *y = s.stats + int64_t(stat::spawn_y) * s.slots;
  for (int i = 0; i < s.slots; ++i)
    if (row(trait::type)[i] != 0 && !inside(x[i], y[i]))
      fail("`stats` must place units on the map, `spawn_x` and `spawn_y` from 0 to ", kMap, ", got ", x[i], " and ",
           y[i]);
}

// `starts` [B]: battles that are to start, whose state is not read; nullptr: none.
inline void check_contents(const Run& run, const bool* starts) {
  check_tables(run.scenario);
  for (int64_t index = 0; index < run.battles; ++index) {
    if (starts && starts[index]) continue;
    const Battle b = battle_at(run, index);
    check_minds(b, index);
    check_places(b, index);
  }
}

}  // namespace emix::battle
