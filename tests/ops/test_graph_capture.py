"""Every public op, and its backward pass, in a CUDA graph: replays on new inputs have the bits of ordinary calls.

On the CPU the same table is written down by ``tests.tape`` and run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import emix
from emix import ops
from emix.ops import critic
from emix.ops.battle import BattleState, BattleTables, battle_reset, battle_step
from tests.ops import (
    ensemble_cases,
    mixing_cases,
    policy_cases,
    recurrent_cases,
    returns_cases,
    test_critic,
    test_gaussian,
    test_hypernetwork,
    test_marginal,
    test_targets,
)
from tests.tape import Tape

Tensors = dict[str, Tensor]


class Case(NamedTuple):
    """A call of one op."""

    op: str
    id: str
    make: Callable[[int], Tensors]  # the inputs by a seed, on the CPU
    call: Callable[[Tensors, torch.Generator], object]  # a tensor or a tuple of such
    wanted: tuple[str, ...] = ()  # the inputs that get a gradient


def floats(inputs: dict[str, Tensor | None]) -> Tensors:
    """Those that are there, as float32 where they are floating."""
    given = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
    return {key: value.float() if value.is_floating_point() else value for key, value in given.items()}


def returns_case(name: str) -> Case:
    call = partial(returns_cases.make_call, name, batch=5, steps=40, horizon=3)
    numbers, names = call(0).numbers, list(call(0).tensors)

    def make(seed: int) -> Tensors:
        return floats({**call(seed).tensors, **call(seed).ends})

    def run(x: Tensors, _: torch.Generator) -> Tensor:
        rest = {key: value for key, value in x.items() if key not in names}
        return getattr(ops, name)(*(x[key] for key in names), **rest, **numbers, differentiable=True)

    return Case(name, "", make, run, tuple(key for key in names if key != "terminated"))


def target_case(name: str) -> Case:
    call = partial(test_targets.make_inputs, name, batch=3, steps=20, members=10, scale=0.1)
    numbers = {key: value for key, value in call(0).items() if not isinstance(value, Tensor)}
    return Case(name, "", lambda seed: floats(call(seed)), lambda x, _: getattr(ops, name)(**x, **numbers))


def mixing_case(name: str) -> Case:
    def make(seed: int) -> Tensors:
        return floats(mixing_cases.make_inputs(name, seed, (8, 20), 5, 9))

    wanted = tuple(make(0)) if name in mixing_cases.DIFFERENTIABLE else ()
    op = mixing_cases.op_of(name)
    return Case(op, name.removeprefix(op).strip(), make, lambda x, _: getattr(ops, op)(**x), wanted)


def recurrent_case(name: str, precision: str) -> Case:
    def make(seed: int) -> Tensors:
        if name == "gru_sequence":
            return floats(recurrent_cases.gru_inputs(seed, 20, 9, 30, 64))
        return floats(recurrent_cases.agent_inputs(seed, 4, 9, 5, 30, 9, 64))

    wanted = tuple(key for key in make(0) if key != "last_action")
    return Case(name, precision, make, lambda x, _: getattr(ops, name)(**x, precision=precision), wanted)


def ensemble_inputs(seed: int) -> Tensors:
    case = ensemble_cases.make_case(seed, 10, (40,), 9)
    return floats({"logits": case.logits, "q": case.q, "avail": case.avail})


def policy_inputs(seed: int, floor: float = 0.05) -> Tensors:
    case = policy_cases.make_rows(seed, (70, 9))
    rows = {"logits": case.logits, "avail": case.avail, "action": case.action, "value": case.value}
    return floats({**rows, "floor": torch.tensor(floor + 0.01 * seed)})


def rmsprop_inputs(seed: int) -> Tensors:
    g = torch.Generator().manual_seed(seed)
    shapes = {"weight": (30, 40), "bias": (40,)}
    inputs = {f"{key}.{what}": torch.randn(size, generator=g) for what in "pg" for key, size in shapes.items()}
    return inputs | {f"{key}.s": torch.rand(size, generator=g) for key, size in shapes.items()}


def rmsprop(x: Tensors, _: torch.Generator) -> Tensor:
    parameters, grads, squares = ([x[f"{key}.{what}"] for key in ("weight", "bias")] for what in "pgs")
    return ops.rmsprop_step(parameters, grads, squares, lr=1e-2, max_norm=1.0)


def battle_case(name: str) -> Case:
    env = emix.make("battle/2s3z", num_envs=6, checked=False)
    layout = env.tables.layout

    def make(seed: int) -> Tensors:
        env = emix.make("battle/2s3z", num_envs=6, checked=False, seed=seed)
        step = env.reset()
        for _ in range(3 + seed):
            step = env.step(step.avail.int().argmax(-1))
        last = step.avail.shape[-1] - 1 - step.avail.flip(-1).int().argmax(-1)
        given = {"actions": last} if name == "battle_step" else {"where": torch.arange(6) % 2 == seed % 2}
        return {**env.battles._asdict(), **given, **env.tables._replace(layout=torch.zeros(0))._asdict()}

    def run(x: Tensors, _: torch.Generator) -> tuple[Tensor, ...]:
        state, tables = BattleState(x["units"], x["minds"], x["clock"]), BattleTables(**{k: x[k] for k in fields})
        tables = tables._replace(layout=layout)
        if name == "battle_step":
            return battle_step(state, x["actions"], tables)
        return battle_reset(state, x["where"], tables, seed=3)

    fields = BattleTables._fields
    return Case(name, "", make, run)


def cases() -> Iterator[Case]:
    yield from map(returns_case, returns_cases.NAMES)
    yield from map(target_case, test_targets.NAMES)
    yield from map(mixing_case, mixing_cases.NAMES)
    for name in recurrent_cases.NAMES:
        yield from (recurrent_case(name, precision) for precision in ("float32", "tf32", "bf16"))
    critics = Case(
        "ensemble_critic",
        "",
        lambda seed: floats(test_critic.make_inputs(seed, (4, 9), N=3, S=20, O=30, n=3, H=64, A=9)),
        lambda x, _: ops.ensemble_critic(**x),
        tuple(test_critic.make_inputs(0)),
    )
    yield critics
    yield critics._replace(id="of torch's products", call=lambda x, _: critic._products(**x))
    for layers, widths in (("one layer", None), ("two layers", (64, 64))):
        yield Case(
            "monotonic_weights",
            layers,
            lambda seed, widths=widths: floats(test_hypernetwork.make_inputs(seed, (4, 9), S=20, E=32, widths=widths)),
            lambda x, _: tuple(ops.monotonic_weights(**x)),
            tuple(test_hypernetwork.make_inputs(0, widths=widths)),
        )
    normal = test_gaussian.make_inputs
    wanted = ("mean", "log_std")
    yield Case(
        "gaussian_terms", "", lambda seed: floats(normal(seed)), lambda x, _: tuple(ops.gaussian_terms(**x)), wanted
    )
    for name in test_gaussian.SAMPLES:
        yield Case(
            name,
            "",
            lambda seed: {key: floats(normal(seed))[key] for key in wanted},
            lambda x, g, name=name: tuple(getattr(ops, name)(**x, generator=g)),
            wanted,
        )
    marginal = test_marginal.make_inputs
    for numbers in (False, True):
        yield Case(
            "marginal_value",
            "of numbers" if numbers else "",
            lambda seed, numbers=numbers: floats(marginal(seed, (2, 3), K=6, A=9, H=64, H2=32, numbers=numbers)),
            lambda x, _: ops.marginal_value(**x),
            ("first", "w_action", "w_hidden", "b_hidden", "w_head", "b_head"),
        )
    yield Case(
        "sampled_marginal_value",
        "",
        lambda seed: floats(test_marginal.sampled_inputs(seed)),
        lambda x, g: tuple(ops.sampled_marginal_value(**x, samples=20, generator=g)),
    )
    for detach in (True, False):
        yield Case(
            "bhattacharyya",
            "mean detached" if detach else "",
            ensemble_inputs,
            lambda x, _, detach=detach: ops.bhattacharyya(x["q"], x["avail"], detach),
            ("q",),
        )
    yield Case("ensemble_moments", "", ensemble_inputs, lambda x, _: ops.ensemble_moments(x["q"]), ("q",))
    yield Case("uncertainty_weight", "", ensemble_inputs, lambda x, _: ops.uncertainty_weight(x["q"], 0.3))
    yield Case("explore_logits", "", ensemble_inputs, lambda x, _: ops.explore_logits(**x, bonus=0.5))
    yield Case(
        "explore_actions", "", ensemble_inputs, lambda x, g: ops.explore_actions(**x, bonus=0.5, floor=0.1, generator=g)
    )
    yield Case(
        "masked_policy",
        "",
        policy_inputs,
        lambda x, _: ops.masked_policy(x["logits"], x["avail"], x["floor"]),
        ("logits",),
    )
    yield Case("policy_terms", "", policy_inputs, lambda x, _: ops.policy_terms(**x), ("logits", "value"))
    for samples in (None, 5):
        yield Case(
            "sample_actions",
            f"{samples} samples",
            policy_inputs,
            lambda x, g, samples=samples: ops.sample_actions(
                x["logits"], x["avail"], floor=x["floor"], samples=samples, generator=g
            ),
        )
    yield Case("rmsprop_step", "", rmsprop_inputs, rmsprop)
    yield from map(battle_case, ("battle_step", "battle_reset"))


CASES = list(cases())


def test_no_op_is_missing() -> None:
    functions = {name for name in ops.__all__ if name.islower() and name != "reference"}
    assert {case.op for case in CASES} == functions | {"battle_step", "battle_reset"}


class Cuda:
    """A CUDA graph, as the tape is used."""

    def __init__(self, generator: torch.Generator) -> None:
        self.graph, self.generator = torch.cuda.CUDAGraph(), generator

    def record(self, call: Callable[[], list[Tensor]]) -> Callable[[], list[Tensor]]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call()
        torch.cuda.current_stream().wait_stream(side)
        self.graph.register_generator_state(self.generator)
        with torch.cuda.graph(self.graph):
            results = call()
        torch.cuda.synchronize()  # a capture sets the generator's place on its own stream

        def replay() -> list[Tensor]:
            self.graph.replay()
            return results

        return replay


def place(case: Case, seed: int, device: str) -> Tensors:
    inputs = {key: value.to(device, copy=True) for key, value in case.make(seed).items()}
    return {key: value.requires_grad_() if key in case.wanted else value for key, value in inputs.items()}


def outcome(case: Case, inputs: Tensors, generator: torch.Generator) -> list[Tensor]:
    """Results and gradients."""
    results = case.call(inputs, generator)
    results = list(results) if isinstance(results, tuple) else [results]
    if not case.wanted:
        return results
    upstream = [torch.ones_like(each) for each in results]
    return [*results, *torch.autograd.grad(results, [inputs[key] for key in case.wanted], upstream)]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.op} {case.id}".strip() for case in CASES])
def test_replays_are_calls(device: str, case: Case) -> None:
    """Compared are results, gradients, and the inputs afterwards: some ops change theirs."""
    if device == "cuda" and case.id in ("tf32", "bf16") and torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this GPU has no matrix units for tf32 and bf16")
    static, generator = place(case, 0, device), torch.Generator(device)
    recorder = Cuda(generator) if device == "cuda" else Tape()
    replay = recorder.record(lambda: outcome(case, static, generator))
    replay()  # the tape's first is what it recorded
    seen = []
    for seed in (1, 2, 1):
        fresh = place(case, seed, device)
        with torch.no_grad():
            for key, value in static.items():
                value.copy_(fresh[key])
        generator.manual_seed(seed)
        found = [each.clone() for each in (*replay(), *static.values())]
        generator.manual_seed(seed)
        expected = [*outcome(case, fresh, generator), *fresh.values()]
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
        seen.append(found[0])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
