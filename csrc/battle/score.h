// SMAC's reward and end of a battle. All sums run in the order of the slots, in double precision.
#pragma once
#include "battle/battle.h"

namespace emix::battle {

// Of one side over one environment step: life that it lost, and units that died.
struct Losses {
  double life = 0;
  int deaths = 0, alive = 0;
};

EMIX_HD Losses losses(const Battle& b, const Side& side) {
  Losses sum;
  for (int i = side.begin; i < side.end; ++i) {
    const float before = b[note::before][i];
    if (!(before > 0)) continue;  // it was dead already
    const bool alive = b.alive(i);
    const float now = alive ? b[unit::health][i] + b[unit::shield][i] : 0.0f;
    sum.life += static_cast<double>(before) - static_cast<double>(now);
    sum.deaths += !alive;
    sum.alive += alive;
  }
  return sum;
}

EMIX_HD double battle_reward(const Battle& b, const Losses& allies, const Losses& enemies) {
  const double* rules = b.scenario->rules;
  const double death = rules[rule::reward_death_value], scale = rules[rule::reward_negative_scale];
  const double gain = enemies.life + death * enemies.deaths;
  if (rules[rule::reward_only_positive] == 0) return gain - scale * (allies.life + death * allies.deaths);
  return rules[rule::reward_absolute] != 0 && gain < 0 ? -gain : gain;
}

EMIX_HD double reward_of(const Battle& b, const Losses& allies, const Losses& enemies, Status status) {
  const double* rules = b.scenario->rules;
  const bool won = status == Status::won, lost = status == Status::lost;
  double reward = 0;
  switch (static_cast<Reward>(static_cast<int>(rules[rule::reward]))) {
    case Reward::dense:
      reward = battle_reward(b, allies, enemies);
      reward += won ? rules[rule::reward_win] : lost ? rules[rule::reward_defeat] : 0;
      break;
    case Reward::sparse:
      reward = won ? 1 : lost ? -1 : 0;
      break;
    case Reward::sparse_deaths:
      reward = -0.1 + rules[rule::reward_death_value] * enemies.deaths - allies.deaths;
      reward += won ? rules[rule::reward_win] : 0;
      break;
  }
  return reward / rules[rule::reward_divisor];
}

// Where the allies bring a healer, healers alone can neither win nor hold out: a side without other units has lost, the
// allies even when both sides are dead; of the enemies it must be a single one.
EMIX_HD Status status_of(const Battle& b, int allies, int enemies) {
  bool healers = false;
  int fighting = 0, enemy_healers = 0;
  for (int i = 0; i < b.scenario->allies; ++i) {
    healers |= heals(b, i);
    fighting += b.alive(i) && !heals(b, i);
  }
  const Side others = b.enemies();
  for (int j = others.begin; j < others.end; ++j) enemy_healers += b.alive(j) && heals(b, j);
  if ((allies == 0 && enemies > 0) || (healers && fighting == 0)) return Status::lost;
  if (allies > 0 && (enemies == 0 || (healers && enemies == 1 && enemy_healers == 1))) return Status::won;
  if (allies == 0) return Status::draw;
  return b[clock::step] >= static_cast<int64_t>(b.scenario->rules[rule::episode_limit]) ? Status::timeout
                                                                                        : Status::running;
}

// What a step returns beside the observations.
struct Outcome {
  float* reward;
  bool *terminated, *truncated, *won;
  int64_t *dead_allies, *dead_enemies;
};

EMIX_HD void report(const Battle& b, int64_t index, double reward, const Outcome& out) {
  const Status status = static_cast<Status>(b[clock::status]);
  int64_t dead[2] = {0, 0};
  for (int i = 0; i < b.scenario->allies; ++i) dead[0] += !b.alive(i);
  for (int j = b.enemies().begin; j < b.enemies().end; ++j) dead[1] += !b.alive(j);
  out.reward[index] = static_cast<float>(reward);
  out.terminated[index] = status == Status::won || status == Status::lost || status == Status::draw;
  out.truncated[index] = status == Status::timeout;
  out.won[index] = status == Status::won;
  out.dead_allies[index] = dead[0];
  out.dead_enemies[index] = dead[1];
}

// After the game loops of an environment step.
EMIX_HD double score(const Battle& b) {
  const Losses allies = losses(b, b.allies()), enemies = losses(b, b.enemies());
  b[clock::step] += 1;
  const Status status = status_of(b, allies.alive, enemies.alive);
  b[clock::status] = static_cast<int64_t>(status);
  return reward_of(b, allies, enemies, status);
}

}  // namespace emix::battle
