"""``emix replay RUN OUT``: episodes of a trained run, as a film."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import tyro
from tyro.conf import Positional

from emix.cli.options import Imports, read_command_line
from emix.errors import UsageError

if TYPE_CHECKING:
    from emix.envs.battle.frame import Frame
    from emix.envs.battle.render import Painter
    from emix.envs.core import Env, Step
    from emix.training.trained import Trained

HOLD = 1.5  # seconds for which an episode's last picture stays
PALETTE_PICTURES = 6  # from which the colours of a GIF are taken
STEPS_A_SECOND = 4  # that a film of a small game shows, unless --fps says otherwise


@dataclass(frozen=True)
class Replay:
    """Show episodes of a trained run, played greedily. The same command gives the same film.

    Battles move smoothly; of foraging, lbf, prey and matrix there is a picture for each environment step.
    """

    run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The film to write: its name ends in .gif or .mp4."""
    episodes: int = 1
    """Episodes to show, one after another."""
    seed: int | None = None
    """Seed of the episodes; by default that of `emix eval`."""
    explore: bool = False
    """Take the policy that training collects with, which explores."""
    ranges: bool = True
    """Battles: light up what the allies see, and a little more what they can be ordered to shoot at."""
    fps: int | None = None
    """Pictures a second; 20 of a battle, 4 of another game. A step of a battle is half a second of the game."""
    pictures_per_step: int = 4
    """Battles: pictures for each environment step; more make it slower and smoother."""
    device: str = "cpu"
    """Where to play."""
    imports: Imports = ()
    """Module or .py file that the run needs and this account has not imported yet; may be repeated."""


class Film(NamedTuple):
    """What is drawn of some episodes."""

    moments: list[Any]
    fps: int
    draw: Any  # of a moment the picture [H, W, 3]
    results: list[str]  # a line for each episode


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = read_command_line(Replay, arguments, "replay")
    for option in ("episodes", "fps", "pictures_per_step"):
        if (value := getattr(chosen, option)) is not None and value < 1:
            raise UsageError(f"--{option.replace('_', '-')} expects at least 1, got {value}")
    from emix.cli.film import refuse_unwritable, write_film
    from emix.training.trained import load

    refuse_unwritable(chosen.out)
    policy = load(chosen.run, device=chosen.device, imports=chosen.imports)
    settings = policy.settings
    family = settings.env.partition("/")[0]
    if family == "lbf":  # the same rules on tensors, which know where everybody is
        policy = replace(policy, settings=replace(settings, env=settings.env.replace("lbf/", "foraging/", 1)))
    elif family not in ("battle", "foraging", "prey", "matrix"):
        raise UsageError(
            f"{chosen.run} plays {settings.env}: emix replay shows runs on battle, foraging, lbf, prey and matrix"
        )
    with closing(policy.make_env(seed=chosen.seed)) as env:
        film = _battles(env, policy, chosen) if family == "battle" else _games(env, policy, chosen)
    samples = [film.draw(film.moments[int(i)]) for i in np.linspace(0, len(film.moments) - 1, PALETTE_PICTURES)]
    write_film(chosen.out, _drawn(film), samples, film.fps)
    steps = f"{policy.env_steps:,} environment steps"
    print(f"{settings.name} on {settings.env} after {steps}, {chosen.episodes} episodes")
    for line in film.results:
        print(line)
    print(chosen.out)
    return 0


def _battles(env: Any, policy: Trained, chosen: Replay) -> Film:
    from emix.envs.battle.frame import follow, snapshot
    from emix.envs.battle.render import RESULTS, Painter

    episodes: list[list[Frame]] = []
    for _ in range(chosen.episodes):
        frames: list[Frame] = []
        for _, total in _play(env, policy, chosen.explore):
            new = snapshot(env, total=total)
            frames.append(follow(frames[-1], new) if frames else new)
        episodes.append(frames)
    painter: Painter = Painter(env.scenario, ranges=chosen.ranges)
    fps = chosen.fps or 20
    moments = [moment for episode in episodes for moment in _smooth(episode, chosen.pictures_per_step, fps)]
    results = [f"{RESULTS[last.status]} after {last.step} steps, return {last.total:.2f}" for *_, last in episodes]
    return Film(moments, fps, painter.draw, results)


def _games(env: Any, policy: Trained, chosen: Replay) -> Film:
    from emix.envs.pictures import with_header

    fps, moments, results = chosen.fps or STEPS_A_SECOND, [], []
    for _ in range(chosen.episodes):
        number, ended, total = 0, False, 0.0
        for number, (step, total) in enumerate(_play(env, policy, chosen.explore)):
            words = f"{env.spec.name}   step {number} / {env.spec.episode_limit}   reward {total:.2f}"
            moments.append(with_header(env.render(), words))
            ended = bool(step.terminated[0])
        moments += [moments[-1]] * round(HOLD * fps)
        results.append(f"{'ended' if ended else 'time limit'} after {number} steps, return {total:.2f}")
    return Film(moments, fps, lambda picture: picture, results)


def _play(env: Env, policy: Trained, explore: bool) -> Iterator[tuple[Step, float]]:
    """One episode of environment 0: before the first environment step and after each, with the reward so far."""
    import torch

    step, memory, total = env.reset(), policy.initial_memory(env.num_envs), 0.0
    yield step, total
    while not step.done[0]:
        with torch.no_grad():
            actions, memory, _ = policy.act(step, memory, explore=explore)
        step = env.step(actions)
        total += float(step.reward[0])
        yield step, total


def _smooth(episode: Sequence[Frame], pictures: int, fps: int) -> Iterator[Frame]:
    """The episode with moments between its environment steps; its end stays for a while."""
    from emix.envs.battle.frame import between

    for before, after in pairwise(episode):
        for picture in range(pictures):
            yield between(before, after, picture / pictures)
    for _ in range(round(HOLD * fps)):
        yield episode[-1]


def _drawn(film: Film) -> Iterator[np.ndarray]:
    """The pictures [H, W, 3]; one that stays is drawn once."""
    shown: Any = None
    for moment in film.moments:
        if moment is not shown:
            shown, picture = moment, film.draw(moment)
        yield picture
