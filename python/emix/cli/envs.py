"""``emix envs``: what can be trained on here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from emix.envs.registry import list_envs


@dataclass(frozen=True)
class Envs:
    """List the environments, and the command that installs what is missing."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    tyro.cli(Envs, args=list(arguments), prog="emix envs")
    for env in list_envs():
        print(f"{env.name}\n    {env.description}")
        if not env.installed:
            print(f"    not installed: {env.install}")
    return 0
