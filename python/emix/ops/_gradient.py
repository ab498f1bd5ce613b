"""Gradients of the ops that have a compiled backward pass: autograd's side of all of them.

In place of ``torch.library.register_autograd``, which would tax every call with no gradient, too. What works is
reverse mode, once: ``backward``, ``torch.func.grad``, ``vjp`` and ``jacrev``, inside ``torch.vmap`` and around it
(which runs an op once for each entry). Second derivatives and forward mode are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from emix.ops._errors import torchs_own

Gradients = Sequence[Tensor | None]


def differentiable(
    name: str,
    op: Callable[..., Any],
    gradients: Callable[..., Gradients],
    places: Sequence[int],
    keep: Sequence[int] = (),
) -> Callable[..., Any]:
    """An op as a function that goes through autograd where an input asks for a gradient, and is the op elsewhere.

    Args:
        name: of the public function, for errors.
        op: called with the inputs; with ``save=True`` added, where there is something to keep for the backward pass.
        gradients: ``gradients(wanted, grads, *inputs, *kept)`` are the gradients of the first inputs. wanted: which
            inputs want one (what the others get is dropped); grads: those of the results, None where no loss uses one.
        places: of the inputs that a gradient may reach.
        keep: places of the results that ``gradients`` reads, too; the last of them is for it alone.
    """
    rule = _Rule(name, op, gradients, keep)
    is_transformed, is_grad_enabled = torch._C._are_functorch_transforms_active, torch.is_grad_enabled

    def call(*inputs: Any) -> Any:
        if is_transformed() or forward_ad._current_level >= 0:
            return _transformed(rule, *inputs)
        if is_grad_enabled():
            for place in places:
                if inputs[place] is not None and inputs[place].requires_grad:
                    return rule.function.apply(rule, *inputs)
        return op(*inputs)

    return call


class _Rule:
    """What the backward pass of an op needs to know; see ``differentiable``."""

    def __init__(
        self, name: str, op: Callable[..., Any], gradients: Callable[..., Gradients], keep: Sequence[int]
    ) -> None:
        self.name, self.op, self.gradients, self.keep = name, op, gradients, keep
        self.save = {"save": True} if keep else {}
        self.function: Any = type(name, (_Gradient,), {})  # graphs and profiles show its name

    def remember(self, ctx: Any, inputs: Sequence[Any], results: Any) -> None:
        """Note what the backward pass reads."""
        tensors = [each if isinstance(each, Tensor) else None for each in inputs]
        ctx.save_for_backward(*tensors, *[results[place] for place in self.keep])
        ctx.rule, ctx.others = self, [None if isinstance(each, Tensor) else each for each in inputs]
        ctx.set_materialize_grads(False)
        if self.keep:
            ctx.mark_non_differentiable(results[-1])

    def backward(
        self, wanted: Sequence[bool], others: Sequence[Any], results: int, *tensors: Tensor | None
    ) -> Gradients:
        """Run the compiled backward pass. tensors: the gradients of the results, then what was saved."""
        grads, saved = tensors[:results], tensors[results:]
        inputs = [each if other is None else other for each, other in zip(saved, others, strict=False)]
        try:
            found = self.gradients(wanted, grads, *inputs, *saved[len(others) :])
        except RuntimeError as error:
            raise torchs_own(error) from None
        return tuple([each if is_wanted else None for each, is_wanted in zip(found, wanted, strict=False)])

    def refusal(self) -> NotImplementedError:
        """Say that there is no such derivative."""
        return NotImplementedError(
            f"ops.{self.name} has a first derivative in reverse mode alone (backward, torch.func.grad, vjp, jacrev); a "
            f"second one or forward mode was asked for: use ops.reference.{self.name}"
        )


class _Gradient(Function):
    @staticmethod
    def forward(ctx: Any, rule: _Rule, *inputs: Any) -> Any:
        results = rule.op(*inputs, **rule.save)
        rule.remember(ctx, inputs, results)
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Gradients:
        wanted = ctx.needs_input_grad[1:]
        found: Gradients = ()
        if any(grad is not None for grad in grads):
            arguments = (wanted, ctx.others, len(grads), *grads, *ctx.saved_tensors)
            watched = torch.is_grad_enabled() or forward_ad._current_level >= 0
            found = _Backward.apply(ctx.rule, *arguments) if watched else ctx.rule.backward(*arguments)
        return None, *found, *[None] * (len(wanted) - len(found))


class _TransformedGradient(Function):
    """The same in the form that torch.func and forward mode need, which costs a call some 15 us more."""

    generate_vmap_rule = True
    backward = staticmethod(_Gradient.backward)

    @staticmethod
    def forward(rule: _Rule, *inputs: Any) -> Any:
        return rule.op(*inputs, **rule.save)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        inputs[0].remember(ctx, inputs[1:], output)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise ctx.rule.refusal()


@torch.compiler.disable  # it cannot trace such a Function
def _transformed(*inputs: Any) -> Any:
    return _TransformedGradient.apply(*inputs)


class _Backward(Function):
    """A backward pass that is watched by autograd itself: so that its own derivative is an error and not 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rule: _Rule, *arguments: Any) -> Gradients:
        return rule.backward(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.rule = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        raise ctx.rule.refusal()

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise ctx.rule.refusal()
