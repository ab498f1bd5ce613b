"""The recurrent ops against torch.nn.GRU and their references, finite differences, and padding; test_recurrent_calls.py
has torch's machinery and wrong calls."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from emix import ops
from tests.ops.cases import changed, converted, error, leaves, moved, strided
from tests.ops.recurrent_cases import NAMES, agent_inputs, gru_inputs, make_inputs, run

SIZES = st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 33, 64, 100])


# torch.nn.GRU, in float32: cuDNN's takes tf32 by default

in_float32 = partial(torch.backends.cudnn.flags, enabled=True, allow_tf32=False)


def torchs(gru: nn.GRU, x: Tensor, h0: Tensor) -> Tensor:
    return gru(x, h0.unsqueeze(0))[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("R", "T", "I", "H"), [(1, 1, 1, 1), (5, 3, 4, 7), (24, 9, 64, 64), (17, 20, 70, 128), (3, 10, 3, 256)]
)
def test_equals_torchs_gru(device: str, dtype: torch.dtype, R: int, T: int, I: int, H: int) -> None:  # noqa: E741
    torch.manual_seed(R)
    gru = nn.GRU(I, H, batch_first=True).to(device, dtype)
    x, h0 = torch.randn(R, T, I, device=device, dtype=dtype), torch.randn(R, H, device=device, dtype=dtype)
    upstream = torch.randn(R, T, H, device=device, dtype=dtype)
    wanted = [x.requires_grad_(), h0.requires_grad_(), *gru.parameters()]
    ours = ops.gru_sequence(x, h0, *gru.parameters())
    with in_float32():
        theirs = torchs(gru, x, h0)
        their_grads = torch.autograd.grad(theirs, wanted, upstream)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-5
    assert error(ours, theirs) < tolerance
    for a, b in zip(torch.autograd.grad(ours, wanted, upstream), their_grads, strict=True):
        assert error(a, b) < tolerance


def test_weights_that_learned_here_work_in_torch_and_back(device: str) -> None:
    torch.manual_seed(0)
    gru = nn.GRU(3, 8, batch_first=True).to(device)
    optimizer = torch.optim.SGD(gru.parameters(), lr=0.5)
    x, h0 = torch.randn(6, 5, 3, device=device), torch.zeros(6, 8, device=device)
    losses = []
    for _ in range(30):
        loss = (ops.gru_sequence(x, h0, *gru.parameters()) - 0.3).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    other = nn.GRU(3, 8, batch_first=True).to(device)
    other.load_state_dict(gru.state_dict())
    with in_float32():
        theirs = torchs(other, x, h0)
    torch.testing.assert_close(theirs, ops.gru_sequence(x, h0, *gru.parameters()))


# The references


@given(
    seed=st.integers(0, 2**31),
    R=st.sampled_from([0, 1, 2, 7, 8, 9, 16, 17, 40]),
    T=st.sampled_from([0, 1, 2, 7, 8, 9, 17]),
    I=st.sampled_from([0, 1, 5, 16, 70]),
    H=SIZES,
    given_h0=st.booleans(),
    layout=st.sampled_from(["contiguous", "strided", "time first", "expanded"]),
)
@settings(max_examples=120, deadline=None)
def test_gru_equals_its_reference(
    device: str,
    seed: int,
    R: int,
    T: int,
    I: int,  # noqa: E741
    H: int,
    given_h0: bool,
    layout: str,
) -> None:
    inputs = gru_inputs(seed, R, T, I, H, given_h0)
    if layout == "strided":
        inputs = changed(inputs, strided)
    elif layout == "time first":
        inputs["x"] = inputs["x"].transpose(0, 1).contiguous().transpose(0, 1)
    elif layout == "expanded":
        inputs["x"] = gru_inputs(seed, R, 1, I, H, given_h0)["x"].expand(R, T, I)
    compare("gru_sequence", changed(inputs, lambda x: moved(x, device)), seed)


@given(
    seed=st.integers(0, 2**31),
    B=st.sampled_from([0, 1, 2, 5, 9]),
    T=st.sampled_from([0, 1, 2, 8, 11]),
    n=st.sampled_from([1, 2, 5, 10]),
    O=st.sampled_from([0, 1, 7, 16, 80]),
    A=st.sampled_from([1, 6, 16, 19]),
    H=SIZES,
    given_h0=st.booleans(),
    actions=st.booleans(),
    ids=st.booleans(),
    layout=st.sampled_from(["contiguous", "strided", "sliced"]),
)
@settings(max_examples=120, deadline=None)
def test_agent_equals_its_reference(
    device: str,
    seed: int,
    B: int,
    T: int,
    n: int,
    O: int,  # noqa: E741
    A: int,
    H: int,
    given_h0: bool,
    actions: bool,
    ids: bool,
    layout: str,
) -> None:
    inputs = agent_inputs(seed, B, T, n, O, A, H, given_h0=given_h0, actions=actions, ids=ids)
    if layout == "strided":
        inputs = changed(inputs, strided)
    elif layout == "sliced":
        longer = agent_inputs(seed, B, T + 2, n, O, A, H, given_h0=given_h0, actions=actions, ids=ids)
        inputs["obs"] = longer["obs"][:, 1:-1]
        inputs["last_action"] = longer["last_action"][:, 1:-1] if actions else None
    compare("agent_sequence", changed(inputs, lambda x: moved(x, device)), seed)


def compare(name: str, inputs: dict[str, Tensor | None], seed: int) -> None:
    """Values and all gradients in float64, values in float32."""
    wanted = leaves(inputs)
    expected, ours = run(name, inputs, ops.reference), run(name, inputs)
    g = torch.Generator().manual_seed(seed)
    upstream = [torch.randn(each.shape, dtype=each.dtype, generator=g).to(each.device) for each in expected]
    for a, b in zip(ours, expected, strict=True):
        assert a.dtype == torch.float64
        assert error(a, b) < 1e-10
    pairs = [pair for pair in zip(expected, upstream, strict=True) if pair[0].requires_grad]  # none without steps
    theirs = (
        torch.autograd.grad(
            [x for x, _ in pairs], wanted, [grad for _, grad in pairs], materialize_grads=True, allow_unused=True
        )
        if pairs
        else [torch.zeros_like(leaf) for leaf in wanted]
    )
    for a, b in zip(torch.autograd.grad(ours, wanted, upstream), theirs, strict=True):
        assert error(a, b) < 1e-9
    narrow = changed(inputs, lambda x: x.float() if x.is_floating_point() else x)
    for a, b in zip(run(name, narrow), expected, strict=True):
        assert error(a, b) < 1e-4


def test_a_last_action_out_of_range_is_none(device: str) -> None:
    inputs = changed(agent_inputs(3, 4, 5, 3, 6, 7, 16), lambda x: x.to(device))
    q, _ = run("agent_sequence", {**inputs, "last_action": torch.full_like(inputs["last_action"], 7)})
    for outside in (-1, 100, 2**40):
        same, _ = run("agent_sequence", {**inputs, "last_action": torch.full_like(inputs["last_action"], outside)})
        assert torch.equal(q, same)
    actions = inputs["last_action"].clamp(0, 6)
    narrow, _ = run("agent_sequence", {**inputs, "last_action": actions.to(torch.uint8)})
    assert torch.equal(narrow, run("agent_sequence", {**inputs, "last_action": actions})[0])


def test_whole_sequence_equals_step_by_step(device: str) -> None:
    inputs = changed(agent_inputs(5, 8, 19, 3, 6, 7, 64), lambda x: x.to(device))
    q, last = run("agent_sequence", inputs)
    h = inputs["h0"]
    for t in range(19):
        now = {key: inputs[key][:, t : t + 1] for key in ("obs", "last_action")}
        q_t, h = run("agent_sequence", {**inputs, **now, "h0": h})
        torch.testing.assert_close(q_t[:, 0], q[:, t])
    torch.testing.assert_close(h, last)


@pytest.mark.parametrize(("R", "H"), [(7, 64), (300, 33), (700, 64), (5, 128), (700, 100)])
def test_a_row_does_not_depend_on_how_many_there_are(device: str, R: int, H: int) -> None:
    """On the GPU a block takes more rows where there are many."""
    inputs = changed(gru_inputs(37, R, 3, 4, H), lambda x: x.float().to(device))
    few = {key: value[:3] if key in ("x", "h0") else value for key, value in inputs.items()}
    results = []
    for each in (inputs, few):
        wanted = leaves({key: each[key] for key in ("x", "h0")})
        out = run("gru_sequence", each)[0]
        results.append((out, *torch.autograd.grad(out, wanted, torch.ones_like(out))))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a[:3], b)
    exact = converted(changed(few, torch.Tensor.detach), torch.float64, device)
    wanted = leaves({key: exact[key] for key in ("x", "h0")})
    expected = run("gru_sequence", exact, ops.reference)[0]
    for a, b in zip(results[1], (expected, *torch.autograd.grad(expected.sum(), wanted)), strict=True):
        assert error(a, b) < 1e-5


# Types and gradients


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_computed_in_float32(device: str, name: str, dtype: torch.dtype) -> None:
    for first in (dtype, torch.float32):  # one input is float32 and the others are not, as under autocast
        inputs = converted(make_inputs(name, 7), dtype, device)
        key = next(iter(inputs))
        inputs[key] = inputs[key].to(first)
        exact = converted(changed(inputs, torch.Tensor.detach), torch.float64, device)
        wanted, exact_wanted = leaves(inputs), leaves(exact)
        ours, expected = run(name, inputs), run(name, exact, ops.reference)
        assert all(each.dtype == torch.float32 for each in ours)
        assert max(error(a, b) for a, b in zip(ours, expected, strict=True)) < 1e-5
        grads = torch.autograd.grad([each.sum() for each in ours], wanted)
        exact_grads = torch.autograd.grad([each.sum() for each in expected], exact_wanted)
        tolerance = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 1e-5}[dtype]
        for leaf, a, b in zip(wanted, grads, exact_grads, strict=True):
            assert a.dtype == leaf.dtype
            assert error(a, b) < tolerance


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(device: str, name: str) -> None:
    inputs = changed(make_inputs(name, 11), lambda x: x.to(device))
    leaves(inputs)
    assert torch.autograd.gradcheck(getattr(ops, name), tuple(inputs.values()))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_each_input_alone(device: str, name: str) -> None:
    inputs = changed(make_inputs(name, 13), lambda x: x.to(device))
    keys = [key for key, value in inputs.items() if value.is_floating_point()]
    everything = changed(inputs, torch.Tensor.clone)
    wanted_all = leaves(everything)
    expected = dict(zip(keys, torch.autograd.grad(run(name, everything)[0].sum(), wanted_all), strict=True))
    for wanted in keys:
        some = {**inputs, wanted: inputs[wanted].clone().requires_grad_()}
        (grad,) = torch.autograd.grad(run(name, some)[0].sum(), some[wanted])
        assert torch.equal(grad, expected[wanted])


def test_gradient_of_the_last_state_alone(device: str) -> None:
    inputs = changed(make_inputs("agent_sequence", 17), lambda x: x.to(device))
    wanted = leaves(inputs)
    totals = [run("agent_sequence", inputs, module)[1].sum() for module in (ops, ops.reference)]
    grads = [torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True) for total in totals]
    assert all(error(a, b) < 1e-10 for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_unless_asked(device: str, name: str) -> None:
    inputs = changed(make_inputs(name, 19), lambda x: x.to(device))
    assert not any(each.requires_grad for each in run(name, inputs))
    leaves(inputs)
    with torch.no_grad():
        assert not any(each.requires_grad for each in run(name, inputs))
    assert all(each.requires_grad for each in run(name, inputs))


# Padding


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unknown", [torch.nan, torch.inf])
def test_padding_reaches_nothing(device: str, name: str, unknown: float) -> None:
    """Rows end at different steps; what follows may be anything where the upstream gradient is 0."""
    inputs = changed(make_inputs(name, 23, steps=13), lambda x: x.to(device))
    key = next(iter(inputs))
    ended = torch.arange(13, device=device) >= torch.tensor([13, 4, 0], device=device).unsqueeze(1)  # [3, T]
    padding = ended.view(3, 13, *[1] * (inputs[key].dim() - 2))
    grads, values = [], []
    for x in (inputs[key], inputs[key].masked_fill(padding, unknown)):
        each = {**inputs, key: x.detach().clone()}
        wanted = leaves(each)
        out = run(name, each)[0]
        values.append(torch.where(padding, 0, out))
        grads.append(torch.autograd.grad(out, wanted, torch.where(padding, 0.0, torch.ones_like(out))))
    assert torch.equal(*values)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_nan_in_a_step_that_counts_is_seen(device: str, name: str) -> None:
    inputs = changed(make_inputs(name, 29, steps=5), lambda x: x.to(device))
    key = next(iter(inputs))
    inputs[key][0, 2] = torch.nan
    out = run(name, inputs)[0]
    assert out[0, 2:].isnan().all()
    assert out[0, :2].isfinite().all()
    assert out[1:].isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_large_sums_saturate(device: str, name: str) -> None:
    """Gates at 0 or 1, and no infinity on the way."""
    inputs = changed(converted(make_inputs(name, 31), torch.float32, device), lambda x: x * 10**4)
    wanted = leaves(inputs)
    results = run(name, inputs)
    assert all(each.isfinite().all() for each in results)
    assert all(each.isfinite().all() for each in torch.autograd.grad(results[0].sum(), wanted))
