"""Every op at SMAC sizes beside its reference, eager and compiled, and the floor: a copy of the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from emix import ops
from emix.bench.measure import copy_of, device_times, launches, median_times, size_in_bytes

Function = Callable[..., tuple[Any, ...]]

# MMM2's sizes: episodes, steps, agents, actions; members of the ensemble, sampled joint actions, the mixer's width.
B, T, n, A, N, K, E = 32, 120, 10, 18, 10, 100, 32


@dataclass(frozen=True)
class Case:
    """One call of one op, in ``emix.ops`` or in ``emix.ops.reference``."""

    op: str
    shape: str
    tensors: tuple[Any, ...]
    options: dict[str, Any]
    differentiable: tuple[int, ...] = ()  # which of the tensors get a gradient in the backward pass
    peer: Callable[..., Any] | None = None  # what to compare a random op with, whose results cannot be equal

    def function(self, module: Any) -> Function:
        """Return the op of that module, or what is measured in its place: called with the tensors, returns a tuple."""
        function = self.peer if self.peer and module is ops.reference else getattr(module, self.op)

        def call(*tensors: Any) -> tuple[Any, ...]:
            result = function(*tensors, **self.options)
            return result if isinstance(result, tuple) else (result,)

        return call


@dataclass(frozen=True)
class Row:
    """What was measured of a case. Candidates: emix, its peers (eager, and compile if asked for), copy (the floor)."""

    op: str
    shape: str
    direction: str  # forward, or forward and backward
    device_seconds: dict[str, float]  # of a call on the device alone
    call_seconds: dict[str, float]  # of a call from Python; of the floor none on CUDA. On the CPU the same
    emix_launches: int
    eager_launches: int

    def as_json(self) -> dict[str, Any]:
        """Microseconds: of emix, of the floor, and of the peers, their calls beside their device time."""
        device = {name: seconds * 1e6 for name, seconds in self.device_seconds.items()}
        call = {name: seconds * 1e6 for name, seconds in self.call_seconds.items()}
        peers = {name: us for name, us in device.items() if name not in ("emix", "copy")}
        return {
            "op": self.op,
            "case": f"{self.shape}, {self.direction}",
            "device_us": device["emix"],
            "call_us": call["emix"],
            "floor_us": device["copy"],
            "peers": peers | {f"{name}, call": call[name] for name in peers},
            "launches": self.emix_launches,
        }


def cases(device: torch.device) -> Iterator[Case]:
    """The calls that are measured, with random inputs on ``device``."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).to(device)

    def policy(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).softmax(-1).to(device)

    def mask(probability: float, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=g) < probability).to(device)

    sizes = [(32, 60), (B, T), (4096, 128)]
    if device.type == "cuda":  # where the launch no longer counts, and only the bytes do
        sizes += [(1024, 128), (4096, 1024), (262_144, 128)]
    for rows, steps in sizes:
        returns = normal(rows, steps), mask(0.02, rows, steps), normal(rows, steps + 1)
        yield Case("lambda_returns", f"B {rows}, T {steps}", returns, {"gamma": 0.99, "lam": 0.8})
    reward, terminated, value = normal(B, T), mask(0.02, B, T), normal(B, T + 1)
    episodes = f"B {B}, T {T}"
    tree = (reward, terminated, value, normal(B, T + 1), policy(B, T + 1))
    yield Case("tree_backup_returns", f"{episodes}, horizon 5", tree, {"gamma": 0.99, "lam": 0.93, "horizon": 5})
    retrace = (reward, terminated, value, normal(B, T + 1), 2 * policy(B, T + 1))
    yield Case("retrace_returns", episodes, retrace, {"gamma": 0.99, "lam": 0.8})
    yield Case("gae", episodes, (reward, terminated, value), {"gamma": 0.99, "lam": 0.95})

    rows = B * T * n
    members, single = normal(N, rows, A), normal(rows, A)
    avail = mask(0.7, rows, A)
    avail[:, 0] = True
    action = torch.zeros(rows, dtype=torch.int64, device=device)
    by_members, by_rows = f"N {N}, rows {rows:,}, A {A}", f"rows {rows:,}, A {A}"
    yield Case("ensemble_moments", by_members, (members,), {}, differentiable=(0,))
    yield Case("uncertainty_weight", by_members, (members,), {})
    yield Case("explore_logits", by_members, (single, members, avail), {})
    yield Case("bhattacharyya", by_members, (members, avail), {}, differentiable=(0,))
    yield Case("masked_policy", by_rows, (single, avail), {"floor": 0.05}, differentiable=(0,))
    yield Case("policy_terms", by_rows, (single, action, avail, normal(rows, A)), {}, differentiable=(0,))
    yield Case("sample_actions", f"rows 5,760, A 9, K {K}", (normal(5760, 9),), {"samples": K}, peer=_multinomial)
    yield Case("sample_actions", f"{by_rows}, K {K}", (single, avail), {"samples": K}, peer=_multinomial)

    states = f"states {B * T:,}, n {n}"
    weight, bias, uncertainty = policy(B * T, n), normal(B * T), 0.5 + policy(B * T, n, A)
    q, pi = normal(B * T, n, A), policy(B * T, n, A)
    yield Case("linear_mix", states, (normal(B * T, n), weight, bias), {}, differentiable=(0, 1))
    yield Case(
        "expected_linear_mix", f"{states}, A {A}", (q, pi, weight, bias, uncertainty), {}, differentiable=(0, 1, 2)
    )
    taken, w1, b1, w2 = normal(B * T, n), normal(B * T, n, E), normal(B * T, E), normal(B * T, E)
    every = (0, 1, 2, 3, 4)
    yield Case("monotonic_mix", f"{states}, E {E}", (taken, w1, b1, w2, normal(B * T)), {}, differentiable=every)
    yield Case("monotonic_mix_grad", f"{states}, E {E}", (taken, w1, b1, w2), {})
    joint = (reward, terminated, normal(N, B, T + 1, n, A), policy(B, T + 1, n, A))
    actions, mixer = torch.zeros(B, T + 1, n, dtype=torch.int64, device=device), policy(B, T + 1, n)
    target = {"gamma": 0.99, "lam": 0.93, "horizon": 5, "uncertainty_scale": 0.01}
    yield Case("tree_backup_target", f"{episodes}, n {n}, A {A}, N {N}", (*joint, actions, mixer), target)
    members_only = (*joint[:3], actions, mixer)
    on_policy = {"gamma": 0.99, "lam": 0.8, "uncertainty_scale": 0.01}
    yield Case("td_lambda_target", f"{episodes}, n {n}, A {A}, N {N}", members_only, on_policy)

    R, steps, H, obs_dim = 96, 60, 64, 30  # 3m's rows (32 episodes of 3 agents) and steps
    gru = 0.1 * normal(3 * H, H), 0.1 * normal(3 * H, H), normal(3 * H), normal(3 * H)  # w_ih, w_hh, b_ih, b_hh
    sequence = (normal(R, steps, H), normal(R, H), *gru)
    yield Case("gru_sequence", f"R {R}, T {steps}, H {H}", sequence, {}, differentiable=(0, 1, 2, 3, 4, 5))
    last_action = torch.zeros(32, steps, 3, dtype=torch.int64, device=device)
    around = 0.1 * normal(H, obs_dim + 9 + 3), normal(H), *gru, 0.1 * normal(9, H), normal(9)
    agent = (normal(32, steps, 3, obs_dim), last_action, normal(32, 3, H), *around)
    yield Case("agent_sequence", f"B 32, T {steps}, n 3, H {H}", agent, {}, differentiable=tuple(range(3, 11)))

    S, units = 21, 256  # 3m and Ensemble-MIX
    weights = [0.1 * normal(N, S + obs_dim + 3, units), normal(N, units), 0.1 * normal(N, units, units)]
    weights += [normal(N, units), 0.1 * normal(N, units, 10), normal(N, 10)]
    critic = (normal(32, steps, S), normal(32, steps, 3, obs_dim), *weights)
    shape = f"N {N}, B 32, T {steps}, n 3, H {units}"
    yield Case("ensemble_critic", shape, critic, {}, differentiable=tuple(range(2, 8)))

    S, units, m = 48, 64, 3  # 3m and ADER's entropy critics
    hypernets = [0.1 * normal(2, 2 * E + 2 * units, S), normal(2, 2 * E + 2 * units)]
    for inputs, outputs in ((E, m), (units, 3 * E), (units, E * m)):
        hypernets += [0.1 * normal(2, inputs, outputs), normal(2, outputs)]
    shape = f"N 2, states 1,920, n 3, E {E}, m {m}"
    yield Case("monotonic_weights", shape, (normal(32, 60, S), *hypernets), {}, differentiable=tuple(range(1, 9)))

    def small(*shape: int) -> Tensor:
        return 0.25 * normal(*shape)

    joint_actions = torch.randint(A, (K, 180, n), generator=g).byte().to(device)
    marginal = (small(180, n, H), joint_actions, small(n, A, H), small(H, H), small(H), small(H), small(1)[0])
    shape = f"states 180, n {n}, A {A}, K {K}, H {H}-{H}"
    yield Case("marginal_value", shape, marginal, {}, differentiable=(0, 2, 3, 4, 5, 6))
    numbers = normal(4000, 2, 3), small(4000, 2, 3), normal(4000, 2, 3)
    yield Case("gaussian_terms", "rows 8,000, D 3", numbers, {}, differentiable=(0, 1))
    yield Case("tanh_gaussian_sample", "rows 8,000, D 3", numbers[:2], {}, differentiable=(0, 1), peer=_tanh_normal)

    if device.type == "cpu":
        values = [each.clone() for each in weights], weights, [each.square() for each in weights]
        yield Case(
            "rmsprop_step", f"{sum(map(Tensor.numel, weights)):,} weights", values, {"lr": 1e-4, "max_norm": 20.0}
        )


def _multinomial(logits: Tensor, avail: Tensor | None = None, *, samples: int) -> Tensor:
    """What a user would write in place of ``sample_actions``."""
    if avail is not None:
        logits = logits.masked_fill(~avail, -torch.inf)
    return torch.multinomial(logits.softmax(-1), samples, replacement=True)


def _tanh_normal(mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
    """What a user would write in place of ``tanh_gaussian_sample``."""
    normal = torch.distributions.Normal(mean, log_std.exp(), validate_args=False)
    transform = torch.distributions.TanhTransform(cache_size=1)
    squashed = torch.distributions.TransformedDistribution(normal, transform, validate_args=False)
    action = squashed.rsample()
    return action, squashed.log_prob(action).sum(-1)


def measure(case: Case, device: torch.device, *, backward: bool, compiled: bool) -> Row:
    """Check the op against its reference, then time both, each other candidate, and a copy of the same bytes."""
    call = _training_step(case) if backward else partial(_forward, case)
    functions = {"emix": case.function(ops), "eager": case.function(ops.reference)}
    if compiled:
        torch.compiler.reset()
        functions["compile"] = torch.compile(functions["eager"], dynamic=False)
    candidates: dict[str, Callable[[], Any]] = {name: partial(call, function) for name, function in functions.items()}
    found, expected = candidates["emix"](), candidates["eager"]()
    if case.peer is None:
        _check(case, found, expected)
    moved = size_in_bytes(case.tensors) + size_in_bytes(found)
    if backward:  # the gradients that come in, and the inputs once more
        moved += size_in_bytes(case.tensors) + size_in_bytes(found[: -len(case.differentiable)])
    del found, expected  # their graphs would hold what torch adds gradients up with to a stream that is not captured
    on_device = device_times(candidates | {"copy": copy_of(moved, device)}, device)
    return Row(
        case.op,
        case.shape,
        "forward, backward" if backward else "forward",
        on_device,
        median_times(candidates, device) if device.type == "cuda" else on_device,
        launches(candidates["emix"], device),
        launches(candidates["eager"], device),
    )


def _forward(case: Case, function: Function) -> tuple[Any, ...]:
    with torch.no_grad():
        return function(*case.tensors)


def _training_step(case: Case) -> Callable[[Function], tuple[Any, ...]]:
    """A call that returns a function's results and gradients. Leaves and upstream gradients are made beforehand: a
    training step has them from elsewhere.
    """
    tensors = [
        tensor.clone().requires_grad_() if i in case.differentiable else tensor for i, tensor in enumerate(case.tensors)
    ]
    wanted = [tensors[i] for i in case.differentiable]
    upstream = [torch.ones_like(result) for result in _forward(case, case.function(ops))]

    def step(function: Function) -> tuple[Any, ...]:
        results = function(*tensors)
        return (*results, *torch.autograd.grad(results, wanted, upstream))

    return step


def _check(case: Case, found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3, msg=lambda text: f"{case.op}: {text}")
