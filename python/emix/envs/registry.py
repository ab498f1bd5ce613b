"""The names of the environments, ``make``, which turns a name into an environment, and ``register_env``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from emix.data.integers import check_seed, integer
from emix.envs.core import Env
from emix.envs.families import Family, built_in
from emix.envs.options import OptionInfo, described, refuse_unknown
from emix.errors import UsageError, did_you_mean, near
from emix.plugins import load_entry_points

if TYPE_CHECKING:
    import torch

_built_in = cache(built_in)
_registered: dict[str, Family] = {}  # by pattern


@dataclass(frozen=True)
class EnvInfo:
    """One row of ``list_envs()``: a family of environments that share a rule."""

    name: str  # the pattern of its names
    installed: bool
    install: str  # the command that installs what is missing; empty where nothing is
    description: str
    options: tuple[str, ...]  # names of those that ``make`` takes
    examples: tuple[str, ...]  # some of its names, or all
    defaults: dict[str, OptionInfo]  # of the options where they are known, by name


def list_envs() -> list[EnvInfo]:
    """List the families of environments by their names: whether each is installed, and the command that installs what
    is missing."""
    return [_info(family) for family in sorted(_families(), key=lambda family: family.pattern)]


def find_env(name: str) -> EnvInfo:
    """The family that an environment's ``name`` belongs to.

    Raises:
        UsageError: to none, with the closest names.
    """
    return _info(_family(name))


def rules_of(name: str) -> int:
    """The version of the rules of the environment ``name``; 1 where no family has such a name."""
    return next((family.rules for family in _families() if family.fits(name)), 1)


def _info(family: Family) -> EnvInfo:
    missing, install = family.missing()
    known = {name: option for kind in family.kinds for name, option in described(kind).items()}
    defaults = {name: known[name] for name in family.options if name in known}
    return EnvInfo(
        family.pattern, not missing, install, family.description, family.options, family.suggestions, defaults
    )


def register_env(
    pattern: str,
    maker: Callable[..., Env],
    *,
    description: str,
    options: Iterable[str] = (),
    examples: Iterable[str] = (),
    requires: str = "",
    install: str = "",
    rules: int = 1,
) -> None:
    """Let ``emix.make``, training and the commands find environments of your own.

    >>> def make_mine(name, options, *, num_envs, device, seed, first_env):
    ...     size = int(name.removeprefix("mine/"))
    ...     return Mine(size, **options, num_envs=num_envs, device=device, seed=seed, first_env=first_env)
    >>> emix.register_env("mine/<size>", make_mine, description="a ring of places", options=["prize"])
    >>> env = emix.make("mine/7", num_envs=64, prize=2.0)

    Args:
        pattern: the names, such as ``"mine/ring"`` or ``"mine/<size>"``, where ``<size>`` stands for any text.
        maker: gets the whole name, which goes into ``EnvSpec.name``, and a dict of those ``options`` that the caller
            gave; by keyword ``num_envs``, ``device`` (a ``torch.device`` that is there), ``seed`` and ``first_env``
            (see ``make``). It returns what keeps the contract of ``emix.envs.Env``, such as a ``HostEnv``:
            ``check_env`` looks whether it does. It raises UsageError for a name or an option that makes no sense.
        description: one line, for ``emix envs``.
        options: names of what ``make`` takes besides its own arguments; others are refused with a sentence.
        examples: names that are offered to somebody who mistypes one; the pattern, where there are none.
        requires: a package that the environment imports, such as ``"lbforaging"``.
        install: the command that installs it; ``pip install`` and its name where not given.
        rules: version of the environment's rules. Let it rise when the same actions have other consequences than
            before: runs that were trained under an earlier one are then not continued, nor compared with new ones.

    Raises:
        UsageError: a name could fit both this pattern and that of another family, or the pattern is none. Registering
            the same maker again, as a notebook does that is run twice, is fine.
    """
    if not re.fullmatch(r"([^<>\s]|<[^<>\s]+>)+", pattern):
        raise UsageError(f"register_env: pattern expects a name without spaces, such as 'mine/<size>', got {pattern!r}")
    if requires and not install:
        install = f"pip install {requires}"
    new = Family(
        pattern,
        description,
        maker,
        options=tuple(options),
        examples=tuple(examples),
        requires=requires,
        install=install,
        rules=integer("register_env: rules", rules, least=1),
    )
    for known in (*_built_in(), *_registered.values()):
        if known.meets(new) and not (known.pattern == pattern and _source(known) == _source(new)):
            raise UsageError(
                f"register_env: {pattern!r} clashes with the environments {known.pattern!r}, "
                f"which some of its names would mean, too: choose other names"
            )
    _registered[pattern] = new


def make(
    name: str,
    *,
    num_envs: int = 1,
    device: str | torch.device = "cpu",
    seed: int = 0,
    first_env: int = 0,
    **options: Any,
) -> Env:
    """Build ``num_envs`` copies of environment ``name`` whose tensors live on ``device``.

    ``seed``, from 0 to 2^63 - 1, fixes every random draw: episode number ``k`` of copy ``e`` depends on (``seed``,
    ``first_env`` + ``e``, ``k``) alone, whatever ``num_envs`` is and whatever was played before. So a batch can be
    divided: two of 32 with ``first_env`` 0 and 32 play what one of 64 plays. The other ``options`` are the family's:
    those of ``battle/<map>`` are ``emix.envs.battle.BattleOptions``, such as ``reward="sparse"``; ``list_envs`` names
    them all.

    Raises:
        UsageError: an unknown name or option (with the closest ones), a parameter out of range, a device that is not
            there, or a package that is not installed.
    """
    num_envs = integer(f"{name}: num_envs", num_envs, least=1)
    first_env = integer(f"{name}: first_env", first_env, least=0)
    seed = check_seed(f"{name}: seed", seed)
    if first_env + num_envs > 1 << 32:
        raise UsageError(f"{name}: first_env + num_envs must be at most 2^32, got {first_env} + {num_envs}")
    family = _family(name)
    missing, install = family.missing()
    if missing:
        raise UsageError(f"{name} {missing}: {install}")
    refuse_unknown(name, options, family.options)
    place = _usable_device(name, device)
    return family.maker(name, options, num_envs=num_envs, device=place, seed=seed, first_env=first_env)


def unknown_name(name: str) -> UsageError:
    """Return the error for a name that no family knows, with the closest names."""
    families = _families()
    meant = near(name, [known for family in families for known in family.suggestions])
    names = ", ".join(sorted(family.pattern for family in families))
    hint = did_you_mean(meant) if meant else f"the names are {names}"
    broken = "".join(f"; {sentence}" for sentence in load_entry_points("emix.envs"))
    return UsageError(f"unknown environment {name!r}: {hint}{broken}")


def _family(name: str) -> Family:
    """The family of a name; ``UsageError`` where none has it."""
    for family in _families():
        if family.fits(name):
            return family
    raise unknown_name(name)


def _families() -> list[Family]:
    load_entry_points("emix.envs")
    return [*_built_in(), *_registered.values()]


def _source(family: Family) -> tuple[Any, Any]:
    """Where a maker comes from: importing its module anew must not clash with itself."""
    return getattr(family.maker, "__module__", None), getattr(family.maker, "__qualname__", family.maker)


def _usable_device(name: str, device: str | torch.device) -> torch.device:
    import torch

    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        cause = str(error).splitlines()[0]
        raise UsageError(f"{name}: device {str(device)!r} cannot be used ({cause}); device='cpu' always can") from error
