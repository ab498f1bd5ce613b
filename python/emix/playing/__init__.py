"""Playing: episodes of actors in environments, by themselves. Training, tests, films and benchmarks play with this."""

from emix.playing.captured import CapturedRollout
from emix.playing.evaluate import EpisodeStatistics, evaluate
from emix.playing.random import RandomActor
from emix.playing.rollout import Policy, Rollout, collect
from emix.playing.source import Local, Source
from emix.playing.stopwatch import Stopwatch

__all__ = [
    "CapturedRollout",
    "EpisodeStatistics",
    "Local",
    "Policy",
    "RandomActor",
    "Rollout",
    "Source",
    "Stopwatch",
    "collect",
    "evaluate",
]
