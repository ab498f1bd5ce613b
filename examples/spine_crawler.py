"""How slowly the spine crawler of 2s_vs_1sc would have to shoot for SMAC's trick, to leave in turns, to win.

    python examples/spine_crawler.py [PERIOD ...] [--balance NAME] [--battles N]

A line for each period of its weapon, in seconds. Stand: both stalkers walk up and shoot. In turns: the one that is shot
at leaves when it has so much less life and shield than the other, and comes back when the spine crawler looks
elsewhere; the best of eight such amounts.
"""

import argparse
import importlib.resources
import math
import tempfile
from pathlib import Path

import torch
import yaml
from torch import Tensor

import emix
from emix.envs.battle import BattleEnv
from emix.envs.battle.fields import MIND, UNIT

NO_OP, STOP, NORTH, SOUTH, EAST, WEST, ATTACK = range(7)
GAPS = (30, 60, 75, 90, 100, 110, 120, 135)  # life and shield, after which one leaves


def walk(env: BattleEnv, avail: Tensor, sign: int) -> Tensor:
    """Each stalker's move that leads most directly to the spine crawler (sign 1) or away from it (-1): ``[E, 2]``."""
    x, y = env.units[:, UNIT["x"]], env.units[:, UNIT["y"]]  # [E, slots] each
    slot = env.scenario.enemy_slot
    right, up = (sign * (at[:, slot, None] - at[:, :2]) for at in (x, y))  # [E, 2] each
    along = torch.stack([up, -up, right, -right], -1).masked_fill(~avail[..., NORTH : WEST + 1], -math.inf)
    best = along.max(-1)
    return torch.where(best.values > -math.inf, best.indices + NORTH, STOP)


def play(balance: str, battles: int, gap: float) -> tuple[float, float]:
    """The share of battles won, and the mean return, where one leaves after ``gap``; infinity: nobody leaves."""
    env = emix.make("battle/2s_vs_1sc", num_envs=battles, seed=3, balance=balance)
    slot = env.scenario.enemy_slot
    step = env.reset()
    total, won, over = torch.zeros(battles), torch.zeros(battles, dtype=torch.bool), step.done
    out = torch.zeros(battles, 2, dtype=torch.bool)  # who keeps away
    while not over.all():
        life = env.units[:, UNIT["health"]] + env.units[:, UNIT["shield"]]  # [E, slots]
        ahead = life[:, [1, 0]] - life[:, :2]  # [E, 2]: what the other one has more
        both = (env.units[:, UNIT["health"], :2] > 0).all(-1, keepdim=True)
        chased = env.minds[:, MIND["target"], slot, None] == torch.arange(2)  # [E, 2]
        leaves = chased & both & (ahead > gap)
        out = (out & ~chased[:, [1, 0]]) | leaves
        avail = step.avail
        actions = torch.where(avail[..., ATTACK], ATTACK, walk(env, avail, 1))
        actions = torch.where(out, walk(env, avail, -1), actions)
        step = env.step(torch.where(avail[..., NO_OP], NO_OP, actions))
        total += torch.where(over, 0.0, step.reward)
        won |= ~over & (env.units[:, UNIT["health"], slot] <= 0)
        over = over | step.done
    return won.float().mean().item(), total.mean().item()


def main() -> None:
    """A line for each period."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("periods", nargs="*", type=float, default=[1.6, 1.85, 1.9332, 2.0, 2.1], metavar="PERIOD")
    parser.add_argument("--balance", choices=("liberty", "lotv"), default="liberty", help="of everything else")
    parser.add_argument("--battles", type=int, default=64)
    arguments = parser.parse_args()
    if arguments.battles < 1 or min(arguments.periods) <= 0:
        parser.error(f"expected periods above 0 and at least 1 battle, got {arguments.periods}, {arguments.battles}")
    source = importlib.resources.files("emix.envs.battle") / "balance" / f"{arguments.balance}.yaml"
    balance = yaml.safe_load(source.read_text())
    print(f"{'period':>6}  {'stand':>12}  {'in turns':>12}   won (return) of {arguments.battles} battles")
    with tempfile.TemporaryDirectory() as folder:
        for period in arguments.periods:
            balance["units"]["spine_crawler"]["weapon"]["period"] = period
            path = Path(folder) / f"{period}.yaml"
            path.write_text(yaml.safe_dump(balance))
            stand = play(str(path), arguments.battles, math.inf)
            turns = max(play(str(path), arguments.battles, gap) for gap in GAPS)
            print(f"{period:6.2f}  {stand[0]:4.2f} ({stand[1]:5.1f})  {turns[0]:4.2f} ({turns[1]:5.1f})", flush=True)


if __name__ == "__main__":
    main()
