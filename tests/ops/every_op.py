"""Every op as a row of a table, for tests of what they all share: sizes of 0, transforms, compilation, meta tensors,
random calls.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor

from emix import ops

SIZES = {"B": 3, "T": 4, "n": 2, "A": 5, "N": 7, "E": 6, "R": 3, "I": 3, "H": 4, "O": 3, "S": 2, "K": 4}


class Input(NamedTuple):
    """A tensor that an op takes. kind: f floats, p positive floats, m mask, a actions, l last actions."""

    kind: str
    axes: tuple[str, ...]  # sums of sizes
    optional: bool

    def shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        return tuple(eval(axis, {}, sizes) for axis in self.axes if axis)  # of this file's own text


class Op(NamedTuple):
    """inputs: by name; numbers: the other arguments, each with some choices; gradient: whether it has one."""

    inputs: dict[str, Input]
    numbers: dict[str, tuple[Any, ...]]
    gradient: bool = True
    draws: bool = False


def op(inputs: str, *, gradient: bool = True, draws: bool = False, **numbers: tuple[Any, ...]) -> Op:
    """A row. inputs: ``name=kind[axes]``, with a ``?`` behind it where it may be None."""
    found = re.findall(r"(\w+)=(\w)\[([^]]*)\](\?)?", inputs)
    table = {name: Input(kind, tuple(axes.split(",")), bool(mark)) for name, kind, axes, mark in found}
    return Op(table, numbers, gradient, draws)


GAMMA, LAM, ENDS = (0.9, 1.0), (0.8, 1.0), "truncated=m[B,T]? valid=m[B,T]?"
GRU = "w_ih=f[3*H,{}] w_hh=f[3*H,H] b_ih=f[3*H] b_hh=f[3*H]"
VALUES = "reward=f[B,T] terminated=m[B,T] q=f[B,T+1,n] v=f[B,T+1]"
TARGET = "reward=f[B,T] terminated=m[B,T] q=f[N,B,T+1,n,A] {} actions=a[B,T+1,n] weight=p[B,T+1,n] bias=f[B,T+1]? "

OPS: dict[str, Op] = {
    "linear_mix": op("q=f[B,T,n] weight=p[B,T,n] bias=f[B,T]?"),
    "expected_linear_mix": op(
        "q=f[B,T,n,A] pi=p[B,T,n,A] weight=p[B,T,n] bias=f[B,T]? uncertainty=f[B,T,n,A]?",
    ),
    "monotonic_mix": op("q=f[B,T,n] w1=f[B,T,n,E] b1=f[B,T,E] w2=f[B,T,E] v=f[B,T]"),
    "monotonic_mix_grad": op("q=f[B,T,n] w1=f[B,T,n,E] b1=f[B,T,E] w2=f[B,T,E] weight=f[B,T]?", gradient=False),
    "masked_policy": op("logits=f[B,n,A] avail=m[B,n,A]?", floor=(0.0, 0.3)),
    "policy_terms": op("logits=f[B,n,A] action=a[B,n] avail=m[B,n,A]? value=f[B,n,A]?", floor=(0.0, 0.3)),
    "ensemble_moments": op("q=f[N,B,A]"),
    "uncertainty_weight": op("q=f[N,B,A]", gradient=False, scale=(0.01, 1.0)),
    "explore_logits": op("logits=f[B,A] q=f[N,B,A] avail=m[B,A]?", gradient=False, bonus=(0.001, 0.5)),
    "bhattacharyya": op("q=f[N,B,A] avail=m[B,A]?", detach_mean=(True, False)),
    "trace_returns": op(f"{VALUES} trace=p[B,T+1,n] {ENDS}", gamma=GAMMA, horizon=(None, 2)),
    "lambda_returns": op(f"reward=f[B,T,n] terminated=m[B,T] value=f[B,T+1] {ENDS}", gamma=GAMMA, lam=LAM),
    "n_step_returns": op(f"reward=f[B,T] terminated=m[B,T] value=f[B,T+1] {ENDS}", gamma=GAMMA, n=(2, 1)),
    "tree_backup_returns": op(f"{VALUES} pi=p[B,T+1,n] {ENDS}", gamma=GAMMA, lam=LAM, horizon=(None, 2)),
    "q_lambda_returns": op(f"{VALUES} {ENDS}", gamma=GAMMA, lam=LAM),
    "retrace_returns": op(f"{VALUES} ratio=p[B,T+1,n] {ENDS}", gamma=GAMMA, lam=LAM),
    "gae": op(f"reward=f[B,T] terminated=m[B,T] value=f[B,T+1,n] {ENDS}", gamma=GAMMA, lam=LAM),
    "tree_backup_target": op(
        TARGET.format("pi=p[B,T+1,n,A]") + ENDS,
        gradient=False,
        gamma=GAMMA,
        lam=LAM,
        horizon=(None, 2),
        uncertainty_scale=(0.1, None),
    ),
    "td_lambda_target": op(
        TARGET.format("") + ENDS, gradient=False, gamma=GAMMA, lam=LAM, uncertainty_scale=(0.1, None)
    ),
    "gru_sequence": op("x=f[R,T,I] h0=f[R,H]? " + GRU.format("I")),
    "agent_sequence": op(
        "obs=f[B,T,n,O] last_action=l[B,T,n] h0=f[B,n,H]? w_encode=f[H,O+A+n] b_encode=f[H] "
        + GRU.format("H")
        + " w_head=f[A,H] b_head=f[A]"
    ),
    "ensemble_critic": op(
        "state=f[B,S] obs=f[B,n,O] w_encode=f[N,S+O+n,H] b_encode=f[N,H] w_hidden=f[N,H,H] b_hidden=f[N,H] "
        "w_head=f[N,H,A+1] b_head=f[N,A+1] actions=a[B,n]?"
    ),
    "monotonic_weights": op(
        "state=f[B,S] w_first=f[N,K+K+H+I,S] b_first=f[N,K+K+H+I] w_v=f[N,K,A] b_v=f[N,A] "
        "w_w1=f[N,H,n*K] b_w1=f[N,n*K] w_w2=f[N,I,K*A] b_w2=f[N,K*A]"
    ),
    "gaussian_terms": op("mean=f[B,n,I] log_std=f[B,n,I] action=f[B,n,I]"),
    "marginal_value": op(
        "first=f[B,n,H] actions=a[K,B,n] w_action=f[n,A,H] w_hidden=f[H,E] b_hidden=f[E] w_head=f[E] b_head=f[]"
    ),
    "sample_actions": op("logits=f[B,n,A] avail=m[B,n,A]?", draws=True, gradient=False, samples=(None, 3)),
    "explore_actions": op("logits=f[B,A] q=f[N,B,A] avail=m[B,A]?", draws=True, gradient=False, floor=(0.0, 0.3)),
}
NAMES = tuple(name for name, row in OPS.items() if not row.draws)
DIFFERENTIABLE = tuple(name for name, row in OPS.items() if row.gradient)


def make_tensor(given: Input, sizes: dict[str, int], g: torch.Generator, device: str = "cpu") -> Tensor:
    """An input with numbers, a leaf in float64 where a gradient could be asked for."""
    shape = given.shape(sizes)
    if given.kind in "al":
        return torch.randint(0, max(1, sizes["A"]) + (given.kind == "l"), shape, generator=g).to(device)
    if given.kind == "m":
        return (torch.rand(shape, generator=g) < 0.6).to(device)
    draw = torch.rand if given.kind == "p" else torch.randn
    return draw(shape, generator=g, dtype=torch.float64).to(device).requires_grad_()


def make_inputs(
    name: str, zeros: tuple[str, ...] = (), device: str = "cpu", seed: int = 0, without: tuple[str, ...] = ()
) -> dict[str, Tensor | None]:
    """The op's inputs, of which those named in ``without`` are None; the sizes named in ``zeros`` are 0."""
    g = torch.Generator().manual_seed(seed)
    sizes = {size: 0 if size in zeros else value for size, value in SIZES.items()}
    given = {key: make_tensor(each, sizes, g, device) for key, each in OPS[name].inputs.items()}
    return {key: None if key in without else tensor for key, tensor in given.items()}


def sizes_of(name: str) -> list[str]:
    """The sizes that the op's inputs have."""
    axes = " ".join(axis for each in OPS[name].inputs.values() for axis in each.axes)
    return sorted(set(re.findall("[A-Za-z]", axes)))


def run(name: str, inputs: dict[str, Any], module: Any = ops, **numbers: Any) -> tuple[Tensor, ...]:
    """The op's results that are there, with a gradient where it has one. numbers: other than the first choices."""
    own = {"differentiable": True} if module is ops and is_return(name) else {}
    chosen = {key: choices[0] for key, choices in OPS[name].numbers.items()} | numbers
    results = getattr(module, name)(**inputs, **chosen, **own)
    return tuple(each for each in results if each is not None) if isinstance(results, tuple) else (results,)


def is_return(name: str) -> bool:
    return OPS[name].gradient and "gamma" in OPS[name].numbers
