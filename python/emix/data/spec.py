"""The sizes of an environment, what a step of it returns, and the one table of what an episode holds.

Nothing here imports torch: worker processes of environments import this module too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from emix.data.actions import Action, Box, Discrete
from emix.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EnvSpec:
    """The sizes of an environment, the same for all of a batch."""

    name: str  # what emix.make was asked for
    n_agents: int  # n
    action: Action  # of each agent
    obs_dim: int  # O, of one agent
    state_dim: int  # S
    episode_limit: int  # the most steps that an episode can have

    @property
    def n_actions(self) -> int:
        """A, the choices of each agent.

        Raises:
            UsageError: actions are vectors.
        """
        if not isinstance(self.action, Discrete):
            raise UsageError(
                f"{self.name}: n_actions expects an environment with discrete actions, it has {self.action}"
            )
        return self.action.n


@dataclass(frozen=True)
class Step:
    """What ``reset`` and ``step`` return for ``E`` environments: all tensors batch first, on the environment's device.

    ``reward``, ``terminated`` and ``truncated`` belong to the transition that led here (0 and False after a reset);
    ``obs``, ``state`` and ``avail`` to what the agents see now. A later step does not change these tensors.
    """

    obs: Tensor  # [E, n, O] float32
    state: Tensor  # [E, S] float32, for the centralised critic or mixer
    avail: Tensor | None  # [E, n, A] bool, the actions that may be taken next; None where actions are a Box
    reward: Tensor  # [E] float32, of the team
    terminated: Tensor  # [E] bool, the episode ended by the rules: nothing is bootstrapped from here
    truncated: Tensor  # [E] bool, the time limit ended it; never True together with terminated
    info: Mapping[str, Tensor] = field(default_factory=dict)  # [E] each, such as battle_won

    @property
    def done(self) -> Tensor:
        """[E] bool: the episode is over, for either reason."""
        return self.terminated | self.truncated


@dataclass(frozen=True)
class Field:
    """One thing that an episode holds for each of its steps."""

    name: str
    shape: tuple[int, ...]  # of one environment at one step
    dtype: str  # as torch and NumPy call it
    at: Literal["observation", "transition"]  # T+1 entries, the last observation's too, or T
    stored: str = ""  # dtype in a replay where that is a smaller one
    choices: int | None = None  # of values that are indices: they are below it

    def __post_init__(self) -> None:
        object.__setattr__(self, "stored", self.stored or self.dtype)


def require_discrete(spec: EnvSpec, who: str) -> Discrete:
    """The actions of ``spec``, for ``who`` (a learner, by name) that knows discrete ones alone.

    Raises:
        UsageError: they are vectors.
    """
    if not isinstance(spec.action, Discrete):
        raise UsageError(
            f"{who} expects discrete actions, {spec.name} has {spec.action}: "
            f"choose another environment, or an algorithm for continuous actions"
        )
    return spec.action


def require_box(spec: EnvSpec, who: str) -> Box:
    """The actions of ``spec``, for ``who`` (a learner, by name) that knows vectors alone.

    Raises:
        UsageError: they are discrete.
    """
    if not isinstance(spec.action, Box):
        raise UsageError(
            f"{who} expects actions that are vectors, {spec.name} has {spec.action}: "
            f"choose another environment, or an algorithm for discrete actions"
        )
    return spec.action


def fields(spec: EnvSpec, record: Sequence[Field] = ()) -> tuple[Field, ...]:
    """All that an episode of ``spec`` holds: what the environment gives, the actions, and an actor's ``record``.

    Rollouts, ``Episodes``, the replays, checkpoints, benchmarks and ``check_env`` read this table and have none of
    their own.

    Raises:
        UsageError: two fields of one name, or one that an episode or a replay has itself.
    """
    n, action = spec.n_agents, spec.action
    table = [
        Field("obs", (n, spec.obs_dim), "float32", "observation"),
        Field("state", (spec.state_dim,), "float32", "observation"),
        *([Field("avail", (n, action.n), "bool", "observation")] if isinstance(action, Discrete) else []),
        Field("actions", (n, *action.shape), action.dtype, "observation", action.stored, getattr(action, "n", None)),
        Field("reward", (), "float32", "transition"),
        Field("terminated", (), "bool", "transition"),
        Field("truncated", (), "bool", "transition"),
        *record,
    ]
    names = [each.name for each in record]
    if taken := [name for name in names if name in _TAKEN or names.count(name) > 1]:
        raise UsageError(f"{spec.name}: an actor's record expects names of its own, got {taken[0]!r}, which is taken")
    return tuple(table)


# Names of an episode's own fields, whether it has them or not, and of what a replay's export adds.
_TAKEN = {"obs", "state", "avail", "actions", "reward", "terminated", "truncated", "valid", "lengths", "offsets"}
