"""The fused targets against the same made of the other ops' references, their identities, and every wrong call."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import moved, relative_error, strided, untouched

NAMES = ["tree_backup_target", "td_lambda_target"]
Inputs = dict[str, Tensor | float | int | None]


def make_inputs(
    name: str,
    seed: int,
    batch: int,
    steps: int,
    n: int = 3,
    actions: int = 5,
    members: int = 0,
    *,
    ends: bool = True,
    bias: bool = True,
    scale: float | None = None,
    horizon: int | None = None,
) -> Inputs:
    """Random inputs in float64; members 0: a single critic."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    entries = (batch, steps + 1)
    pi = torch.softmax(2 * normal(*entries, n, actions), -1)
    pi = torch.where(pi < 0.3 / actions, 0, pi)
    inputs: Inputs = {
        "reward": normal(batch, steps),
        "terminated": normal(batch, steps) > 1.5,
        "q": normal(*([members] if members else []), *entries, n, actions),
        "pi": pi / pi.sum(-1, keepdim=True),
        "actions": torch.randint(actions, (*entries, n), generator=g),
        "weight": normal(*entries, n).abs(),
        "bias": normal(*entries) if bias else None,
        "gamma": 0.97,
        "lam": 0.9,
        "uncertainty_scale": scale if members else None,
        "horizon": horizon,
    }
    if ends:
        length = torch.randint(0, steps + 1, (batch, 1), generator=g)
        inputs |= {"truncated": normal(batch, steps) > 1.5, "valid": torch.arange(steps) < length}
    if name == "td_lambda_target":
        del inputs["pi"], inputs["horizon"]
    return inputs


def run(name: str, inputs: Inputs, module: object = ops) -> Tensor:
    return getattr(module, name)(**inputs)


def to(inputs: Inputs, dtype: torch.dtype, device: str = "cpu") -> Inputs:
    def move(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return value.to(device, dtype) if value.is_floating_point() else value.to(device)

    return {key: move(value) for key, value in inputs.items()}


def spread(inputs: Inputs) -> Inputs:
    return {key: strided(value) if isinstance(value, Tensor) else value for key, value in inputs.items()}


# Right answers


@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 2**31),
    batch=st.integers(0, 6),
    steps=st.sampled_from([0, 1, 2, 7, 33, 70]),
    n=st.sampled_from([0, 1, 3, 10, 33]),
    actions=st.sampled_from([1, 2, 5, 18, 33]),
    members=st.sampled_from([0, 1, 2, 5, 10, 11, 20, 21, 64]),
    ends=st.booleans(),
    bias=st.booleans(),
    scale=st.sampled_from([None, 0.01, 1.0, -1.0]),
    horizon=st.sampled_from([None, 1, 5]),
    layout=st.sampled_from(["contiguous", "strided"]),
)
@settings(max_examples=200, deadline=None)
def test_equals_the_reference(
    device: str,
    name: str,
    seed: int,
    batch: int,
    steps: int,
    n: int,
    actions: int,
    members: int,
    ends: bool,
    bias: bool,
    scale: float | None,
    horizon: int | None,
    layout: str,
) -> None:
    if members * n * actions > 4000:
        members = 10
    inputs = make_inputs(
        name, seed, batch, steps, n, actions, members, ends=ends, bias=bias, scale=scale, horizon=horizon
    )
    if layout == "strided":
        inputs = spread(inputs)
    inputs = {key: moved(value, device) if isinstance(value, Tensor) else value for key, value in inputs.items()}
    expected = run(name, inputs, ops.reference)
    ours = run(name, inputs)
    assert ours.dtype == torch.float64
    assert relative_error(ours, expected) < 1e-10
    bound = 1e-4 * (1 + (expected.abs().max().item() if expected.numel() else 0))
    assert relative_error(run(name, to(inputs, torch.float32, device)), expected) < bound


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [None, 0.5])
def test_devices_agree(device: str, name: str, scale: float | None) -> None:
    for batch, steps, n, actions, members in [
        (4, 120, 10, 18, 10),
        (2, 20, 27, 36, 5),
        (2, 9, 2, 70, 20),
        (1, 5, 3, 4, 40),
    ]:
        inputs = make_inputs(name, 5, batch, steps, n, actions, members, scale=scale, horizon=5)
        assert relative_error(run(name, to(inputs, torch.float64, device)), run(name, inputs, ops.reference)) < 1e-10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_computed_in_float32(device: str, name: str, dtype: torch.dtype) -> None:
    inputs = to(make_inputs(name, 7, 5, 40, members=5, scale=0.1), dtype, device)
    ours = run(name, inputs)
    assert ours.dtype == torch.float32
    assert relative_error(ours, run(name, to(inputs, torch.float64, device), ops.reference)) < 2e-5
    inputs["q"] = inputs["q"].float()  # as under autocast
    assert relative_error(run(name, inputs), run(name, to(inputs, torch.float64, device), ops.reference)) < 2e-5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_actions_of_any_integer_dtype(device: str, dtype: torch.dtype) -> None:
    inputs = to(make_inputs("tree_backup_target", 11, 3, 20), torch.float32, device)
    expected = run("tree_backup_target", inputs)
    assert torch.equal(run("tree_backup_target", {**inputs, "actions": inputs["actions"].to(dtype)}), expected)


# Identities


def test_certain_policy_without_weighting_makes_both_targets_one() -> None:
    inputs = make_inputs("tree_backup_target", 13, 4, 30, members=5)
    inputs["pi"] = torch.nn.functional.one_hot(inputs["actions"], 5).double()
    rest = {key: value for key, value in inputs.items() if key not in ("pi", "horizon")}
    torch.testing.assert_close(ops.tree_backup_target(**inputs), ops.td_lambda_target(**rest))


def test_equal_members_are_one_critic() -> None:
    """Their kurtosis is 3, so every next value counts 0.5 + sigmoid(-3 scale)."""
    inputs = make_inputs("tree_backup_target", 17, 4, 30, bias=False)
    members = {**inputs, "q": inputs["q"].expand(10, *inputs["q"].shape)}
    torch.testing.assert_close(ops.tree_backup_target(**members), ops.tree_backup_target(**inputs))
    one_step = {**members, "lam": 0.0, "uncertainty_scale": 0.2}
    weight = 0.5 + torch.sigmoid(torch.tensor(-0.6, dtype=torch.float64))
    weighted = {**inputs, "lam": 0.0, "gamma": inputs["gamma"] * weight.item()}
    torch.testing.assert_close(ops.tree_backup_target(**one_step), ops.tree_backup_target(**weighted))


@pytest.mark.parametrize("name", NAMES)
def test_permuting_agents_changes_nothing(name: str) -> None:
    inputs = make_inputs(name, 19, 3, 20, 4, members=5, scale=0.5)
    order = torch.tensor([2, 0, 3, 1])
    axis = {"q": 3, "pi": 2, "actions": 2, "weight": 2}
    permuted = {key: value.index_select(axis[key], order) if key in axis else value for key, value in inputs.items()}
    torch.testing.assert_close(run(name, permuted), run(name, inputs))


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_in_padding_is_not_read(device: str, name: str) -> None:
    inputs = to(make_inputs(name, 23, 6, 30, members=5, scale=0.5, horizon=4), torch.float64, device)
    before = run(name, inputs)
    valid = inputs["valid"]
    read = torch.cat([torch.ones_like(valid[:, :1]), valid], dim=1)  # and the entry after the last valid step
    read[:, 0] = valid[:, 0]
    poisoned = {
        **inputs,
        "q": inputs["q"].masked_fill(~read[..., None, None], torch.nan),
        "weight": inputs["weight"].masked_fill(~read[..., None], torch.nan),
        "bias": inputs["bias"].masked_fill(~read, torch.nan),
        "actions": inputs["actions"].masked_fill(~read[..., None], -(2**62)),
        "reward": inputs["reward"].masked_fill(~valid, torch.nan),
    }
    if "pi" in inputs:
        poisoned["pi"] = inputs["pi"].masked_fill(~read[..., None, None], torch.nan)
    assert torch.equal(run(name, poisoned), before)
    assert not before[~valid].any()


def test_values_of_unavailable_actions_may_be_nan(device: str) -> None:
    inputs = to(make_inputs("tree_backup_target", 29, 4, 20, members=5, scale=0.5), torch.float64, device)
    taken = torch.nn.functional.one_hot(inputs["actions"], 5).bool()
    never = (inputs["pi"] == 0) & ~taken
    assert never.any()
    poisoned = {**inputs, "q": inputs["q"].masked_fill(never, torch.nan)}
    assert torch.equal(ops.tree_backup_target(**poisoned), ops.tree_backup_target(**inputs))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [-1, 5, 2**40])
def test_actions_out_of_range_give_nan(device: str, name: str, wrong: int) -> None:
    inputs = to(make_inputs(name, 31, 2, 6, ends=False), torch.float32, device)
    inputs["terminated"] = torch.zeros_like(inputs["terminated"])
    if "pi" in inputs:
        inputs["pi"] = torch.full_like(inputs["pi"], 0.2)  # an action of probability 0 would cut the trace
    expected = run(name, inputs)
    inputs["actions"] = inputs["actions"].clone()
    inputs["actions"][0, 3, 1] = wrong
    result = run(name, inputs)
    assert torch.equal(result[1], expected[1])
    assert result[0, :4].isnan().all()
    assert torch.equal(result[0, 4:], expected[0, 4:])


def test_no_gradient() -> None:
    inputs = make_inputs("tree_backup_target", 37, 2, 6)
    inputs["q"].requires_grad_()
    assert not ops.tree_backup_target(**inputs).requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_repeats_bit_for_bit(device: str, name: str) -> None:
    inputs = to(make_inputs(name, 41, 8, 60, members=10, scale=0.1), torch.float32, device)
    assert torch.equal(run(name, inputs), run(name, inputs))


def test_sixty_four_bit_offsets(device: str) -> None:
    """Members past 2^31 elements apart, on memory that is never touched elsewhere."""
    inputs = to(make_inputs("tree_backup_target", 42, 2, 3, members=2), torch.float16, device)
    storage = untouched(2**31 + inputs["q"][0].numel(), torch.float16, device)
    far = storage.as_strided(inputs["q"].shape, (2**31, *inputs["q"].stride()[1:])).copy_(inputs["q"])
    assert torch.equal(ops.tree_backup_target(**{**inputs, "q": far}), ops.tree_backup_target(**inputs))


# torch's own machinery


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(device: str, name: str) -> None:
    inputs = to(make_inputs(name, 43, 2, 4, members=5), torch.float32, device)
    tensors = [inputs.get(key) for key in ("q", "pi", "actions", "weight", "bias", "valid")]
    torch.library.opcheck(torch.ops.emix.joint_values.default, (*tensors, 0.1))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(device: str, name: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    inputs = to(make_inputs(name, 47, 2, 10, members=5, scale=0.1), torch.float32, device)
    compiled = torch.compile(lambda: run(name, inputs), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(), run(name, inputs))


# Wrong calls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"q": torch.zeros(4, 7, 3)},
            r"q must have shape \[B, T \+ 1, n, A\] or \[N, B, T \+ 1, n, A\], got \[4, 7, 3\]",
        ),
        (
            {"q": torch.zeros(0, 4, 7, 3, 5)},
            r"q must have 1 to 64 members on its first axis, got shape \[0, 4, 7, 3, 5\]",
        ),
        ({"q": torch.zeros(65, 4, 7, 3, 5)}, r"q must have 1 to 64 members.*got shape \[65, 4, 7, 3, 5\]"),
        ({"q": torch.zeros(4, 0, 3, 5)}, r"q must have the entry after the last step, got shape \[4, 0, 3, 5\]"),
        ({"q": torch.zeros(4, 7, 3, 0)}, r"q must have an action at least"),
        ({"q": torch.zeros(4, 7, 3, 5).long()}, r"q must be a float16, bfloat16, float32 or float64 tensor"),
        (
            {"q": torch.zeros(4, 6, 3, 5)},
            r"pi must have shape \[4, 6, 3, 5\] because q has shape \[4, 6, 3, 5\], got \[4, 7",
        ),
        ({"q": None}, r"q must be a tensor, got None"),
        ({"pi": torch.zeros(4, 7, 3)}, r"pi must have shape \[4, 7, 3, 5\].*got \[4, 7, 3\]"),
        ({"actions": torch.zeros(4, 6, 3).long()}, r"actions must have shape \[4, 7, 3\].*got \[4, 6, 3\]"),
        ({"actions": torch.zeros(4, 7, 3)}, r"actions must be an integer tensor, such as int64"),
        ({"actions": torch.zeros(4, 7, 3).bool()}, r"actions must be an integer tensor, such as int64"),
        ({"weight": torch.zeros(4, 7, 4)}, r"weight must have shape \[4, 7, 3\].*got \[4, 7, 4\]"),
        ({"bias": torch.zeros(4, 7, 1)}, r"bias must have shape \[4, 7\].*got \[4, 7, 1\]"),
        ({"valid": torch.ones(4, 7)}, r"valid must have shape \[4, 6\].*got \[4, 7\]"),
        ({"uncertainty_scale": 0.1}, r"uncertainty_scale must be None where q has no members, got 0.1"),
        ({"terminated": torch.zeros(4, 5)}, r"terminated must have shape \[4, 6\]"),
        (
            {"reward": torch.zeros(4, 5), "terminated": torch.zeros(4, 5)},
            r"reward must have shape \[4, 6\] because q has 4 episodes of 7 entries.*got \[4, 5\]",
        ),
        ({"gamma": 1.5}, r"gamma must lie in \[0, 1\], got 1.5"),
        ({"horizon": 0}, r"horizon must be at least 1, got 0"),
    ],
)
def test_wrong_calls_say_what_is_wrong(change: Inputs, message: str) -> None:
    inputs = {**to(make_inputs("tree_backup_target", 59, 4, 6, ends=False), torch.float32), **change}
    with pytest.raises(ValueError, match=message):
        ops.tree_backup_target(**inputs)


SHAPES = st.lists(st.integers(0, 3), min_size=0, max_size=5).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])
KEYS = ["reward", "terminated", "q", "pi", "actions", "weight", "bias", "valid"]


@given(
    name=st.sampled_from(NAMES),
    wrong=st.dictionaries(st.sampled_from(KEYS), st.tuples(SHAPES, DTYPES), max_size=2),
    seed=st.integers(0, 99),
)
@settings(max_examples=300, deadline=None)
def test_random_calls_are_right_or_refused(device: str, name: str, wrong: dict[str, tuple], seed: int) -> None:
    """No crash, no wrong answer, no silent broadcast over B, T, n or A."""
    inputs = to(make_inputs(name, seed, 2, 3, 2, 3), torch.float32, device)
    good = {key: value.shape for key, value in inputs.items() if isinstance(value, Tensor)}
    inputs |= {key: torch.ones(shape).to(device, dtype) for key, (shape, dtype) in wrong.items() if key in good}
    try:
        ours = run(name, inputs)
    except ValueError:
        assert wrong
        return
    for key, shape in good.items():
        assert inputs[key].shape[: len(shape)] == shape
    assert relative_error(ours, run(name, to(inputs, torch.float64, device), ops.reference)) < 1e-3
