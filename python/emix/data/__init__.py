"""What an action is, what an episode holds, and where episodes are kept: no environment and no learner.

``emix.data.actions`` and ``emix.data.spec`` import no torch at first: worker processes of environments read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emix._lazy import lazy_names
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

__getattr__ = lazy_names(__name__, _LAZY)
