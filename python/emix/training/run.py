"""A run that is under way: its folder made, owned, continued."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emix.distributed import Alone, Group
from emix.errors import UsageError
from emix.reading import path_of
from emix.training.checkpoint import delete_replaced
from emix.training.folder import CHECKPOINT, SUMMARY, refuse_existing_run
from emix.training.owner import LostRunError, Owner, own
from emix.training.rows import read_last_rows
from emix.training.settings import Settings, read_settings, rewrite_config, write_config
from emix.training.state import TrainingState, read_checkpoint


@dataclass
class Run:
    """A run that this process trains: made by ``create`` or ``resume``, whose ``with`` block it lasts for.

    All processes of a group have one; the first of them owns the folder, and is the only one that writes.
    """

    folder: Path
    settings: Settings
    state: TrainingState
    manifest: dict[str, Any] | None = None  # of the last checkpoint: that it continues, or that it has made
    owner: Owner | None = None
    wandb: str | None = None  # project at W&B that gets the numbers, too

    @classmethod
    @contextmanager
    def create(
        cls, folder: Path, settings: Settings, group: Group | None = None, *, wandb: str | None = None
    ) -> Iterator[Run]:
        """A new run, of which ``folder`` holds ``config.yaml`` from here on, and what its settings name by paths.

        Raises:
            UsageError: the folder holds a run already, cannot be written or is in use, or the settings make no sense.
        """
        folder = path_of(folder)
        refuse_existing_run(folder)
        # Built before the folder is made, so that an unknown environment leaves none behind.
        with closing(TrainingState.create(settings, group)) as state, _owned(folder, state.group) as owner:
            if owner is not None:
                refuse_existing_run(folder)  # once more, now that nobody else can make one
                owner.check()
                write_config(folder, settings, episode_limit=state.source.spec.episode_limit)
            yield cls(folder, settings, state, None, owner, wandb)

    @classmethod
    @contextmanager
    def resume(
        cls, folder: Path, *, steps: int | None = None, device: str | None = None, group: Group | None = None
    ) -> Iterator[Run]:
        """The run in ``folder`` as its last checkpoint has it, or from the start where there was none yet.

        Args:
            folder: of the run.
            steps: train up to so many environment steps, in place of those in ``config.yaml``.
            device: go on there, in place of the device in ``config.yaml``; on a device of another kind, the numbers are
                others.
            group: of processes; alone where not given.

        Raises:
            UsageError: there is no run, it is in use, damaged or has lost its checkpoint, has done more steps, or was
                trained under other rules of its environment.
        """
        group, folder = group or Alone(), path_of(folder)
        settings = read_settings(folder)  # before the folder is owned, which would make one that is not there
        if other := settings.other_rules():
            raise UsageError(
                f"{folder} {other}: it cannot be continued, since it would go on in another game; "
                f"train again in another folder, or use the emix that made it"
            )
        with _owned(folder, group) as owner:
            settings = read_settings(folder)
            manifest = read_checkpoint(folder / CHECKPOINT)
            if manifest is None:
                _refuse_lost_checkpoint(folder, settings)
            done = manifest["counters"]["env_steps"] if manifest else 0
            asked = _with_changes(settings, steps, device)
            if asked.training.steps < min(done, settings.training.steps):
                raise UsageError(
                    f"steps expects at least the {done:,} environment steps that {folder} has done, got {steps:,}"
                )
            with closing(TrainingState.create(asked, group)) as state:
                if manifest is not None:
                    state.restore(folder / CHECKPOINT, asked, manifest)
                if owner is not None:
                    owner.check()
                    if manifest is not None:
                        delete_replaced(folder / CHECKPOINT, manifest)
                    if asked != settings:
                        rewrite_config(folder, asked)
                yield cls(folder, asked, state, manifest, owner)

    def check_owner(self) -> None:
        """Raise ``LostRunError`` where another process has taken the run over."""
        if self.owner is not None:
            self.owner.check()

    def save(self, written: Mapping[str, Mapping[str, Any]]) -> None:
        """Write a checkpoint; ``written`` says what the metrics files hold (``Journal.sync``)."""
        if self.owner is not None:
            header = {**written, "owner": self.owner.token}
            self.manifest = self.state.save(self.folder / CHECKPOINT, self.settings, header, self._refuse_foreign)

    def _refuse_foreign(self, present: Mapping[str, Any] | None) -> None:
        """Raise ``LostRunError`` where the checkpoint is not the one that this process has read or made last."""
        self.check_owner()
        ours = self.manifest
        if (present and (present["save"], present.get("owner"))) != (ours and (ours["save"], ours.get("owner"))):
            raise LostRunError(
                f"{self.folder / CHECKPOINT} is not the checkpoint that this process made last: another one has "
                f"trained the run, too; this one stops, and what it did since its last checkpoint does not count"
            )


def _with_changes(settings: Settings, steps: int | None, device: str | None) -> Settings:
    """The settings with what a resumed run may change. A CPU multiplies in float32 alone."""
    training = replace(
        settings.training,
        steps=settings.training.steps if steps is None else steps,
        device=settings.training.device if device is None else device,
    )
    if device is not None and device.partition(":")[0] == "cpu":
        training = replace(training, precision="float32")
    return replace(settings, training=training)


def _refuse_lost_checkpoint(folder: Path, settings: Settings) -> None:
    """Raise ``UsageError`` where a run without checkpoint must have had one: starting again would wipe its metrics."""
    rows = read_last_rows(folder)
    ended = os.path.lexists(folder / SUMMARY)
    if ended or (rows and rows[-1]["env_steps"] >= 2 * settings.training.checkpoint_interval):
        raise UsageError(
            f"{folder} has no checkpoint any more, so that it cannot be continued: "
            f"restore {folder / CHECKPOINT}, or train again in another folder"
        )


@contextmanager
def _owned(folder: Path, group: Group) -> Iterator[Owner | None]:
    """The claim on the folder, of the first of a group; its checkpoint lies in the folder itself."""
    with own(folder) if group.first else nullcontext() as owner:
        if owner is not None and (folder / CHECKPOINT).is_symlink():
            raise UsageError(
                f"{folder / CHECKPOINT} is a link, through which the run would write elsewhere: "
                f"put the folder itself in its place"
            )
        yield owner
