"""What can be measured, known without torch, which ``emix bench --help`` need not wait for."""

from __future__ import annotations

from emix import learners
from emix.data import Discrete, EnvSpec

# The sizes of the battle's maps, and so of SMAC's.
SPECS = {
    name: EnvSpec(f"battle/{name}", n_agents=n, action=Discrete(a), obs_dim=o, state_dim=s, episode_limit=t)
    for name, n, a, o, s, t in [
        ("3m", 3, 9, 30, 48, 60),
        ("2s3z", 5, 11, 80, 120, 120),
        ("MMM2", 10, 18, 176, 322, 180),
        ("27m_vs_30m", 27, 36, 285, 1170, 180),
    ]
}


def algorithms() -> tuple[str, ...]:
    """The algorithms for SMAC's actions, which are discrete."""
    names = [name for name in learners.list_algorithms() if "@" not in name]
    return tuple(name for name in names if not getattr(learners.get(name).config, "vectors_only", False))
