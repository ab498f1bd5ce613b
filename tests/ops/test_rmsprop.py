"""RMSprop's step beside torch's clipping and optimiser, and its reference; wrong calls."""

from __future__ import annotations

import copy
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from emix import ops
from emix.ops import rmsprop

SIZES = st.lists(st.sampled_from([(), (1,), (7,), (16, 3), (0, 4), (130, 130), (70001,)]), min_size=1, max_size=4)


def make(
    shapes: list[tuple[int, ...]], seed: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> list[list[Tensor]]:
    """Parameters, gradients, mean squares."""
    g = torch.Generator().manual_seed(seed)
    parameters, grads, squares = (
        [torch.randn(s, generator=g, dtype=dtype).to(device) for s in shapes] for _ in range(3)
    )
    return [parameters, grads, [each.square() for each in squares]]


def copies(tensors: list[list[Tensor]], dtype: torch.dtype) -> list[list[Tensor]]:
    return [[each.to(dtype, copy=True) for each in some] for some in tensors]


@given(shapes=SIZES, seed=st.integers(0, 2**31), max_norm=st.sampled_from([0.1, 3.0, 1e9, torch.inf]))
@settings(max_examples=100, deadline=None)
def test_equals_its_reference(device: str, shapes: list[tuple[int, ...]], seed: int, max_norm: float) -> None:
    tensors = make(shapes, seed, device=device)
    rates = {"lr": 0.01, "alpha": 0.9, "eps": 1e-5, "max_norm": max_norm}
    expected = copies(tensors, torch.float64)
    expected_norm = ops.reference.rmsprop_step(*expected, **rates)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        ours = copies(tensors, dtype)
        norm = ops.rmsprop_step(*ours, **rates)
        assert norm.shape == ()
        assert norm.dtype == dtype
        torch.testing.assert_close(norm.double(), expected_norm, rtol=tolerance, atol=tolerance)
        for some, wanted in zip(ours, expected, strict=True):
            for a, b in zip(some, wanted, strict=True):
                torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


def test_foreach_equals_the_reference(device: str) -> None:
    """What a GPU runs, on the CPU, too."""
    tensors = make([(16, 3), (), (130, 130)], 5, device=device)
    for max_norm in (0.5, torch.inf):
        ours, expected = copies(tensors, torch.float64), copies(tensors, torch.float64)
        norm = rmsprop._foreach(*ours, 0.01, 0.9, 1e-5, max_norm)
        wanted = ops.reference.rmsprop_step(*expected, lr=0.01, alpha=0.9, eps=1e-5, max_norm=max_norm)
        torch.testing.assert_close([norm, *chain(*ours)], [wanted, *chain(*expected)])


def test_trains_as_torch_does() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 30), nn.ReLU(), nn.Linear(30, 7))
    theirs = copy.deepcopy(net)
    optimizer = torch.optim.RMSprop(theirs.parameters(), lr=1e-2, alpha=0.99, eps=1e-5)
    parameters = list(net.parameters())
    squares = [torch.zeros_like(p) for p in parameters]
    clipped = 0
    for _ in range(20):
        x = torch.randn(64, 5)
        grads = torch.autograd.grad(net(x).square().sum(), parameters)
        norm = ops.rmsprop_step(parameters, grads, squares, lr=1e-2, alpha=0.99, eps=1e-5, max_norm=30.0)
        optimizer.zero_grad()
        theirs(x).square().sum().backward()
        torch.testing.assert_close(nn.utils.clip_grad_norm_(theirs.parameters(), 30.0), norm)
        optimizer.step()
        clipped += norm.item() > 30
    assert 0 < clipped < 20
    torch.testing.assert_close(parameters, list(theirs.parameters()))


def test_the_number_of_threads_changes_nothing() -> None:
    tensors = make([(300, 700), (5,), (70001,)], 1, torch.float32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            ours = copies(tensors, torch.float32)
            found.append([ops.rmsprop_step(*ours, lr=0.1, max_norm=1.0), *chain(*ours)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_a_nan_goes_on() -> None:
    parameters, grads, squares = make([(4,), (3,)], 2, torch.float32)
    grads[0][1] = torch.nan
    assert ops.rmsprop_step(parameters, grads, squares, lr=0.1, max_norm=1.0).isnan()
    assert parameters[0][1].isnan()


def test_opcheck() -> None:
    parameters, grads, squares = make([(4, 3), (3,)], 3, torch.float32)
    torch.library.opcheck(torch.ops.emix.rmsprop_step.default, (parameters, grads, squares, 0.1, 0.9, 1e-5, 1.0))


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        (0, [], "parameters must have at least one tensor|grads must have as many"),
        (0, [torch.zeros(4).long(), torch.zeros(3).long()], "parameters must be float32, or all float64"),
        (0, [torch.zeros(4), torch.zeros(3).double()], "parameters must be float32, or all float64"),
        (1, [torch.zeros(4)], r"grads must have as many tensors as parameters \(2\), got 1"),
        (1, [torch.zeros(4), torch.zeros(4)], r"grads must have shape \[3\] like its parameter, got \[4\]"),
        (1, [torch.zeros(4), torch.zeros(3).half()], "grads must have its parameter's dtype"),
        (1, [torch.zeros(4), torch.zeros(6)[::2]], "grads must be contiguous"),
        (2, [torch.zeros(4), torch.zeros(2)], r"square_avgs must have shape \[3\]"),
        (2, [None, None], "square_avgs"),
    ],
)
def test_wrong_calls(which: int, change: list[Tensor], message: str) -> None:
    tensors = make([(4,), (3,)], 4, torch.float32)
    tensors[which] = change
    with pytest.raises(ValueError, match=message):
        ops.rmsprop_step(*tensors, lr=0.1)
