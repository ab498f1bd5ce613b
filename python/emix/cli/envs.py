"""``emix envs [NAME]``: what can be trained on here, and what there is to know of one environment."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional

from emix.cli.options import folded, read_command_line
from emix.envs.registry import EnvInfo, find_env, list_envs, make
from emix.plugins import import_named


@dataclass(frozen=True)
class Envs:
    """List the environments, or say of NAME what it is.

    Of a family such as battle it lists the names; of one environment, such as battle/3m, it shows the sizes, and
    every option with its default.
    """

    name: Annotated[Positional[str | None], tyro.conf.arg(metavar="NAME")] = None
    """An environment, or the beginning of its name up to the slash."""
    imports: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="import", metavar="MODULE")] = ()
    """A module or .py file of yours that registers environments; may be repeated."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    chosen = read_command_line(Envs, arguments, "envs")
    import_named(chosen.imports)
    if chosen.name is None:
        for env in list_envs():
            _show_family(env)
        print(
            "\n" + folded("`emix envs battle` lists a family's names; `emix envs battle/3m` shows sizes and options.")
        )
        return 0
    families = [env for env in list_envs() if env.name.partition("/")[0] == chosen.name.rstrip("/")]
    for env in families:
        _show_family(env)
        print(folded(f"names: {', '.join(env.examples)}", "    "))
    if not families:
        _show_one(chosen.name)
    return 0


def _show_family(env: EnvInfo) -> None:
    print(env.name)
    print(folded(env.description, "    "))
    if env.options:
        print(folded(f"options: {', '.join(sorted(env.options))}", "    "))
    if not env.installed:
        print(f"    not installed: {env.install}")  # in one piece, to be copied


def _show_one(name: str) -> None:
    """Sizes, where the environment can be made here, and options."""
    env = find_env(name)
    print(f"{name} ({env.name})")
    print(folded(env.description, "    "))
    if env.installed:
        with closing(make(name)) as one:
            spec = one.spec
        sizes = {
            "agents": spec.n_agents,
            "actions": spec.action,
            "observation": spec.obs_dim,
            "state": spec.state_dim,
            "episode limit": spec.episode_limit,
        }
        for what, size in sizes.items():
            print(f"    {what:<14} {size}")
    else:
        print(f"    not installed: {env.install}")
    if env.options:
        print("options, as --env-option NAME=VALUE, with their defaults:")
    for option in sorted(env.options):
        if option in env.defaults:
            default, text = env.defaults[option]
            print(f"    {option}={_yaml(default)}")
            if text:
                print(folded(text, "        "))
        else:
            print(f"    {option}")


def _yaml(value: object) -> str:
    """A default as it is written on a command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if value != "" else "''"
