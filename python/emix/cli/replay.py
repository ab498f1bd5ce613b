"""``emix replay RUN OUT``: the battles of a trained run, as a film."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import torch
import tyro
from PIL import Image
from tyro.conf import Positional

from emix.cli.options import Imports, read_command_line
from emix.errors import UsageError
from emix.playing.rollout import Policy
from emix.training.trained import load

if TYPE_CHECKING:
    from emix.envs.battle.env import BattleEnv
    from emix.envs.battle.frame import Frame
    from emix.envs.battle.render import Painter

HOLD = 1.5  # seconds for which an episode's last picture stays
PALETTE_PICTURES = 6  # from which the colours of a GIF are taken


@dataclass(frozen=True)
class Replay:
    """Show the battles of a trained run, played greedily. The same command gives the same film."""

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
    """Light up what the allies see, and a little more what they can be ordered to shoot at."""
    fps: int = 20
    """Pictures a second; environment steps take half a second in the game."""
    pictures_per_step: int = 4
    """Pictures for each environment step: more make it slower and smoother."""
    device: str = "cpu"
    """Where to play."""
    imports: Imports = ()
    """Module or .py file that the run needs and this account has not imported yet; may be repeated."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = read_command_line(Replay, arguments, "replay")
    for option in ("episodes", "fps", "pictures_per_step"):
        if (value := getattr(chosen, option)) < 1:
            raise UsageError(f"--{option.replace('_', '-')} expects at least 1, got {value}")
    _refuse_unwritable(chosen.out)
    policy = load(chosen.run, device=chosen.device, imports=chosen.imports)
    settings = policy.settings
    if not settings.env.startswith("battle/"):
        raise UsageError(f"{chosen.run} plays {settings.env}: emix replay shows runs on battle/<map> only")
    from emix.envs.battle.render import RESULTS, Painter

    with closing(cast("BattleEnv", policy.make_env(seed=chosen.seed))) as env:
        episodes = [play(env, policy, explore=chosen.explore) for _ in range(chosen.episodes)]
        painter = Painter(env.scenario, ranges=chosen.ranges)
    frames = [frame for episode in episodes for frame in _smooth(episode, chosen.pictures_per_step, chosen.fps)]
    write_film(chosen.out, painter, frames, chosen.fps)
    steps = f"{policy.env_steps:,} environment steps"
    print(f"{settings.name} on {settings.env} after {steps}, {chosen.episodes} episodes")
    for *_, last in episodes:
        print(f"{RESULTS[last.status]} after {last.step} steps, return {last.total:.2f}")
    print(chosen.out)
    return 0


@torch.no_grad()
def play(env: BattleEnv, policy: Policy, *, explore: bool) -> list[Frame]:
    """One episode of battle 0: the moment before the first environment step, and after each."""
    from emix.envs.battle.frame import follow, snapshot

    step, memory, total = env.reset(), policy.initial_memory(env.num_envs), 0.0
    frames = [snapshot(env, total=total)]
    while not step.done[0]:
        actions, memory, _ = policy.act(step, memory, explore=explore)
        step = env.step(actions)
        total += float(step.reward[0])
        frames.append(follow(frames[-1], snapshot(env, total=total)))
    return frames


def write_film(out: Path, painter: Painter, frames: Sequence[Frame], fps: int) -> None:
    """Draw ``frames`` into a GIF or MP4 that appears under its name when it is whole.

    Raises:
        UsageError: it cannot be written.
    """
    draft = out.with_name(f"{out.stem}.new{out.suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        (_write_gif if out.suffix == ".gif" else _write_mp4)(draft, painter, frames, fps)
        os.replace(draft, out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}; choose another file") from error
    finally:
        if draft.exists():
            draft.unlink()


def _smooth(episode: Sequence[Frame], pictures: int, fps: int) -> Iterator[Frame]:
    """The episode with moments between its environment steps; its end stays for a while."""
    from emix.envs.battle.frame import between

    for before, after in pairwise(episode):
        for picture in range(pictures):
            yield between(before, after, picture / pictures)
    for _ in range(round(HOLD * fps)):
        yield episode[-1]


def _write_gif(path: Path, painter: Painter, frames: Sequence[Frame], fps: int) -> None:
    """All pictures share one palette: what does not move stays the same pixel for pixel, and takes no room."""
    chosen = [frames[int(i)] for i in np.linspace(0, len(frames) - 1, PALETTE_PICTURES)]
    palette = Image.fromarray(np.concatenate([painter.draw(frame) for frame in chosen])).quantize(255)
    pictures = (
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in _draw(painter, frames)
    )
    next(pictures).save(path, save_all=True, append_images=pictures, duration=round(1000 / fps), loop=0)


def _write_mp4(path: Path, painter: Painter, frames: Sequence[Frame], fps: int) -> None:
    import imageio

    film: Any  # its type does not know the method
    with imageio.get_writer(path, format="FFMPEG", fps=fps, codec="libx264", macro_block_size=2) as film:
        for picture in _draw(painter, frames):
            film.append_data(picture)


def _draw(painter: Painter, frames: Sequence[Frame]) -> Iterator[np.ndarray]:
    """The pictures [H, W, 3] of ``frames``; one that stays is drawn once."""
    shown: Frame | None = None
    for frame in frames:
        if frame is not shown:
            shown, picture = frame, painter.draw(frame)
        yield picture


def _refuse_unwritable(out: Path) -> None:
    if out.suffix not in (".gif", ".mp4"):
        raise UsageError(f"OUT expects a name that ends in .gif or .mp4, got {str(out)!r}")
    if out.is_dir():
        raise UsageError(f"OUT expects a file, {out} is a folder")
    if out.suffix == ".mp4" and not all(map(find_spec, ("imageio", "imageio_ffmpeg"))):
        raise UsageError('an .mp4 needs imageio and imageio-ffmpeg: pip install "emix[replay]", or write a .gif')
