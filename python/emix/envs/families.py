"""The families of environments that emix brings, a row each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any

from emix.envs.battle.maps import list_maps
from emix.envs.battle.options import BattleOptions
from emix.envs.mujoco_task import NAMES as MUJOCO_NAMES
from emix.envs.options import (
    ContinuousOptions,
    ForagingOptions,
    GymOptions,
    MujocoOptions,
    PenaltyOptions,
    PettingZooOptions,
    StagHuntOptions,
    names_of,
)
from emix.envs.sc2.options import BATTLE_NAMES, GAME_NAMES, SMAC_NAMES, GameOptions, SmacOptions
from emix.envs.sc2.packages import missing_for_sc2, missing_for_smac

if TYPE_CHECKING:
    from emix.envs.core import Env

_PARAMETER = re.compile("<[^<>]+>")


@dataclass(frozen=True)
class Family:
    """Environments whose names fit one pattern, in which ``<m>`` stands for any text."""

    pattern: str
    description: str
    maker: Callable[..., Env]  # (name, options, *, num_envs, device, seed, first_env)
    options: tuple[str, ...] = ()  # names of those it takes
    kinds: tuple[type[Any], ...] = ()  # the dataclasses that they are read into, where they are emix's own
    examples: tuple[str, ...] = ()  # some of its names
    requires: str = ""  # a package that it imports
    install: str = ""  # the command that installs it
    lacks: Callable[[], tuple[str, str]] | None = None  # what else is missing, and the command that mends it; or empty
    rules: int = 1  # their version, which rises when the same actions have other consequences

    def fits(self, name: str) -> bool:
        """Whether ``name`` is one of its names."""
        return re.fullmatch(".+".join(map(re.escape, _PARAMETER.split(self.pattern))), name) is not None

    def meets(self, other: Family) -> bool:
        """Whether some name fits both patterns."""
        return _meet(_letters(self.pattern), _letters(other.pattern))

    @property
    def suggestions(self) -> tuple[str, ...]:
        """What is offered to somebody who mistypes a name."""
        return self.examples or (self.pattern,)

    def missing(self) -> tuple[str, str]:
        """What is not there, as the rest of a sentence, and the command that mends it; both empty where all is."""
        if self.requires and find_spec(self.requires) is None:
            return f"needs the package {self.requires}, which is not installed", self.install
        lacks, mend = self.lacks() if self.lacks else ("", "")
        return f"cannot be made: {lacks}" if lacks else "", mend


_ANY, _MANY = "any letter", "any letters, or none"


def _letters(pattern: str) -> tuple[str, ...]:
    letters: list[str] = []
    for k, text in enumerate(_PARAMETER.split(pattern)):
        letters += [_ANY, _MANY] * (k > 0) + list(text)
    return tuple(letters)


@cache
def _meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    if one[:1] == (_MANY,):
        return _meet(one[1:], other) or (bool(other) and _meet(one, other[1:]))
    if other[:1] == (_MANY,):
        return _meet(other, one)
    if not one or not other:
        return not one and not other
    return (one[0] == other[0] or _ANY in (one[0], other[0])) and _meet(one[1:], other[1:])


def built_in() -> tuple[Family, ...]:
    """The rows."""
    perla_sizes = product((2, 3, 4, 5, 6, 10, 15, 20), (3, 6, 9, 12, 15))
    foraging_ids = product(("", "-2s"), (5, 8, 10, 15, 20), (2, 3, 4, 10), (1, 2, 3, 5), ("", "-coop"), (2, 3))
    lbforaging_ids = product(("", "-2s"), range(5, 20), range(2, 10), range(1, 5), ("", "-coop"))  # those it registers
    return (
        Family(
            "matrix/msteps-<m>",
            "m-step matrix game (SMIX, fig. 3): 2 agents, best return m + 3",
            _late("emix.envs.matrix", "make_steps_game"),
            examples=_all("matrix/msteps-{}", ((m,) for m in range(2, 11))),
        ),
        Family(
            "matrix/penalty-<n>x<A>",
            "one-step penalty game (PERLA, table 1): n agents, A actions each",
            _late("emix.envs.matrix", "make_penalty_game"),
            options=names_of(PenaltyOptions),
            kinds=(PenaltyOptions,),
            examples=_all("matrix/penalty-{}x{}", perla_sizes),
        ),
        Family(
            "matrix/continuous",
            "one-step game with continuous actions (ADER, fig. 1): 2 agents, a narrow path to the goal",
            _late("emix.envs.continuous", "make_continuous_game"),
            options=names_of(ContinuousOptions),
            kinds=(ContinuousOptions,),
        ),
        Family(
            "battle/<map>",
            f"SMAC on tensors: {', '.join(list_maps())}, or a .yaml file of yours",
            _late("emix.envs.battle.env", "make_battle"),
            options=names_of(BattleOptions),
            kinds=(BattleOptions,),
            examples=_all("battle/{}", ((name,) for name in list_maps())),
            rules=2,
        ),
        Family(
            "sc2/<map>",
            "SMAC in StarCraft II itself, a process for each environment: the maps of battle/<map>",
            _late("emix.envs.sc2.env", "make_sc2"),
            options=(*BATTLE_NAMES, *GAME_NAMES),
            kinds=(BattleOptions, GameOptions),
            examples=_all("sc2/{}", ((name,) for name in list_maps())),
            lacks=missing_for_sc2,
        ),
        Family(
            "smac/<map>",
            "SMAC itself (oxwhirl/smac), a process of StarCraft II for each environment: its own maps",
            _late("emix.envs.smac", "make_smac"),
            options=SMAC_NAMES,
            kinds=(BattleOptions, SmacOptions),
            examples=("smac/3m", "smac/8m", "smac/2s3z", "smac/MMM2"),
            lacks=missing_for_smac,
        ),
        Family(
            "prey/stag-hunt",
            "predator-prey (Ensemble-MIX): 8 agents must catch stags in pairs",
            _late("emix.envs.prey", "make_stag_hunt"),
            options=names_of(StagHuntOptions),
            kinds=(StagHuntOptions,),
        ),
        Family(
            "prey/macf",
            "multi-agent car following (Ensemble-MIX): 2 cars, speed against crashes",
            _late("emix.envs.macf", "make_car_following"),
        ),
        Family(
            "prey/continuous-<predators>a",
            "predator-prey with continuous actions (FACMAC): 3, 6 or 9 predators, a prey for three of them",
            _late("emix.envs.continuous_prey", "make_continuous_prey"),
            examples=_all("prey/continuous-{}a", ((n,) for n in (3, 6, 9))),
        ),
        Family(
            "prey/heterogeneous",
            "the same with three predators, one of them faster, and three prey (ADER)",
            _late("emix.envs.continuous_prey", "make_continuous_prey"),
        ),
        Family(
            "foraging/<id>",
            "level-based foraging on tensors: the ids of lbf/<id>, and v2 in place of v3",
            _late("emix.envs.foraging", "make_foraging"),
            options=names_of(ForagingOptions),
            kinds=(ForagingOptions,),
            examples=_all("foraging/Foraging{0}-{1}x{1}-{2}p-{3}f{4}-v{5}", foraging_ids),
        ),
        Family(
            "lbf/<id>",
            "level-based foraging (lbforaging 2): Foraging[-<k>s]-<s>x<s>-<p>p-<f>f[-coop]-v3, "
            "p players and f foods on an s x s field, sight k",
            _late("emix.envs.lbf", "make_foraging"),
            options=names_of(ForagingOptions),
            kinds=(ForagingOptions,),
            examples=_all("lbf/Foraging{0}-{1}x{1}-{2}p-{3}f{4}-v3", lbforaging_ids),
            requires="lbforaging",
            install='pip install "emix[lbf]"',
        ),
        Family(
            "mamujoco/<scenario>-<factorisation>",
            "multi-agent MuJoCo (gymnasium-robotics): a body's joints are divided among agents",
            _late("emix.envs.mamujoco", "make_mamujoco"),
            options=names_of(MujocoOptions),
            kinds=(MujocoOptions,),
            examples=_all("mamujoco/{}", ((name,) for name in MUJOCO_NAMES)),
            requires="gymnasium_robotics",
            install='pip install "emix[mamujoco]"',
        ),
        Family(
            "gym/<id>",
            "an environment of gymnasium's by its id, with one agent: gym/CartPole-v1",
            _late("emix.envs.gym", "make_gym"),
            options=names_of(GymOptions),
            kinds=(GymOptions,),
            examples=("gym/CartPole-v1", "gym/Pendulum-v1", "gym/FrozenLake-v1"),
        ),
        Family(
            "pettingzoo/<module>",
            "a parallel environment of PettingZoo's by its module: pettingzoo/sisl.pursuit_v5, "
            "pettingzoo/mpe2.simple_spread_v3, or one of yours",
            _late("emix.envs.pettingzoo", "make_pettingzoo"),
            options=names_of(PettingZooOptions),
            kinds=(PettingZooOptions,),
            examples=("pettingzoo/sisl.pursuit_v5", "pettingzoo/mpe2.simple_spread_v3"),
            requires="pettingzoo",
            install='pip install "emix[pettingzoo]"',
        ),
    )


def _late(module: str, maker: str) -> Callable[..., Env]:
    """A maker whose module is imported when it is called: many need torch, or a simulator."""

    def make(*args: Any, **kwargs: Any) -> Env:
        return getattr(import_module(module), maker)(*args, **kwargs)

    return make


def _all(pattern: str, values: Iterable[tuple[Any, ...]]) -> tuple[str, ...]:
    return tuple(pattern.format(*row) for row in values)
