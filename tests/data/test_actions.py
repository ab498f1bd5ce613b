"""What an action is: checks, draws, spaces, storage, encoding."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces

from emix.data import Box, Discrete
from emix.errors import UsageError

CPU = torch.device("cpu")


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "3", None])
def test_discrete_refuses_what_is_no_count(n):
    with pytest.raises(UsageError, match="Discrete: n expects an integer of at least 1, got"):
        Discrete(n)


@pytest.mark.parametrize("dim", [0, 1.5, True])
def test_box_refuses_what_is_no_count(dim):
    with pytest.raises(UsageError, match="Box: dim expects an integer of at least 1, got"):
        Box(dim)


@pytest.mark.parametrize("bounds", [(1, 1), (1, -1), (0, float("inf")), (float("nan"), 1), ("a", 1), (False, 1)])
def test_box_refuses_bounds_that_are_none(bounds):
    with pytest.raises(UsageError, match="Box: low and high expect finite numbers in order, got"):
        Box(1, *bounds)


@pytest.mark.parametrize("sizes", [(1, 1), (2, 3), (2, 0)])
def test_box_refuses_sizes_that_are_none(sizes):
    with pytest.raises(UsageError, match="Box: sizes expects integers from 1 to dim=2, which one is, got"):
        Box(2, sizes=sizes)


def test_agents_may_have_fewer_numbers():
    box = Box(2, -1.0, 3.0, sizes=(2, 1))
    assert (box.numbers(2), Box(2).numbers(2)) == (3, 4)
    assert box.nearest(torch.tensor([[9.0, 9.0], [9.0, 9.0]])).tolist() == [[3, 3], [3, 1]]
    assert box.without_padding(torch.ones(5, 2, 2)).sum(0).tolist() == [[5, 5], [5, 0]]
    draws = box.random((100, 2), torch.Generator().manual_seed(0))
    assert (draws[:, 1, 1] == 1).all()
    assert (draws.flatten(1)[:, :3].std(0) > 0.5).all()
    space = box.joint_space(2)
    assert (space.low.tolist(), space.high.tolist()) == ([[-1, -1], [-1, 1]], [[3, 3], [3, 1]])


@pytest.mark.parametrize(
    ("n", "stored"),
    [(1, "uint8"), (256, "uint8"), (257, "int16"), (300, "int16"), (1 << 15, "int16"), (40_000, "int32")],
)
def test_the_stored_type_holds_every_choice(n, stored):
    action = Discrete(n)
    assert action.stored == stored
    last = torch.tensor(n - 1)
    assert last.to(getattr(torch, stored)).to(torch.int64) == last


def test_encoding_of_discrete_actions_is_one_hot_and_zeros_before_the_first():
    action = Discrete(3)
    encoded = action.encode(torch.tensor([[0, 2], [3, 1]]))
    assert encoded.dtype == torch.float32
    assert encoded.tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]]
    none = action.none((2, 4), CPU)
    assert (none.shape, none.dtype) == ((2, 4), torch.int64)
    encoded = action.encode(none)
    assert encoded.shape == (2, 4, action.encoding_dim)
    assert not encoded.any()


def test_encoding_of_vectors_is_the_vector_and_zeros_before_the_first():
    action = Box(2)
    given = torch.tensor([[0.7, -0.2]])
    assert torch.equal(action.encode(given), given)
    encoded = action.encode(action.none((2, 4), CPU))
    assert (encoded.shape, encoded.dtype) == ((2, 4, action.encoding_dim), torch.float32)
    assert not encoded.any()


def test_random_discrete_actions_are_uniform_among_the_available_ones():
    generator = torch.Generator().manual_seed(0)
    avail = torch.tensor([[True, False, True, True], [False, True, False, False], [False] * 4])
    draws = torch.stack([Discrete(4).random((3,), generator, avail) for _ in range(6000)])  # [draws, 3]
    assert draws.dtype == torch.int64
    counts = torch.bincount(draws[:, 0], minlength=4)
    assert counts[1] == 0
    assert ((counts[[0, 2, 3]] - 2000).abs() < 4.5 * (6000 * 2 / 9) ** 0.5).all()
    assert (draws[:, 1] == 1).all()
    assert (draws[:, 2] == 0).all()
    free = Discrete(4).random((5000, 2), generator)
    assert torch.bincount(free.flatten(), minlength=4).min() > 2200


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.1, 0.7), (-3.0, 0.5)])
def test_random_vectors_are_uniform_between_the_bounds(bounds):
    action = Box(3, *bounds)
    draws = action.random((20_000, 2), torch.Generator().manual_seed(0))
    assert (draws.shape, draws.dtype) == ((20_000, 2, 3), torch.float32)
    action.check_values("test", draws, None, torch.zeros(20_000, dtype=torch.bool))  # none is out of bounds
    share = (draws - action.low) / (action.high - action.low)
    counts = torch.histc(share, bins=10, min=0, max=1)
    assert float(((counts - 12_000) ** 2 / 12_000).sum()) < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001


@pytest.mark.parametrize("action", [Discrete(5), Box(2)])
def test_draws_use_their_generator_alone(action):
    first = action.random((4, 2), torch.Generator().manual_seed(3))
    torch.manual_seed(9)
    assert torch.equal(first, action.random((4, 2), torch.Generator().manual_seed(3)))
    assert not torch.equal(first, action.random((4, 2), torch.Generator().manual_seed(4)))


def test_nearest():
    assert Discrete(3).nearest(torch.tensor([-1, 0, 2, 7])).tolist() == [0, 0, 2, 2]
    assert Box(1, -1.0, 0.5).nearest(torch.tensor([-7.0, 0.25, 2.0])).tolist() == [-1, 0.25, 0.5]


def test_spaces():
    assert Discrete(3).space() == spaces.Discrete(3)
    assert Discrete(3).joint_space(2) == spaces.MultiDiscrete([3, 3])
    box = Box(2, -0.4, 0.4)
    assert box.space() == spaces.Box(-0.4, 0.4, (2,), np.float32)
    assert box.joint_space(3) == spaces.Box(-0.4, 0.4, (3, 2), np.float32)
    sample = box.joint_space(3).sample()
    box.check_values("test", torch.from_numpy(sample)[None], None, torch.tensor([False]))


@pytest.mark.parametrize(
    ("action", "actions", "text"),
    [
        (Discrete(3), torch.zeros(2, 3), r"int64 of shape \[2, 3\] \[E, n\], got float32 of shape \[2, 3\] on cpu"),
        (Discrete(3), torch.zeros(2, 3, 1).long(), r"int64 of shape \[2, 3\] \[E, n\], got int64 of shape \[2, 3, 1\]"),
        (Discrete(3), [[0, 0, 0]] * 2, "got list"),
        (Box(2), torch.zeros(2, 3), r"float32 of shape \[2, 3, 2\] \[E, n, D\], got float32 of shape \[2, 3\]"),
        (Box(2), torch.zeros(2, 3, 2).double(), r"float32 of shape \[2, 3, 2\] .* got float64 of shape \[2, 3, 2\]"),
        (Box(2), torch.zeros(2, 3, 2, device="meta"), "must be on the environment's device cpu, got meta"),
    ],
)
def test_wrong_tensors_are_refused(action, actions, text):
    with pytest.raises(UsageError, match=f"test: actions must be .*{text}" if "device" not in text else text):
        action.check("test", actions, (2, 3), CPU)


def test_right_tensors_are_not():
    Discrete(3).check("test", torch.zeros(2, 3, dtype=torch.int64), (2, 3), CPU)
    Box(2).check("test", torch.zeros(2, 3, 2), (2, 3), CPU)


def test_actions_that_are_not_available():
    avail = torch.tensor([[[True, True, False]], [[False, True, True]]])
    running, done = torch.tensor([False, False]), torch.tensor([False, True])
    Discrete(3).check_values("test", torch.tensor([[1], [2]]), avail, running)
    for wrong in (0, 3, -1):
        actions = torch.tensor([[0], [wrong]])
        with pytest.raises(UsageError, match=rf"environment 1, agent 0: action {wrong} is not .* one of \[1, 2\]"):
            Discrete(3).check_values("test", actions, avail, running)
        Discrete(3).check_values("test", actions, avail, done)
    with pytest.raises(UsageError, match=r"expects avail where actions are Discrete\(n=3\), got None"):
        Discrete(3).check_values("test", actions, None, running)


@pytest.mark.parametrize("wrong", [1.01, -2.0, float("nan"), float("inf")])
def test_actions_out_of_bounds(wrong):
    actions = torch.zeros(2, 3, 2)
    action = Box(2)
    action.check_values("test", actions + 1, None, torch.tensor([False, False]))
    actions[1, 2, 0] = wrong
    text = r"test: environment 1, agent 2: action \[.*, 0.0\] is out of bounds, expected 2 numbers from -1 to 1"
    with pytest.raises(UsageError, match=text):
        action.check_values("test", actions, None, torch.tensor([True, False]))
    action.check_values("test", actions, None, torch.tensor([False, True]))


def test_bounds_are_float32():
    """0.1 has no float32; the nearest one, which is above it, is not out of bounds."""
    action = Box(1, -0.1, 0.1)
    action.check_values("test", torch.tensor([[[0.1]], [[-0.1]]]), None, torch.tensor([False, False]))


@pytest.mark.parametrize("values", [[[0, 2]], np.array([[0, 2]], np.int32), np.array([[0, 2]], np.uint8)])
def test_integers_from_numpy(values):
    tensor = Discrete(3).tensor("test", values, CPU)
    assert tensor.dtype == torch.int64
    assert tensor.tolist() == [[0, 2]]


@pytest.mark.parametrize("values", [[[0.7, 1.0]], np.ones((1, 2)), np.ones((1, 2), bool), [["a", "b"]]])
def test_what_is_no_integer_is_refused(values):
    with pytest.raises(UsageError, match="test: actions must be numbers that fit into int64, got"):
        Discrete(3).tensor("test", values, CPU)


def test_vectors_from_numpy():
    tensor = Box(1).tensor("test", np.array([[[0.7], [1]]]), CPU)
    assert torch.equal(tensor, torch.tensor([[[0.7], [1.0]]]))
    assert Box(1).tensor("test", [[[1], [0]]], CPU).dtype == torch.float32
    with pytest.raises(UsageError, match="test: actions must be numbers that fit into float32, got <U1"):
        Box(1).tensor("test", [[["a"]]], CPU)


def test_the_descriptions_need_no_torch():
    code = """import sys
from emix.data import Box, Discrete, EnvSpec, fields
spec = EnvSpec("a", 2, Discrete(3), 4, 5, 6)
fields(spec), Box(2).joint_space(3), spec.action.space()
print("torch" in sys.modules)"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "False\n"
