"""What an agent's action is: one of A choices, or a vector in a box. Everybody who handles actions asks these two.

Both have the same members; ``Action`` is either. Nothing here imports torch before a tensor comes in: worker processes
of environments import this module too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from emix.errors import UsageError

if TYPE_CHECKING:
    import torch
    from gymnasium import spaces
    from torch import Tensor


@dataclass(frozen=True)
class Discrete:
    """One of n choices, 0 to n - 1, of which ``Step.avail`` says which may be taken.

    Raises:
        UsageError: n is no integer of at least 1.
    """

    n: int  # A

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1:
            raise UsageError(f"Discrete: n expects an integer of at least 1, got {self.n!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one agent's action in a tensor: ``()``."""
        return ()

    @property
    def dtype(self) -> str:
        """Of actions in a tensor, as torch and NumPy call it."""
        return "int64"

    @property
    def stored(self) -> str:
        """The smallest dtype that a replay can keep actions in without loss."""
        return "uint8" if self.n <= 1 << 8 else "int16" if self.n <= 1 << 15 else "int32"

    @property
    def encoding_dim(self) -> int:
        """Numbers that stand for an action at a network's input: A."""
        return self.n

    def encode(self, actions: Tensor) -> Tensor:
        """One-hot rows, zeros for A, "none yet": ``[...]`` int64 -> ``[..., A]`` float32."""
        import torch

        return torch.nn.functional.one_hot(actions, self.n + 1)[..., : self.n].float()

    def none(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """What stands for the action before the first one, of ``shape`` agents: A, in int64."""
        import torch

        return torch.full(shape, self.n, dtype=torch.int64, device=device)

    def random(self, shape: tuple[int, ...], generator: torch.Generator, avail: Tensor | None = None) -> Tensor:
        """Uniform draws of ``shape`` agents' actions, among those that ``avail`` ``[*shape, A]`` allows; int64, 0 where
        it allows none. They live where the generator does, which is all that is used.
        """
        import torch

        scores = torch.rand(
            *shape, self.n, generator=generator, dtype=torch.float32, device=generator.device
        )  # [..., A]
        return (scores if avail is None else scores.masked_fill(~avail, -1.0)).argmax(-1)

    def nearest(self, actions: Tensor) -> Tensor:
        """Actions in range: what is out of it counts as the nearest."""
        return actions.clamp(0, self.n - 1)

    def tensor(self, name: str, values: Any, device: torch.device) -> Tensor:
        """NumPy's or a list's integers as an int64 tensor on ``device``.

        Raises:
            UsageError: ``values`` are no integers: 0.7 is not taken for 0.
        """
        return _tensor(name, values, "iu", "int64", device)

    def check(self, name: str, actions: Any, lead: tuple[int, int], device: torch.device) -> None:
        """Raise UsageError unless ``actions`` is an int64 tensor of shape ``lead``, ``[E, n]``, on ``device``."""
        _check_tensor(name, actions, lead, "int64", "[E, n]", device)

    def check_values(self, name: str, actions: Tensor, avail: Tensor | None, done: Tensor) -> None:
        """Raise UsageError if an action ``[E, n]`` is not in ``avail`` ``[E, n, A]`` where ``done`` ``[E]`` is False.

        This looks at the values, so it would wait for a GPU: it is for tensors on the CPU.
        """
        if avail is None:
            raise UsageError(f"{name}: a step expects avail where actions are {self}, got None")
        index = actions.clamp(0, self.n - 1)
        allowed = avail.gather(2, index[:, :, None])[:, :, 0] & (index == actions)  # [E, n]
        wrong = ~(allowed | done[:, None])  # [E, n]
        if wrong.any():
            env, agent = wrong.nonzero()[0].tolist()
            options = avail[env, agent].nonzero()[:, 0].tolist()
            raise UsageError(
                f"{name}: environment {env}, agent {agent}: action {int(actions[env, agent])} is not available, "
                f"expected one of {options}"
            )

    def space(self) -> spaces.Space[Any]:
        """Gymnasium's space of one agent's action."""
        from gymnasium import spaces

        return spaces.Discrete(self.n)

    def joint_space(self, n_agents: int) -> spaces.Space[Any]:
        """Gymnasium's space of the joint action ``[n]``."""
        from gymnasium import spaces

        return spaces.MultiDiscrete([self.n] * n_agents)


@dataclass(frozen=True)
class Box:
    """``dim`` numbers, each from ``low`` to ``high``; there is no ``Step.avail``.

    Where agents have different counts of numbers, ``sizes`` has those of each, the largest of which is ``dim``. What
    comes after an agent's own numbers is padding: environments ignore it, actors leave it in the middle of the bounds,
    and no loss looks at it.

    Raises:
        UsageError: dim is no integer of at least 1, the bounds are not finite numbers in order, or the sizes are not
            from 1 to dim, which one of them is.
    """

    dim: int  # D
    low: float = -1.0
    high: float = 1.0
    sizes: tuple[int, ...] = field(default=(), repr=False)  # [n], of each agent; none where all have D

    def __post_init__(self) -> None:
        if not isinstance(self.dim, int) or isinstance(self.dim, bool) or self.dim < 1:
            raise UsageError(f"Box: dim expects an integer of at least 1, got {self.dim!r}")
        if not (_is_number(self.low) and _is_number(self.high) and self.low < self.high):
            raise UsageError(f"Box: low and high expect finite numbers in order, got {self.low!r} and {self.high!r}")
        if self.sizes and not (max(self.sizes) == self.dim and min(self.sizes) >= 1):
            raise UsageError(f"Box: sizes expects integers from 1 to dim={self.dim}, which one is, got {self.sizes}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one agent's action in a tensor: ``(D,)``."""
        return (self.dim,)

    @property
    def dtype(self) -> str:
        """Of actions in a tensor, as torch and NumPy call it."""
        return "float32"

    @property
    def stored(self) -> str:
        """The smallest dtype that a replay can keep actions in without loss."""
        return "float32"

    @property
    def encoding_dim(self) -> int:
        """Numbers that stand for an action at a network's input: D."""
        return self.dim

    def encode(self, actions: Tensor) -> Tensor:
        """The numbers themselves: ``[..., D]``."""
        return actions

    def none(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """What stands for the action before the first one, of ``shape`` agents: zeros ``[*shape, D]``."""
        import torch

        return torch.zeros(*shape, self.dim, dtype=torch.float32, device=device)

    def random(self, shape: tuple[int, ...], generator: torch.Generator, avail: Tensor | None = None) -> Tensor:
        """Uniform draws of ``shape`` agents' actions, ``[*shape, D]`` float32. They live where the generator does,
        which is all that is used; ``avail`` is for discrete actions.
        """
        import torch

        unit = torch.rand(
            *shape, self.dim, generator=generator, dtype=torch.float32, device=generator.device
        )  # [..., D]
        return self.nearest(self.low + (self.high - self.low) * unit)  # rounding may pass the bound

    def nearest(self, actions: Tensor) -> Tensor:
        """Actions ``[..., n, D]`` in range: what is out of it counts as the nearest, and padding is the middle."""
        return self.without_padding(actions.clamp(self.low, self.high), (self.low + self.high) / 2)

    def numbers(self, n_agents: int) -> int:
        """How many numbers n agents choose together."""
        return sum(self.sizes) if self.sizes else n_agents * self.dim

    def without_padding(self, values: Tensor, filler: float = 0.0) -> Tensor:
        """``values`` ``[..., n, D]`` with ``filler`` in place of numbers that an agent does not have."""
        if not self.sizes:
            return values
        import torch

        places = torch.arange(self.dim, device=values.device)
        own = torch.stack([places < size for size in self.sizes])  # [n, D]; a CUDA graph can hold this
        return torch.where(own, values, filler)

    def tensor(self, name: str, values: Any, device: torch.device) -> Tensor:
        """NumPy's or a list's numbers as a float32 tensor on ``device``.

        Raises:
            UsageError: ``values`` are no numbers.
        """
        return _tensor(name, values, "iuf", "float32", device)

    def check(self, name: str, actions: Any, lead: tuple[int, int], device: torch.device) -> None:
        """Raise UsageError unless ``actions`` is a float32 tensor of shape ``[*lead, D]``, [E, n, D], on ``device``."""
        _check_tensor(name, actions, (*lead, self.dim), "float32", "[E, n, D]", device)

    def check_values(self, name: str, actions: Tensor, avail: Tensor | None, done: Tensor) -> None:
        """Raise UsageError if an action ``[E, n, D]`` is out of bounds, or NaN, where ``done`` ``[E]`` is False.

        This looks at the values, so it would wait for a GPU: it is for tensors on the CPU.
        """
        inside = ((actions >= self.low) & (actions <= self.high)).all(-1)  # [E, n]; NaN is outside
        wrong = ~(inside | done[:, None])
        if wrong.any():
            env, agent = wrong.nonzero()[0].tolist()
            raise UsageError(
                f"{name}: environment {env}, agent {agent}: action {actions[env, agent].tolist()} is out of bounds, "
                f"expected {self.dim} number{'s' * (self.dim > 1)} from {self.low:g} to {self.high:g}"
            )

    def space(self) -> spaces.Space[Any]:
        """Gymnasium's space of one agent's action."""
        return self._space((self.dim,))

    def joint_space(self, n_agents: int) -> spaces.Space[Any]:
        """Gymnasium's space of the joint action ``[n, D]``; both bounds of padding are the middle."""
        space: Any = self._space((n_agents, self.dim))
        for agent, size in enumerate(self.sizes):
            space.low[agent, size:] = space.high[agent, size:] = (self.low + self.high) / 2
        return space

    def _space(self, shape: tuple[int, ...]) -> spaces.Space[Any]:
        import numpy as np
        from gymnasium import spaces

        return spaces.Box(self.low, self.high, shape, np.float32)


Action: TypeAlias = Discrete | Box


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _tensor(name: str, values: Any, kinds: str, dtype: str, device: torch.device) -> Tensor:
    import numpy as np
    import torch

    try:
        array = np.asarray(values)
    except ValueError:  # rows of several lengths
        raise UsageError(f"{name}: actions must be an array of numbers, got rows of several lengths") from None
    if array.dtype.kind not in kinds:
        raise UsageError(f"{name}: actions must be numbers that fit into {dtype}, got {array.dtype}")
    return torch.as_tensor(array.astype(dtype), device=device)


def _check_tensor(name: str, actions: Any, shape: tuple[int, ...], dtype: str, axes: str, device: torch.device) -> None:
    import torch

    fits = isinstance(actions, torch.Tensor) and tuple(actions.shape) == shape
    if not fits or actions.dtype != getattr(torch, dtype):
        raise UsageError(f"{name}: actions must be {dtype} of shape {list(shape)} {axes}, got {describe(actions)}")
    if actions.device != device:
        raise UsageError(f"{name}: actions must be on the environment's device {device}, got {actions.device}")


def describe(value: object) -> str:
    """What a caller handed in where a tensor was expected, for messages."""
    import torch

    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} of shape {list(value.shape)} on {value.device}"
