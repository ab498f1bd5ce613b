"""Policies of numbers against their references, finite differences, torch.distributions, torch's machinery, and wrong
calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import Inputs, changed, converted, leaves, moved, relative_error, strided

SAMPLES = {"gaussian_sample": False, "tanh_gaussian_sample": True}  # name: squashed
SHAPES = [(1,), (7, 3), (0, 2), (5, 0), (2, 3, 6), (40, 17), (3, 600)]


def make_inputs(seed: int, shape: tuple[int, ...] = (3, 4, 6)) -> Inputs:
    g = torch.Generator().manual_seed(seed)
    mean, log_std, action = torch.randn(3, *shape, generator=g, dtype=torch.float64)
    return {"mean": mean, "log_std": log_std / 2, "action": action}


def draw(name: str, inputs: Inputs, seed: int = 3, module: Any = ops) -> tuple[Tensor, Tensor]:
    mean, log_std = inputs["mean"], inputs["log_std"]
    generator = torch.Generator(mean.device).manual_seed(seed)
    if module is ops:
        return getattr(ops, name)(mean, log_std, generator=generator)
    return getattr(module, name)(mean, log_std, torch.randint(2**63 - 1, (1,), generator=generator, device=mean.device))


def laid_out(inputs: Inputs, layout: str, device: str) -> Inputs:
    if layout == "strided":
        inputs = changed(inputs, strided)
    elif layout == "expanded":  # one standard deviation for all states
        inputs["log_std"] = inputs["log_std"].reshape(-1, inputs["log_std"].shape[-1])[0].expand(inputs["mean"].shape)
    return changed(inputs, partial(moved, device=device))


def compare(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], inputs: Inputs, tolerance: float) -> None:
    wanted = [inputs["mean"], inputs["log_std"]]
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == inputs["mean"].dtype
        assert relative_error(a, b) < tolerance
    upstream = [torch.linspace(-1, 2, a.numel()).to(a).reshape(a.shape) for a in ours]
    grads = (torch.autograd.grad(each, wanted, upstream) for each in (ours, theirs))
    for a, b in zip(*grads, strict=True):
        assert relative_error(a, b) < tolerance


@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([shape for shape in SHAPES if 0 not in shape]),
    layout=st.sampled_from(["contiguous", "strided", "expanded"]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
@settings(max_examples=40, deadline=None)
def test_terms_equal_their_reference(
    device: str, seed: int, shape: tuple[int, ...], layout: str, dtype: torch.dtype
) -> None:
    inputs = laid_out(converted(make_inputs(seed, shape), dtype), layout, device)
    leaves(inputs)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    compare(ops.gaussian_terms(**inputs), ops.reference.gaussian_terms(**inputs), inputs, tolerance)


@pytest.mark.parametrize("name", SAMPLES)
@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([shape for shape in SHAPES if 0 not in shape]),
    layout=st.sampled_from(["contiguous", "strided", "expanded"]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
@settings(max_examples=40, deadline=None)
def test_samples_equal_their_reference(
    device: str, name: str, seed: int, shape: tuple[int, ...], layout: str, dtype: torch.dtype
) -> None:
    inputs = laid_out(converted(make_inputs(seed, shape), dtype), layout, device)
    inputs = {"mean": inputs["mean"], "log_std": inputs["log_std"]}
    leaves(inputs)
    # e is drawn in float32: the reference's differs by its rounding
    compare(draw(name, inputs, seed), draw(name, inputs, seed, ops.reference), inputs, 1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_size(device: str, shape: tuple[int, ...]) -> None:
    inputs = changed(make_inputs(1, shape), lambda x: x.to(device))
    leaves(inputs)
    for results in (ops.gaussian_terms(**inputs), draw("tanh_gaussian_sample", inputs)):
        grads = torch.autograd.grad(sum(each.sum() for each in results), [inputs["mean"], inputs["log_std"]])
        assert all(each.isfinite().all() for each in (*results, *grads))


def test_terms_are_those_of_torch(device: str) -> None:
    inputs = changed(make_inputs(2), lambda x: x.to(device))
    normal = torch.distributions.Normal(inputs["mean"], inputs["log_std"].exp())
    log_prob, entropy = ops.gaussian_terms(**inputs)
    torch.testing.assert_close(log_prob, normal.log_prob(inputs["action"]).sum(-1))
    torch.testing.assert_close(entropy, normal.entropy().sum(-1))


@pytest.mark.parametrize("name", SAMPLES)
def test_log_prob_is_that_of_torch(device: str, name: str) -> None:
    inputs = changed(make_inputs(3), lambda x: x.to(device))
    action, log_prob = draw(name, inputs)
    normal = torch.distributions.Normal(inputs["mean"], inputs["log_std"].exp())
    tanh = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    theirs = (tanh if SAMPLES[name] else normal).log_prob(action).sum(-1)
    torch.testing.assert_close(log_prob, theirs, rtol=1e-6, atol=1e-6)


def test_squashed_draws_are_tanh_of_the_plain_ones(device: str) -> None:
    inputs = changed(make_inputs(4, (200, 6)), lambda x: x.to(device))
    torch.testing.assert_close(draw("tanh_gaussian_sample", inputs)[0], draw("gaussian_sample", inputs)[0].tanh())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squashing_is_safe_far_out(device: str, dtype: torch.dtype) -> None:
    """Where tanh is 1 the density is finite and right, and so is its gradient."""
    u = torch.tensor([-80.0, -30.0, -10.0, -1e-3, 0.0, 1e-6, 0.6, 9.0, 40.0, 80.0], dtype=torch.float64)
    mean = u[:, None].to(device, dtype).requires_grad_()
    log_std = torch.full_like(mean, -30.0)  # so that u is the mean
    action, log_prob = draw("tanh_gaussian_sample", {"mean": mean, "log_std": log_std})
    plain = draw("gaussian_sample", {"mean": mean, "log_std": log_std})[1]
    slope = 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-8
    assert relative_error(plain - log_prob, slope) < tolerance
    assert relative_error(action[:, 0], u.tanh()) < tolerance
    grad = torch.autograd.grad(log_prob.sum(), mean)[0][:, 0]
    assert relative_error(grad, 2 * u.tanh()) < tolerance
    small = action[4:6, 0].double().cpu()
    torch.testing.assert_close(small, u[4:6].tanh(), rtol=1e-6, atol=1e-12)


def test_draws_are_normal(device: str) -> None:
    mean = torch.zeros(200_000, 2, device=device)
    e = draw("gaussian_sample", {"mean": mean, "log_std": mean})[0].double().cpu()
    assert e.mean(0).abs().max() < 0.01
    assert (e.var(0) - 1).abs().max() < 0.02
    assert abs((e[:, 0] * e[:, 1]).mean()) < 0.01
    assert abs((e[:, 0].square() * e[:, 1].square()).mean() - 1) < 0.03
    expected = torch.special.ndtr(torch.tensor([-3.0, -2, -1, -0.3, 0, 0.5, 1.5, 2.5], dtype=torch.float64))
    found = torch.stack([(e.flatten() < x).double().mean() for x in (-3.0, -2, -1, -0.3, 0, 0.5, 1.5, 2.5)])
    assert ((found - expected).abs() < 5 * (expected * (1 - expected) / 400_000).sqrt()).all()


def test_a_draw_depends_on_seed_row_and_place_alone(device: str) -> None:
    inputs = changed(make_inputs(5, (50, 6)), lambda x: x.to(device))
    whole = draw("gaussian_sample", inputs)[0]
    half = {key: x[:20, :5] for key, x in inputs.items()}
    assert torch.equal(draw("gaussian_sample", half)[0], whole[:20, :5])
    assert torch.equal(draw("gaussian_sample", inputs)[0], whole)
    assert not torch.equal(draw("gaussian_sample", inputs, seed=4)[0], whole)


def test_known_draws(device: str) -> None:
    """The bits that every device must give."""
    zeros = torch.zeros(2, 5, device=device)
    found = torch.ops.emix.gaussian_sample.default(zeros, zeros, torch.tensor([7], device=device), False)[0]
    reference = ops.reference.gaussian.normal_numbers(torch.tensor([7]), zeros.shape)
    assert (found.cpu().double() - reference).abs().max() < 1e-6
    assert found.cpu().view(torch.int32).tolist() == KNOWN


KNOWN = [
    [-1101232753, -1101205083, 1073825468, -1090355586, -1088104843],
    [1072332833, 1045802773, -1102487823, 1044689676, 1071182450],
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_inputs_are_computed_in_float32(device: str, dtype: torch.dtype) -> None:
    inputs = converted(make_inputs(6), dtype, device)
    leaves(inputs)
    log_prob, entropy = ops.gaussian_terms(**inputs)
    expected = ops.reference.gaussian_terms(**converted(inputs, torch.float64))
    assert log_prob.dtype == entropy.dtype == torch.float32
    assert relative_error(log_prob.detach(), expected[0].detach()) < 1e-5
    assert torch.autograd.grad(log_prob.sum(), inputs["mean"])[0].dtype == dtype


def test_gradcheck(device: str) -> None:
    inputs = changed(make_inputs(7, (2, 5)), lambda x: x.to(device))
    mean, log_std = inputs["mean"].requires_grad_(), inputs["log_std"].requires_grad_()
    assert torch.autograd.gradcheck(lambda m, s: ops.gaussian_terms(m, s, inputs["action"]), (mean, log_std))
    for name in SAMPLES:
        function: Callable[..., Any] = partial(lambda n, m, s: draw(n, {"mean": m, "log_std": s}), name)
        assert torch.autograd.gradcheck(function, (mean, log_std))


def test_one_gradient_alone(device: str) -> None:
    inputs = changed(make_inputs(8), lambda x: x.to(device))
    mean = inputs["mean"].requires_grad_()
    results = [ops.gaussian_terms(**inputs).log_prob]
    results += [draw("tanh_gaussian_sample", inputs)[which] for which in (0, 1)]
    for result in results:
        alone = torch.autograd.grad(result.sum(), mean)[0]
        assert alone.isfinite().all()
        assert alone.abs().sum() > 0


def test_opcheck() -> None:
    inputs = converted(make_inputs(9), torch.float32)
    rows, seed = torch.ones(3, 4), torch.tensor([5])
    emix, mean, log_std = torch.ops.emix, inputs["mean"], inputs["log_std"]
    torch.library.opcheck(emix.gaussian_terms.default, tuple(inputs.values()))
    torch.library.opcheck(emix.gaussian_terms_backward.default, (rows, None, *inputs.values()))
    for squash in (False, True):
        torch.library.opcheck(emix.gaussian_sample.default, (mean, log_std, seed, squash))
        arguments = (mean, rows, mean, log_std, seed, squash)
        torch.library.opcheck(emix.gaussian_sample_backward.default, arguments)


WRONG = [
    ({"mean": torch.zeros(())}, r"mean must have shape \[..., D\]"),
    ({"mean": torch.zeros(3, 4, 6).long()}, "mean must be a float16"),
    ({"log_std": torch.zeros(6)}, r"log_std must have shape \[3, 4, 6\] like mean"),
    ({"log_std": torch.zeros(3, 4, 6, dtype=torch.complex64)}, "log_std must be real"),
    ({"action": torch.zeros(3, 4, 5)}, r"action must have shape \[3, 4, 6\] like mean"),
    ({"action": None}, "action must be a tensor, got None"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_calls(device: str, change: Inputs, message: str) -> None:
    inputs = {**converted(make_inputs(10), torch.float32, device), **changed(change, lambda x: x.to(device))}
    with pytest.raises(ValueError, match=message):
        ops.gaussian_terms(**inputs)
    if "action" not in change:
        with pytest.raises(ValueError, match=message):
            ops.tanh_gaussian_sample(inputs["mean"], inputs["log_std"])
