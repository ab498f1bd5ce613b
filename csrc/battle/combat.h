// Attacking and healing. A unit with a target in range stops, winds up, shoots and stands until its backswing is over;
// what it shoots lands at once, when the missile arrives, with every pass of a beam, or all around it. All hits of a
// loop land together, attackers in the order of their slots.
#pragma once
#include "battle/battle.h"

namespace emix::battle {

inline constexpr float kReachIn = 0.01f;  // how far inside its range a walking unit stops

// A unit's target as seen from it.
template <class V>
struct Aim {
  typename V::M has;
  typename V::I whom;  // the unit itself where it has none
  typename V::F x, y, distance, edge;
};

template <class V>
EMIX_HD Aim<V> aim_at_target(const Battle& b, int i) {
  const auto target = load<V>(b[mind::target], i);
  Aim<V> aim;
  aim.has = target != kNobody;
  aim.whom = select(aim.has, target, V::index(i));
  aim.x = gather<V>(b[unit::x], aim.whom), aim.y = gather<V>(b[unit::y], aim.whom);
  const auto dx = aim.x - load<V>(b[unit::x], i), dy = aim.y - load<V>(b[unit::y], i);
  aim.distance = square_root(dx * dx + dy * dy);
  aim.edge = aim.distance - (load<V>(b[stat::radius], i) + gather<V>(b[stat::radius], aim.whom));
  return aim;
}

// Fractions of a loop are carried over: a shot that was due half a loop ago shortens the next wind-up or cooldown. The
// next wind-up is a part of the period, so that shots at one target are a period apart.
template <class V>
EMIX_HD typename V::M wind_up(const Battle& b, int i, typename V::M near, typename V::M close, int64_t loop) {
  using F = typename V::F;
  using M = typename V::M;
  const F before = load<V>(b[unit::cooldown], i), windup = load<V>(b[unit::windup], i);
  F cooldown = select(before > 0, before - 1, V::splat(0.0f));
  const M winding = windup > 0;
  const M active = near & !is(load<V>(b[trait::weapon], i), Weapon::none) & (winding | (cooldown <= 0));
  const F whole = select(close, load<V>(b[stat::close_windup], i), load<V>(b[stat::windup], i));
  const F left = select(winding, windup - 1, whole + cooldown);
  const M fires = active & (left <= 0);
  store(b[unit::windup], i, select(active & !fires, left, V::splat(0.0f)));
  const F rest = larger(load<V>(b[unit::rest], i) - 1, V::splat(0.0f));
  store(b[unit::rest], i, select(fires, left + load<V>(b[stat::rest], i), rest));
  if (any(fires)) {
    const float low = b.scenario->rule(rule::cooldown_low), high = b.scenario->rule(rule::cooldown_high);
    F delay = V::splat(0.0f);
    for (int k = 0; k < V::kWidth; ++k)
      if (lane(fires, k))
        lane(delay, k) =
            between(low, high, random(b[clock::stream], Draw::kCooldown, loop * kMaxSlots + i + k).word[0]);
    cooldown = select(fires, left + (load<V>(b[stat::period], i) + delay - whole), cooldown);
  }
  store(b[unit::cooldown], i, cooldown);
  return fires;
}

// What is under way comes nearer: marks what lands now. A missile flies on when its shooter has died.
template <class V>
EMIX_HD void land(const Battle& b, int i, typename V::M alive) {
  using M = typename V::M;
  const auto weapon = load<V>(b[trait::weapon], i), hits = load<V>(b[mind::hits], i);
  const M under_way = (hits > 0) & !is(weapon, Weapon::explosion) & (alive | is(weapon, Weapon::missile));
  const auto delay = load<V>(b[unit::delay], i) - 1;
  const M lands = under_way & (delay <= 0);
  const M beam = is(weapon, Weapon::beam);
  store(b[mark::strike], i, select(lands & !beam, load<V>(b[mind::victim], i), V::splat(kNobody)));
  store(b[mark::sweep], i, select(lands & beam, V::splat(1), V::splat(0)));
  store(b[mind::hits], i, hits - select(lands, V::splat(1), V::splat(0)));  // of any content, without an overflow
  const auto next = select(lands, delay + load<V>(b[stat::interval], i), delay);
  store(b[unit::delay], i, select(under_way, next, V::splat(0.0f)));
}

// Loops until a missile is there: the root t of speed t + acceleration t^2 / 2 = distance, written without a
// difference.
template <class V>
EMIX_HD typename V::F flight_of(const Battle& b, int i, typename V::M missile, typename V::F distance) {
  const auto speed = select(missile, load<V>(b[stat::missile_speed], i), V::splat(1.0f));
  const auto gained = 2 * load<V>(b[stat::missile_acceleration], i) * distance;
  return 2 * distance / (speed + square_root(speed * speed + gained));
}

template <class V>
EMIX_HD void shoot(const Battle& b, int i, typename V::M fires, typename V::M close, const Aim<V>& aim) {
  using M = typename V::M;
  const auto weapon = load<V>(b[trait::weapon], i);
  const auto hits = load<V>(b[stat::hits], i);
  const M direct = fires & (is(weapon, Weapon::direct) | close), missile = fires & is(weapon, Weapon::missile) & !close;
  const M beam = fires & is(weapon, Weapon::beam), shot = direct | missile | beam;
  const auto interval = load<V>(b[stat::interval], i);
  auto flight = V::splat(0.0f);
  if (any(missile)) flight = flight_of<V>(b, i, missile, aim.distance);
  store(b[mark::strike], i, select(direct, aim.whom, load<V>(b[mark::strike], i)));
  store(b[mark::explode], i, select(fires & is(weapon, Weapon::explosion), V::splat(1), V::splat(0)));
  store(b[mind::victim], i, select(shot, aim.whom, load<V>(b[mind::victim], i)));
  store(b[mind::hits], i, select(shot, to_int(select(direct, hits - 1, hits)), load<V>(b[mind::hits], i)));
  store(b[unit::delay], i, select(shot, select(missile, flight, interval), load<V>(b[unit::delay], i)));
  store(b[unit::aim_x], i, select(beam, aim.x, load<V>(b[unit::aim_x], i)));
  store(b[unit::aim_y], i, select(beam, aim.y, load<V>(b[unit::aim_y], i)));
}

template <class V>
EMIX_HD typename V::M treat(const Battle& b, int i, const Aim<V>& aim) {
  using F = typename V::F;
  using M = typename V::M;
  const F heal = load<V>(b[stat::heal], i), energy = load<V>(b[unit::energy], i);
  const M near = aim.has & (heal > 0) & (aim.edge <= load<V>(b[stat::heal_range], i));
  F given = V::splat(0.0f);
  if (any(near)) {
    const F missing = gather<V>(b[stat::health], aim.whom) - gather<V>(b[unit::health], aim.whom);
    const F cost = load<V>(b[stat::heal_cost], i);
    const M able = near & (energy > 0) & ((gather<V>(b[trait::tags], aim.whom) & bit(Tag::biological)) != 0);
    given = select(able, smaller(heal, missing), given);
    store(b[unit::energy], i, larger(energy - given * cost, V::splat(0.0f)));
  }
  store(b[note::healing], i, given);
  return near;
}

// Where the unit walks: to its target until that is in range, else to where its order leads.
template <class V>
EMIX_HD void plan_walk(const Battle& b, int i, typename V::M alive, typename V::M near, const Aim<V>& aim) {
  using F = typename V::F;
  using M = typename V::M;
  const auto order = load<V>(b[mind::order], i);
  const M free = alive & (load<V>(b[unit::rest], i) <= 0);
  const M to_target = free & aim.has & !near;
  const M to_goal = free & !aim.has & (is(order, Order::move) | is(order, Order::attack_move));
  const F reach = select(load<V>(b[stat::heal], i) > 0, load<V>(b[stat::heal_range], i), load<V>(b[stat::range], i));
  const F goal_x = load<V>(b[unit::goal_x], i), goal_y = load<V>(b[unit::goal_y], i);
  const F far = V::splat(float(2 * kMap));
  store(b[note::wish_x], i, select(to_target, aim.x, goal_x));
  store(b[note::wish_y], i, select(to_target, aim.y, goal_y));
  store(b[note::length], i, select(to_target, aim.edge - reach + kReachIn, select(to_goal, far, V::splat(0.0f))));
  store(b[mark::path], i, select(to_target | (to_goal & is(order, Order::attack_move)), V::splat(1), V::splat(0)));
}

template <class V>
EMIX_HD void engage(const Battle& b, int i, int64_t loop) {
  using F = typename V::F;
  using M = typename V::M;
  const M alive = load<V>(b[unit::health], i) > 0;
  const Aim<V> aim = aim_at_target<V>(b, i);
  const auto slop = select(load<V>(b[unit::windup], i) > 0, load<V>(b[stat::slop], i), V::splat(0.0f));
  const M in_range = alive & aim.has & (aim.edge <= load<V>(b[stat::range], i) + slop);
  const M armed = !is(load<V>(b[trait::weapon], i), Weapon::none);
  const F close_range = load<V>(b[stat::close_range], i);
  const M close = (close_range > 0) & (aim.edge <= close_range);
  const M fires = wind_up<V>(b, i, in_range & armed, close, loop);
  land<V>(b, i, alive);
  shoot<V>(b, i, fires, close, aim);
  const M near = (in_range & armed) | (alive & treat<V>(b, i, aim));
  store(b[mind::held], i, select(near, V::splat(1), V::splat(0)));
  plan_walk<V>(b, i, alive, near, aim);
}

// The damage that a hit by attacker j does to these units, where it meets them.
template <class V>
struct Wound {
  typename V::F health, shield;
  typename V::I attacker;
  typename V::M hurt;
};

template <class V>
EMIX_HD void hit(const Battle& b, int i, int j, typename V::M meets, Wound<V>& wound) {
  using F = typename V::F;
  const auto matching = load<V>(b[trait::tags], i) & b[trait::bonus_tags][j];
  const F damage = b[stat::damage][j] + select(matching != 0, V::splat(b[stat::bonus][j]), V::splat(0.0f));
  const F absorbed = smaller(wound.shield, damage), rest = damage - absorbed;
  const F least = V::splat(b.scenario->rule(rule::least_damage));
  const F loss = select(rest > 0, larger(rest - load<V>(b[stat::armor], i), least), V::splat(0.0f));
  const auto met = meets & (wound.health > 0);
  wound.health = select(met, wound.health - loss, wound.health);
  wound.shield = select(met, wound.shield - absorbed, wound.shield);
  wound.attacker = select(met, V::splat(j), wound.attacker);
  wound.hurt = wound.hurt | met;
}

template <class V>
EMIX_HD Wound<V> unhurt(const Battle& b, int i) {
  return {load<V>(b[unit::health], i), load<V>(b[unit::shield], i), load<V>(b[mind::attacker], i), V::index(i) < 0};
}

template <class V>
EMIX_HD void suffer(const Battle& b, int i, const Wound<V>& wound) {
  const auto dead = wound.health <= 0;
  store(b[unit::health], i, select(dead, V::splat(0.0f), wound.health));
  store(b[unit::shield], i, select(dead, V::splat(0.0f), wound.shield));
  store(b[mind::attacker], i, wound.attacker);
  store(b[unit::quiet], i, select(wound.hurt, V::splat(0.0f), load<V>(b[unit::quiet], i)));
  store(b[unit::windup], i, select(dead, V::splat(0.0f), load<V>(b[unit::windup], i)));
  store(b[mind::held], i, select(dead, V::splat(0), load<V>(b[mind::held], i)));
}

// The square of the distance from the units to the line that j's beam sweeps: across the line of fire, through the
// point that was aimed at.
template <class V>
EMIX_HD typename V::F beam_distance2(const Battle& b, int i, int j) {
  using F = typename V::F;
  const float aim_x = b[unit::aim_x][j], aim_y = b[unit::aim_y][j];
  const float fire_x = aim_x - b[unit::x][j], fire_y = aim_y - b[unit::y][j];
  const float distance = square_root(fire_x * fire_x + fire_y * fire_y);
  const float across_x = distance > 0 ? -fire_y / distance : 1.0f, across_y = distance > 0 ? fire_x / distance : 0.0f;
  const F dx = load<V>(b[unit::x], i) - aim_x, dy = load<V>(b[unit::y], i) - aim_y;
  const float half = b[stat::beam][j];
  const F along = larger(smaller(dx * across_x + dy * across_y, V::splat(half)), V::splat(-half));
  const F off_x = dx - along * across_x, off_y = dy - along * across_y;
  return off_x * off_x + off_y * off_y;
}

// Shots and beams. Who is to explode, because it attacks or has died, is marked: a charge is one hit that is left.
template <class V>
EMIX_HD void take_hits(const Battle& b, int i) {
  using F = typename V::F;
  Wound<V> wound = unhurt<V>(b, i);
  const Side attackers = b.opponents_of(i);
  for (int j = attackers.begin; j < attackers.end; ++j) {
    const int whom = b[mark::strike][j];
    if (whom >= i && whom < i + V::kWidth) hit<V>(b, i, j, V::index(i) == whom, wound);
    if (b[mark::sweep][j]) {
      const F width = load<V>(b[stat::radius], i) + b[stat::splash][j];
      const auto layer = (b[trait::reach][j] >> load<V>(b[trait::layer], i)) & 1;
      hit<V>(b, i, j, (layer != 0) & (beam_distance2<V>(b, i, j) <= width * width), wound);
    }
  }
  const auto hits = load<V>(b[mind::hits], i);
  const auto exploding = is(load<V>(b[trait::weapon], i), Weapon::explosion) & (hits > 0) &
                         ((load<V>(b[mark::explode], i) != 0) | (wound.health <= 0));
  store(b[mark::blast], i, select(exploding, V::splat(1), V::splat(0)));
  store(b[mind::hits], i, select(exploding, V::splat(0), hits));
  wound.health = select(exploding, V::splat(0.0f), wound.health);
  suffer<V>(b, i, wound);
}

// Explosions, then healing. Who is killed by an explosion explodes in the next loop.
template <class V>
EMIX_HD void take_blasts_and_care(const Battle& b, int i) {
  using F = typename V::F;
  Wound<V> wound = unhurt<V>(b, i);
  const F x = load<V>(b[unit::x], i), y = load<V>(b[unit::y], i);
  const Side attackers = b.opponents_of(i), friends = b.friends_of(i);
  for (int j = attackers.begin; j < attackers.end; ++j) {
    if (!b[mark::blast][j]) continue;
    const F dx = x - b[unit::x][j], dy = y - b[unit::y][j], radius = load<V>(b[stat::radius], i) + b[stat::splash][j];
    const auto layer = (b[trait::reach][j] >> load<V>(b[trait::layer], i)) & 1;
    hit<V>(b, i, j, (layer != 0) & (dx * dx + dy * dy <= radius * radius), wound);
  }
  for (int j = friends.begin; j < friends.end; ++j) {
    if (!(b[note::healing][j] > 0)) continue;
    const auto cared = (V::index(i) == b[mind::target][j]) & (wound.health > 0);
    const F healed = smaller(wound.health + b[note::healing][j], load<V>(b[stat::health], i));
    wound.health = select(cared, healed, wound.health);
  }
  suffer<V>(b, i, wound);
}

}  // namespace emix::battle
