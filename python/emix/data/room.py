"""What is known to need more memory than there is, refused in a sentence before any of it is taken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emix.data.spec import EnvSpec, fields
from emix.data.storage import SHARE, memory_of, size_of
from emix.errors import UsageError

# Weights have gradients, an optimiser's state and targets beside them, as large as they are.
_COPIES = 4


def refuse_large_steps(spec: EnvSpec, num_envs: int, device: torch.device) -> None:
    """Raise UsageError where the device has no room for one step of ``num_envs`` environments."""
    needed = num_envs * sum(size_of((field.shape, field.dtype)) for field in fields(spec))
    if needed > SHARE * memory_of(device):
        raise UsageError(
            f"{spec.name}: a step of {num_envs} environments with {spec.n_agents} agents, obs_dim {spec.obs_dim}, "
            f"state_dim {spec.state_dim} and actions {spec.action} needs {_gib(needed)}, but {device} has "
            f"{_gib(memory_of(device))}: take fewer or a smaller one"
        )


class NetworkRoom(TorchDispatchMode):
    """Within it, new tensors may add up to what networks can have of a device's memory, beside what training adds.

    Args:
        what: is being made, for the message.
        sizes: of its networks, by name, for the message.
        device: where they will be.

    Raises:
        UsageError: from the function that asks for more, before it is given any.
    """

    def __init__(self, what: str, sizes: Mapping[str, int], device: torch.device) -> None:
        super().__init__()
        self.what, self.sizes, self.device = what, sizes, device
        self.memory, self.asked = memory_of(device), 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.asked += _bytes_of(func, args, kwargs)
        if _COPIES * self.asked > SHARE * self.memory:
            sizes = ", ".join(f"{name} {size}" for name, size in self.sizes.items())
            raise UsageError(
                f"{self.what}: its networks and what training adds need more than the {_gib(self.memory)} that "
                f"{self.device} has: expected smaller sizes, got {sizes}"
            )
        return func(*args, **kwargs)


def _bytes_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Of the tensor that a function such as ``torch.empty`` makes from its size; 0 for all other functions."""
    names = [argument.name for argument in func._schema.arguments]
    if "size" not in names or (isinstance(args[0], torch.Tensor) and "::new_" not in func._schema.name):
        return 0
    size = kwargs.get("size", args[names.index("size")] if len(args) > names.index("size") else ())
    return math.prod(size) * (kwargs.get("dtype") or torch.float32).itemsize


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
