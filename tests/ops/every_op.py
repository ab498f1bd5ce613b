"""One call of every op, for tests of what they all share: sizes of 0, transforms, compilation, meta tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from emix import ops

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64).requires_grad_()


def positive(*shape: int) -> Tensor:
    return torch.rand(shape, generator=GENERATOR, dtype=torch.float64).requires_grad_()


def mask(*shape: int) -> Tensor:
    return torch.rand(shape, generator=GENERATOR) < 0.7


def integers(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def gru_weights(inputs: int, hidden: int) -> list[Tensor]:
    return [normal(3 * hidden, inputs), normal(3 * hidden, hidden), normal(3 * hidden), normal(3 * hidden)]


RATES = {"gamma": 0.9, "lam": 0.8}
# Of each op that does not draw or step: sizes, the inputs that they make (a leaf where a gradient could be), options.
CASES: dict[str, tuple[dict[str, int], Callable[..., list[Tensor]], dict[str, Any]]] = {
    "linear_mix": ({"B": 3, "T": 4, "n": 2}, lambda B, T, n: [normal(B, T, n), positive(B, T, n), normal(B, T)], {}),
    "expected_linear_mix": (
        {"B": 3, "T": 4, "n": 2, "A": 5},
        lambda B, T, n, A: [
            normal(B, T, n, A),
            positive(B, T, n, A),
            positive(B, T, n),
            normal(B, T),
            normal(B, T, n, A),
        ],
        {},
    ),
    "monotonic_mix": (
        {"B": 3, "T": 4, "n": 2, "E": 6},
        lambda B, T, n, E: [normal(B, T, n), normal(B, T, n, E), normal(B, T, E), normal(B, T, E), normal(B, T)],
        {},
    ),
    "monotonic_mix_grad": (
        {"B": 3, "T": 4, "n": 2, "E": 6},
        lambda B, T, n, E: [normal(B, T, n), normal(B, T, n, E), normal(B, T, E), normal(B, T, E)],
        {},
    ),
    "masked_policy": ({"B": 3, "n": 2, "A": 5}, lambda B, n, A: [normal(B, n, A), mask(B, n, A)], {}),
    "policy_terms": (
        {"B": 3, "n": 2, "A": 5},
        lambda B, n, A: [normal(B, n, A), integers(B, n), mask(B, n, A), normal(B, n, A)],
        {},
    ),
    "ensemble_moments": ({"N": 7, "B": 3, "A": 5}, lambda N, B, A: [normal(N, B, A)], {}),
    "uncertainty_weight": ({"N": 7, "B": 3, "A": 5}, lambda N, B, A: [normal(N, B, A)], {}),
    "explore_logits": ({"N": 7, "B": 3, "A": 5}, lambda N, B, A: [normal(B, A), normal(N, B, A)], {}),
    "bhattacharyya": ({"N": 7, "B": 3, "A": 5}, lambda N, B, A: [normal(N, B, A), mask(B, A)], {}),
    "trace_returns": (
        {"B": 3, "T": 4, "n": 2},
        lambda B, T, n: [normal(B, T), ~mask(B, T), normal(B, T + 1, n), normal(B, T + 1), normal(B, T + 1, n)],
        {"gamma": 0.9},
    ),
    "lambda_returns": (
        {"B": 3, "T": 4, "n": 2},
        lambda B, T, n: [normal(B, T, n), ~mask(B, T), normal(B, T + 1)],
        RATES,
    ),
    "gae": ({"B": 3, "T": 4, "n": 2}, lambda B, T, n: [normal(B, T), ~mask(B, T), normal(B, T + 1, n)], RATES),
    "tree_backup_target": (
        {"N": 3, "B": 3, "T": 4, "n": 2, "A": 5},
        lambda N, B, T, n, A: [
            normal(B, T),
            ~mask(B, T),
            normal(N, B, T + 1, n, A),
            positive(B, T + 1, n, A),
            integers(B, T + 1, n),
            positive(B, T + 1, n),
            normal(B, T + 1),
        ],
        {**RATES, "uncertainty_scale": 0.1},
    ),
    "gru_sequence": (
        {"R": 3, "T": 4, "I": 3, "H": 4},
        lambda R, T, I, H: [normal(R, T, I), normal(R, H), *gru_weights(I, H)],  # noqa: E741
        {},
    ),
    "agent_sequence": (
        {"B": 3, "T": 4, "n": 2, "O": 3, "H": 4, "A": 5},
        lambda B, T, n, O, H, A: [  # noqa: E741
            normal(B, T, n, O),
            integers(B, T, n),
            normal(B, n, H),
            normal(H, O + A + n),
            normal(H),
            *gru_weights(H, H),
            normal(A, H),
            normal(A),
        ],
        {},
    ),
    "ensemble_critic": (
        {"N": 3, "B": 3, "n": 2, "S": 2, "O": 3, "H": 4, "A": 5},
        lambda N, B, n, S, O, H, A: [  # noqa: E741
            normal(B, S),
            normal(B, n, O),
            normal(N, S + O + n, H),
            normal(N, H),
            normal(N, H, H),
            normal(N, H),
            normal(N, H, A + 1),
            normal(N, A + 1),
        ],
        {},
    ),
}
NAMES = tuple(CASES)
# Without a gradient: the results are numbers to act on, or targets.
WITHOUT = ("monotonic_mix_grad", "uncertainty_weight", "explore_logits", "tree_backup_target")
DIFFERENTIABLE = tuple(name for name in NAMES if name not in WITHOUT)


def make_inputs(name: str, zeros: tuple[str, ...] = (), device: str = "cpu") -> list[Tensor]:
    """The op's inputs, leaves where a gradient could be asked for; the sizes named in ``zeros`` are 0."""
    sizes, build, _ = CASES[name]
    made = build(**{size: 0 if size in zeros else value for size, value in sizes.items()})
    return [each.detach().to(device).requires_grad_(each.requires_grad) for each in made]


def run(name: str, inputs: list[Tensor], module: Any = ops) -> tuple[Tensor, ...]:
    """The op's results that are there, with a gradient where it has one."""
    own = {"differentiable": True} if module is ops and name in ("trace_returns", "lambda_returns", "gae") else {}
    results = getattr(module, name)(*inputs, **CASES[name][2], **own)
    return tuple(each for each in results if each is not None) if isinstance(results, tuple) else (results,)
