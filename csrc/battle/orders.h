// SMAC's actions: which are available, and what they order.
//
//   0 no-op (of the dead alone)   1 stop   2 north   3 south   4 east   5 west   6 + j attack enemy j, or heal ally j
#pragma once
#include "battle/battle.h"

namespace emix::battle {

inline constexpr int kNoOp = 0, kStop = 1, kNorth = 2, kSouth = 3, kEast = 4, kWest = 5, kTarget = 6;

EMIX_HD float distance(const Battle& b, int i, int j) {
  const float dx = b[unit::x][j] - b[unit::x][i], dy = b[unit::y][j] - b[unit::y][i];
  return square_root(dx * dx + dy * dy);
}

EMIX_HD bool heals(const Battle& b, int i) { return b[stat::heal][i] > 0; }

// Whether the pathing grid is open at a point, of which SMAC looks at the cell alone.
EMIX_HD bool open_at(const Battle& b, float x, float y) { return inside(x, y) && b.terrain()[cell_of(x, y)] != 0; }

EMIX_HD float east_of(int action) { return action == kEast ? 1.0f : action == kWest ? -1.0f : 0.0f; }
EMIX_HD float north_of(int action) { return action == kNorth ? 1.0f : action == kSouth ? -1.0f : 0.0f; }

// SMAC looks at the cell half of the way from the unit to where it would be ordered.
EMIX_HD bool can_move(const Battle& b, int i, int action) {
  const float half = b.scenario->rule(rule::move_amount) / 2;
  return open_at(b, b[unit::x][i] + half * east_of(action), b[unit::y][i] + half * north_of(action));
}

// Slot of the unit that action 6 + j of ally i is about; kNobody where there is none.
EMIX_HD int subject(const Battle& b, int i, int j) {
  if (heals(b, i)) return j < b.scenario->allies ? j : kNobody;
  return b.scenario->ally_slots + j;
}

EMIX_HD bool can_target(const Battle& b, int i, int j) {
  const int whom = subject(b, i, j);
  if (whom == kNobody || !b.alive(whom)) return false;
  if (heals(b, i) && heals(b, whom)) return false;
  return distance(b, i, whom) <= b.scenario->rule(rule::shoot_range);
}

EMIX_HD bool available(const Battle& b, int i, int action) {
  if (!b.alive(i)) return action == kNoOp;
  if (action <= kStop) return action == kStop;
  return action < kTarget ? can_move(b, i, action) : can_target(b, i, action - kTarget);
}

// A new order drops a shot that is being wound up and a second blow, unless it is the same target once more. Any order
// ends the backswing, but not a shot that is channelled.
EMIX_HD void give_order(const Battle& b, int i, Order order, int target) {
  if (target == kNobody || target != b[mind::target][i]) {
    b[unit::windup][i] = 0;
    if (is(b[trait::weapon][i], Weapon::direct)) b[mind::hits][i] = 0;
  }
  const float rest = b[unit::rest][i] - (b[stat::rest][i] - b[stat::channel][i]);
  b[unit::rest][i] = rest > 0 ? rest : 0.0f;
  b[mind::order][i] = static_cast<int>(order);
  b[mind::order_target][i] = b[mind::target][i] = target;
}

// What ally i is told. An action that is not available counts as stop; no-op of a living unit leaves its order as it
// is.
EMIX_HD void obey(const Battle& b, int i, int64_t action) {
  const bool legal = action >= 0 && action < b.scenario->actions && available(b, i, static_cast<int>(action));
  const int fallback = action == kNoOp || !b.alive(i) ? kNoOp : kStop;
  b[mind::last_action][i] = legal ? static_cast<int>(action) : fallback;
  if (!b.alive(i)) return;
  if (legal && action >= kTarget) {
    const int whom = subject(b, i, static_cast<int>(action) - kTarget);
    give_order(b, i, heals(b, i) ? Order::heal : Order::attack, whom);
  } else if (legal && action >= kNorth) {
    const float amount = b.scenario->rule(rule::move_amount);
    give_order(b, i, Order::move, kNobody);
    b[unit::goal_x][i] = b[unit::x][i] + amount * east_of(static_cast<int>(action));
    b[unit::goal_y][i] = b[unit::y][i] + amount * north_of(static_cast<int>(action));
  } else if (action != kNoOp) {
    give_order(b, i, Order::stop, kNobody);
  }
}

// The first action that is not available, as clock::fault has it.
EMIX_HD void note_fault(const Battle& b, int i, int64_t action) {
  const bool legal = action >= 0 && action < b.scenario->actions && available(b, i, static_cast<int>(action));
  if (!legal && b[clock::fault] == 0)
    b[clock::fault] =
        1 + (static_cast<int64_t>(i) << 32) + static_cast<int64_t>(static_cast<uint32_t>(action) & 0x7fffffffu);
}

}  // namespace emix::battle
