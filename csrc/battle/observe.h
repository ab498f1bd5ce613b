// SMAC's observations, state and available actions, a small part at a time: whoever runs the parts, on several threads
// or one after the other, gets the same.
//
//   observation   moves 4 (+ 8 pathing, + 9 heights) | enemies 5 + health + types | allies likewise | own
//   state         allies, enemies | last actions | time
#pragma once
#include "battle/orders.h"

namespace emix::battle {

inline constexpr int kSurrounding = 8;  // points around a unit whose pathing and height it is told
inline constexpr float kHeights = 4;    // what a height level is divided by

// How many numbers each part of an observation and of the state has.
struct Sizes {
  int moves, enemy, ally, own, ally_state, enemy_state;

  EMIX_HD explicit Sizes(const Scenario& s) {
    const int all = s.has(Feature::obs_all_health), own_health = s.has(Feature::obs_own_health);
    moves = 4 + kSurrounding * s.has(Feature::obs_pathing_grid) +
            (kSurrounding + 1) * s.has(Feature::obs_terrain_height) + s.has(Feature::obs_closed);
    enemy = 4 + all * (1 + s.enemy_shield) + s.type_bits;
    ally = 4 + all * (1 + s.ally_shield) + s.type_bits + s.actions * s.has(Feature::obs_last_action);
    own = own_health * (1 + s.ally_shield) + s.type_bits + s.has(Feature::obs_timestep_number);
    ally_state = 4 + s.ally_shield + s.type_bits;
    enemy_state = 3 + s.enemy_shield + s.type_bits;
  }

  EMIX_HD int observation(const Scenario& s) const { return moves + s.enemies * enemy + (s.allies - 1) * ally + own; }
  EMIX_HD int state(const Scenario& s) const {
    return s.allies * ally_state + s.enemies * enemy_state + s.allies * s.actions * s.has(Feature::state_last_action) +
           s.has(Feature::state_timestep_number);
  }
};

// From an op's layout to what is the same for all battles, but for the tables. Python asks for the sizes, too.
inline Scenario scenario_of(int allies, int enemies, int type_bits, int ally_shield, int enemy_shield, int features) {
  Scenario s;
  s.allies = allies, s.enemies = enemies;
  s.ally_slots = static_cast<int>(slots_of(allies)), s.slots = s.ally_slots + static_cast<int>(slots_of(enemies));
  s.type_bits = type_bits, s.ally_shield = ally_shield, s.enemy_shield = enemy_shield, s.features = features;
  s.actions = kTarget + enemies;
  const Sizes sizes(s);
  s.obs_size = sizes.observation(s), s.state_size = sizes.state(s);
  return s;
}

// Writes numbers one after the other.
struct Pen {
  float* next;
  EMIX_HD void put(float value) { *next++ = value; }
  EMIX_HD void put_zeros(int count) {
    for (int k = 0; k < count; ++k) *next++ = 0;
  }
  EMIX_HD void put_one_hot(int column, int count) {
    for (int k = 0; k < count; ++k) *next++ = k == column ? 1.0f : 0.0f;
  }
};

EMIX_HD float health_of(const Battle& b, int i) { return b[unit::health][i] / b[stat::health][i]; }
EMIX_HD float shield_of(const Battle& b, int i) {
  return b[stat::shield_scale][i] > 0 ? b[unit::shield][i] / b[stat::shield_scale][i] : 0.0f;
}
EMIX_HD float timestep(const Battle& b) {
  return static_cast<float>(static_cast<double>(b[clock::step]) / b.scenario->rules[rule::episode_limit]);
}

// The k-th point around a unit, SMAC's order; the last one is its own.
EMIX_HD void surrounding(const Battle& b, int i, int k, float& x, float& y) {
  constexpr int kEastward[kSurrounding + 1] = {0, 0, 2, -2, 1, -1, 1, -1, 0};
  constexpr int kNorthward[kSurrounding + 1] = {2, -2, 0, 0, 1, -1, -1, 1, 0};
  const float amount = b.scenario->rule(rule::move_amount);
  x = static_cast<float>(static_cast<int>(b[unit::x][i])) + amount * static_cast<float>(kEastward[k]);
  y = static_cast<float>(static_cast<int>(b[unit::y][i])) + amount * static_cast<float>(kNorthward[k]);
}

// What agent i is told of another unit; `first` is the part's first number.
EMIX_HD void describe_other(const Battle& b, int i, int other, float first, int shields, Pen& pen) {
  const float sight = b.scenario->rule(rule::sight), far = distance(b, i, other);
  const int health = b.scenario->has(Feature::obs_all_health) ? 1 : 0;
  if (!b.alive(i) || !b.alive(other) || !(far < sight))
    return pen.put_zeros(4 + health * (1 + shields) + b.scenario->type_bits);
  pen.put(first);
  pen.put(far / sight);
  pen.put((b[unit::x][other] - b[unit::x][i]) / sight);
  pen.put((b[unit::y][other] - b[unit::y][i]) / sight);
  if (health) {
    pen.put(health_of(b, other));
    if (shields) pen.put(shield_of(b, other));
  }
  pen.put_one_hot(b[trait::type_bit][other], b.scenario->type_bits);
}

// The parts of agent i's observation and its available actions: enemy j, for 0 <= j < enemies, ...
EMIX_HD void observe_enemy(const Battle& b, const Sizes& sizes, int i, int j, float* obs, bool* avail) {
  const bool can = b.alive(i) && can_target(b, i, j);
  avail[kTarget + j] = can;
  Pen pen{obs + sizes.moves + int64_t(j) * sizes.enemy};
  describe_other(b, i, b.scenario->ally_slots + j, can ? 1.0f : 0.0f, b.scenario->enemy_shield, pen);
}

// ... ally j other than i ...
EMIX_HD void observe_ally(const Battle& b, const Sizes& sizes, int i, int j, float* obs) {
  const Scenario& s = *b.scenario;
  Pen pen{obs + sizes.moves + int64_t(s.enemies) * sizes.enemy + int64_t(j < i ? j : j - 1) * sizes.ally};
  describe_other(b, i, j, 1.0f, s.ally_shield, pen);
  if (!s.has(Feature::obs_last_action)) return;
  const bool seen = b.alive(i) && b.alive(j) && distance(b, i, j) < s.rule(rule::sight);
  pen.put_one_hot(seen ? b[mind::last_action][j] : kNobody, s.actions);
}

// ... and itself: moves and terrain first, own features last.
EMIX_HD void observe_self(const Battle& b, const Sizes& sizes, int i, float* obs, bool* avail) {
  const Scenario& s = *b.scenario;
  const bool alive = b.alive(i);
  Pen moves{obs}, own{obs + s.obs_size - sizes.own};
  avail[kNoOp] = !alive;
  avail[kStop] = alive;
  for (int action = kNorth; action <= kWest; ++action) {
    avail[action] = alive && can_move(b, i, action);
    moves.put(avail[action] ? 1.0f : 0.0f);
  }
  float x = 0, y = 0;
  if (!alive) {
    moves.put_zeros(sizes.moves - 4);
    return own.put_zeros(sizes.own);
  }
  for (int k = 0; k < kSurrounding && s.has(Feature::obs_pathing_grid); ++k) {
    surrounding(b, i, k, x, y);
    moves.put(!inside(x, y) || open_at(b, x, y) ? 1.0f : 0.0f);
  }
  for (int k = 0; k <= kSurrounding && s.has(Feature::obs_terrain_height); ++k) {
    surrounding(b, i, k, x, y);
    const int height = inside(x, y) ? b.terrain()[cell_of(x, y)] : 0;
    moves.put(!inside(x, y) ? 1.0f : height > 0 ? static_cast<float>(height - 1) / kHeights : 0.0f);
  }
  if (s.has(Feature::obs_closed)) moves.put(b[clock::closed] ? 1.0f : 0.0f);
  if (s.has(Feature::obs_own_health)) {
    own.put(health_of(b, i));
    if (s.ally_shield) own.put(shield_of(b, i));
  }
  own.put_one_hot(b[trait::type_bit][i], s.type_bits);
  if (s.has(Feature::obs_timestep_number)) own.put(timestep(b));
}

// Unit number k of the state, the allies before the enemies.
EMIX_HD void describe_state(const Battle& b, const Sizes& sizes, int k, float* state) {
  const Scenario& s = *b.scenario;
  const bool ally = k < s.allies;
  const int i = ally ? k : s.ally_slots + k - s.allies, shields = ally ? s.ally_shield : s.enemy_shield;
  const int size = ally ? sizes.ally_state : sizes.enemy_state;
  Pen pen{state + (ally ? k * sizes.ally_state : s.allies * sizes.ally_state + (k - s.allies) * sizes.enemy_state)};
  if (!b.alive(i)) return pen.put_zeros(size);
  pen.put(health_of(b, i));
  if (ally) {
    const float cooldown = b[unit::cooldown][i] > 0 ? b[unit::cooldown][i] : 0.0f;
    pen.put(heals(b, i) ? b[unit::energy][i] / b[stat::energy_limit][i] : cooldown / b[stat::cooldown_scale][i]);
  }
  pen.put((b[unit::x][i] - s.rule(rule::map_width) / 2) / s.rule(rule::playable_width));
  pen.put((b[unit::y][i] - s.rule(rule::map_height) / 2) / s.rule(rule::playable_height));
  if (shields) pen.put(shield_of(b, i));
  pen.put_one_hot(b[trait::type_bit][i], s.type_bits);
}

// The last action of ally i, and with ally 0 the time, at the end of the state.
EMIX_HD void describe_past(const Battle& b, const Sizes& sizes, int i, float* state) {
  const Scenario& s = *b.scenario;
  const int units = s.allies * sizes.ally_state + s.enemies * sizes.enemy_state;
  if (s.has(Feature::state_last_action)) {
    Pen pen{state + units + int64_t(i) * s.actions};
    pen.put_one_hot(b[mind::last_action][i], s.actions);
  }
  if (i == 0 && s.has(Feature::state_timestep_number)) state[s.state_size - 1] = timestep(b);
}

}  // namespace emix::battle
