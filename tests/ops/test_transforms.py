"""torch.func, forward mode and second derivatives: right, or refused with a sentence; never a wrong number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from emix import ops
from tests.ops.cases import relative_error
from tests.ops.every_op import DIFFERENTIABLE, NAMES, make_inputs, run

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch.vmap runs the ops in a loop

REFUSAL = r"ops\.\w+ has a first derivative in reverse mode alone .* use ops\.reference\.\w+"


class Loss:
    """A function of an op's differentiable inputs: a sum over its results, with weights that tell them apart."""

    def __init__(self, name: str, device: str, module: object = ops) -> None:
        self.name, self.module, self.inputs = name, module, make_inputs(name, device=device)
        self.leaves = tuple(each for each in self.inputs.values() if each.requires_grad)
        self.points = tuple(each.detach() for each in self.leaves)
        self.every = tuple(range(len(self.leaves)))

    def results(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        rest = iter(leaves)
        inputs = {key: next(rest) if each.requires_grad else each for key, each in self.inputs.items()}
        return run(self.name, inputs, self.module)

    def __call__(self, *leaves: Tensor) -> Tensor:
        return sum(self.weighted(each).sum() for each in self.results(*leaves))

    @staticmethod
    def weighted(result: Tensor) -> Tensor:
        weights = torch.linspace(-1, 2, result.numel(), dtype=result.dtype, device=result.device)
        return result.reshape(-1) * weights

    def batched(self, *leaves: Tensor) -> Tensor:
        return sum(each.sin().sum() for each in torch.vmap(self.results)(*leaves))


def same(ours: object, theirs: object) -> None:
    ours, theirs = (torch.utils._pytree.tree_leaves(each) for each in (ours, theirs))
    for a, b in zip(ours, theirs, strict=True):
        assert relative_error(a.detach(), b.detach()) < 1e-9


TRANSFORMS = {
    "grad": lambda loss, stacked: torch.func.grad(loss, loss.every)(*loss.points),
    "vjp": lambda loss, stacked: torch.func.vjp(loss, *loss.points)[1](torch.ones_like(loss(*loss.points))),
    "jacrev": lambda loss, stacked: torch.func.jacrev(loss.results, loss.every)(*loss.points),
    "vmap of grad": lambda loss, stacked: torch.vmap(torch.func.grad(loss, loss.every))(*stacked),
    "grad of vmap": lambda loss, stacked: torch.func.grad(loss.batched, loss.every)(*stacked),
    "backward through vmap": lambda loss, stacked: torch.autograd.grad(
        loss.batched(*[each.requires_grad_() for each in stacked]), stacked
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_reverse_mode(device: str, name: str, transform: str) -> None:
    loss, reference = Loss(name, device), Loss(name, device, ops.reference)
    reference.inputs, reference.leaves, reference.points = loss.inputs, loss.leaves, loss.points
    stacked = [torch.stack([each, each + 0.125, each * 0.5]) for each in loss.points]
    same(TRANSFORMS[transform](loss, stacked), TRANSFORMS[transform](reference, stacked))


@pytest.mark.parametrize("name", NAMES)
def test_vmap_without_a_gradient(device: str, name: str) -> None:
    loss = Loss(name, device)
    stacked = [torch.stack([each, each + 0.125]) for each in loss.points]
    entries = [loss.results(*each) for each in zip(*stacked, strict=True)]
    expected = tuple(torch.stack(each) for each in zip(*entries, strict=True))
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(torch.vmap(loss.results)(*stacked), expected, strict=True))


def test_vmap_over_weights_of_a_network(device: str) -> None:
    """The gradient of weights that the op's logits came from, which a dispatch past autograd would drop."""
    weights = torch.randn(3, 4, 5, dtype=torch.float64, device=device, requires_grad=True)
    x = torch.randn(2, 4, dtype=torch.float64, device=device)

    def loss(module: object) -> Tensor:
        return torch.vmap(lambda w: module.masked_policy(x @ w) + 0.01 * (x @ w))(weights)[..., 0].sum()

    same(torch.autograd.grad(loss(ops), weights), torch.autograd.grad(loss(ops.reference), weights))


def dual(loss: Loss) -> object:
    with forward_ad.dual_level():
        return loss(forward_ad.make_dual(loss.points[0], torch.ones_like(loss.points[0])), *loss.points[1:])


def backward_of_a_dual(loss: Loss) -> object:
    with forward_ad.dual_level():
        results = loss.results(*loss.leaves)
        upstream = [forward_ad.make_dual(torch.ones_like(each), torch.ones_like(each)) for each in results]
        return torch.autograd.grad(results, loss.leaves, upstream)


def twice(loss: Loss) -> object:
    """A penalty on a gradient, beside a term that does have a second derivative."""
    grad = torch.autograd.grad(loss(*loss.leaves), loss.leaves[0], create_graph=True)[0]
    return torch.autograd.grad((grad + loss.leaves[0]).square().sum(), loss.leaves[0])


def jvp_of_a_vjp(loss: Loss) -> object:
    result, vjp = torch.func.vjp(loss, *loss.points)
    return torch.func.jvp(vjp, (torch.ones_like(result),), (torch.ones_like(result),))


REFUSED: dict[str, Callable[[Loss], object]] = {
    "jvp": lambda loss: torch.func.jvp(loss, loss.points, tuple(map(torch.ones_like, loss.points))),
    "jacfwd": lambda loss: torch.func.jacfwd(loss)(*loss.points),
    "hessian": lambda loss: torch.func.hessian(loss)(*loss.points),
    "grad of grad": lambda loss: torch.func.grad(lambda *x: torch.func.grad(loss)(*x).square().sum())(*loss.points),
    "dual numbers": dual,
    "backward of dual numbers": backward_of_a_dual,
    "create_graph": twice,
    "jvp of a vjp": jvp_of_a_vjp,
}


@pytest.mark.parametrize("transform", REFUSED)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_refused(name: str, transform: str) -> None:
    with pytest.raises(NotImplementedError, match=REFUSAL):
        REFUSED[transform](Loss(name, "cpu"))


def test_create_graph_alone_is_no_second_derivative() -> None:
    loss = Loss("linear_mix", "cpu")
    same(
        torch.autograd.grad(loss(*loss.leaves), loss.leaves, create_graph=True),
        torch.autograd.grad(loss(*loss.leaves), loss.leaves),
    )


@pytest.mark.parametrize("name", ["masked_policy", "agent_sequence"])
def test_compiled_transforms_run_past_the_graph(name: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    loss = Loss(name, "cpu")
    torch.compiler.reset()
    compiled = torch.compile(lambda *x: torch.func.grad(loss, loss.every)(*x), backend="aot_eager")
    same(compiled(*loss.points), torch.func.grad(loss, loss.every)(*loss.points))
