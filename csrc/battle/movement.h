// Walking, and keeping apart. Who meets a wall slides along it. A unit that attacks or heals stands firm: others walk
// around it, and around all that stand firm beside it. Overlapping units push each other away.
#pragma once
#include "battle/targets.h"

namespace emix::battle {

inline constexpr float kArrived = 0.5f;     // how near to where the army was ordered a unit stops
inline constexpr float kMostPushed = 0.5f;  // along an axis in one step, so that nobody is pushed through a wall
inline constexpr float kBeside = 0.01f;     // cosine of the angle from which on a unit is not ahead
inline constexpr float kGrazing = 0.96f;    // of where two would touch, squared: so near they still pass each other
inline constexpr float kRoom = 0.8f;        // of a step, squared: who gets less far, since there is a wall, turns round
inline constexpr float kLook = 2.0f;        // cells ahead in which a unit sees who stands in its way
inline constexpr int kTurns = 4;            // units that stand together and are walked around in one loop

// Whether a unit may walk from one point to the other, a cell further at most.
EMIX_HD bool passable(const uint8_t* terrain, int layer, float from_x, float from_y, float x, float y) {
  if (!inside(x, y)) return false;
  if (is(layer, Layer::air)) return true;
  const int to = terrain[cell_of(x, y)];
  if (to == 0) return false;
  const int rise = to - terrain[cell_of(from_x, from_y)];
  return is(layer, Layer::cliff) || (rise <= 1 && rise >= -1);
}

// (x, y) moved by (dx, dy), or along one axis, or not at all, as the terrain lets it.
template <class V>
EMIX_HD void move_by(const Battle& b, int i, typename V::F dx, typename V::F dy, typename V::F& x, typename V::F& y) {
  const uint8_t* terrain = b.terrain();
  const auto layer = load<V>(b[trait::layer], i);
  for (int k = 0; k < V::kWidth; ++k) {
    const float x0 = lane(x, k), y0 = lane(y, k), x1 = x0 + lane(dx, k), y1 = y0 + lane(dy, k);
    if (x1 == x0 && y1 == y0) continue;
    if (passable(terrain, lane(layer, k), x0, y0, x1, y1))
      lane(x, k) = x1, lane(y, k) = y1;
    else if (passable(terrain, lane(layer, k), x0, y0, x1, y0))
      lane(x, k) = x1;
    else if (passable(terrain, lane(layer, k), x0, y0, x0, y1))
      lane(y, k) = y1;
  }
}

// Around obstacles: the next corner on the way replaces the wish.
template <class V>
EMIX_HD void find_way(const Battle& b, int i, typename V::F x, typename V::F y, typename V::F& wish_x,
                      typename V::F& wish_y, typename V::F& length) {
  const int16_t* waypoints = b.waypoints();
  const auto path = load<V>(b[mark::path], i), layer = load<V>(b[trait::layer], i);
  for (int k = 0; k < V::kWidth; ++k) {
    if (!lane(path, k) || !(lane(length, k) > 0) || !is(lane(layer, k), Layer::ground)) continue;
    if (!inside(lane(wish_x, k), lane(wish_y, k))) continue;
    const int goal = cell_of(lane(wish_x, k), lane(wish_y, k));
    const int next = waypoints[goal * (kMap * kMap) + cell_of(lane(x, k), lane(y, k))];
    if (next < 0 || next == goal) continue;
    const int column = next % kMap, row = next / kMap;
    lane(wish_x, k) = static_cast<float>(column) + 0.5f;
    lane(wish_y, k) = static_cast<float>(row) + 0.5f;
    lane(length, k) = kMap;
  }
}

template <class V>
EMIX_HD void regenerate(const Battle& b, int i, typename V::M alive) {
  using F = typename V::F;
  const F health = load<V>(b[unit::health], i), shield = load<V>(b[unit::shield], i);
  const F energy = load<V>(b[unit::energy], i), quiet = load<V>(b[unit::quiet], i);
  const F grown = smaller(health + load<V>(b[stat::health_regeneration], i), load<V>(b[stat::health], i));
  const F charged = smaller(shield + b.scenario->rule(rule::shield_regeneration), load<V>(b[stat::shield], i));
  const F filled = smaller(energy + load<V>(b[stat::energy_regeneration], i), load<V>(b[stat::energy_limit], i));
  store(b[unit::health], i, select(alive, grown, health));
  store(b[unit::shield], i, select(alive & (quiet >= b.scenario->rule(rule::shield_delay)), charged, shield));
  store(b[unit::energy], i, select(alive, filled, energy));
  store(b[unit::quiet], i, select(alive, quiet + 1, quiet));
}

// How a unit would walk if nobody stood in its way: a step from (x, y) towards a goal, which is seen from there. It sees
// whom it would touch within `look`.
template <class V>
struct Way {
  typename V::F x, y, goal_x, goal_y, step, look;
};

// The nearest unit that stands firm in the way of (dx, dy), of length `step`.
template <class V>
struct Obstacle {
  typename V::M blocks;
  typename V::F x, y, distance2;  // as seen from the unit that walks
  typename V::F reach;            // where they would touch
};

template <class V>
EMIX_HD Obstacle<V> obstacle(const Battle& b, int i, const Way<V>& way, typename V::F dx, typename V::F dy) {
  using F = typename V::F;
  using M = typename V::M;
  const F radius = load<V>(b[stat::radius], i);
  const auto layer = load<V>(b[trait::layer], i), target = load<V>(b[mind::target], i);
  const F zero = V::splat(0.0f);
  Obstacle<V> it{V::index(i) < 0, zero, zero, V::splat(kFar), V::splat(1.0f)};
  const auto look_at = [&](const Side& units) EMIX_INLINE {
    for (int j = units.begin; j < units.end; ++j) {
      if (!b[mind::held][j]) continue;
      const F to_x = b[unit::x][j] - way.x, to_y = b[unit::y][j] - way.y, distance2 = to_x * to_x + to_y * to_y;
      const F reach = radius + b[stat::radius][j], seen = reach + way.look;
      const M near = (distance2 < seen * seen) & (distance2 < it.distance2) & (distance2 > 0);
      if (!any(near)) continue;
      const F ahead = dx * to_x + dy * to_y, aside = dx * to_y - dy * to_x, touching = reach * way.step;  // times step
      const M blocks = near & (ahead > kBeside * touching) & (aside * aside < touching * touching * kGrazing) &
                       (layer == b[trait::layer][j]) & (target != j) & (V::index(i) != j);
      it.blocks = it.blocks | blocks;
      it.distance2 = select(blocks, distance2, it.distance2);
      it.x = select(blocks, to_x, it.x), it.y = select(blocks, to_y, it.y);
      it.reach = select(blocks, reach, it.reach);
    }
  };
  look_at(b.allies());
  look_at(b.enemies());
  return it;
}

// A step past others that stand firm, and how long the way is then: to where it touches the last of them, around that one
// (where it turns by an angle a, at least 1 - cos a of the distance between the two), and on to the goal.
template <class V>
struct Detour {
  typename V::F dx, dy, length;
};

// (dx, dy) turned until it passes `it`, and all that are met then, on one side: each is just touched.
template <class V>
EMIX_HD Detour<V> detour(const Battle& b, int i, const Way<V>& way, typename V::F dx, typename V::F dy, Obstacle<V> it,
                         typename V::I side) {
  using F = typename V::F;
  const F one = V::splat(1.0f), zero = V::splat(0.0f);
  F x = zero, y = zero, length = zero, around = one;  // to where it touches
  for (int turn = 0; turn < kTurns && any(it.blocks); ++turn) {
    // Of the angle between them and the way past them.
    const F sine2 = smaller(it.reach * it.reach / it.distance2, one), cosine = square_root(one - sine2);
    const F away = square_root(it.distance2), sine = select(side > 0, square_root(sine2), zero - square_root(sine2));
    const F unit_x = (it.x * cosine + it.y * sine) / away, unit_y = (it.y * cosine - it.x * sine) / away;
    length = select(it.blocks, away * cosine, length), around = select(it.blocks, it.reach, around);
    x = select(it.blocks, unit_x * length, x), y = select(it.blocks, unit_y * length, y);
    dx = select(it.blocks, unit_x * way.step, dx), dy = select(it.blocks, unit_y * way.step, dy);
    if (turn + 1 < kTurns) it = obstacle<V>(b, i, way, dx, dy);
  }
  const F rest_x = way.goal_x - x, rest_y = way.goal_y - y, rest = square_root(rest_x * rest_x + rest_y * rest_y);
  const F straight = (dx * rest_x + dy * rest_y) / select(rest > 0, rest * way.step, one);
  return {dx, dy, length + around * (one - straight) + rest};
}

// Who stands firm in the way of (dx, dy) is passed on the side where the way to the goal is shorter, and on that side
// until the way is free: two that meet behind a row of others would else turn back and forth. Gives the side, as
// mind::side has it.
template <class V>
EMIX_HD typename V::I go_around(const Battle& b, int i, const Way<V>& way, typename V::F& dx, typename V::F& dy) {
  using I = typename V::I;
  const I none = V::splat(0), right = V::splat(1), left = V::splat(-1);
  const Obstacle<V> first = obstacle<V>(b, i, way, dx, dy);
  if (!any(first.blocks)) return none;
  const I before = load<V>(b[mind::side], i);
  I side = select(first.blocks, select(before == 0, right, before), none);
  Detour<V> chosen = detour<V>(b, i, way, dx, dy, first, side);
  const auto fresh = first.blocks & (before == 0);
  if (any(fresh)) {
    const Detour<V> other = detour<V>(b, i, way, dx, dy, first, left);
    const auto shorter = fresh & (other.length <= chosen.length);
    side = select(shorter, left, side);
    chosen.dx = select(shorter, other.dx, chosen.dx), chosen.dy = select(shorter, other.dy, chosen.dy);
  }
  dx = chosen.dx, dy = chosen.dy;
  return side;
}

// Units with an acceleration change their velocity by so much at most.
template <class V>
EMIX_HD void glide(const Battle& b, int i, typename V::M gliding, typename V::F& dx, typename V::F& dy) {
  using F = typename V::F;
  const F acceleration = load<V>(b[stat::acceleration], i);
  const F speed_x = load<V>(b[unit::velocity_x], i), speed_y = load<V>(b[unit::velocity_y], i);
  const F more_x = dx - speed_x, more_y = dy - speed_y;
  const F change = square_root(more_x * more_x + more_y * more_y);
  const F limit =
      select(change > acceleration, acceleration / select(change > 0, change, V::splat(1.0f)), V::splat(1.0f));
  dx = select(gliding, speed_x + more_x * limit, dx);
  dy = select(gliding, speed_y + more_y * limit, dy);
  store(b[unit::velocity_x], i, select(gliding, dx, V::splat(0.0f)));
  store(b[unit::velocity_y], i, select(gliding, dy, V::splat(0.0f)));
}

// Leaves the new position in the notes.
template <class V>
EMIX_HD void walk(const Battle& b, int i, typename V::M alive) {
  using F = typename V::F;
  using M = typename V::M;
  F x = load<V>(b[unit::x], i), y = load<V>(b[unit::y], i);
  F wish_x = load<V>(b[note::wish_x], i), wish_y = load<V>(b[note::wish_y], i);
  F length = select(alive, load<V>(b[note::length], i), V::splat(0.0f));
  const M gliding = alive & (load<V>(b[stat::acceleration], i) > 0);
  auto side = V::splat(0);
  if (any((length > 0) | gliding)) {
    if (b.scenario->waypoints) find_way<V>(b, i, x, y, wish_x, wish_y, length);
    F dx = wish_x - x, dy = wish_y - y;
    const F distance = square_root(dx * dx + dy * dy);
    const M arrived = is(load<V>(b[mind::order], i), Order::attack_move) & (load<V>(b[mind::target], i) == kNobody) &
                      (distance <= kArrived);
    const F reach = smaller(smaller(load<V>(b[stat::speed], i), length), distance);
    const F step = select((reach > 0) & !arrived, reach, V::splat(0.0f));
    const F scale = step / select(distance > 0, distance, V::splat(1.0f));
    dx = dx * scale, dy = dy * scale;
    const F look = larger(step, smaller(V::splat(kLook), smaller(length, distance)));
    side = go_around<V>(b, i, Way<V>{x, y, wish_x - x, wish_y - y, step, look}, dx, dy);
    if (any(gliding)) glide<V>(b, i, gliding, dx, dy);
    const F from_x = x, from_y = y;
    move_by<V>(b, i, dx, dy, x, y);
    if (any(side != 0)) {
      const F moved2 = (x - from_x) * (x - from_x) + (y - from_y) * (y - from_y);
      side = select(moved2 < kRoom * step * step, V::splat(0) - side, side);
    }
  }
  store(b[mind::side], i, side);
  store(b[note::pushed_x], i, x);
  store(b[note::pushed_y], i, y);
}

template <class V>
EMIX_HD void regenerate_and_walk(const Battle& b, int i) {
  const auto alive = load<V>(b[unit::health], i) > 0;
  regenerate<V>(b, i, alive);
  walk<V>(b, i, alive);
}

// One Jacobi step that pushes overlapping units apart, each by its share of the overlap: positions `from` to `to`.
template <class V>
EMIX_HD void keep_apart(const Battle& b, int i, const float* from_x, const float* from_y, float* to_x, float* to_y) {
  using F = typename V::F;
  using M = typename V::M;
  F x = load<V>(from_x, i), y = load<V>(from_y, i);
  const F radius = load<V>(b[stat::radius], i);
  const auto held = load<V>(b[mind::held], i), layer = load<V>(b[trait::layer], i);
  const M alive = load<V>(b[unit::health], i) > 0;
  F push_x = V::splat(0.0f), push_y = V::splat(0.0f);
  if (any(alive)) {
    const auto push_from = [&](const Side& side) EMIX_INLINE {
      for (int j = side.begin; j < side.end; ++j) {
        if (!b.alive(j)) continue;
        const F dx = x - from_x[j], dy = y - from_y[j], distance2 = dx * dx + dy * dy;
        const F reach = radius + b[stat::radius][j];
        const M overlaps = alive & (distance2 < reach * reach) & (layer == b[trait::layer][j]) & (V::index(i) != j);
        if (!any(overlaps)) continue;
        const F distance = square_root(distance2), overlap = reach - distance;
        // Both firm or both free: half each; else the free one gives way.
        const F share =
            select(held == b[mind::held][j], V::splat(0.5f), select(held != 0, V::splat(0.0f), V::splat(1.0f)));
        const M apart = distance > 0;
        const F sideways = select(V::index(i) < j, V::splat(-1.0f), V::splat(1.0f));  // two on one spot
        const F scale = overlap * share / select(apart, distance, V::splat(1.0f));
        push_x = select(overlaps, push_x + select(apart, dx, sideways) * scale, push_x);
        push_y = select(overlaps & apart, push_y + dy * scale, push_y);
      }
    };
    push_from(b.allies());
    push_from(b.enemies());
    push_x = larger(smaller(push_x, V::splat(kMostPushed)), V::splat(-kMostPushed));
    push_y = larger(smaller(push_y, V::splat(kMostPushed)), V::splat(-kMostPushed));
    if (any((push_x != 0) | (push_y != 0))) move_by<V>(b, i, push_x, push_y, x, y);
  }
  store(to_x, i, x);
  store(to_y, i, y);
}

}  // namespace emix::battle
