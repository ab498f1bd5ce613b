"""Weights & Biases beside TensorBoard, for who asks for it: ``--wandb PROJECT`` and the extra ``emix[wandb]``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from emix.errors import UsageError
from emix.reading import expect_keys, one_line, read_json
from emix.training.files import replace_file
from emix.training.settings import Settings

REMEMBERED = "wandb.json"
_KEYS = {"project": str, "id": str}


def require_wandb() -> None:
    """Raise UsageError where the package is not installed."""
    if find_spec("wandb") is None:
        raise UsageError('--wandb needs the package wandb, which is not installed: pip install "emix[wandb]"')


class WandB:
    """A run at W&B, for the eye: without it the training goes on, and ``problem`` says what was wrong.

    The folder remembers project and id, so that a run which is resumed goes on there. Rows that it plays again are the
    same, and W&B leaves out steps that it has.

    Args:
        folder: of the run.
        project: at W&B; the one that the folder remembers, where it is not given.
        settings: what the run is called there, and its configuration.
    """

    def __init__(self, folder: Path, project: str | None, settings: Settings) -> None:
        self.problem: str | None = None
        self.run: Any = None
        path = folder / REMEMBERED
        try:
            known = {}
            if path.exists():
                known = expect_keys(read_json(path, "a run at W&B", most=1 << 12), _KEYS, f"{path} is damaged")
            import wandb

            self.run = wandb.init(
                project=known.get("project", project),
                id=known.get("id"),
                resume="allow",
                name=f"{settings.name} {settings.env} {settings.training.seed}",
                group=f"{settings.name} {settings.env}",
                config=settings.as_dict(),
                dir=str(folder),
            )
            content = {"project": self.run.project, "id": self.run.id}
            replace_file(path, json.dumps(content).encode() + b"\n")
        except Exception as error:
            self._give_up(error)

    @staticmethod
    def remembered(folder: Path) -> bool:
        """Whether the run in ``folder`` has one."""
        return (folder / REMEMBERED).is_file()

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Send the numbers by their tags."""
        if self.run is not None:
            try:
                self.run.log(dict(values), step=step)
            except Exception as error:
                self._give_up(error)

    def flush(self) -> None:
        """Do nothing: W&B sends by itself."""
        return

    def close(self) -> None:
        """Send what waits, and end."""
        if self.run is not None:
            with suppress(Exception):
                self.run.finish()

    def _give_up(self, error: Exception) -> None:
        self.run, self.problem = None, f"nothing goes to W&B from here on: {one_line(error)}"
