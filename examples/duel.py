"""Who is hit when: a scripted battle as a table, to be held against a replay of the same battle in StarCraft II.

    python examples/duel.py [MAP] [SCRIPT] [--exact]

The allies follow SCRIPT: ``stand`` (attack what is in reach), ``charge`` (and walk towards the rest), ``alternate``
(nobody walks, only who is farthest from the enemies shoots: SMAC's trick for 2m_vs_1z) or ``run`` (away from the
nearest enemy). The enemies follow the map's order. ``--exact``: without the engine's random delays and without
shifts of the start places. Times are in game loops (16 a second of game data, 22.4 of the clock at "Faster"), counted
from the first order.
"""

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import emix
from emix.data import Step
from emix.envs.battle import BattleEnv
from emix.envs.battle.fields import LOOPS, MIND, UNIT

STOP, TARGET = 1, 6
MOVES = {2: (0.0, 1.0), 3: (0.0, -1.0), 4: (1.0, 0.0), 5: (-1.0, 0.0)}  # north, south, east, west


def places(env: BattleEnv) -> tuple[Tensor, Tensor]:
    """Positions of the allies [n, 2] and of the living enemies [m, 2]."""
    first, count = env.scenario.enemy_slot, len(env.scenario.enemies)
    at = env.units[0, [UNIT["x"], UNIT["y"]]].T  # [slots, 2]
    alive = env.units[0, UNIT["health"], first : first + count] > 0
    return at[: env.spec.n_agents], at[first : first + count][alive]


def walk(own: Tensor, others: Tensor, avail: Tensor, sign: float) -> int:
    """The move that leads most directly towards the nearest of the others (sign 1) or away from it (-1)."""
    way = sign * (others[(others - own).norm(dim=1).argmin()] - own)
    open_moves = [move for move in MOVES if avail[move]]
    return max(open_moves, key=lambda move: float((way * torch.tensor(MOVES[move])).sum()), default=STOP)


def act(env: BattleEnv, step: Step, script: str) -> Tensor:
    """The allies' actions [1, n]."""
    allies, enemies = places(env)
    gap = torch.cdist(allies, enemies).amin(1)  # [n]: to the nearest enemy
    alive = env.units[0, UNIT["health"], : len(allies)] > 0
    farthest = int(torch.where(alive, gap, -1.0).argmax())
    actions = []
    for agent, avail in enumerate(step.avail[0]):
        targets = avail[TARGET:].nonzero()[:, 0].tolist()
        if avail[0]:
            actions.append(0)
        elif script == "run":
            actions.append(walk(allies[agent], enemies, avail, -1.0))
        elif targets and (script != "alternate" or agent == farthest):
            actions.append(TARGET + targets[0])
        else:
            actions.append(walk(allies[agent], enemies, avail, 1.0) if script == "charge" else STOP)
    return torch.tensor([actions])


def hits(env: BattleEnv, choose: Callable[[Step], Tensor]) -> Iterator[tuple[str, str, str, float, float, str]]:
    """Play one battle. For each environment step and each unit that was hit in it: the loop of the last hit, the unit,
    who hit it last, what life and shield it lost, and what is left. The loop of a death is known to a step."""
    scenario, first = env.scenario, env.scenario.enemy_slot
    units = dict(enumerate(scenario.allies)) | {first + j: start for j, start in enumerate(scenario.enemies)}
    names = {slot: f"{'ally' if slot < first else 'enemy'} {slot % first} {units[slot].unit.name}" for slot in units}
    step, loop = env.reset(), 0
    while not step.done.all():
        before = env.units[0, [UNIT["health"], UNIT["shield"]]].clone()  # [2, slots]
        step = env.step(choose(step))
        health, shield = env.units[0, [UNIT["health"], UNIT["shield"]]]
        for slot, name in names.items():
            life, armour = (before[0, slot] - health[slot]).item(), (before[1, slot] - shield[slot]).item()
            if max(life, armour) < 0.5:  # that is regeneration
                continue
            quiet = int(env.units[0, UNIT["quiet"], slot])
            when = f"{loop + LOOPS - quiet}" if health[slot] > 0 else f"{loop}-{loop + LOOPS - 1}"
            left = f"{health[slot]:g} + {shield[slot]:g}" if health[slot] > 0 else "dead"
            by = names.get(int(env.minds[0, MIND["attacker"], slot]), "")
            yield when, name, by, life, armour, left
        loop += LOOPS


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Who is hit when, in a scripted battle.")
    parser.add_argument("map", nargs="?", default="2m_vs_1z", help="a map's name, or the path of a YAML file")
    parser.add_argument("script", nargs="?", default="alternate", choices=("stand", "charge", "alternate", "run"))
    parser.add_argument("--exact", action="store_true", help="no random delays and start places")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    exact = {"spawn_jitter": 0.0, "weapon_delay": False} if chosen.exact else {}
    env = emix.make(f"battle/{chosen.map}", seed=chosen.seed, **exact)
    print(f"{'loop':>9}  {'hit':<24}{'by':<24}{'life':>7}{'shield':>8}   left")
    for when, name, by, life, shield, left in hits(env, lambda step: act(env, step, chosen.script)):
        print(f"{when:>9}  {name:<24}{by:<24}{life:>7.1f}{shield:>8.1f}   {left}")


if __name__ == "__main__":
    main()
