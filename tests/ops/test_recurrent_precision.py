"""The recurrent ops on matrix units (on the GPU and under the emulator): tf32 and bf16 products."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from emix import ops
from tests.ops.cases import Inputs, changed, converted, error, leaves
from tests.ops.recurrent_cases import NAMES, agent_inputs, gru_inputs, make_inputs, run

PRECISIONS = ["tf32", "bf16"]
MANTISSA = {"tf32": 10, "bf16": 7}  # bits kept


@pytest.fixture
def unit_device(device: str, emulated: bool) -> str:
    """A device with matrix units."""
    if device == "cpu" and not emulated:
        pytest.skip("the CPU's kernels have no matrix units")
    if device == "cuda" and torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this GPU has no matrix units for tf32 and bf16")
    return device


def rounded(x: Tensor, precision: str) -> Tensor:
    """What the units see of x: tf32 to the nearest with ties away from 0, bf16 with ties to even."""
    if precision == "bf16":
        return x.to(torch.float32).to(torch.bfloat16).to(x.dtype)
    half = 1 << (22 - MANTISSA["tf32"])
    return ((x.to(torch.float32).view(torch.int32) + half) & -2 * half).view(torch.float32).to(x.dtype)


def test_rounding_of_the_reference() -> None:
    ulp = 2.0**-10
    x = torch.tensor([1 + ulp / 2, 1 + ulp * 0.49, -1 - ulp / 2, 1 + 1.5 * ulp, 0, 3e-39], dtype=torch.float64)
    assert rounded(x, "tf32").tolist()[:5] == [1 + ulp, 1, -1 - ulp, 1 + 2 * ulp, 0]


class RoundedLinear(torch.autograd.Function):
    """``functional.linear`` whose products, backward too, are of rounded factors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
        ctx.precision = precision
        x, weight = rounded(x, precision), rounded(weight, precision)
        ctx.save_for_backward(x, weight)
        return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        narrow = rounded(grad, ctx.precision)
        weight_grad = narrow.flatten(0, -2).t() @ x.flatten(0, -2)
        return narrow @ weight, weight_grad, grad.flatten(0, -2).sum(0), None


def values_and_gradients(name: str, inputs: Inputs, module: object, **options: str) -> list[Tensor]:
    inputs = changed(inputs, lambda x: x.detach().clone())
    wanted = leaves(inputs)
    results = run(name, {**inputs, **options}, module)
    g = torch.Generator().manual_seed(1)
    upstream = [torch.randn(each.shape, generator=g).to(each) for each in results]
    return [*results, *torch.autograd.grad(results, wanted, upstream, materialize_grads=True, allow_unused=True)]


GRU_SIZES = [(3, 1, 4, 8), (17, 3, 0, 5), (16, 3, 33, 17), (33, 4, 70, 64), (5, 3, 9, 100), (18, 2, 3, 200)]
AGENT_SIZES = [
    (3, 1, 1, 4, 3, 8),
    (2, 3, 5, 0, 6, 33),
    (7, 4, 5, 70, 17, 64),
    (9, 3, 2, 5, 70, 130),
    (1, 2, 3, 1, 1, 256),
]
CASES = [("gru_sequence", sizes) for sizes in GRU_SIZES] + [("agent_sequence", sizes) for sizes in AGENT_SIZES]


def make(name: str, sizes: tuple[int, ...], device: str) -> Inputs:
    inputs = gru_inputs(3, *sizes) if name == "gru_sequence" else agent_inputs(3, *sizes)
    return converted(inputs, torch.float32, device)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "sizes"), CASES)
def test_equals_the_reference_with_rounded_products(
    unit_device: str, monkeypatch: pytest.MonkeyPatch, name: str, sizes: tuple[int, ...], precision: str
) -> None:
    """To float32's rounding, nearly everywhere: where that makes a factor fall to the other side of a tie, what is
    computed from it differs by up to the type's own rounding."""
    inputs = make(name, sizes, unit_device)
    ours = values_and_gradients(name, inputs, ops, precision=precision)
    linear = SimpleNamespace(linear=lambda x, weight, bias: RoundedLinear.apply(x, weight, bias, precision))
    monkeypatch.setattr("emix.ops.reference.recurrent.functional", linear)
    expected = values_and_gradients(name, converted(inputs, torch.float64, unit_device), ops.reference)
    assert all(each.dtype == torch.float32 for each in ours)
    ulp = 2.0 ** -MANTISSA[precision]
    values = 1 if name == "gru_sequence" else 2
    for i, (a, b) in enumerate(zip(ours, expected, strict=True)):
        assert a.shape == b.shape
        if a.numel() == 0:
            continue
        distance = (a.double() - b).abs().flatten() / (1 + b.abs().max())
        few = a.numel() < 64  # of which one such factor reaches half
        assert distance.quantile(0.9 if i < values else 0.5) < (1e-5 if i < values else ulp / (10 if few else 50))
        assert distance.max() < ulp


@pytest.mark.parametrize("precision", PRECISIONS)
def test_is_near_float32(unit_device: str, precision: str) -> None:
    """A long sequence; an agent's gradients are left out, as a ReLU may open or close."""
    inputs = converted(gru_inputs(5, 20, 40, 30, 48), torch.float32, unit_device)
    narrow, wide = (
        values_and_gradients("gru_sequence", inputs, ops, precision=each) for each in (precision, "float32")
    )
    assert not torch.equal(narrow[0], wide[0])
    assert max(error(a, b) for a, b in zip(narrow, wide, strict=True)) < 2 * 2.0 ** -MANTISSA[precision]
    inputs = converted(agent_inputs(5, 4, 40, 5, 30, 9, 48), torch.float32, unit_device)
    pairs = zip(run("agent_sequence", {**inputs, "precision": precision}), run("agent_sequence", inputs), strict=True)
    assert max(error(a, b) for a, b in pairs) < 2 * 2.0 ** -MANTISSA[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_without_matrix_units_it_is_float32(emulated: bool, name: str, precision: str) -> None:
    if emulated:
        pytest.skip("the emulated kernels have matrix units")
    inputs = converted(make_inputs(name, 3), torch.float32)
    ours, expected = (values_and_gradients(name, inputs, ops, precision=each) for each in (precision, "float32"))
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unknown", [torch.nan, torch.inf])
def test_padding_reaches_nothing(unit_device: str, name: str, unknown: float, precision: str) -> None:
    inputs = converted(make_inputs(name, 23, steps=7), torch.float32, unit_device)
    key = next(iter(inputs))
    ended = torch.arange(7, device=unit_device) >= torch.tensor([7, 3, 0], device=unit_device).unsqueeze(1)  # [3, T]
    padding = ended.view(3, 7, *[1] * (inputs[key].dim() - 2))
    found = []
    for x in (inputs[key], inputs[key].masked_fill(padding, unknown)):
        each = {**inputs, key: x.detach().clone()}
        wanted = leaves(each)
        out = run(name, {**each, "precision": precision})[0]
        grads = torch.autograd.grad(out, wanted, torch.where(padding, 0.0, torch.ones_like(out)))
        found.append([torch.where(padding, 0, out), *grads])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_nan_in_a_step_that_counts_is_seen(unit_device: str, name: str) -> None:
    inputs = converted(make_inputs(name, 29, steps=5), torch.float32, unit_device)
    inputs[next(iter(inputs))][0, 2] = torch.nan
    out = run(name, {**inputs, "precision": "tf32"})[0]
    assert out[0, 2:].isnan().all()
    assert out[0, :2].isfinite().all()
    assert out[1:].isfinite().all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_and_steps_alone(unit_device: str, precision: str) -> None:
    """Nothing depends on a row's neighbours; a sequence is its steps, and its bits come again."""
    inputs = converted(agent_inputs(61, 9, 3, 4, 30, 9, 24), torch.float32, unit_device)
    options = {"precision": precision}
    q, last = run("agent_sequence", {**inputs, **options})
    assert all(torch.equal(a, b) for a, b in zip((q, last), run("agent_sequence", {**inputs, **options}), strict=True))
    one = {key: inputs[key][5:6] for key in ("obs", "last_action", "h0")}
    alone = run("agent_sequence", {**inputs, **one, **options})
    assert torch.equal(alone[0], q[5:6])
    assert torch.equal(alone[1], last[5:6])
    h = inputs["h0"]
    for t in range(3):
        now = {key: inputs[key][:, t : t + 1] for key in ("obs", "last_action")}
        q_t, h = run("agent_sequence", {**inputs, **now, "h0": h, **options})
        assert torch.equal(q_t[:, 0], q[:, t])
    assert torch.equal(h, last)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_each_input_alone(unit_device: str, name: str) -> None:
    inputs = {**converted(make_inputs(name, 13), torch.float32, unit_device), "precision": "tf32"}
    keys = [key for key, value in inputs.items() if isinstance(value, Tensor) and value.is_floating_point()]
    everything = {**inputs, **{key: inputs[key].clone().requires_grad_() for key in keys}}
    expected = torch.autograd.grad(run(name, everything)[0].sum(), [everything[key] for key in keys])
    for wanted, grad in zip(keys, expected, strict=True):
        some = {**inputs, wanted: inputs[wanted].clone().requires_grad_()}
        assert torch.equal(torch.autograd.grad(run(name, some)[0].sum(), some[wanted])[0], grad)


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(device: str, name: str) -> None:
    inputs = converted(make_inputs(name, 37), torch.float32, device)
    op, backward = (getattr(torch.ops.emix, each).default for each in (name, f"{name}_backward"))
    torch.library.opcheck(op, (*inputs.values(), True, 1))
    results = op(*inputs.values(), True, 1)
    kept = results if name == "gru_sequence" else results[2:]
    torch.library.opcheck(backward, (*results[: 3 - len(kept)], *inputs.values(), *kept, True, 1))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(device: str, name: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    inputs = {**converted(make_inputs(name, 43), torch.float32, device), "precision": "bf16"}
    compiled = torch.compile(lambda: run(name, inputs), fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(), run(name, inputs), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_wrong_precisions(device: str, name: str) -> None:
    inputs = converted(make_inputs(name, 67), torch.float32, device)
    with pytest.raises(ValueError, match='precision must be "float32", "tf32" or "bf16", got \'fp16\''):
        run(name, {**inputs, "precision": "fp16"})
    exact = converted(inputs, torch.float64, device)
    run(name, {**exact, "precision": "float32"})
    with pytest.raises(ValueError, match=r"precision must be float32 where an input is float64 .*, got bf16"):
        run(name, {**exact, "precision": "bf16"})
    with pytest.raises(RuntimeError, match=r"`precision` must be 0 \(float32\), 1 \(tf32\) or 2 \(bf16\), got 3"):
        getattr(torch.ops.emix, name)(*inputs.values(), precision=3)
