"""What an installed wheel must do, run by the environment's Python outside of the sources: ``python check.py``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import emix
from emix import ops


def check_compile() -> None:
    """A loss of an op under torch.compile, with its gradient, beside the plain reference."""
    torch.manual_seed(0)
    q, weight = torch.randn(32, 60, 5), torch.rand(32, 60, 5)  # [B, T, n]
    reward, terminated = torch.randn(32, 60), torch.rand(32, 60) < 0.02  # [B, T]

    def loss(module, q: torch.Tensor) -> torch.Tensor:
        mixed = module.linear_mix(q, weight)  # [B, T]
        target = module.lambda_returns(
            reward, terminated, torch.cat([mixed, mixed[:, -1:]], 1).detach(), gamma=0.99, lam=0.8
        )
        return (mixed - target).square().mean()

    results = []
    for function in (torch.compile(lambda q: loss(ops, q), fullgraph=True), lambda q: loss(ops.reference, q)):
        leaf = q.clone().requires_grad_()
        value = function(leaf)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*results)


def main() -> None:
    """All of it; an exception or a status other than 0 says what failed."""
    emix_command = str(Path(sys.executable).parent / "emix")
    subprocess.run([emix_command, "doctor"], check=True)
    check_compile()
    with tempfile.TemporaryDirectory() as runs:
        options = ["--steps", "2000", "--seed", "1", "--runs", runs]
        subprocess.run([emix_command, "train", "smix", "battle/3m", *options], check=True)
    print(f"emix {emix.__version__} of {emix.__path__[0]}: doctor, ops under torch.compile, training")


if __name__ == "__main__":
    main()
