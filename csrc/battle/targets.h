// Whom a unit attacks or heals. A unit with an order to attack takes that target while it lives; the others look for
// their own, for each shot anew: threats first, then the nearest. Whom they aim at stays their target. Who has left
// their weapon's reach, or is still being chased, does so until another is in reach or, as the rules say, hits them.
#pragma once
#include "battle/battle.h"

namespace emix::battle {

inline constexpr float kFar = 1e9f;
inline constexpr float kNoThreat = 1e4f;  // farther than any place of the map: such targets come after all threats

// Who was nearest, and how far the present target is; edge to edge.
template <class V>
struct Sighted {
  typename V::I nearest;
  typename V::F rank, nearest_edge, target_edge;
};

template <class V>
EMIX_HD Sighted<V> look(const Battle& b, int i, typename V::I target, typename V::F scan) {
  using F = typename V::F;
  using M = typename V::M;
  const F x = load<V>(b[unit::x], i), y = load<V>(b[unit::y], i), radius = load<V>(b[stat::radius], i);
  const auto reach = load<V>(b[trait::reach], i), layer = load<V>(b[trait::layer], i);
  Sighted<V> seen{V::splat(kNobody), V::splat(kFar), V::splat(kFar), V::splat(kFar)};
  const Side others = b.opponents_of(i);
  for (int j = others.begin; j < others.end; ++j) {
    if (!b.alive(j)) continue;
    const F dx = b[unit::x][j] - x, dy = b[unit::y][j] - y;
    const F edge = square_root(dx * dx + dy * dy) - (radius + b[stat::radius][j]);
    const M can_hit = (reach & (1 << b[trait::layer][j])) != 0;
    const M threat = ((b[trait::reach][j] & (V::splat(1) << layer)) != 0) |
                     (V::splat(b[trait::tags][j] & bit(Tag::always_threat)) != 0);
    const F rank = edge + select(threat, V::splat(0.0f), V::splat(kNoThreat));
    const M better = can_hit & (edge <= scan) & (rank < seen.rank);
    seen.rank = select(better, rank, seen.rank);
    seen.nearest_edge = select(better, edge, seen.nearest_edge);
    seen.nearest = select(better, V::splat(j), seen.nearest);
    seen.target_edge = select(can_hit & (target == j), edge, seen.target_edge);
  }
  return seen;
}

// The most wounded friend that can be healed.
template <class V>
EMIX_HD typename V::I most_wounded(const Battle& b, int i) {
  using F = typename V::F;
  using M = typename V::M;
  const F x = load<V>(b[unit::x], i), y = load<V>(b[unit::y], i), scan = load<V>(b[stat::heal_scan], i);
  typename V::I patient = V::splat(kNobody);
  F least = V::splat(1.0f);
  const Side friends = b.friends_of(i);
  for (int j = friends.begin; j < friends.end; ++j) {
    if (!b.alive(j) || !(b[trait::tags][j] & bit(Tag::biological))) continue;
    const F dx = b[unit::x][j] - x, dy = b[unit::y][j] - y;
    const float life = b[unit::health][j] / b[stat::health][j];
    const M better = (dx * dx + dy * dy <= scan * scan) & (V::index(i) != j) & (life < least);
    least = select(better, V::splat(life), least);
    patient = select(better, V::splat(j), patient);
  }
  return patient;
}

// Units that choose for themselves.
template <class V>
EMIX_HD typename V::I own_choice(const Battle& b, int i, typename V::I order, typename V::I target) {
  using F = typename V::F;
  using M = typename V::M;
  const auto attacker = load<V>(b[mind::attacker], i);
  const auto rule = static_cast<Retarget>(static_cast<int>(b.scenario->rules[rule::retarget]));
  const F range = load<V>(b[stat::range], i);
  const F scan = select(is(order, Order::chase), V::splat(kFar), load<V>(b[stat::scan], i));
  const Sighted<V> seen = look<V>(b, i, target, scan);
  const M aiming = load<V>(b[unit::windup], i) > 0;
  const M there = seen.target_edge < kFar, other_in_reach = seen.nearest_edge <= range;
  const M stays = there & (aiming | ((seen.target_edge <= range) & !other_in_reach));
  const M follows = there & (seen.target_edge <= b.scenario->rule(rule::leash));
  const M chased = follows & !other_in_reach & (load<V>(b[mind::held], i) == 0);
  auto choice = seen.nearest;
  if (rule != Retarget::nearest) choice = select(chased, target, choice);
  choice = select(stays | (follows & (choice == kNobody)), target, choice);
  // Who is hit turns on the attacker: if it has nobody else to attack, or nobody whom it reaches.
  M called = (attacker != kNobody) & (load<V>(b[unit::quiet], i) <= 1) & !stays & !other_in_reach;
  if (rule != Retarget::provoked) called = called & (choice == kNobody);
  if (any(called)) {
    const auto by = select(called, attacker, V::index(i));
    const auto can_hit = (load<V>(b[trait::reach], i) >> gather<V>(b[trait::layer], by)) & 1;
    choice = select(called & (can_hit != 0) & (gather<V>(b[unit::health], by) > 0), attacker, choice);
  }
  choice = select(is(order, Order::chase) & !aiming, seen.nearest, choice);
  const M healer = load<V>(b[stat::heal], i) > 0;
  if (any(healer)) choice = select(healer, most_wounded<V>(b, i), choice);
  return choice;
}

template <class V>
EMIX_HD void choose_targets(const Battle& b, int i) {
  using M = typename V::M;
  const M alive = load<V>(b[unit::health], i) > 0;
  auto order = load<V>(b[mind::order], i);
  auto target = select(alive, load<V>(b[mind::target], i), V::splat(kNobody));
  const M ordered = alive & (is(order, Order::attack) | is(order, Order::heal));
  if (any(ordered)) {
    const auto whom = select(ordered, load<V>(b[mind::order_target], i), V::index(i));
    const M gone = ordered & (gather<V>(b[unit::health], whom) <= 0);
    const auto can_hit = (load<V>(b[trait::reach], i) >> gather<V>(b[trait::layer], whom)) & 1;
    const M fits = (!gone) & ((can_hit != 0) | is(order, Order::heal));
    target = select(ordered, select(fits, whom, V::splat(kNobody)), target);
    store(b[mind::order], i, select(gone, V::splat(int(Order::stop)), order));
  }
  const M own = alive & (order >= int(Order::attack_move));
  if (any(own)) target = select(own, own_choice<V>(b, i, order, target), target);
  store(b[mind::target], i, target);
}

}  // namespace emix::battle
