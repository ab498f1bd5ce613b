"""Random calls of the returns ops, in float64, with every kind of end, mask, stride and broadcast."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.ops.cases import moved

# The public function and, for each, the names of its [B, T+1] inputs and its numbers.
SIGNATURES = {
    "trace_returns": (("q", "v", "trace"), ("gamma", "horizon")),
    "lambda_returns": (("value",), ("gamma", "lam")),
    "n_step_returns": (("value",), ("gamma", "n")),
    "tree_backup_returns": (("q", "v", "pi"), ("gamma", "lam", "horizon")),
    "q_lambda_returns": (("q", "v"), ("gamma", "lam")),
    "retrace_returns": (("q", "v", "ratio"), ("gamma", "lam")),
    "gae": (("value",), ("gamma", "lam")),
}
NAMES = sorted(SIGNATURES)


@dataclass
class Call:
    """One call: ``tensors`` go by position, ``ends`` and ``numbers`` by name."""

    name: str
    tensors: dict[str, Tensor]
    ends: dict[str, Tensor]
    numbers: dict[str, float | int | None]

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Call:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)

        return Call(
            self.name,
            {k: move(v) for k, v in self.tensors.items()},
            {k: move(v) for k, v in self.ends.items()},
            self.numbers,
        )

    def on(self, device: str) -> Call:
        """With the same strides."""
        tensors, ends = (
            {key: moved(value, device) for key, value in given.items()} for given in (self.tensors, self.ends)
        )
        return Call(self.name, tensors, ends, self.numbers)

    def run(self, module: object, **options: bool) -> Tensor:
        return getattr(module, self.name)(*self.tensors.values(), **self.ends, **self.numbers, **options)


def make_call(
    name: str,
    seed: int,
    batch: int,
    steps: int,
    trailing: tuple[int, ...] = (),
    *,
    ends: str = "all",
    broadcast: bool = False,
    strided: bool = False,
    horizon: int | None = None,
) -> Call:
    """Draw the tensors of one call. ``ends``: none, terminated, or all (with truncations and padding)."""
    g = torch.Generator().manual_seed(seed)

    def values(extra: int, trail: tuple[int, ...]) -> Tensor:
        shape = (batch, steps + extra, *trail)
        if not strided:
            return torch.randn(shape, generator=g, dtype=torch.float64)
        reversed_axes = torch.randn([2 * size for size in reversed(shape)], generator=g, dtype=torch.float64)
        return reversed_axes.permute(*reversed(range(len(shape))))[tuple(slice(0, 2 * size, 2) for size in shape)]

    def mask(probability: float) -> Tensor:
        return (
            torch.rand((batch, steps, *([] if broadcast else trailing)), generator=g, dtype=torch.float64) < probability
        )

    names, numbers = SIGNATURES[name]
    tensors = {"reward": values(0, () if broadcast else trailing), "terminated": mask(0.1 if ends != "none" else 0.0)}
    for key in names:
        value = values(1, trailing)
        tensors[key] = value.abs() if key in ("trace", "pi", "ratio") else value
    given_ends = {}
    if ends == "all":
        given_ends["truncated"] = mask(0.1)
        length = torch.randint(0, steps + 1, (batch,), generator=g) if batch else torch.zeros(0, dtype=torch.long)
        given_ends["valid"] = torch.arange(steps).expand(batch, steps) < length[:, None]
    drawn = {
        "gamma": 0.9 + 0.1 * torch.rand((), generator=g).item(),
        "lam": torch.rand((), generator=g).item(),
        "n": horizon or 3,
        "horizon": horizon,
    }
    return Call(name, tensors, given_ends, {key: drawn[key] for key in numbers})


@st.composite
def calls(draw: st.DrawFn) -> Call:
    return make_call(
        draw(st.sampled_from(sorted(SIGNATURES))),
        draw(st.integers(0, 2**31)),
        draw(st.integers(0, 20)),
        draw(st.sampled_from([0, 1, 2, 31, 32, 33, 63, 64, 65, 120, 130, 300])),
        draw(st.sampled_from([(), (), (1,), (3,), (5, 2), (2, 1, 2, 2)])),
        ends=draw(st.sampled_from(["none", "terminated", "all"])),
        broadcast=draw(st.booleans()),
        strided=draw(st.booleans()),
        horizon=draw(st.sampled_from([None, 1, 2, 5, 1000])),
    )
