"""``emix eval RUN``: greedy episodes with the networks of a run's last checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from emix.cli.trained import load_learner, read_trained
from emix.envs.core import advance
from emix.errors import UsageError
from emix.training.config import spawn_seeds
from emix.training.evaluate import evaluate
from emix.training.state import resolve_device


@dataclass(frozen=True)
class Eval:
    """Play greedy episodes with a trained run and print their statistics. The same command gives the same numbers."""

    run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    episodes: int = 100
    """Episodes to play."""
    seed: int | None = None
    """Seed of the episodes; by default one that derives from the run's seed and that training has not seen."""
    device: str = "cpu"
    """Where to play."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = tyro.cli(Eval, args=list(arguments), prog="emix eval")
    if chosen.episodes < 1:
        raise UsageError(f"--episodes expects at least 1, got {chosen.episodes}")
    settings, manifest = read_trained(chosen.run)
    device = resolve_device(chosen.device)
    seed = spawn_seeds(settings.training.seed).eval_command if chosen.seed is None else chosen.seed
    num_envs = max(n for n in range(1, settings.training.test_envs + 1) if chosen.episodes % n == 0)
    env = settings.make_env(num_envs=num_envs, device=chosen.device, seed=seed)
    advance(env, manifest["counters"]["env_steps"])
    try:
        learner = load_learner(chosen.run, settings, manifest, env.spec, device)
        means = evaluate(env, learner, chosen.episodes)
    finally:
        env.close()
    steps = manifest["counters"]["env_steps"]
    print(f"{settings.algorithm} on {settings.env} after {steps:,} environment steps, {chosen.episodes} episodes")
    for name, value in means.items():
        print(f"{name:<24} {value:.4f}")
    return 0
