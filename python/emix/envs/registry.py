"""The names of the environments, and ``make``, which turns a name into an environment."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any

from emix.envs.core import Env
from emix.errors import UsageError

if TYPE_CHECKING:
    import torch

_FORAGING_INSTALL = 'pip install "emix[lbf]"'


@dataclass(frozen=True)
class EnvInfo:
    """One row of ``list_envs()``: a family of environments that share a rule."""

    name: str  # the pattern of its names
    installed: bool
    install: str  # the command that installs what is missing; empty where nothing is
    description: str


def list_envs() -> list[EnvInfo]:
    """List the families of environments: whether each is installed, and the command that installs what is missing."""
    foraging = find_spec("lbforaging") is not None
    return [
        EnvInfo("matrix/msteps-<m>", True, "", "m-step matrix game (SMIX, fig. 3): 2 agents, best return m + 3"),
        EnvInfo("matrix/penalty-<n>x<A>", True, "", "one-step penalty game (PERLA, table 1): n agents, A actions each"),
        EnvInfo("battle/<map>", True, "", f"SMAC on tensors: {', '.join(_battle_maps())}, or a .yaml file of yours"),
        EnvInfo("prey/stag-hunt", True, "", "predator-prey (Ensemble-MIX): 8 agents must catch stags in pairs"),
        EnvInfo("prey/macf", True, "", "multi-agent car following (Ensemble-MIX): 2 cars, speed against crashes"),
        EnvInfo(
            "lbf/Foraging[-<k>s]-<s>x<s>-<p>p-<f>f[-coop]-v3",
            foraging,
            "" if foraging else _FORAGING_INSTALL,
            "level-based foraging (lbforaging 2): p players and f foods on an s x s field, sight k",
        ),
    ]


def make(
    name: str, *, num_envs: int = 1, device: str | torch.device = "cpu", seed: int = 0, **family_options: Any
) -> Env:
    """Build ``num_envs`` copies of environment ``name`` whose tensors live on ``device``.

    ``seed`` fixes every random draw: episode number ``k`` of copy ``e`` is the same whatever ``num_envs`` is and
    whatever was played before. ``battle/<map>`` takes the options of ``emix.envs.battle.BattleOptions``, such as
    ``reward="sparse"``, and ``prey/stag-hunt`` takes ``punishment``; the others have none. Raises UsageError for an
    unknown name or option (with the closest ones), a parameter out of range, a device that is not there, or a package
    that is not installed.
    """
    _check_integer(name, "num_envs", num_envs, least=1)
    _check_integer(name, "seed", seed, least=0)
    options: dict[str, Any] = {"num_envs": num_envs, "device": _usable_device(name, device)}
    if name.startswith("battle/"):
        if name.removeprefix("battle/") not in _battle_maps() and not name.endswith((".yaml", ".yml")):
            raise unknown_name(name)
        from emix.envs.battle.env import make_battle

        return make_battle(name, family_options, seed=seed, **options)
    if name == "prey/stag-hunt":
        from emix.envs.prey import make_stag_hunt

        return make_stag_hunt(family_options, seed=seed, **options)
    if family_options:
        raise UsageError(
            f"{name}: unknown option {next(iter(family_options))!r}: only battle/<map> and prey/stag-hunt have options"
        )
    if match := re.fullmatch(r"matrix/msteps-(\d+)", name):
        from emix.envs.matrix import StepsGame

        return StepsGame(int(match[1]), **options)
    if match := re.fullmatch(r"matrix/penalty-(\d+)x(\d+)", name):
        from emix.envs.matrix import PenaltyGame

        return PenaltyGame(int(match[1]), int(match[2]), **options)
    if name == "prey/macf":
        from emix.envs.macf import CarFollowing

        return CarFollowing(seed=seed, **options)
    if name.startswith("lbf/"):
        from emix.envs.lbf import make_foraging

        if find_spec("lbforaging") is None:
            raise UsageError(f"{name} needs the package lbforaging, which is not installed: {_FORAGING_INSTALL}")
        return make_foraging(name, seed=seed, **options)
    raise unknown_name(name)


def unknown_name(name: str) -> UsageError:
    """Return the error for a name that no family knows, with the closest names."""
    closest = difflib.get_close_matches(name, _concrete_names(), n=3)
    known = ", ".join(family.name for family in list_envs())
    hint = f"did you mean {' or '.join(closest)}?" if closest else f"the names are {known}"
    return UsageError(f"unknown environment {name!r}: {hint}")


def _check_integer(name: str, what: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name}: {what} must be an integer of at least {least}, got {value!r}")


def _usable_device(name: str, device: str | torch.device) -> torch.device:
    import torch

    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        cause = str(error).splitlines()[0]
        raise UsageError(f"{name}: device {str(device)!r} cannot be used ({cause}); device='cpu' always can") from error


def _battle_maps() -> list[str]:
    from emix.envs.battle.maps import list_maps

    return list_maps()


def _concrete_names() -> list[str]:
    perla_sizes = product((2, 3, 4, 5, 6, 10, 15, 20), (3, 6, 9, 12, 15))
    lbforaging_ids = product(("", "-2s"), range(5, 20), range(2, 10), range(1, 5), ("", "-coop"))  # those it registers
    return [
        *(f"matrix/msteps-{m}" for m in range(2, 11)),
        *(f"matrix/penalty-{n}x{a}" for n, a in perla_sizes),
        *(f"battle/{name}" for name in _battle_maps()),
        "prey/stag-hunt",
        "prey/macf",
        *(f"lbf/Foraging{sight}-{s}x{s}-{p}p-{f}f{coop}-v3" for sight, s, p, f, coop in lbforaging_ids),
    ]
