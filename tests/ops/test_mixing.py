"""The mixing ops against their references, brute force over joint actions, finite differences, and every wrong call."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops

NAMES = ["linear_mix", "expected_linear_mix", "monotonic_mix", "monotonic_mix_grad"]
DIFFERENTIABLE = NAMES[:3]
Inputs = dict[str, Tensor | None]


def make_inputs(
    name: str, seed: int, leading: tuple[int, ...], n: int = 3, inner: int = 4, *, options: bool = True
) -> Inputs:
    """Random inputs in float64; ``inner`` is A or E. ``options``: bias and uncertainty too."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn((*leading, *shape), generator=g, dtype=torch.float64)

    if name == "linear_mix":
        return {"q": normal(n), "weight": normal(n).abs(), "bias": normal() if options else None}
    if name == "expected_linear_mix":
        pi = torch.softmax(normal(n, inner), -1)
        pi = torch.where(pi < pi.mean(-1, keepdim=True) / 2, 0, pi)  # some actions are never taken
        pi = pi / pi.sum(-1, keepdim=True)
        q, weight, uncertainty = normal(n, inner), normal(n).abs(), normal(n, inner).abs()
        return {
            "q": q,
            "pi": pi,
            "weight": weight,
            "bias": normal() if options else None,
            "uncertainty": uncertainty if options else None,
        }
    inputs: Inputs = {"q": normal(n), "w1": normal(n, inner), "b1": normal(inner), "w2": normal(inner)}
    return inputs if name == "monotonic_mix_grad" else {**inputs, "v": normal()}


def changed(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return {key: None if value is None else change(value) for key, value in inputs.items()}


def run(name: str, inputs: Inputs, module: object = ops) -> Tensor:
    return getattr(module, name)(**inputs)


def error(ours: Tensor, reference: Tensor) -> float:
    assert ours.shape == reference.shape
    ours, reference = ours.cpu().double(), reference.cpu().double()
    return ((ours - reference).abs() / (1 + reference.abs())).max().item() if ours.numel() else 0.0


def strided(tensor: Tensor) -> Tensor:
    """The same numbers, with every axis apart in memory and in reversed order."""
    apart = torch.zeros([2 * size for size in reversed(tensor.shape)], dtype=tensor.dtype, device=tensor.device)
    view = apart.permute(tuple(reversed(range(tensor.dim()))))[tuple(slice(0, 2 * size, 2) for size in tensor.shape)]
    return view.copy_(tensor)


# Right answers

LEADING = st.sampled_from([(), (1,), (5,), (70,), (0,), (3, 4), (2, 0), (2, 3, 4), (1, 6, 1)])


@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 2**31),
    leading=LEADING,
    n=st.sampled_from([0, 1, 2, 3, 10, 27, 33, 64]),
    inner=st.sampled_from([1, 2, 7, 8, 9, 18, 31, 32, 33, 64, 70]),
    options=st.booleans(),
    layout=st.sampled_from(["contiguous", "strided", "sliced", "expanded"]),
)
@settings(max_examples=300, deadline=None)
def test_equals_the_reference(
    name: str, seed: int, leading: tuple[int, ...], n: int, inner: int, options: bool, layout: str
) -> None:
    inputs = make_inputs(name, seed, leading, n, inner, options=options)
    if layout == "strided":
        inputs = changed(inputs, strided)
    elif layout == "sliced" and len(leading) > 1:  # as time is: two strides
        longer = make_inputs(name, seed, (*leading[:-1], leading[-1] + 1), n, inner, options=options)
        inputs = changed(longer, lambda x: x.narrow(len(leading) - 1, 1, leading[-1]))
    elif layout == "expanded" and leading:
        inputs = changed(
            make_inputs(name, seed, (1,) * len(leading), n, inner, options=options),
            lambda x: x.expand(*leading, *x.shape[len(leading) :]),
        )
    expected = run(name, inputs, ops.reference)
    ours = run(name, inputs)
    assert ours.dtype == torch.float64
    assert error(ours, expected) < 1e-10
    assert error(run(name, changed(inputs, torch.Tensor.float)), expected) < 1e-4 * (
        1 + (expected.abs().max().item() if expected.numel() else 0)
    )


@given(
    name=st.sampled_from(DIFFERENTIABLE),
    seed=st.integers(0, 2**31),
    leading=LEADING,
    n=st.sampled_from([1, 3, 10, 33, 64]),
    inner=st.sampled_from([1, 8, 18, 32, 40]),
    options=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_gradients_equal_the_references(
    name: str, seed: int, leading: tuple[int, ...], n: int, inner: int, options: bool
) -> None:
    inputs = make_inputs(name, seed, leading, n, inner, options=options)
    given_inputs = [value.requires_grad_() for value in inputs.values() if value is not None]
    expected = run(name, inputs, ops.reference)
    upstream = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(seed))
    theirs = torch.autograd.grad(expected, given_inputs, upstream)
    ours = torch.autograd.grad(run(name, inputs), given_inputs, upstream)
    for a, b in zip(ours, theirs, strict=True):
        assert error(a, b) < 1e-9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_computed_in_float32(device: str, name: str, dtype: torch.dtype) -> None:
    inputs = changed(make_inputs(name, 3, (9, 7), 5, 18), lambda x: x.to(device, dtype))
    ours = run(name, inputs)
    assert ours.dtype == torch.float32
    assert error(ours, run(name, changed(inputs, torch.Tensor.double), ops.reference)) < 2e-5


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_have_their_inputs_dtype(device: str, name: str, dtype: torch.dtype) -> None:
    """Also where one input is float32 and the others are not, as under autocast."""
    for first in (dtype, torch.float32, torch.float64):
        inputs = changed(make_inputs(name, 5, (6,), 5, 18), lambda x: x.to(device, dtype))
        inputs["q"] = inputs["q"].to(first)
        leaves = [value.requires_grad_() for value in inputs.values() if value is not None]
        grads = torch.autograd.grad(run(name, inputs).sum(), leaves)
        exact = changed(inputs, lambda x: x.detach().double().requires_grad_())
        expected = torch.autograd.grad(
            run(name, exact, ops.reference).sum(), [x for x in exact.values() if x is not None]
        )
        for leaf, ours, theirs in zip(leaves, grads, expected, strict=True):
            assert ours.dtype == leaf.dtype
            assert error(ours, theirs) < (1e-2 if dtype == torch.bfloat16 else 2e-3 if dtype == torch.float16 else 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_devices_agree(device: str, name: str) -> None:
    for leading, n, inner in [((3,), 2, 70), ((700, 3), 10, 18), ((40,), 27, 36), ((5,), 64, 128), ((2, 3), 10, 64)]:
        inputs = make_inputs(name, 7, leading, n, inner)
        ours = run(name, changed(inputs, lambda x: x.to(device)))
        assert error(ours, run(name, inputs, ops.reference)) < 1e-10


# Identities


def test_expectation_is_exact_over_joint_actions() -> None:
    n, A = 3, 4
    inputs = make_inputs("expected_linear_mix", 11, (5,), n, A)
    q, pi, weight, bias, uncertainty = inputs.values()
    total = torch.zeros(5, dtype=torch.float64)
    for joint in itertools.product(range(A), repeat=n):
        chosen = (slice(None), range(n), joint)
        value = (q * uncertainty)[chosen]  # [5, n]
        total += pi[chosen].prod(-1) * ops.linear_mix(value, weight, bias)
    torch.testing.assert_close(run("expected_linear_mix", inputs), total)


def test_certain_actions_make_the_expectation_a_mix() -> None:
    q, weight = torch.randn(6, 3, 5), torch.rand(6, 3)
    actions = torch.randint(5, (6, 3))
    pi = torch.nn.functional.one_hot(actions, 5).float()
    taken = q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(ops.expected_linear_mix(q, pi, weight), ops.linear_mix(taken, weight))


def test_weights_are_normalised_here() -> None:
    q, weight = torch.randn(8, 4, dtype=torch.float64), torch.rand(8, 4, dtype=torch.float64) + 0.1
    mixed = ops.linear_mix(q, weight)
    torch.testing.assert_close(ops.linear_mix(q, 7 * weight), mixed)
    torch.testing.assert_close(ops.linear_mix(q, weight / weight.sum(-1, keepdim=True)), mixed)
    torch.testing.assert_close(ops.linear_mix(q, torch.ones_like(q)), q.mean(-1))


def test_no_weight_at_all_gives_the_bias(device: str) -> None:
    q = torch.randn(3, 4, device=device)
    bias = torch.randn(3, device=device)
    assert torch.equal(ops.linear_mix(q, torch.zeros_like(q), bias), bias)


def test_actions_that_are_never_taken_may_be_infinite_or_nan(device: str) -> None:
    inputs = changed(make_inputs("expected_linear_mix", 13, (6,), 4, 9), lambda x: x.to(device))
    never = inputs["pi"] == 0
    assert never.any()
    for unknown in (torch.nan, torch.inf, -torch.inf):
        poisoned = {**inputs, "q": inputs["q"].masked_fill(never, unknown)}
        assert torch.equal(run("expected_linear_mix", poisoned), run("expected_linear_mix", inputs))
        leaves = [value.clone().requires_grad_() for value in poisoned.values()]
        grads = torch.autograd.grad(ops.expected_linear_mix(*leaves).sum(), leaves)
        assert all(grad.isfinite().all() for grad in grads)
        assert not grads[0][never].any()


@pytest.mark.parametrize("name", NAMES)
def test_permuting_agents(name: str) -> None:
    inputs = make_inputs(name, 17, (5,), 4, 6)
    order = torch.tensor([2, 0, 3, 1])
    by_agent = {"q", "pi", "weight", "uncertainty", "w1"}
    permuted = {key: value[:, order] if key in by_agent else value for key, value in inputs.items()}
    expected = run(name, inputs)
    torch.testing.assert_close(run(name, permuted), expected[:, order] if name == "monotonic_mix_grad" else expected)


def test_monotonic_mix_grad_is_the_derivative_and_not_negative(device: str) -> None:
    inputs = changed(make_inputs("monotonic_mix", 19, (50,), 5, 32), lambda x: x.to(device))
    inputs["q"].requires_grad_()
    (derivative,) = torch.autograd.grad(run("monotonic_mix", inputs).sum(), inputs["q"])
    ours = ops.monotonic_mix_grad(*(inputs[key].detach() for key in ("q", "w1", "b1", "w2")))
    torch.testing.assert_close(ours, derivative)
    assert (ours >= 0).all()


# Gradients


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradcheck(device: str, name: str) -> None:
    inputs = changed(make_inputs(name, 23, (2, 3), 3, 5), lambda x: x.to(device).requires_grad_())
    assert torch.autograd.gradcheck(getattr(ops, name), tuple(inputs.values()))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_of_some_inputs_only(device: str, name: str) -> None:
    inputs = changed(make_inputs(name, 29, (4,), 3, 5), lambda x: x.to(device))
    keys = list(inputs)
    everything = changed(inputs, lambda x: x.clone().requires_grad_())
    expected = dict(zip(keys, torch.autograd.grad(run(name, everything).sum(), list(everything.values())), strict=True))
    for wanted in itertools.chain.from_iterable(itertools.combinations(keys, size) for size in range(1, len(keys))):
        some = {key: value.clone().requires_grad_() if key in wanted else value for key, value in inputs.items()}
        run(name, some).sum().backward()
        for key in keys:
            assert (some[key].grad is not None) == (key in wanted)
            if key in wanted:
                assert torch.equal(some[key].grad, expected[key])


def test_gradient_at_a_weight_of_zero_is_zero() -> None:
    inputs = make_inputs("monotonic_mix", 31, (1,), 2, 3)
    w1 = inputs["w1"].index_fill(-1, torch.tensor([1]), 0).requires_grad_()
    (grad,) = torch.autograd.grad(ops.monotonic_mix(inputs["q"], w1, inputs["b1"], inputs["w2"], inputs["v"]).sum(), w1)
    assert not grad[..., 1].any()
    assert grad[..., 0].all()


def test_no_gradient_unless_asked(device: str) -> None:
    q = torch.randn(4, 3, device=device, requires_grad=True)
    weight = torch.rand(4, 3, device=device)
    assert ops.linear_mix(q, weight).requires_grad
    assert not ops.linear_mix(q.detach(), weight).requires_grad
    with torch.no_grad():
        assert not ops.linear_mix(q, weight).requires_grad


# torch's own machinery


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(device: str, name: str) -> None:
    inputs = changed(make_inputs(name, 37, (2, 3), 3, 5), lambda x: x.float().to(device))
    torch.library.opcheck(getattr(torch.ops.emix, name).default, tuple(inputs.values()))


@pytest.mark.parametrize("wanted", [True, False])
def test_opcheck_backward(device: str, wanted: bool) -> None:
    grad = torch.randn(2, 3, device=device)
    for name, options in [
        ("linear_mix", ()),
        ("expected_linear_mix", (wanted, not wanted, wanted, not wanted)),
        ("monotonic_mix", (wanted,)),
    ]:
        inputs = changed(make_inputs(name, 41, (2, 3), 3, 5), lambda x: x.float().to(device))
        tensors = [value for key, value in inputs.items() if key not in ("bias", "v")]
        torch.library.opcheck(getattr(torch.ops.emix, f"{name}_backward").default, (grad, *tensors, *options))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(device: str, name: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    inputs = changed(make_inputs(name, 43, (4,), 3, 5), lambda x: x.float().to(device))
    compiled = torch.compile(lambda: run(name, inputs), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(), run(name, inputs))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_compiled_gradient(name: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("nothing in torch.compile depends on the kernels")
    inputs = changed(make_inputs(name, 47, (4,), 3, 5), lambda x: x.float().requires_grad_())
    leaves = list(inputs.values())

    def loss() -> Tensor:
        return run(name, inputs).square().sum()

    ours = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(), leaves)
    for a, b in zip(ours, torch.autograd.grad(loss(), leaves), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_repeats_bit_for_bit(device: str, name: str) -> None:
    inputs = changed(make_inputs(name, 53, (32, 60), 10, 18), lambda x: x.float().to(device).requires_grad_())
    first, second = run(name, inputs), run(name, inputs)
    assert torch.equal(first, second)
    if name in DIFFERENTIABLE:
        leaves = list(inputs.values())
        grads = [torch.autograd.grad(result.sum(), leaves) for result in (first, second)]
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_sixty_four_bit_offsets() -> None:
    """Rows that lie more than 2^31 elements apart, on memory that is never touched between them."""
    try:
        storage = torch.empty(2 * (2**30 + 2**29) + 8, dtype=torch.float16)
    except RuntimeError:
        pytest.skip("the system does not hand out 6 GiB of untouched memory")
    q = storage.as_strided((3, 2), (2**30 + 2**29, 1)).copy_(torch.randn(3, 2))
    weight = torch.rand(3, 2).half()
    assert torch.equal(ops.linear_mix(q, weight), ops.linear_mix(q.clone(), weight))


def test_captured_in_a_cuda_graph() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    inputs = changed(make_inputs("monotonic_mix", 59, (32, 120), 10, 32), lambda x: x.float().cuda())
    run("monotonic_mix", inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run("monotonic_mix", inputs)
    inputs["q"].normal_()
    graph.replay()
    assert torch.equal(result, run("monotonic_mix", inputs))


# Wrong calls


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("linear_mix", {"q": torch.zeros(())}, r"q must have shape \[\.\.\., n\], got \[\]"),
        (
            "linear_mix",
            {"weight": torch.zeros(4, 2)},
            r"weight must have shape \[4, 3\] because q has shape \[4, 3\], got \[4, 2\]",
        ),
        ("linear_mix", {"weight": torch.zeros(3)}, r"weight must have shape \[4, 3\].*got \[3\]"),
        ("linear_mix", {"weight": torch.zeros(1, 3)}, r"weight must have shape \[4, 3\].*got \[1, 3\]"),
        ("linear_mix", {"bias": torch.zeros(4, 1)}, r"bias must have shape \[4\].*got \[4, 1\]"),
        (
            "linear_mix",
            {"weight": torch.zeros(4, 3, dtype=torch.long)},
            r"weight must be a float16, bfloat16, float32 or float64 tensor",
        ),
        ("linear_mix", {"q": torch.zeros(4, 3, dtype=torch.complex64)}, r"q must be real, got a complex tensor"),
        ("linear_mix", {"q": None}, r"q must be a tensor, got None"),
        ("linear_mix", {"weight": None}, r"weight must be a tensor, got None"),
        (
            "linear_mix",
            {"q": [1.0]},
            r"Expected a value of type 'Tensor' for argument 'q' but instead found type 'list'",
        ),
        ("linear_mix", {"q": torch.zeros(4, 3).to_sparse()}, r"expected dense CPU or CUDA tensors"),
        ("expected_linear_mix", {"q": torch.zeros(3)}, r"q must have shape \[\.\.\., n, A\], got \[3\]"),
        ("expected_linear_mix", {"pi": torch.zeros(4, 3, 6)}, r"pi must have shape \[4, 3, 5\].*got \[4, 3, 6\]"),
        (
            "expected_linear_mix",
            {"uncertainty": torch.zeros(4, 3)},
            r"uncertainty must have shape \[4, 3, 5\].*got \[4, 3\]",
        ),
        ("monotonic_mix", {"w1": torch.zeros(4, 5, 3)}, r"w1 must have shape \[4, 3, 5\].*got \[4, 5, 3\]"),
        ("monotonic_mix", {"w2": torch.zeros(4, 6)}, r"w2 must have shape \[4, 5\].*got \[4, 6\]"),
        ("monotonic_mix", {"b1": torch.zeros(())}, r"b1 must have shape \[\.\.\., E\]"),
        ("monotonic_mix", {"v": torch.zeros(4, 1)}, r"v must have shape \[4\].*got \[4, 1\]"),
        ("monotonic_mix_grad", {"b1": torch.zeros(5)}, r"b1 must have shape \[4, 5\].*got \[5\]"),
    ],
)
def test_wrong_calls_say_what_is_wrong(name: str, change: Inputs, message: str) -> None:
    inputs = {**changed(make_inputs(name, 61, (4,), 3, 5), torch.Tensor.float), **change}
    with pytest.raises(ValueError, match=message):
        run(name, inputs)


def test_devices_are_not_mixed() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with pytest.raises(ValueError, match="weight must be on cpu like q, got cuda:0"):
        ops.linear_mix(torch.zeros(4, 3), torch.zeros(4, 3).cuda())


SHAPES = st.lists(st.integers(0, 3), min_size=0, max_size=4).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])


@given(name=st.sampled_from(NAMES), shapes=st.tuples(*[SHAPES] * 5), dtypes=st.tuples(*[DTYPES] * 5), data=st.data())
@settings(max_examples=400, deadline=None)
def test_random_calls_are_right_or_refused(name: str, shapes: tuple, dtypes: tuple, data: st.DataObject) -> None:
    """No crash, no wrong answer, no silent broadcast."""
    fitting = make_inputs(name, 67, shapes[0], 2, 3)
    keys = list(fitting)
    wrong = data.draw(st.sets(st.sampled_from(range(len(keys))), max_size=2))
    inputs = {
        key: torch.ones(shapes[i]).to(dtypes[i]) if i in wrong else fitting[key].to(torch.float32)
        for i, key in enumerate(keys)
    }
    try:
        ours = run(name, inputs)
    except ValueError:
        assert wrong or len(shapes[0]) > 6
        return
    assert [tuple(inputs[key].shape) for key in keys if key != "q"] == [
        tuple(expected_shape(key, inputs)) for key in keys if key != "q"
    ]
    expected = run(name, changed(inputs, torch.Tensor.double), ops.reference)
    assert error(ours, expected) < 1e-3


def expected_shape(key: str, inputs: Inputs) -> tuple[int, ...]:
    """What the shape of q, and of b1 for E, says of an input's."""
    q = inputs["q"].shape
    if key in ("pi", "uncertainty"):
        return q
    leading, n = (q[:-2], q[-2]) if "pi" in inputs else (q[:-1], q[-1])
    hidden = inputs["b1"].shape[-1] if "b1" in inputs else 0
    inner = {"weight": (n,), "bias": (), "v": (), "w1": (n, hidden), "b1": (hidden,), "w2": (hidden,)}
    return (*leading, *inner[key])
