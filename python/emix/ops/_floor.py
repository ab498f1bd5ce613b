"""The floor of a policy, as the compiled ops take it."""

from __future__ import annotations

from torch import Tensor


def number_and_tensor(floor: float | Tensor) -> tuple[float, Tensor | None]:
    """A number, or a tensor in its place, which the op reads when it runs."""
    return (0.0, floor) if isinstance(floor, Tensor) else (floor, None)
