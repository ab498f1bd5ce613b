"""Random calls of the ops: none may crash, hang, give a wrong answer or refuse with a sentence that names nothing."""

from __future__ import annotations

import inspect
import re
from copy import copy
from typing import Any

import torch
from torch import Tensor

from emix import ops
from tests.fuzz.op_calls import FLOATS, Call, draw_call
from tests.fuzz.watch import play, watch
from tests.ops.every_op import OPS

LONGEST = 400  # letters of a sentence that one reads
ENDS = ("crash", "hang")
LOOSE = {torch.float16, torch.bfloat16}


def run(seconds: float, seed: int) -> dict[str, int]:
    """Make random calls for so long: how many there were, how many ended their process (``crashes``), took too long
    (``hangs``), were refused by no sentence that names an argument (``unclear``), or answered wrongly (``wrong``)."""
    found = watch("tests.fuzz.ops", seconds, seed)
    for fault in found.faults:
        print(fault)
    ended = {kind: sum(count for what, count in found.counts.items() if what.startswith(kind)) for kind in ENDS}
    others = {what: found.counts[what] for what in ("answered", "refused", "unclear", "wrong")}
    return {"calls": found.counts.total(), "crashes": ended["crash"], "hangs": ended["hang"], **others}


def case(seed: int, number: int) -> tuple[str, str | None]:
    """What call ``number`` came to, and what is wrong with that."""
    call = draw_call(seed, number)
    before = copied(call.arguments)
    try:
        results = outcome(call.function()(**call.arguments))
    except Exception as error:
        return judge_refusal(call, error)
    fault = judge_results(call, before, results)
    return ("wrong", f"{shown(call)}: {fault}") if fault else ("answered", None)


def outcome(results: Any) -> list[Tensor | None]:
    return list(results) if isinstance(results, tuple) else [results]


def copied(value: Any) -> Any:
    """The arguments as they are before the call, which may change them."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad) if value.layout == torch.strided else value
    if isinstance(value, list):
        return [copied(each) for each in value]
    return {key: copied(each) for key, each in value.items()} if isinstance(value, dict) else copy(value)


def judge_refusal(call: Call, error: Exception) -> tuple[str, str | None]:
    text = str(error)
    if not call.wrong:
        return "wrong", f"{shown(call)}: a right call is refused: {type(error).__name__}: {text[:LONGEST]}"
    names = {*call.arguments, *inspect.signature(call.function()).parameters}
    named = any(re.search(rf"\b{name}\b", text) for name in names)
    clear = isinstance(error, ValueError | TypeError) and named and len(text) < LONGEST and "\n" not in text
    return ("refused", None) if clear else ("unclear", f"{shown(call)}: {type(error).__name__}: {text[:LONGEST]!r}")


def judge_results(call: Call, before: dict[str, Any], results: list[Tensor | None]) -> str | None:
    if any(each is not None and each.is_meta for each in results):
        return judge_meta(call, before, results)
    if call.name not in OPS or OPS[call.name].draws or has_no_reference(call):
        return None  # rmsprop's, the battle's and the draws' numbers have tests of their own
    reference = {key: widened(value) for key, value in before.items() if key != "differentiable"}
    try:
        expected = outcome(getattr(ops.reference, call.name)(**reference))
    except Exception as error:
        return f"answered, where the reference says {type(error).__name__}: {str(error)[:200]}"
    for i, (ours, theirs) in enumerate(zip(results, expected, strict=True)):
        if ours is not None and (fault := difference(ours, theirs, 1e-4)):
            return f"result {i} is wrong: {fault}"
    return judge_gradients(call, reference, results, expected)


def has_no_reference(call: Call) -> bool:
    """Whether the reference cannot say what comes of that: masks in types that it cannot turn into bool, actions that
    there are not, a floor that is none."""
    tensors = {key: each for key, each in call.arguments.items() if isinstance(each, Tensor)}
    if any(each.dtype in (torch.uint16, torch.float8_e4m3fn) for each in tensors.values()):
        return True
    if "floor" in tensors and not 0 <= tensors["floor"] <= 1:
        return True
    kinds = {key: OPS[call.name].inputs[key].kind for key in tensors if key in OPS[call.name].inputs}
    if "w_action" in tensors:
        choices = tensors["w_action"].shape[-2]
    else:
        choices = tensors.get("logits", tensors.get("q", torch.empty(0))).shape[-1]
    return any(
        kind == "a" and each.numel() and not 0 <= each.min() <= each.max() < choices
        for key, kind in kinds.items()
        for each in [tensors[key]]
    )


def judge_gradients(
    call: Call, reference: dict[str, Any], results: list[Tensor | None], expected: list[Tensor | None]
) -> str | None:
    leaves = {key: each for key, each in call.arguments.items() if isinstance(each, Tensor) and each.requires_grad}
    there = [each for each in results if each is not None]
    if not leaves or not any(each.requires_grad for each in there) or not all(each.isfinite().all() for each in there):
        return None  # a step that no gradient reaches is skipped, and NaN times 0 is NaN elsewhere
    if any(each.isnan().any() for each in reference.values() if isinstance(each, Tensor)):
        return None  # likewise
    ours = gradients(results, list(leaves.values()))
    theirs = gradients(expected, [reference[key] for key in leaves])
    for (key, leaf), a, b in zip(leaves.items(), ours, theirs, strict=True):
        if fault := difference(a, b, 3e-2 if leaf.dtype in LOOSE else 1e-3):
            return f"the gradient of {key} is wrong: {fault}"
    return None


def gradients(results: list[Tensor | None], leaves: list[Tensor]) -> list[Tensor]:
    loss = sum(each.double().sin().sum() for each in results if each is not None)
    if not loss.requires_grad:  # without a step, say
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if each is None else each for each, leaf in zip(found, leaves, strict=True)]


def judge_meta(call: Call, before: dict[str, Any], results: list[Tensor | None]) -> str | None:
    """Shapes and types are those of a call on the CPU, which must not be refused either."""
    on_cpu = {key: filled(value) for key, value in before.items()}
    try:
        expected = outcome(call.function()(**on_cpu))
    except Exception as error:
        return f"answered on meta tensors, but on the CPU {type(error).__name__}: {str(error)[:200]}"
    for i, (a, b) in enumerate(zip(results, expected, strict=True)):
        if (a is None) != (b is None) or (a is not None and (a.shape, a.dtype) != (b.shape, b.dtype)):
            return f"result {i} on meta tensors is {a}, on the CPU {b}"
    return None


def filled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.zeros(value.shape, dtype=value.dtype).requires_grad_(value.requires_grad)
    if isinstance(value, tuple):
        return type(value)(*(filled(each) for each in value)) if hasattr(value, "_fields") else value
    return [filled(each) for each in value] if isinstance(value, list) else value


def widened(value: Any) -> Any:
    """What the reference takes in its place: float64, bool and int64."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return float(value)
    if not isinstance(value, Tensor):
        return value
    wide = value.detach().to(torch.float64 if value.dtype in FLOATS else value.dtype)
    return wide.requires_grad_(value.requires_grad)


def difference(ours: Tensor, theirs: Tensor, tolerance: float) -> str | None:
    if ours.shape != theirs.shape or ours.device != theirs.device:
        return f"{list(ours.shape)} on {ours.device}, expected {list(theirs.shape)} on {theirs.device}"
    ours, theirs = ours.detach().double(), theirs.detach().double()
    scale = 1 + theirs[theirs.isfinite()].abs().max().item() if theirs.isfinite().any() else 1.0
    if torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        return None
    worst = (ours - theirs).abs().flatten().nan_to_num(torch.inf).argmax()
    return f"{ours.flatten()[worst].item()}, expected {theirs.flatten()[worst].item()}"


def shown(call: Call) -> str:
    def form(value: Any) -> str:
        if isinstance(value, Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        return repr(value)[:40] if not isinstance(value, tuple) else type(value).__name__

    arguments = ", ".join(f"{key}={form(value)}" for key, value in call.arguments.items())
    return f"{call.name}({arguments}) on {call.device}" + (f", wrong: {', '.join(call.wrong)}" if call.wrong else "")


if __name__ == "__main__":
    torch.set_num_threads(1)
    play(case)
