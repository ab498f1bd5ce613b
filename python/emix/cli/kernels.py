"""``emix doctor`` on a GPU: whether the library has code for it, and a kernel of every word beside its reference."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import emix
from emix import ops

REBUILD = "pip install --force-reinstall --no-deps --no-build-isolation ."
Call = Callable[[Any, torch.device], Any]  # of emix.ops or emix.ops.reference, on a device


def architecture_problem(compiled: str, capability: tuple[int, int]) -> str:
    """Why a GPU cannot run what was compiled for ``compiled``; empty where it can.

    Args:
        compiled: CMake's list, such as ``75-real;80-real;120``: machine code (``-real``), PTX (``-virtual``), or both.
            ``native``: for the GPU that was there when it was built.
        capability: the GPU's compute capability, ``(9, 0)``.

    Machine code runs on GPUs of the same major version from its minor version on, PTX on all later GPUs.
    """
    wanted = 10 * capability[0] + capability[1]
    entries = [(int(number), kind) for number, kind in re.findall(r"(\d+)[af]?(-real|-virtual)?", compiled)]
    real = [number for number, kind in entries if kind != "-virtual"]
    virtual = [number for number, kind in entries if kind != "-real"]
    runs = any(number // 10 == capability[0] and number <= wanted for number in real)
    if compiled == "native" or runs or any(number <= wanted for number in virtual):
        return ""
    return f"its kernels are compiled for {', '.join(f'sm_{number}' for number, _ in entries)}, this GPU is sm_{wanted}"


def architecture_remedy(capability: tuple[int, int]) -> str:
    """The command that compiles them for such a GPU."""
    number = 10 * capability[0] + capability[1]
    return f"{REBUILD} -C cmake.define.CMAKE_CUDA_ARCHITECTURES={number}"


def failing_words(device: torch.device) -> Iterator[tuple[str, str]]:
    """The words one of whose kernels fails on ``device``, or disagrees with its reference there, and what happened."""
    for word, call in _CALLS.items():
        try:
            result, expected = call(ops, device), call(ops.reference, device)
            torch.testing.assert_close(result, expected)
        except (RuntimeError, ValueError, AssertionError) as error:
            yield word, " ".join(str(error).split())


def words() -> list[str]:
    """Every word that has kernels for a GPU."""
    return sorted(_CALLS)


def _normal(device: torch.device, *shape: int) -> Tensor:
    """The same numbers on every device: between -1 and 1."""
    return torch.sin(torch.arange(float(torch.Size(shape).numel()))).reshape(shape).to(device)


def _positive(device: torch.device, *shape: int) -> Tensor:
    return _normal(device, *shape).abs() + 0.1


def _none(device: torch.device, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.bool, device=device)


def _first(device: torch.device, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64, device=device)


def _targets(module: Any, d: torch.device) -> Any:
    q, weight = _normal(d, 3, 2, 5, 2, 4), _positive(d, 2, 5, 2)  # [N, B, T+1, n, A], [B, T+1, n]
    reward, actions = _normal(d, 2, 4), _first(d, 2, 5, 2)  # [B, T], [B, T+1, n]
    return module.td_lambda_target(reward, _none(d, 2, 4), q, actions, weight, gamma=0.9, lam=0.8)


def _recurrent(module: Any, d: torch.device) -> Any:
    x, h0 = _normal(d, 3, 4, 5), _normal(d, 3, 8)  # [R, T, I], [R, H]
    return module.gru_sequence(x, h0, _normal(d, 24, 5), _normal(d, 24, 8), _normal(d, 24), _normal(d, 24))


def _marginal(module: Any, d: torch.device) -> Any:
    first, actions = _normal(d, 2, 3, 8), _first(d, 4, 2, 3)  # [B, n, H], [K, B, n]
    weights = _normal(d, 3, 5, 8), _normal(d, 8, 8), _normal(d, 8), _normal(d, 8), _normal(d, 1)[0]
    return module.marginal_value(first, actions, *weights)


def _sampling(module: Any, d: torch.device) -> Any:
    """Where one action is available the draw is certain."""
    avail = torch.eye(4, dtype=torch.bool, device=d)
    return ops.sample_actions(_normal(d, 4, 4), avail) if module is ops else torch.arange(4, device=d)


def _battle(module: Any, d: torch.device) -> Any:
    """A step on the device and on the CPU: the same bits."""
    env = emix.make("battle/3m", num_envs=1, device=str(d) if module is ops else "cpu", seed=0)
    env.reset()
    step = env.step(torch.ones(1, 3, dtype=torch.int64, device=env.device))  # everybody stands
    return step.obs.cpu(), step.state.cpu(), step.reward.cpu()


_CALLS: dict[str, Call] = {
    "returns": lambda m, d: m.lambda_returns(_normal(d, 2, 4), _none(d, 2, 4), _normal(d, 2, 5), gamma=0.9, lam=0.8),
    "targets": _targets,
    "mixing": lambda m, d: m.linear_mix(_normal(d, 2, 3), _positive(d, 2, 3)),
    "policy": lambda m, d: m.masked_policy(_normal(d, 3, 5), floor=0.1),
    "gaussian": lambda m, d: tuple(m.gaussian_terms(_normal(d, 3, 2), _normal(d, 3, 2), _normal(d, 3, 2))),
    "ensemble": lambda m, d: tuple(m.ensemble_moments(_normal(d, 5, 3, 4))),
    "diversity": lambda m, d: m.bhattacharyya(_normal(d, 5, 3, 4)),
    "marginal": _marginal,
    "sampling": _sampling,
    "battle": _battle,
    "recurrent": _recurrent,
}
