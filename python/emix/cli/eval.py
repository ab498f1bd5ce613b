"""``emix eval RUN``: greedy episodes with the networks of a run's last checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from emix.cli.options import Imports, read_command_line
from emix.errors import UsageError
from emix.reading import short

MOST_EPISODES = 1_000_000


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
    imports: Imports = ()
    """Module or .py file that the run needs and this account has not imported yet; may be repeated."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = read_command_line(Eval, arguments, "eval")
    if not 1 <= chosen.episodes <= MOST_EPISODES:
        raise UsageError(f"--episodes expects 1 to {MOST_EPISODES:,}, got {short(chosen.episodes)}")
    from emix.playing.evaluate import evaluate  # loads torch, which --help need not wait for
    from emix.training.trained import load

    policy = load(chosen.run, device=chosen.device, imports=chosen.imports)
    settings = policy.settings
    num_envs = max(n for n in range(1, settings.training.test_envs + 1) if chosen.episodes % n == 0)
    with closing(policy.make_env(num_envs, seed=chosen.seed)) as env:
        means = evaluate(env, policy, chosen.episodes)
    print(f"{settings.name} on {settings.env} after {policy.env_steps:,} environment steps, {chosen.episodes} episodes")
    for name, value in means.items():
        print(f"{name:<24} {value:.4f}")
    return 0
