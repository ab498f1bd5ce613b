"""What learners share beneath their equations: checked hyperparameters, choosing actions, flat saved states."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from emix import ops
from emix.errors import UsageError

if TYPE_CHECKING:
    from emix.envs.core import EnvSpec


class Memory(NamedTuple):
    """What recurrent agents carry from one step of an episode to the next, for E environments."""

    hidden: Tensor  # [E, n, H], the GRU's state
    last_actions: Tensor  # [E, n] int64; A before the first step
    probability: Tensor | None = None  # [E, n], what the behaviour policy gave them, from learners that need it


def initial_memory(num_envs: int, spec: EnvSpec, hidden_dim: int, device: torch.device) -> Memory:
    """The memory of E environments' agents before the first step of an episode."""
    hidden = torch.zeros(num_envs, spec.n_agents, hidden_dim, device=device)  # [E, n, H]
    return Memory(hidden, torch.full((num_envs, spec.n_agents), spec.n_actions, device=device))


def check_fields(
    config: Any,
    *,
    choices: Mapping[str, tuple[Any, ...]],
    fractions: Collection[str],
    not_negative: Collection[str] = (),
) -> None:
    """Check a dataclass of hyperparameters against the types of its defaults.

    Args:
        config: the instance.
        choices: the values that a field may have.
        fractions: fields from 0 to 1.
        not_negative: fields from 0 up. Every other number must be above 0; where the default is None, it may be None.

    Raises:
        UsageError: a value is of the wrong type or out of range.
    """
    for field in fields(config):
        name = field.name
        value: Any = getattr(config, name)
        default: Any = field.default
        if default is None:
            if value is None:
                continue
            default = 0.5
        numbers = (int, float) if isinstance(default, float) else type(default)
        if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, numbers):
            raise UsageError(f"{name}: expected a value like {default!r}, got {value!r}")
        if name in choices and value not in choices[name]:
            raise UsageError(f"{name}: expected one of {', '.join(map(str, choices[name]))}, got {value!r}")
        if isinstance(default, str | bool):
            continue
        if name in fractions and not 0 <= value <= 1:
            raise UsageError(f"{name}: expected a number from 0 to 1, got {value!r}")
        if name in not_negative and not value >= 0:
            raise UsageError(f"{name}: expected 0 or a number above it, got {value!r}")
        if name not in fractions and name not in not_negative and not value > 0:
            raise UsageError(f"{name}: expected a number above 0, got {value!r}")


class Epsilon:
    """epsilon: linearly from ``epsilon_start`` to ``epsilon_finish`` over ``epsilon_anneal_time`` environment steps.

    ``value`` is for the host; ``tensor``, 0-dim float64 on the device, is what ops read, so that a captured graph reads
    the current one. Setting ``env_steps`` sets both.
    """

    def __init__(self, config: Any, device: torch.device) -> None:
        self.config = config
        self.tensor = torch.zeros((), dtype=torch.float64, device=device)
        self.env_steps = 0

    @property
    def env_steps(self) -> int:
        """Environment steps played for training."""
        return self._env_steps

    @env_steps.setter
    def env_steps(self, value: int) -> None:
        self._env_steps = value
        self.tensor.fill_(self.value)

    @property
    def value(self) -> float:
        """epsilon after ``env_steps``."""
        start, finish = self.config.epsilon_start, self.config.epsilon_finish
        return start + min(1.0, self.env_steps / self.config.epsilon_anneal_time) * (finish - start)


def greedy(scores: Tensor, avail: Tensor) -> Tensor:
    """The available action with the highest score, 0 where there is none: ``[..., A] -> [...]``."""
    return scores.masked_fill(~avail, -torch.inf).argmax(-1)


def pick(values: Tensor, actions: Tensor) -> Tensor:
    """The values of the given actions: ``[..., A], [...] -> [...]``."""
    return _Pick.apply(values, actions.unsqueeze(-1)).squeeze(-1)


class _Pick(torch.autograd.Function):
    """``gather`` of one place on the last axis. The gradient of torch's is a scatter, which a GPU does by sorting where
    torch is to be deterministic, as training asks."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = values.shape[-1]
        return values.gather(-1, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return torch.where(torch.arange(ctx.size, device=index.device) == index, grad, 0.0), None


def previous_actions(actions: Tensor, n_actions: int) -> Tensor:
    """The action before each observation, ``n_actions`` at the first one: ``[B, T+1, n] -> [B, T+1, n]``."""
    none_yet = torch.full_like(actions[:, :1], n_actions)
    return torch.cat([none_yet, actions[:, :-1]], dim=1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of ``values`` where ``mask`` is True, of the same shape; 0 where it is nowhere."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def make_optimizer(
    config: Any, networks: nn.Module, lr: float, device: torch.device
) -> torch.optim.RMSprop | torch.optim.Adam:
    """The optimiser that ``config`` names by its fields ``optimizer``, ``rms_alpha`` and ``rms_eps``."""
    capturable = device.type == "cuda"
    if config.optimizer == "adam":
        return torch.optim.Adam(networks.parameters(), lr=lr, capturable=capturable)
    return torch.optim.RMSprop(
        networks.parameters(), lr=lr, alpha=config.rms_alpha, eps=config.rms_eps, capturable=capturable
    )


def descend(optimizer: torch.optim.Optimizer, networks: nn.Module, loss: Tensor, clip: float) -> Tensor:
    """One step down the loss with the gradient's norm scaled down to ``clip``; the norm before that, 0-dim."""
    optimizer.zero_grad()
    loss.backward()
    if isinstance(optimizer, torch.optim.RMSprop) and loss.device.type == "cpu":  # on a GPU torch's is no slower
        return _rmsprop_step(optimizer, clip)
    norm = nn.utils.clip_grad_norm_(networks.parameters(), clip)
    optimizer.step()
    return norm


def _rmsprop_step(optimizer: torch.optim.RMSprop, clip: float) -> Tensor:
    """What torch's clipping and step do, and leave behind, in one pass over memory."""
    (group,) = optimizer.param_groups
    parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
    for parameter in parameters:
        state = optimizer.state[parameter]
        if not state:
            state |= {"step": torch.zeros(()), "square_avg": torch.zeros_like(parameter)}
        state["step"] += 1
        parameter.grad = parameter.grad.contiguous()
    grads = [parameter.grad for parameter in parameters]
    square_avgs = [optimizer.state[parameter]["square_avg"] for parameter in parameters]
    rates = {name: group[name] for name in ("lr", "alpha", "eps")}
    return ops.rmsprop_step(parameters, grads, square_avgs, **rates, max_norm=clip)


def section(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Copies of the tensors whose names begin with ``prefix``, by the rest of their names."""
    return {name.removeprefix(prefix): value.clone() for name, value in state.items() if name.startswith(prefix)}


def optimizer_state(
    prefix: str, optimizer: torch.optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, Tensor]:
    """What an optimiser keeps for each of the named parameters: ``<prefix>.<parameter>.<key>``."""
    return {
        f"{prefix}.{name}.{key}": value
        for name, parameter in parameters
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_state(
    prefix: str,
    optimizer: torch.optim.Optimizer,
    parameters: Iterable[tuple[str, nn.Parameter]],
    state: Mapping[str, Tensor],
) -> None:
    """Take over what ``optimizer_state`` gave; ``parameters`` in the order in which the optimiser got them."""
    moments = [section(state, f"{prefix}.{name}.") for name, _ in parameters]
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": dict(enumerate(moments)), "param_groups": groups})


def refuse_foreign_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], env: str) -> None:
    """Raise ``UsageError`` where ``state`` has other tensors, or tensors of other shapes, than a learner's ``own``."""
    # A learner that was never updated has no optimiser state yet.
    wrong = [name for name in own.keys() ^ state.keys() if "optimizer." not in name]
    wrong += [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if wrong:
        raise UsageError(
            f"learner state: {min(wrong)} does not fit; expected the state of a learner with the same algorithm, "
            f"recipe and environment ({env}), got another's; load the checkpoint with its own settings"
        )
