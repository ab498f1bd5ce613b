"""Networks that several learners share: agents, mixers, critics, and the GRU as a module.

Each is an ``nn.Module`` on top of ``emix.ops``; its docstring has shapes and source.
"""

from emix.nn.agent import RecurrentAgent
from emix.nn.box_agent import BoxAgent
from emix.nn.counterfactual import CounterfactualCritic
from emix.nn.critic import EnsembleCritic
from emix.nn.gru import GRU
from emix.nn.joint import JointValue
from emix.nn.mixer import IndependentMixer, LinearMixer, MixerEnsemble, MonotonicMixer, SumMixer
from emix.nn.multi_agent import FeedForward, GruNetwork, PerAgent
from emix.nn.stacked import StackedLinear

__all__ = [
    "GRU",
    "BoxAgent",
    "CounterfactualCritic",
    "EnsembleCritic",
    "FeedForward",
    "GruNetwork",
    "IndependentMixer",
    "JointValue",
    "LinearMixer",
    "MixerEnsemble",
    "MonotonicMixer",
    "PerAgent",
    "RecurrentAgent",
    "StackedLinear",
    "SumMixer",
]
