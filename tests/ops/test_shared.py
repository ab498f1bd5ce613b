"""What all ops share: documentation, errors, torch's defaults, numbers that are no index, memory that runs out."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from emix import ops
from emix.data.integers import check_seed as everywhere
from emix.errors import UsageError
from emix.ops import battle
from emix.ops._call import public
from emix.ops._seed import check_seed
from tests.fuzz import ops as fuzz
from tests.ops.every_op import NAMES, OPS, make_inputs, run

FUNCTIONS = [getattr(ops, name) for name in ops.__all__ if name.islower() and name != "reference"]
FUNCTIONS += [battle.battle_step, battle.battle_reset]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_documentation_names_every_argument(function: Callable[..., object]) -> None:
    text = inspect.getdoc(function)
    arguments, rest = text.split("Args:")[1].split("Returns:")
    for name in inspect.signature(function).parameters:
        assert f"    {name}: " in arguments, name
    assert "Raises:" in rest
    assert "Source:" in text or function in FUNCTIONS[-1:]


def test_no_check_is_an_assertion() -> None:
    """``python -O`` leaves assertions out."""
    for file in Path(ops.__file__).parent.rglob("*.py"):
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(file.read_text()))), file


@pytest.mark.parametrize("name", NAMES)
def test_defaults_of_torch_change_nothing(name: str) -> None:
    inputs = {key: x.float() if x.is_floating_point() else x for key, x in make_inputs(name).items()}
    expected = run(name, inputs)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        results = run(name, inputs)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    torch.testing.assert_close(results, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["sample_actions", "explore_actions"])
def test_defaults_of_torch_change_no_draw(name: str) -> None:
    inputs = make_inputs(name)
    torch.manual_seed(3)
    expected = run(name, inputs)
    torch.manual_seed(3)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        results = run(name, inputs)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


OUTSIDE = [-1, -(2**63), 2**63 - 1, 2**31, 127, 5]


TAKING = [name for name in NAMES if any(x.kind in "al" for x in OPS[name].inputs.values())]
TAKING.remove("marginal_value")  # on the CPU an error, which test_marginal.py asks for


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("name", TAKING)
def test_an_action_that_there_is_not_is_no_index(device: str, name: str, outside: int) -> None:
    """Of the first episode alone: its results are NaN, or those of no action; the others keep their bits."""
    inputs = make_inputs(name, device=device, without=("avail", "valid"))  # where nothing counts, the result is 0
    key = next(key for key, each in OPS[name].inputs.items() if each.kind in "al")
    expected = run(name, inputs)
    actions = inputs[key].clone()
    actions[0] = outside
    results = run(name, {**inputs, key: actions})
    if name == "ensemble_critic":  # whose members come before the episodes
        results, expected = ([each.transpose(0, 1) for each in found] for found in (results, expected))
    for a, b in zip(results, expected, strict=True):
        assert torch.equal(a[1:], b[1:])
    if name == "agent_sequence":
        actions[0] = 5  # A: none yet
        expected = run(name, {**inputs, key: actions})
        assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
    else:
        assert results[0][0].isnan().all()


def test_memory_that_runs_out_is_torchs_error() -> None:
    huge = torch.zeros(1).expand(2**42, 100)
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(huge.shape)
    with pytest.raises(type(torchs.value)) as ours:
        ops.masked_policy(huge)
    if torch.__version__ >= (2, 13):  # older ones write why on stderr
        assert "tried to allocate" in str(ours.value)


@pytest.mark.skipif(torch.__version__ < (2, 13), reason="older torch writes why on stderr")
def test_memory_that_runs_out_in_a_compiled_graph() -> None:
    compiled = torch.compile(lambda logits: ops.masked_policy(logits), fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match="tried to allocate"):
        compiled(torch.zeros(1).expand(2**42, 100))


def test_memory_that_runs_out_going_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backward pass of a loss says so, too, where the compiled op alone only says that a call failed."""
    q = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    variance = ops.ensemble_moments(q.expand(64, 3)).variance
    huge = torch.zeros(1).expand(64, 2**40)
    with pytest.raises(RuntimeError) as ours:
        torch.ops.emix.ensemble_moments_backward.default(huge, None, None, None)
    assert "API call failed" in str(ours.value)
    fail = lambda *_: torch.ops.emix.ensemble_moments_backward.default(huge, None, None, None)  # noqa: E731
    monkeypatch.setattr(variance.grad_fn.rule, "gradients", fail)
    with pytest.raises(RuntimeError) as ours:
        variance.sum().backward()
    if torch.__version__ >= (2, 13):
        assert "tried to allocate" in str(ours.value)


@pytest.mark.cuda
def test_memory_of_the_gpu_that_runs_out() -> None:
    with pytest.raises(torch.OutOfMemoryError if torch.__version__ >= (2, 13) else RuntimeError):
        ops.masked_policy(torch.zeros(1, device="cuda").expand(2**36, 100))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "emix: launch of returns failed: invalid device function",
            "^launch of returns failed: invalid device function$",
        ),
        (
            "Could not run 'emix::linear_mix' with arguments from the 'CUDA' backend. This",
            "^this emix was built without CUDA",
        ),
    ],
)
def test_what_is_no_wrong_call(text: str, message: str) -> None:
    @public()
    def fails(x: Tensor) -> Tensor:
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match=message):
        fails(torch.zeros(1))


@pytest.mark.parametrize("seed", [0, 2**63 - 1, np.int64(2**63 - 1), np.uint64(5), np.int8(5)])
def test_seeds(seed: int) -> None:
    assert check_seed(seed) == seed
    assert type(check_seed(seed)) is int


@pytest.mark.parametrize("seed", [-1, 2**63, np.uint64(2**63), True])
def test_wrong_seeds(seed: int) -> None:
    with pytest.raises(ValueError, match=r"seed must be an integer from 0 to 2\^63 - 1, got"):
        check_seed(seed)
    with pytest.raises(UsageError, match=r"seed must be an integer from 0 to 2\^63 - 1, got"):
        everywhere("seed", seed)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("trace_returns", "trace"),
        ("tree_backup_returns", "pi"),
        ("retrace_returns", "ratio"),
        ("tree_backup_target", "pi"),
    ],
)
def test_a_trace_is_not_optional(name: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key} must be a tensor, got None"):
        run(name, {**make_inputs(name), key: None})


@pytest.mark.parametrize("first", range(0, 1500, 100))
def test_random_calls(first: int) -> None:
    """A small share of what ``make fuzz`` does."""
    for number in range(first, first + 100):
        fault = fuzz.case(0, number)[1]
        assert fault is None, f"case {number}: {fault}"
