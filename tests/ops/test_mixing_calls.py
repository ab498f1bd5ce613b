"""The mixing ops called from torch's machinery, with any stride and size, and wrongly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emix import ops
from tests.ops.cases import Inputs, changed, relative_error, untouched
from tests.ops.mixing_cases import DIFFERENTIABLE, NAMES, OUTPUTS, make_inputs, op_of, run

# torch's own machinery


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(device: str, name: str) -> None:
    inputs = changed(make_inputs(name, 37, (2, 3), 3, 5), lambda x: x.float().to(device))
    torch.library.opcheck(getattr(torch.ops.emix, op_of(name)).default, tuple(inputs.values()))


@pytest.mark.parametrize("wanted", [True, False])
def test_opcheck_backward(device: str, wanted: bool) -> None:
    for name, options in [
        ("linear_mix", ()),
        ("expected_linear_mix", (wanted, not wanted, wanted, not wanted)),
        ("monotonic_mix", (wanted,)),
        ("monotonic_mix of many", (wanted,)),
    ]:
        inputs = changed(make_inputs(name, 41, (2, 3), 3, 5), lambda x: x.float().to(device))
        grad = torch.randn((2, 3, OUTPUTS) if "many" in name else (2, 3), device=device)
        tensors = [value for key, value in inputs.items() if key not in ("bias", "v")]
        torch.library.opcheck(getattr(torch.ops.emix, f"{op_of(name)}_backward").default, (grad, *tensors, *options))


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


@pytest.mark.parametrize(
    ("name", "key"),
    [("linear_mix", "q"), ("expected_linear_mix", "pi"), ("monotonic_mix", "w1"), ("monotonic_mix of many", "w2")],
)
def test_sixty_four_bit_offsets(device: str, name: str, key: str) -> None:
    """Rows that lie more than 2^31 elements apart, on memory that is never touched between them."""
    inputs = changed(make_inputs(name, 54, (3,)), lambda x: x.to(device, torch.float16))
    storage = untouched(2 * (2**30 + 2**29) + 64, torch.float16, device)
    strides = (2**30 + 2**29, *inputs[key].stride()[1:])
    far = storage.as_strided(inputs[key].shape, strides).copy_(inputs[key])
    assert torch.equal(run(name, {**inputs, key: far}), run(name, inputs))


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
            r"q must be a tensor, got a list",
        ),
        ("linear_mix", {"q": torch.zeros(4, 3).to_sparse()}, r"must be a dense tensor, got .* torch.sparse_coo"),
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
        ("monotonic_mix", {"w2": torch.zeros(4, 5, 6)}, r"v must have shape \[4, 6\].*got \[4\]"),
        ("monotonic_mix of many", {"w2": torch.zeros(4, 6, 5)}, r"w2 must have shape \[4, 5, 5\].*got \[4, 6, 5\]"),
        ("monotonic_mix of many", {"v": torch.zeros(4, 4)}, r"v must have shape \[4, 5\].*got \[4, 4\]"),
        ("monotonic_mix_grad", {"w2": torch.zeros(4, 5, 2)}, r"w2 must have shape \[\.\.\., E\].*got \[4, 5, 2\]"),
        ("monotonic_mix_grad", {"weight": torch.zeros(3)}, r"weight must have shape \[4\].*got \[3\]"),
        (
            "monotonic_mix_grad",
            {"w2": torch.zeros(4, 5, 2), "weight": torch.zeros(4)},
            r"weight must have shape \[4, 2\].*got \[4\]",
        ),
        ("monotonic_mix_grad", {"b1": torch.zeros(5)}, r"b1 must have shape \[4, 5\].*got \[5\]"),
    ],
)
def test_wrong_calls_say_what_is_wrong(name: str, change: Inputs, message: str) -> None:
    inputs = {**changed(make_inputs(name, 61, (4,), 3, 5), torch.Tensor.float), **change}
    with pytest.raises(ValueError, match=message):
        run(name, inputs)


@pytest.mark.cuda
def test_devices_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="weight must be on cpu like q, got cuda:0"):
        ops.linear_mix(torch.zeros(4, 3), torch.zeros(4, 3).cuda())


SHAPES = st.lists(st.integers(0, 3), min_size=0, max_size=4).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])


@given(name=st.sampled_from(NAMES), shapes=st.tuples(*[SHAPES] * 5), dtypes=st.tuples(*[DTYPES] * 5), data=st.data())
@settings(max_examples=400, deadline=None)
def test_random_calls_are_right_or_refused(
    device: str, name: str, shapes: tuple, dtypes: tuple, data: st.DataObject
) -> None:
    """No crash, no wrong answer, no silent broadcast."""
    fitting = make_inputs(name, 67, shapes[0], 2, 3)
    keys = list(fitting)
    wrong = data.draw(st.sets(st.sampled_from(range(len(keys))), max_size=2))
    inputs = {
        key: torch.ones(shapes[i]).to(device, dtypes[i]) if i in wrong else fitting[key].to(device, torch.float32)
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
    assert ours.shape == expected.shape
    assert relative_error(ours, expected) < 1e-3


def expected_shape(key: str, inputs: Inputs) -> tuple[int, ...]:
    """What the shape of q, and of b1 for E, says of an input's."""
    q = inputs["q"].shape
    if key in ("pi", "uncertainty"):
        return q
    leading, n = (q[:-2], q[-2]) if "pi" in inputs else (q[:-1], q[-1])
    hidden = inputs["b1"].shape[-1] if "b1" in inputs else 0
    outputs = inputs["w2"].shape[-1:] if "w2" in inputs and inputs["w2"].dim() > len(q) else ()
    w2, v = (hidden, *outputs), outputs
    inner = {"weight": (n,), "bias": (), "v": v, "w1": (n, hidden), "b1": (hidden,), "w2": w2}
    return (*leading, *inner[key])
