"""What learners are made of beside networks and optimisers: target networks, schedules, and the one list of all that a
learner changes.

Checkpoints, the guard of captured updates and the weights that other processes play with are read off ``Parts``; a
learner names what it has once and writes no state by hand.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from emix.distributed import Group
from emix.errors import UsageError
from emix.learners.optimiser import Optimiser

_GENERATOR_BYTES = {16, 5056}  # of a state, on CUDA and on the CPU


class Target:
    """A copy of live networks that follows them: becomes them every so many units, or comes nearer at every call.

    Units are whatever ``follow`` counts: episodes, time steps, updates. They are counted on the device, so that a CUDA
    graph can repeat ``follow``; the tensors keep their place.

    Args:
        live: the networks that are trained.
        every: units between two copies, Mnih et al. 2015.
        tau: share of the live weights that each call mixes in, Lillicrap et al. 2016; one of the two is given.

    Raises:
        UsageError: both are given or none, or one is out of range.
    """

    def __init__(self, live: nn.Module, *, every: int | None = None, tau: float | None = None) -> None:
        if (every is None) == (tau is None):
            raise UsageError(f"a target expects every or tau, got every={every!r} and tau={tau!r}")
        if (every is not None and every < 1) or (tau is not None and not 0 < tau <= 1):
            raise UsageError(f"a target expects every of at least 1 or tau above 0 up to 1, got {every!r}, {tau!r}")
        self.live, self.every, self.tau = live, every, tau
        self.module: Any = copy.deepcopy(live).requires_grad_(False)
        device = next((parameter.device for parameter in live.parameters()), torch.device("cpu"))
        self.units = torch.zeros((), dtype=torch.int64, device=device)
        self.renewed_at = torch.zeros_like(self.units)

    @torch.no_grad()
    def follow(self, units: int | Tensor = 1) -> None:
        """Count ``units`` and renew the copy when that is due; without a wait for the device."""
        self.units += units
        live, own = self.live.state_dict(), self.module.state_dict()
        if self.tau is not None:
            for name, value in own.items():
                value.lerp_(live[name], self.tau) if value.is_floating_point() else value.copy_(live[name])
            return
        due = self.units - self.renewed_at >= (self.every or 1)
        for name, value in own.items():
            value.copy_(torch.where(due, live[name], value))
        self.renewed_at.copy_(torch.where(due, self.units, self.renewed_at))

    def state_dict(self) -> dict[str, Tensor]:
        """The copy's tensors and the counts."""
        return {**self.module.state_dict(), "units": self.units, "renewed_at": self.renewed_at}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state_dict`` gave."""
        counts = ("units", "renewed_at")
        self.module.load_state_dict({name: value for name, value in state.items() if name not in counts})
        self.units.copy_(state["units"])
        self.renewed_at.copy_(state["renewed_at"])


class Schedule:
    """A number that goes linearly from ``start`` to ``finish`` over ``over`` environment steps, and stays there.

    ``value`` is for the host; ``tensor``, 0-dim float64 on the device, is what ops read, so that a captured graph reads
    the present one.
    """

    def __init__(self, start: float, finish: float, over: int, *, device: torch.device) -> None:
        self.start, self.finish, self.over = start, finish, over
        self.tensor = torch.zeros((), dtype=torch.float64, device=device)
        self._go_to(0)

    @property
    def value(self) -> float:
        """The number after ``env_steps``."""
        return self.start + min(1.0, self.env_steps / self.over) * (self.finish - self.start)

    def advance(self, env_steps: int) -> None:
        """Count environment steps played for training."""
        self._go_to(self.env_steps + env_steps)

    def _go_to(self, env_steps: int) -> None:
        self.env_steps = env_steps
        self.tensor.fill_(self.value)

    def state_dict(self) -> dict[str, Tensor]:
        """The steps counted."""
        return {"env_steps": torch.tensor(self.env_steps, dtype=torch.int64, device="cpu")}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state_dict`` gave."""
        self._go_to(int(state["env_steps"]))


Part: TypeAlias = "nn.Module | Optimiser | Target | Schedule | Tensor | torch.Generator"


class Parts:
    """Everything that a learner, or its actor, changes as it goes on, by name.

    Args:
        parts: networks, ``Optimiser``, ``Target``, ``Schedule``, tensors that are counted up in place, generators.
    """

    def __init__(self, **parts: Part) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts.values())

    def join(self, group: Group) -> None:
        """Let every optimiser sum gradients and counts over the group."""
        for part in self:
            if isinstance(part, Optimiser):
                part.group = group

    def values(self) -> dict[str, float]:
        """The schedules' present numbers, for the log."""
        return {name: part.value for name, part in self.parts.items() if isinstance(part, Schedule)}

    def state_dict(self) -> dict[str, Tensor]:
        """Every part's tensors, flat, as ``<part>`` or ``<part>.<name>``: after ``load_state_dict`` all goes on bit for
        bit. As in torch they are the live ones: save or copy them before the next update."""
        state: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            if isinstance(part, Tensor):
                state[name] = part
            elif isinstance(part, torch.Generator):
                state[name] = part.get_state()
            else:
                state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor], what: str) -> None:
        """Take over a ``state_dict`` of the same parts.

        Args:
            state: as ``state_dict`` gave it.
            what: whose it must be, for the message.

        Raises:
            UsageError: a tensor is missing, unknown or of another shape; nothing is changed then.
        """
        self._refuse_foreign(state, what)
        for name, part in self.parts.items():
            if isinstance(part, Tensor):
                part.copy_(state[name])
            elif isinstance(part, torch.Generator):
                restore_generator(part, state[name])
            else:
                prefix = f"{name}."
                part.load_state_dict(
                    {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
                )

    def pack(self) -> Tensor:
        """All tensors of ``state_dict`` as one row of bytes on the CPU: uint8 ``[bytes]``."""
        return torch.cat([_bytes(value) for value in self.state_dict().values()])

    def unpack(self, flat: Tensor) -> None:
        """Take over what ``pack`` gave, of the same parts.

        Raises:
            ValueError: it has another size.
        """
        own = self.state_dict()
        sizes = [value.numel() * value.element_size() for value in own.values()]
        if flat.dtype != torch.uint8 or flat.shape != (sum(sizes),):
            raise ValueError(f"flat expects {sum(sizes)} bytes (uint8), got {flat.dtype} of shape {list(flat.shape)}")
        pieces = zip(own.items(), flat.split(sizes), strict=True)
        state = {name: piece.clone().view(value.dtype).view(value.shape) for (name, value), piece in pieces}
        self.load_state_dict(state, "the same parts")

    def _refuse_foreign(self, state: Mapping[str, Tensor], what: str) -> None:
        own = self.state_dict()
        optimisers = {f"{name}.": part for name, part in self.parts.items() if isinstance(part, Optimiser)}
        generators = {name for name, part in self.parts.items() if isinstance(part, torch.Generator)}
        # An optimiser that never stepped has no state yet.
        wrong = [name for name in own.keys() ^ state.keys() if not name.startswith(tuple(optimisers))]
        wrong += [
            name
            for name in (own.keys() & state.keys()) - generators
            if own[name].shape != state[name].shape or own[name].dtype != state[name].dtype
        ]
        for prefix, part in optimisers.items():
            wrong += [name for name in state if name.startswith(prefix) and not part.fits(name, prefix, state[name])]
        if wrong:
            raise UsageError(
                f"saved state: {min(wrong)} does not fit; expected that of {what}, got another's; "
                f"load the checkpoint with its own settings"
            )


def restore_generator(generator: torch.Generator, state: Tensor) -> None:
    """Let a generator go on from ``state`` (uint8): that of one of another kind of device seeds it."""
    state, own = state.cpu(), len(generator.get_state())
    if state.dtype == torch.uint8 and {len(state), own} == _GENERATOR_BYTES:
        digest = hashlib.sha256(state.numpy().tobytes()).digest()
        generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    else:
        generator.set_state(state)


def _bytes(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8)
