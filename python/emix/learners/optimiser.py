"""Steps down a loss, the same on every process of a group."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from emix import ops
from emix.distributed import Alone, Group
from emix.errors import UsageError
from emix.learners.seeded import plain_defaults

_KINDS: dict[str, Any] = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}


class Optimiser:
    """Steps down a loss: its gradient, over all processes of the group, clipped, and an optimiser of torch's.

    On the CPU plain RMSprop is ``ops.rmsprop_step``, clipping and step in one pass over memory with torch's numbers;
    with a keyword that the op does not have, with several groups, and on a GPU it is torch's own.

    Args:
        modules: whose parameters; by name where they are several, each then a parameter group.
        kind: "adam", "rmsprop" or "sgd".
        clip: the norm of the gradient over all parameters is scaled down to this; None: not at all.
        groups: keywords of single modules, by their names, such as ``{"critic": {"lr": 1e-3}}``.
        options: keywords of torch's optimiser, such as ``lr``, ``alpha``, ``eps``.

    Raises:
        UsageError: an unknown kind, or a keyword that torch's optimiser of that kind does not take.
    """

    def __init__(
        self,
        modules: nn.Module | Mapping[str, nn.Module],
        kind: str,
        *,
        clip: float | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        if kind not in _KINDS:
            raise UsageError(f"optimiser expects one of {', '.join(_KINDS)}, got {kind!r}")
        named = {"": modules} if isinstance(modules, nn.Module) else dict(modules)
        self.parameters = {
            f"{prefix}.{name}".lstrip("."): parameter
            for prefix, module in named.items()
            for name, parameter in module.named_parameters()
        }
        self.max_norm = torch.inf if clip is None else clip
        self.group: Group = Alone()
        device = next(iter(self.parameters.values())).device
        if device.type == "cuda" and kind != "sgd":  # sgd has no step counter, so nothing to keep on the device
            options = {"capturable": True, **options}
        torch_groups = [
            {"params": list(module.parameters()), **(groups or {}).get(name, {})} for name, module in named.items()
        ]
        try:
            self.torch: torch.optim.Optimizer = _KINDS[kind](torch_groups, **options)
        except TypeError as error:
            raise UsageError(f"optimiser {kind}: {error}") from error
        dtypes = {parameter.dtype for parameter in self.parameters.values()}
        understood = len(named) == 1 and options.keys() <= {"lr", "alpha", "eps"}
        fits = device.type == "cpu" and dtypes in ({torch.float32}, {torch.float64})
        self._fused = kind == "rmsprop" and understood and fits

    def mean(self, values: Tensor, mask: Tensor) -> Tensor:
        """This process's part of the mean of ``values`` where ``mask`` is True, over all processes: their sum here by
        the number everywhere. Alone it is the mean; 0 where the mask is True nowhere. Both of one shape."""
        return torch.where(mask, values, 0.0).sum() / self.everywhere(mask.sum()).clamp(min=1)

    def descend(self, loss_sum: Tensor, count: Tensor | None = None) -> Tensor:
        """One step down ``loss_sum / count``, with the gradient of all processes.

        Args:
            loss_sum: 0-dim: the sum of this process's losses, or, without ``count``, its part of the mean.
            count: 0-dim: how many they are.

        Returns:
            The gradient's norm before clipping, 0-dim.
        """
        self.torch.zero_grad()
        (loss_sum if count is None else loss_sum / self.everywhere(count)).backward()
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        self.group.sum_(gradients)
        if self._fused:
            return self._rmsprop_step()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.max_norm)
        # At the first step torch makes its state, with the process's defaults.
        with nullcontext() if any(self.torch.state.values()) else plain_defaults():
            self.torch.step()
        return norm

    def descend_where(self, real: Tensor, loss: Tensor) -> Tensor:
        """``descend`` down ``loss`` that changes nothing where ``real`` [] is False, as the device decides.

        At a time step of nothing but padding the gradient is 0, but the optimiser's moments would fade, and Adam's move
        the weights.
        """
        moments = [value for state in self.torch.state.values() for value in state.values()]
        tensors = [*(parameter.detach() for parameter in self.parameters.values()), *moments]
        kept = torch._foreach_mul(tensors, (~real).float())
        norm = self.descend(loss)
        torch._foreach_mul_(tensors, real.float())
        torch._foreach_add_(tensors, kept)
        return norm

    def everywhere(self, count: Tensor) -> Tensor:
        """The sum of the processes' counts."""
        count = count.detach().clone()
        self.group.sum_([count])
        return count

    def _rmsprop_step(self) -> Tensor:
        """What torch's clipping and step do, and leave behind, in one pass over memory."""
        (group,) = self.torch.param_groups
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        for parameter in parameters:
            state = self.torch.state[parameter]
            if not state:
                state |= {
                    "step": torch.zeros((), dtype=torch.float32, device="cpu"),
                    "square_avg": torch.zeros_like(parameter),
                }
            state["step"] += 1
            parameter.grad = parameter.grad.contiguous()
        grads = [parameter.grad for parameter in parameters]
        square_avgs = [self.torch.state[parameter]["square_avg"] for parameter in parameters]
        rates = {name: group[name] for name in ("lr", "alpha", "eps")}
        return ops.rmsprop_step(parameters, grads, square_avgs, **rates, max_norm=self.max_norm)

    def state_dict(self) -> dict[str, Tensor]:
        """What torch's optimiser keeps for each parameter, ``<parameter>.<key>``; empty before the first step."""
        return {
            f"{name}.{key}": value
            for name, parameter in self.parameters.items()
            for key, value in self.torch.state[parameter].items()
        }

    def fits(self, name: str, prefix: str, value: Tensor) -> bool:
        """Whether ``<prefix><parameter>.<key>`` can be a tensor of its state: a number, or one for each weight."""
        parameter = self.parameters.get(name.removeprefix(prefix).rpartition(".")[0])
        return parameter is not None and value.shape in ((), parameter.shape) and value.is_floating_point()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state_dict`` gave."""
        moments = [
            {key.removeprefix(f"{name}."): value.clone() for key, value in state.items() if key.startswith(f"{name}.")}
            for name in self.parameters
        ]
        groups = self.torch.state_dict()["param_groups"]
        self.torch.load_state_dict({"state": dict(enumerate(moments)), "param_groups": groups})
