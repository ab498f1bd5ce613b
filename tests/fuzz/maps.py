"""Mutated maps, balances and options of battles: whatever stands in them, they are played or refused in a sentence.

A case takes one of the package's maps and balances, changes one to three things, makes the environment, and plays
random available actions. All that comes must be finite, or a UsageError of one line that names the file or the option.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

import emix
from emix.envs.battle import BattleOptions, list_maps
from emix.errors import UsageError
from tests.fuzz.watch import Found, play, watch

NUMBERS = [
    *(0, 1, -1, 2, 31, 32, 254, 255, 128, 10**6, 10**6 + 1, (1 << 31) - 1, 1 << 31, 1 << 63, 10**400),
    *(0.0, -0.0, 0.5, 1e-3, 1e-6, 1e-30, 1e-45, 5e-324, 1e6, 1e30, 1e39, 1e308, math.inf, -math.inf, math.nan, -1e9),
]
OTHERS = [None, True, False, "", "x", "marine", "1e999", "7-3", "2-29", [], [1], [1, 2, 3], {}, {"a": 1}, [[9, 16]] * 3]
KEYS = ["", "x", "heal", "weapon", "limit", 3, None, True, "a\nb", "closed", "shield"]


def fuzz(seconds: float, seed: int) -> Found:
    """Play random cases for so long."""
    return watch("tests.fuzz.maps", seconds, seed)


def run(seconds: float, seed: int) -> dict[str, int]:
    """How many cases there were (``calls``), how many ended their process (``crashes``), took too long (``hangs``),
    were refused otherwise than by a sentence (``unclear``), or returned what is not finite (``wrong``)."""
    counts = fuzz(seconds, seed).counts
    ended = {kind: sum(count for what, count in counts.items() if what.startswith(kind)) for kind in ("crash", "hang")}
    return {
        "calls": sum(counts.values()), "crashes": ended["crash"], "hangs": ended["hang"],
        "unclear": counts["unclear"], "wrong": counts["wrong"],
    }  # fmt: skip


def case(seed: int, number: int) -> tuple[str, str | None]:
    """What case ``number`` came to (played, refused, unclear or wrong), and what is wrong with it."""
    rng = random.Random(f"{seed} {number}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env_name, options = _mutated(rng, folder)
        what = f"{env_name}, {options}"
        try:
            env = emix.make(env_name, num_envs=2, seed=number, **options)
            fault = _fault_of(env, rng)
        except UsageError as error:
            text = str(error)
            begins = (str(folder), f"map: {folder}", f"balance: {folder}", f"battle/{folder}")
            clear = text.startswith(begins) and "\n" not in text and len(text) < 1000
            return ("refused", None) if clear else ("unclear", f"{text[:500]} ({what})")
        except Exception as error:
            return "unclear", f"{type(error).__name__}: {str(error)[:300]} ({what})"
    return ("wrong", f"{fault} ({what})") if fault else ("played", None)


def _mutated(rng: random.Random, folder: Path) -> tuple[str, dict[str, Any]]:
    """The name and the options of an environment: a map, a balance and options, of which some are changed."""
    map_content = _packaged("maps", rng.choice([name for name in list_maps() if name != "MMM3"]))
    balance = _packaged("balance", rng.choice(["liberty", "lotv"]))
    options: dict[str, Any] = {}
    for _ in range(rng.choice([1, 1, 2, 3])):
        which = rng.choice(["map", "balance", "balance", "options"])
        if which == "options":
            fields = [field for field in BattleOptions.__dataclass_fields__ if field != "balance"]
            options[rng.choice(fields)] = _value(rng)
        else:
            _mutate(map_content if which == "map" else balance, rng)
    for file, content in (("map", map_content), ("balance", balance)):
        (folder / f"{file}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return f"battle/{folder}/map.yaml", {"balance": str(folder / "balance.yaml"), **options}


def _packaged(kind: str, name: str) -> dict[str, Any]:
    return yaml.safe_load(resources.files("emix.envs.battle").joinpath(kind, f"{name}.yaml").read_text())


def _mutate(content: dict[str, Any], rng: random.Random) -> None:
    """Change, take away, double or add something anywhere in it."""
    where, key = rng.choice(list(_places(content)))
    change: Callable[[Any, Any, random.Random], None] = rng.choice([*[_scale] * 8, _set, _set, _remove, _add, _double])
    change(where, key, rng)


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every mapping or list within, with each of its keys."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield content, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _value(rng: random.Random) -> Any:
    return rng.choice(NUMBERS if rng.random() < 0.7 else OTHERS)


def _set(where: Any, key: Any, rng: random.Random) -> None:
    where[key] = _value(rng)


def _scale(where: Any, key: Any, rng: random.Random) -> None:
    if isinstance(where[key], int | float):
        where[key] *= rng.choice([0, 1e-4, 0.01, 0.5, 2, 10, 1000, 1e5])
    else:
        where[key] = _value(rng)


def _remove(where: Any, key: Any, rng: random.Random) -> None:
    del where[key]


def _add(where: Any, key: Any, rng: random.Random) -> None:
    if isinstance(where, dict):
        where[rng.choice(KEYS)] = _value(rng)
    else:
        where.insert(rng.randrange(len(where) + 1), _value(rng))


def _double(where: Any, key: Any, rng: random.Random) -> None:
    if isinstance(where, list):
        where.append(where[key])
    else:
        where[f"{key}2"] = where[key]


def _fault_of(env: Any, rng: random.Random) -> str | None:
    """What is wrong with some steps of random actions."""
    generator = torch.Generator().manual_seed(rng.getrandbits(30))
    step = env.reset()
    for _ in range(rng.choice([3, 10, 30])):
        for field in ("obs", "state", "reward"):
            if not getattr(step, field).isfinite().all():
                return f"{field} is not finite"
        if not (step.avail.any(2).all(1) | step.done).all():
            return "an agent has no action"
        step = env.step(env.spec.action.random((2, env.spec.n_agents), generator, step.avail))
    env.reset(step.done)
    return None


if __name__ == "__main__":
    torch.set_num_threads(1)
    play(case)
