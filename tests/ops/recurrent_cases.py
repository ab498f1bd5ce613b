"""What the tests of the recurrent ops share: inputs in float64 by name, and calls that return a tuple."""

from __future__ import annotations

import torch
from torch import Tensor

from emix import ops
from tests.ops.cases import Inputs

NAMES = ["gru_sequence", "agent_sequence"]


def _normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def _weights(g: torch.Generator, inputs: int, hidden: int) -> Inputs:
    scale = hidden**-0.5
    return {
        "w_ih": _normal(g, 3 * hidden, inputs) * scale,
        "w_hh": _normal(g, 3 * hidden, hidden) * scale,
        "b_ih": _normal(g, 3 * hidden) * scale,
        "b_hh": _normal(g, 3 * hidden) * scale,
    }


def gru_inputs(seed: int, R: int, T: int, I: int, H: int, given_h0: bool = True) -> Inputs:  # noqa: E741
    g = torch.Generator().manual_seed(seed)
    return {"x": _normal(g, R, T, I), "h0": _normal(g, R, H) if given_h0 else None, **_weights(g, I, H)}


def agent_inputs(
    seed: int,
    B: int,
    T: int,
    n: int,
    O: int,  # noqa: E741
    A: int,
    H: int,
    *,
    given_h0: bool = True,
    actions: bool = True,
    ids: bool = True,
) -> Inputs:
    g = torch.Generator().manual_seed(seed)
    columns = O + A * actions + n * ids
    return {
        "obs": _normal(g, B, T, n, O),
        "last_action": torch.randint(-1, A + 1, (B, T, n), generator=g) if actions else None,
        "h0": _normal(g, B, n, H) if given_h0 else None,
        "w_encode": _normal(g, H, columns) * max(columns, 1) ** -0.5,
        "b_encode": _normal(g, H),
        **_weights(g, H, H),
        "w_head": _normal(g, A, H) * H**-0.5,
        "b_head": _normal(g, A),
    }


def make_inputs(name: str, seed: int, steps: int = 4) -> Inputs:
    """Three small sequences with every input."""
    if name == "gru_sequence":
        return gru_inputs(seed, 3, steps, 4, 5)
    return agent_inputs(seed, 3, steps, 2, 4, 3, 5)


def run(name: str, inputs: Inputs, module: object = ops) -> tuple[Tensor, ...]:
    result = getattr(module, name)(**inputs)
    return result if isinstance(result, tuple) else (result,)
