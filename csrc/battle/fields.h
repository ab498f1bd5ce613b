// Where everything of a battle lies: the rows of its tensors, by name. Python reads the same lists (emix._host).
//
// A battle has `slots` places for units: the allies, padded to a multiple of kLanes, then the enemies, padded alike.
// Lengths are in cells of the 32 x 32 map, times in game loops (1/16 s), speeds in cells a loop, damage and life in hit
// points. Rows without a comment are what their name says.
#pragma once
#include <cstdint>

// The state of a unit, float32 [B, rows, slots].
#define EMIX_BATTLE_UNIT(ROW)                                                                    \
  ROW(x)                                                                                         \
  ROW(y)                                                                                         \
  ROW(velocity_x) /* of a unit with an acceleration; else 0 */                                   \
  ROW(velocity_y)                                                                                \
  ROW(health) /* 0: dead, or an empty slot */                                                    \
  ROW(shield)                                                                                    \
  ROW(energy)                                                                                    \
  ROW(cooldown) /* loops until the weapon is ready; below 0: it has been for less than a loop */ \
  ROW(windup)   /* loops until the shot that was begun leaves; 0: none was */                    \
  ROW(rest)     /* loops that it stands still after its last shot; 0: it may walk */             \
  ROW(quiet)    /* loops since the unit was last damaged */                                      \
  ROW(delay)    /* loops until the next hit that is under way lands */                           \
  ROW(aim_x)    /* where a beam under way was aimed at */                                        \
  ROW(aim_y)                                                                                     \
  ROW(goal_x) /* where the order leads */                                                        \
  ROW(goal_y)

// The same, int32 [B, rows, slots]. Units are named by their slot; -1: none.
#define EMIX_BATTLE_MIND(ROW)                                                                 \
  ROW(kind)  /* row of the statistics: which of the map's units this is; -1: an empty slot */ \
  ROW(order) /* Order */                                                                      \
  ROW(order_target)                                                                           \
  ROW(target)      /* whom the unit has chosen itself, or been ordered to attack or heal */   \
  ROW(victim)      /* whom the hit under way will meet */                                     \
  ROW(hits)        /* under way: a second blow, a missile, a beam's passes */                 \
  ROW(attacker)    /* who damaged the unit last */                                            \
  ROW(held)        /* 1: stands still to attack or heal, and is not pushed aside */           \
  ROW(last_action) /* of an ally; -1 before the first */                                      \
  ROW(side)        /* 1: walks around others with them on its left, -1: on its right, 0: has a free way */

// The battle, int64 [B, rows].
#define EMIX_BATTLE_CLOCK(ROW)                                        \
  ROW(stream)  /* key of the episode's random numbers */              \
  ROW(episode) /* number of the episode that the next reset starts */ \
  ROW(step)    /* environment steps played in this episode */         \
  ROW(status)  /* Status */                                           \
  ROW(closed)  /* 1: the map's closed terrain is in force */          \
  ROW(fault)   /* 0, or 1 + agent * 2^32 + action: the first action that was not available and was taken as stop */

// What a map's unit can do, float32 [rows, slots]: the unit that starts in this slot when enemies are not shuffled.
#define EMIX_BATTLE_STAT(ROW)                                                                 \
  ROW(health)                                                                                 \
  ROW(shield)                                                                                 \
  ROW(energy) /* at the start */                                                              \
  ROW(energy_limit)                                                                           \
  ROW(armor)               /* taken off every hit that meets life, not shields */             \
  ROW(health_regeneration) /* a loop */                                                       \
  ROW(energy_regeneration) /* a loop */                                                       \
  ROW(speed)                                                                                  \
  ROW(acceleration) /* a loop; 0: at once */                                                  \
  ROW(radius)       /* of the body: ranges are measured to it, and others keep off it */      \
  ROW(damage)                                                                                 \
  ROW(bonus)         /* damage more against a unit with one of the tags `bonus_tags` */       \
  ROW(hits)          /* of one shot */                                                        \
  ROW(interval)      /* from a shot to its next hit, loops: the second blow, a beam's pass */ \
  ROW(missile_speed) /* when it leaves; 0: the first hit lands when the shot leaves */        \
  ROW(missile_acceleration)                                                                   \
  ROW(period) /* from a shot to the next one: the wind-up is a part of it */                  \
  ROW(windup)                                                                                 \
  ROW(rest)        /* loops that it stands still after a shot ... */                          \
  ROW(channel)     /* ... of which no order ends the first ones */                            \
  ROW(range)       /* edge to edge */                                                         \
  ROW(close_range) /* of a missile's shooter: nearer targets are struck by hand; 0: none */   \
  ROW(close_windup)                                                                           \
  ROW(slop)   /* by how much a target may leave the range during the wind-up */               \
  ROW(scan)   /* how far the unit looks for targets, edge to edge */                          \
  ROW(splash) /* radius of the explosion */                                                   \
  ROW(beam)   /* half length of the line that a beam sweeps */                                \
  ROW(heal)   /* life a loop */                                                               \
  ROW(heal_range)                                                                             \
  ROW(heal_scan)      /* how far a healer looks for the wounded, centre to centre */          \
  ROW(heal_cost)      /* energy for a point of life */                                        \
  ROW(cooldown_scale) /* SMAC's divisor of the cooldown in the state */                       \
  ROW(shield_scale)   /* SMAC's divisor of the shield */                                      \
  ROW(spawn_x)                                                                                \
  ROW(spawn_y)

// The same, int32 [rows, slots].
#define EMIX_BATTLE_TRAIT(ROW)                                                    \
  ROW(type)     /* StarCraft II's id of the unit's type; 0: an empty slot */      \
  ROW(type_bit) /* column of the type's one-hot; -1: the map has a single type */ \
  ROW(tags)     /* Tag bits */                                                    \
  ROW(bonus_tags)                                                                 \
  ROW(layer)  /* Layer */                                                         \
  ROW(weapon) /* Weapon */                                                        \
  ROW(reach)  /* bits of the layers that the weapon can hit: 1 << Layer */        \
  ROW(order)  /* Order at the start */                                            \
  ROW(place)  /* slot whose kind and spawn this slot gets when enemies are sorted by type and place */

// The map's and the user's rules, float64 [rows].
#define EMIX_BATTLE_RULE(ROW)                                                                            \
  ROW(episode_limit)                                                                                     \
  ROW(sight)                                                                                             \
  ROW(shoot_range)                                                                                       \
  ROW(move_amount) /* how far off a move order's point lies */                                           \
  ROW(map_width)                                                                                         \
  ROW(map_height)                                                                                        \
  ROW(playable_width) /* what the state divides positions by */                                          \
  ROW(playable_height)                                                                                   \
  ROW(shield_delay)        /* loops without damage until shields regenerate */                           \
  ROW(shield_regeneration) /* a loop */                                                                  \
  ROW(least_damage)        /* of a hit, whatever the armor */                                            \
  ROW(cooldown_low)        /* what is added to a weapon's period: uniform between */                     \
  ROW(cooldown_high)                                                                                     \
  ROW(retarget)     /* Retarget */                                                                       \
  ROW(leash)        /* how far off a target that is being chased may get, edge to edge */                \
  ROW(spawn_jitter) /* every start position moves by up to so much along x and y */                      \
  ROW(enemy_order)  /* EnemyOrder */                                                                     \
  ROW(goal_x)       /* where the enemies are ordered to: a point between two, drawn anew each episode */ \
  ROW(goal_y)                                                                                            \
  ROW(other_goal_x)                                                                                      \
  ROW(other_goal_y)                                                                                      \
  ROW(reward) /* Reward */                                                                               \
  ROW(reward_only_positive)                                                                              \
  ROW(reward_absolute) /* 1: SMAC's abs(), which pays for the enemies' regeneration, too */              \
  ROW(reward_death_value)                                                                                \
  ROW(reward_negative_scale)                                                                             \
  ROW(reward_win)                                                                                        \
  ROW(reward_defeat)                                                                                     \
  ROW(reward_divisor) /* 1, or what makes a clean win reward_scale_rate */

// Enumerations, in the order of their numbers: 0, 1, 2, ...
#define EMIX_BATTLE_ORDER(NAME)                                                              \
  NAME(stop)        /* stands, and attacks nobody */                                         \
  NAME(move)        /* to the goal, straight */                                              \
  NAME(attack)      /* order_target, wherever it is */                                       \
  NAME(heal)        /* order_target, wherever it is */                                       \
  NAME(attack_move) /* to the goal; on the way and there attacks, or heals, whom it finds */ \
  NAME(guard)       /* stands; attacks whom it finds */                                      \
  NAME(chase)       /* the nearest unit that it can hit, wherever that is */

#define EMIX_BATTLE_STATUS(NAME)       \
  NAME(running)                        \
  NAME(won)                            \
  NAME(lost)                           \
  NAME(draw) /* both sides are dead */ \
  NAME(timeout)                        \
  NAME(waiting) /* was never reset */

#define EMIX_BATTLE_LAYER(NAME)                                        \
  NAME(ground)                                                         \
  NAME(cliff) /* walks the ground, over cliffs and over other units */ \
  NAME(air)

#define EMIX_BATTLE_WEAPON(NAME) \
  NAME(none)                     \
  NAME(direct)                   \
  NAME(missile)                  \
  NAME(beam)                     \
  NAME(explosion) /* of the unit itself: when it attacks, and when it is killed */

#define EMIX_BATTLE_ENEMY_ORDER(NAME) NAME(shuffled) NAME(fixed) NAME(sorted)

// When a unit that chooses its targets itself gives up one that is out of its weapon's reach.
#define EMIX_BATTLE_RETARGET(NAME)                             \
  NAME(provoked) /* when somebody hits it, for the attacker */ \
  NAME(kept)     /* when another one comes into reach */       \
  NAME(nearest)  /* in every loop, for the one that is nearest */

#define EMIX_BATTLE_REWARD(NAME) NAME(dense) NAME(sparse) NAME(sparse_deaths)

// Bits: 1, 2, 4, ...
#define EMIX_BATTLE_TAG(NAME) \
  NAME(light)                 \
  NAME(armored)               \
  NAME(biological)            \
  NAME(mechanical)            \
  NAME(massive)               \
  NAME(structure)             \
  NAME(always_threat) /* as worth shooting at as a unit that shoots */

// What is in observations and state.
#define EMIX_BATTLE_FEATURE(NAME) \
  NAME(obs_all_health)            \
  NAME(obs_own_health)            \
  NAME(obs_last_action)           \
  NAME(obs_pathing_grid)          \
  NAME(obs_terrain_height)        \
  NAME(obs_timestep_number)       \
  NAME(state_last_action)         \
  NAME(state_timestep_number)     \
  NAME(obs_closed) /* MAVEN's: whether the corridor is closed */

namespace emix::battle {

#define EMIX_BATTLE_ROW(name) name,
namespace unit {
enum Row : int { EMIX_BATTLE_UNIT(EMIX_BATTLE_ROW) rows };
}
namespace mind {
enum Row : int { EMIX_BATTLE_MIND(EMIX_BATTLE_ROW) rows };
}
namespace clock {
enum Row : int { EMIX_BATTLE_CLOCK(EMIX_BATTLE_ROW) rows };
}
namespace stat {
enum Row : int { EMIX_BATTLE_STAT(EMIX_BATTLE_ROW) rows };
}
namespace trait {
enum Row : int { EMIX_BATTLE_TRAIT(EMIX_BATTLE_ROW) rows };
}
namespace rule {
enum Row : int { EMIX_BATTLE_RULE(EMIX_BATTLE_ROW) rows };
}
#undef EMIX_BATTLE_ROW

inline constexpr int kLanes = 8;  // slots of a side are a multiple of it
inline constexpr int kMap = 32;   // cells along either axis
inline constexpr int kLoops = 8;  // game loops in an environment step
inline constexpr int kMaxSlots = 128;
inline constexpr int kNobody = -1;

#define EMIX_BATTLE_NAME(name) name,
enum class Order : int { EMIX_BATTLE_ORDER(EMIX_BATTLE_NAME) };
enum class Status : int { EMIX_BATTLE_STATUS(EMIX_BATTLE_NAME) };
enum class Layer : int { EMIX_BATTLE_LAYER(EMIX_BATTLE_NAME) };
enum class Weapon : int { EMIX_BATTLE_WEAPON(EMIX_BATTLE_NAME) };
enum class EnemyOrder : int { EMIX_BATTLE_ENEMY_ORDER(EMIX_BATTLE_NAME) };
enum class Retarget : int { EMIX_BATTLE_RETARGET(EMIX_BATTLE_NAME) };
enum class Reward : int { EMIX_BATTLE_REWARD(EMIX_BATTLE_NAME) };
enum class Tag : int { EMIX_BATTLE_TAG(EMIX_BATTLE_NAME) };
enum class Feature : int { EMIX_BATTLE_FEATURE(EMIX_BATTLE_NAME) count };
#undef EMIX_BATTLE_NAME

}  // namespace emix::battle
