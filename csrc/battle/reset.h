// The start of an episode: the key of its random numbers, who stands where, and where the enemies go.
#pragma once
#include "battle/guard.h"

namespace emix::battle {

// A key of its own for every seed, battle and episode.
EMIX_HD int64_t stream_of(int64_t seed, int64_t index, int64_t episode) {
  const Philox words =
      philox(static_cast<uint32_t>(seed), static_cast<uint32_t>(static_cast<uint64_t>(seed) >> 32),
             {{static_cast<uint32_t>(Draw::kStream), static_cast<uint32_t>(index), static_cast<uint32_t>(episode),
               static_cast<uint32_t>(static_cast<uint64_t>(episode) >> 32)}});
  return static_cast<int64_t>(static_cast<uint64_t>(words.word[0]) << 32 | words.word[1]);
}

// Before anything else of the episode.
EMIX_HD void start_clock(const Battle& b, int64_t seed, int64_t index, bool closed) {
  b[clock::stream] = stream_of(seed, index, b[clock::episode]);
  b[clock::episode] += 1;
  b[clock::step] = 0;
  b[clock::status] = static_cast<int64_t>(Status::running);
  b[clock::closed] = closed;
  b[clock::fault] = 0;
}

EMIX_HD uint32_t shuffle_key(const Battle& b, int slot) {
  return random(b[clock::stream], Draw::kShuffle, slot).word[0];
}

// Slot of the map's table whose kind and place the unit in this slot gets. Enemies are shuffled by sorting random keys.
EMIX_HD int place_of(const Battle& b, int slot) {
  const auto order = static_cast<EnemyOrder>(static_cast<int>(b.scenario->rules[rule::enemy_order]));
  const Side enemies = b.enemies();
  if (b.ally(slot) || slot >= enemies.end || order == EnemyOrder::fixed) return slot;
  if (order == EnemyOrder::sorted) {
    const int place = b.scenario->traits[trait::place * b.slots + slot];
    return names_slot(place, b.slots) ? place : slot;
  }
  const uint32_t own = shuffle_key(b, slot);
  int rank = 0;
  for (int j = enemies.begin; j < enemies.end; ++j) {
    const uint32_t key = shuffle_key(b, j);
    rank += key < own || (key == own && j < slot);
  }
  return enemies.begin + rank;
}

// Needs the clock. Everything of the unit in this slot.
EMIX_HD void place_unit(const Battle& b, int slot) {
  const Scenario& s = *b.scenario;
  const auto stat_of = [&](stat::Row row, int kind) { return s.stats[row * b.slots + kind]; };
  const auto trait_of = [&](trait::Row row, int kind) { return s.traits[row * b.slots + kind]; };
  const int place = place_of(b, slot);
  const bool there = trait_of(trait::type, place) != 0;
  // Units of one type differ in their start alone, so that a slot mostly keeps its own row of the table.
  const int kind = trait_of(trait::type, place) == trait_of(trait::type, slot) ? slot : place;
  for (int row = 0; row < unit::rows; ++row) b.units[row * b.slots + slot] = 0;
  for (int row = 0; row < mind::rows; ++row) b.minds[row * b.slots + slot] = 0;
  for (const mind::Row row : {mind::order_target, mind::target, mind::victim, mind::attacker, mind::last_action})
    b[row][slot] = kNobody;
  b[mind::kind][slot] = there ? kind : kNobody;
  if (!there) return;
  const Philox words = random(b[clock::stream], Draw::kSpawn, slot);
  const float jitter = s.rule(rule::spawn_jitter), x = stat_of(stat::spawn_x, place), y = stat_of(stat::spawn_y, place);
  const float moved_x = x + between(-jitter, jitter, words.word[0]),
              moved_y = y + between(-jitter, jitter, words.word[1]);
  const bool free =
      inside(x, y) && inside(moved_x, moved_y) && b.terrain()[cell_of(moved_x, moved_y)] == b.terrain()[cell_of(x, y)];
  const float along = uniform_float(random(b[clock::stream], Draw::kGoal, 0).word[0]);
  b[unit::x][slot] = free ? moved_x : x;
  b[unit::y][slot] = free ? moved_y : y;
  b[unit::health][slot] = stat_of(stat::health, kind);
  b[unit::shield][slot] = stat_of(stat::shield, kind);
  b[unit::energy][slot] = stat_of(stat::energy, kind);
  b[unit::goal_x][slot] = s.rule(rule::goal_x) + along * (s.rule(rule::other_goal_x) - s.rule(rule::goal_x));
  b[unit::goal_y][slot] = s.rule(rule::goal_y) + along * (s.rule(rule::other_goal_y) - s.rule(rule::goal_y));
  b[mind::order][slot] = trait_of(trait::order, kind);
  b[mind::hits][slot] = is(trait_of(trait::weapon, kind), Weapon::explosion) ? 1 : 0;  // its charge
}

}  // namespace emix::battle
