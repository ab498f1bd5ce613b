"""``emix envs``: what can be trained on here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from emix.envs.registry import list_envs
from emix.plugins import import_named


@dataclass(frozen=True)
class Envs:
    """List the environments, what options they take, and the command that installs what is missing."""

    imports: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="import", metavar="MODULE")] = ()
    """A module or .py file of yours that registers environments; may be given several times."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = tyro.cli(Envs, args=list(arguments), prog="emix envs")
    import_named(chosen.imports)
    for env in list_envs():
        print(f"{env.name}\n    {env.description}")
        if env.options:
            print(f"    options: {', '.join(env.options)}")
        if not env.installed:
            print(f"    not installed: {env.install}")
    return 0
