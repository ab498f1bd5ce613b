"""Random calls of every op, right ones and wrong ones."""

from __future__ import annotations

import random
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import emix
from emix import ops
from emix.ops import battle
from tests.ops.cases import strided
from tests.ops.every_op import OPS, is_return, make_tensor

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
MASKS = (torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
ODD_DTYPES = (torch.complex64, torch.complex128, torch.int32, torch.bool, torch.uint16, torch.float8_e4m3fn)
AT_LEAST_ONE = set("NHAIK")  # sizes that some op refuses to be 0
NAMES = (*OPS, "rmsprop_step", "battle_step", "battle_reset")


class Call(NamedTuple):
    """name: of the op; wrong: what was changed in a right call, nothing where it is one; device: cpu or meta."""

    name: str
    arguments: dict[str, Any]
    wrong: tuple[str, ...]
    device: str

    def function(self) -> Any:
        return getattr(battle if self.name.startswith("battle") else ops, self.name)


def draw_call(seed: int, number: int) -> Call:
    """The same call for the same numbers."""
    r = random.Random(f"{seed} {number}")
    g = torch.Generator().manual_seed(r.getrandbits(60))
    name, device = r.choice(NAMES), "meta" if r.random() < 0.2 else "cpu"
    arguments = draw_arguments(name, r, g)
    arguments = {key: to_device(value, device) for key, value in arguments.items()}
    wrong = tuple(make_wrong(arguments, r) for _ in range(r.choice((0, 0, 0, 1, 1, 1, 1, 2))))
    return Call(name, arguments, wrong, device)


def draw_arguments(name: str, r: random.Random, g: torch.Generator) -> dict[str, Any]:
    """Right ones, of random sizes, types, strides and choices."""
    if name == "rmsprop_step":
        return rmsprop_arguments(r, g)
    if name.startswith("battle"):
        return battle_arguments(name, r)
    row, mixed, dtype = OPS[name], r.random() < 0.2, r.choice(FLOATS)
    sizes = {size: r.choice((1, 1, 2, 3, 5) if size in AT_LEAST_ONE else (0, 1, 2, 3, 5)) for size in "BTnANERIHOSK"}
    with_gradient = row.gradient and r.random() < 0.4
    arguments: dict[str, Any] = {}
    for key, given in row.inputs.items():
        tensor = make_tensor(given, sizes, g).detach()
        kinds = {"m": MASKS, "a": INTEGERS, "l": INTEGERS}.get(given.kind, FLOATS if mixed else (dtype,))
        tensor = tensor.to(r.choice(kinds))
        tensor = strided(tensor) if r.random() < 0.3 else tensor
        leaf = with_gradient and given.kind in "fp" and r.random() < 0.7
        arguments[key] = None if given.optional and r.random() < 0.4 else tensor.requires_grad_(leaf)
    arguments |= {key: r.choice(choices) for key, choices in row.numbers.items()}
    if is_return(name):
        arguments["differentiable"] = with_gradient
    if "floor" in arguments and r.random() < 0.3:
        arguments["floor"] = torch.tensor(arguments["floor"], dtype=r.choice(FLOATS))
    if row.draws and r.random() < 0.5:
        arguments["generator"] = torch.Generator().manual_seed(r.getrandbits(60))
    return arguments


def rmsprop_arguments(r: random.Random, g: torch.Generator) -> dict[str, Any]:
    dtype = r.choice((torch.float32, torch.float64))
    shapes = [[r.choice((0, 1, 3, 20)) for _ in range(r.randrange(3))] for _ in range(r.randrange(1, 4))]
    lists = {key: [torch.randn(shape, generator=g).to(dtype) for shape in shapes] for key in ("parameters", "grads")}
    lists["square_avgs"] = [torch.rand(shape, generator=g).to(dtype) for shape in shapes]
    return {**lists, "lr": 0.01, "alpha": 0.9, "max_norm": r.choice((0.5, 1e9))}


def battle_arguments(name: str, r: random.Random) -> dict[str, Any]:
    env, avail = battles(r.choice(("3m", "2s3z")), r.choice((1, 3)))
    state = battle.BattleState(*(each.clone() for each in env.battles))
    given: dict[str, Any] = {"state": state, "scenario": env.tables}
    if name == "battle_step":
        return given | {"actions": torch.multinomial(avail.flatten(0, 1).double(), 1).reshape(avail.shape[:2])}
    where = torch.tensor([r.random() < 0.5 for _ in avail])
    return given | {
        "where": where,
        "seed": r.choice((int, np.int64))(r.getrandbits(63)),
        "first": r.randrange(9),
        "closed": r.random() < 0.3,
    }


@cache
def battles(name: str, num_envs: int) -> tuple[Any, Tensor]:
    env = emix.make(f"battle/{name}", num_envs=num_envs, seed=0)
    return env, env.reset().avail


def to_device(value: Any, device: str) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device).requires_grad_(value.requires_grad) if device != "cpu" else value
    if isinstance(value, tuple):
        return type(value)(*(to_device(each, device) for each in value))
    return [to_device(each, device) for each in value] if isinstance(value, list) else value


def make_wrong(arguments: dict[str, Any], r: random.Random) -> str:
    """Change an argument, or leave one out, or add one; say which."""
    if not arguments:
        return "everything"
    key = r.choice(list(arguments))
    value, chance = arguments[key], r.random()
    if chance < 0.03:
        del arguments[key]
    elif chance < 0.06:
        arguments["unheard_of"] = 1
    elif hasattr(value, "_fields") and r.random() < 0.8:  # the battle's state and tables
        field = r.choice(value._fields)
        arguments[key] = value._replace(**{field: changed(getattr(value, field), r)})
        return f"{key}.{field}"
    elif isinstance(value, list) and value and r.random() < 0.8:
        place = r.randrange(len(value))
        value[place] = changed(value[place], r)
    else:
        arguments[key] = changed(value, r)
    return key


def changed(value: Any, r: random.Random) -> Any:
    """Something else in its place."""
    if isinstance(value, Tensor) and value.layout == torch.strided and r.random() < 0.7:
        return changed_tensor(value.detach(), r)
    array = np.zeros((2, 3), np.float32)
    return r.choice(
        (
            *(None, True, 0, 1, -1, 0.5, -0.5, float("nan"), float("inf"), 2**70, "0.9", "", b"x", [], [1.0, 2.0], {}),
            *(array, array[0, 0], np.int64(3), object(), torch.float32, torch.zeros(2, 3), torch.zeros(()), Tensor),
            *((torch.zeros(2),), random.Random(0), torch.Generator(), 1j, range(3), lambda: 0),
        )
    )


def changed_tensor(value: Tensor, r: random.Random) -> Any:
    axis = r.randrange(value.dim()) if value.dim() else None
    changes = [
        lambda: value[None],
        lambda: value[..., None],
        lambda: (
            value.to("meta" if value.device.type == "cpu" else "cpu") if value.device.type == "cpu" else zeros(value)
        ),
        lambda: value.to(r.choice(ODD_DTYPES)),
        lambda: value.to(r.choice(FLOATS)),
        lambda: value.to_sparse() if value.device.type == "cpu" and value.dtype in FLOATS else None,
        lambda: value.tolist() if value.device.type == "cpu" else None,
        lambda: value.numpy() if value.device.type == "cpu" and value.dtype in MASKS else None,
        lambda: torch.full_like(value, torch.nan if value.is_floating_point() else r.choice((0, 1))),
    ]
    if axis is not None:
        changes += [
            lambda: value.new_zeros([size for place, size in enumerate(value.shape) if place != axis]),
            lambda: torch.cat([value, value], axis),
            lambda: value.narrow(axis, 0, min(1, value.shape[axis])),
            lambda: value.narrow(axis, 0, 0),
            lambda: value.transpose(axis, 0),
            lambda: (
                value.narrow(axis, 0, min(1, value.shape[axis])).expand(value.shape) if value.shape[axis] else value
            ),
        ]
    return r.choice(changes)()


def zeros(value: Tensor) -> Tensor:
    return torch.zeros(value.shape, dtype=value.dtype)
