"""What an action is, what an episode holds, and where episodes are kept: no environment and no learner.

``emix.data.actions`` and ``emix.data.spec`` import no torch at first: worker processes of environments read them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emix.data.actions import Action, Box, Discrete
from emix.data.spec import EnvSpec, Field, Step, fields, require_box, require_discrete

if TYPE_CHECKING:
    from emix.data.episodes import Episodes
    from emix.data.replay import Replay
    from emix.data.transitions import TransitionReplay

__all__ = [
    "Action",
    "Box",
    "Discrete",
    "EnvSpec",
    "Episodes",
    "Field",
    "Replay",
    "Step",
    "TransitionReplay",
    "fields",
    "require_box",
    "require_discrete",
]

_LAZY = {
    "Episodes": "emix.data.episodes",
    "Replay": "emix.data.replay",
    "TransitionReplay": "emix.data.transitions",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
