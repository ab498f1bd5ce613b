"""What learners are made of: optimisers as torch's, targets that follow, schedules, and the list of all of it."""

import copy

import pytest
import torch
from torch import nn

from emix.errors import UsageError
from emix.learners.optimiser import Optimiser
from emix.learners.parts import Parts, Schedule, Target

TORCH = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}


def networks(device="cpu", dtype=torch.float32):
    torch.manual_seed(0)
    return nn.ModuleDict({"used": nn.Linear(5, 30), "unused": nn.Linear(2, 2)}).to(device, dtype)


@pytest.mark.parametrize(
    ("kind", "clip", "options"),
    [
        ("rmsprop", 200.0, {"lr": 1e-2, "alpha": 0.99, "eps": 1e-5}),
        ("rmsprop", 200.0, {"lr": 1e-2}),
        ("rmsprop", 200.0, {"lr": 1e-3, "momentum": 0.9}),
        ("rmsprop", 200.0, {"lr": 1e-2, "centered": True}),
        ("rmsprop", 400.0, {"lr": 1e-2, "weight_decay": 0.1}),
        ("adam", 430.0, {"lr": 1e-2, "betas": (0.8, 0.9)}),
        ("sgd", 200.0, {"lr": 1e-4, "momentum": 0.5}),
        ("rmsprop", None, {"lr": 1e-2}),
    ],
)
def test_descend_is_torchs_clipping_and_step_for_every_keyword(device, kind, clip, options):
    ours = networks(device)
    theirs = copy.deepcopy(ours)
    optimiser = Optimiser(ours, kind, clip=clip, **options)
    torchs = TORCH[kind](theirs.parameters(), **options)
    for step in range(10):
        x = torch.randn(64, 5, device=device)
        if step == 5:  # torch's optimiser goes on from the state that ours leaves, and ours from torch's
            a, b = copy.deepcopy(optimiser.torch.state_dict()), copy.deepcopy(torchs.state_dict())
            optimiser.torch.load_state_dict(b)
            torchs.load_state_dict(a)
        norm = optimiser.descend(ours["used"](x).square().sum())
        torchs.zero_grad()
        theirs["used"](x).square().sum().backward()
        torch.testing.assert_close(nn.utils.clip_grad_norm_(theirs.parameters(), clip or torch.inf), norm)
        torchs.step()
        torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))
        gradients = ([p.grad for p in net["used"].parameters()] for net in (ours, theirs))
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)  # of weights that rounding tells apart


def test_a_sum_and_its_count_are_a_mean():
    one, other = networks(), networks()
    x = torch.randn(7, 5)
    Optimiser(one, "sgd", lr=0.1).descend(one["used"](x).square().sum(), torch.tensor(7))
    Optimiser(other, "sgd", lr=0.1).descend(other["used"](x).square().sum() / 7)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_modules_are_groups_with_keywords_of_their_own():
    ours = networks()
    theirs = copy.deepcopy(ours)
    optimiser = Optimiser(dict(ours), "rmsprop", lr=1e-2, clip=3.0, groups={"unused": {"lr": 1e-3}})
    torchs = torch.optim.RMSprop(
        [{"params": theirs["used"].parameters()}, {"params": theirs["unused"].parameters(), "lr": 1e-3}], lr=1e-2
    )
    for _ in range(3):
        x, y = torch.randn(4, 5), torch.randn(4, 2)
        optimiser.descend(ours["used"](x).sum() + ours["unused"](y).square().sum())
        torchs.zero_grad()
        (theirs["used"](x).sum() + theirs["unused"](y).square().sum()).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 3.0)
        torchs.step()
        torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=0, atol=0)
    assert {name.split(".")[0] for name in optimiser.state_dict()} == {"used", "unused"}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("rmspropp", {}, "optimiser expects one of adam, rmsprop, sgd, got 'rmspropp'"),
        ("rmsprop", {"betas": (0.9, 0.99)}, "optimiser rmsprop: .*betas"),
    ],
)
def test_an_optimiser_that_torch_does_not_have_is_refused(kind, options, message):
    with pytest.raises(UsageError, match=message):
        Optimiser(networks(), kind, **options)


@pytest.mark.parametrize(("kind", "options"), [("rmsprop", {"alpha": 0.9}), ("adam", {}), ("sgd", {"momentum": 0.9})])
def test_a_step_where_nothing_is_real_changes_nothing(kind, options):
    ours, theirs = networks(), networks()
    x = torch.randn(7, 5)
    undoing, plain = (Optimiser(each, kind, lr=0.1, clip=1.0, **options) for each in (ours, theirs))
    yes, no = torch.tensor(True), torch.tensor(False)
    norms = []
    for real in (yes, no, yes):
        norm = undoing.descend_where(real, ours["used"](x).square().sum())
        if real:
            norms.append((norm, plain.descend(theirs["used"](x).square().sum())))
    assert all(torch.equal(*pair) for pair in norms)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    first, second = undoing.state_dict(), plain.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


class Three:
    """A group of three processes with the same data."""

    first = True

    def __init__(self):
        self.calls = 0

    def sum_(self, tensors):
        self.calls += 1
        for tensor in tensors:
            tensor.mul_(3)

    def agree(self, value):
        return value


def test_gradients_of_sums_and_counts_are_reduced_over_the_group():
    one, other = networks(), networks()
    x, mask = torch.randn(7, 5), torch.tensor([True] * 4 + [False] * 3)
    alone, together = Optimiser(one, "sgd", lr=0.1), Optimiser(other, "sgd", lr=0.1)
    group = Three()
    Parts(optimiser=together).join(group)
    alone.descend(alone.mean(one["used"](x).sum(-1), mask))
    together.descend(together.mean(other["used"](x).sum(-1), mask))
    assert group.calls == 2  # the count, and all gradients at once
    torch.testing.assert_close(list(one.parameters()), list(other.parameters()))


def test_a_target_becomes_its_live_networks_when_due(device):
    live = networks(device)
    target = Target(live, every=10)
    for units, renewed in ((4, False), (4, False), (torch.tensor(4, device=device), True), (9, False), (1, True)):
        with torch.no_grad():
            live["used"].weight += 1
        place = target.module["used"].weight.data_ptr()
        target.follow(units)
        assert torch.equal(live["used"].weight, target.module["used"].weight) == renewed
        assert target.module["used"].weight.data_ptr() == place  # which a CUDA graph knows
    assert not any(parameter.requires_grad for parameter in target.module.parameters())
    assert (int(target.units), int(target.renewed_at)) == (22, 22)


def test_a_soft_target_comes_nearer_at_every_call():
    live = nn.BatchNorm1d(3)
    target = Target(live, tau=0.25)
    with torch.no_grad():
        live.weight.fill_(5.0)
        live.num_batches_tracked.fill_(7)
    for expected in (2.0, 2.75):
        target.follow()
        torch.testing.assert_close(target.module.weight, torch.full((3,), expected))
    assert target.module.num_batches_tracked == 7  # a whole number does not come nearer


@pytest.mark.parametrize("values", [{}, {"every": 5, "tau": 0.1}, {"every": 0}, {"tau": 0.0}, {"tau": 1.5}])
def test_a_target_needs_one_rule(values):
    with pytest.raises(UsageError, match="a target expects every"):
        Target(networks(), **values)


def test_a_schedule_is_linear_and_its_tensor_keeps_its_place():
    schedule = Schedule(0.9, 0.1, 100, device=torch.device("cpu"))
    place, seen = schedule.tensor.data_ptr(), []
    for _ in range(5):
        seen.append(schedule.value)
        assert schedule.tensor.item() == schedule.value
        schedule.advance(40)
    assert seen == pytest.approx([0.9, 0.58, 0.26, 0.1, 0.1])
    assert schedule.tensor.data_ptr() == place


def make_parts(seed, device="cpu"):
    torch.manual_seed(seed)
    net = nn.Linear(3, 2).to(device)
    parts = Parts(
        net=net,
        optimiser=Optimiser(net, "adam", lr=1e-2),
        target=Target(net, every=2),
        epsilon=Schedule(1.0, 0.0, 10, device=torch.device(device)),
        count=torch.zeros(2, dtype=torch.int64, device=device),
        generator=torch.Generator(device).manual_seed(seed),
    )
    return net, parts


def go_on(net, parts):
    each = parts.parts
    x = torch.randn(4, 3, generator=each["generator"], device=net.weight.device)
    each["optimiser"].descend(net(x).square().sum())
    each["target"].follow()
    each["epsilon"].advance(3)
    each["count"] += 1


def test_parts_go_on_bit_for_bit_from_what_they_saved(device):
    net, parts = make_parts(0, device)
    for _ in range(3):
        go_on(net, parts)
    other, restored = make_parts(1, device)
    go_on(other, restored)  # its own moments must go
    restored.load_state_dict({name: value.clone() for name, value in parts.state_dict().items()}, "a test")
    for _ in range(2):
        go_on(net, parts)
        go_on(other, restored)
    one, two = parts.state_dict(), restored.state_dict()
    assert list(one) == list(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert parts.values() == restored.values() == {"epsilon": 0.0}


def test_foreign_state_is_refused_and_changes_nothing():
    net, parts = make_parts(0)
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    for change in ({"more": torch.zeros(1)}, {"net.weight": torch.zeros(9, 9)}):
        with pytest.raises(UsageError, match=r"saved state: .* does not fit; expected that of smix on battle/3m"):
            parts.load_state_dict(before | change, "smix on battle/3m")
    del before["count"]
    with pytest.raises(UsageError, match="saved state: count does not fit"):
        parts.load_state_dict(before, "smix on battle/3m")
    assert all(torch.equal(value, before[name]) for name, value in parts.state_dict().items() if name in before)
    assert net.weight is parts.parts["net"].weight


def test_parts_travel_as_bytes():
    net, parts = make_parts(0)
    go_on(net, parts)
    other, receiver = make_parts(1)
    go_on(other, receiver)
    flat = parts.pack()
    assert flat.dtype == torch.uint8
    receiver.unpack(flat)
    one, two = parts.state_dict(), receiver.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(ValueError, match=r"flat expects .* bytes"):
        receiver.unpack(flat[:-1])
