"""An engineer with another code base takes ops, networks, environments from here: python -m tests.journeys.engineer."""

from __future__ import annotations

from pathlib import Path

from tests.journeys.steps import ROOT, emix, python, travel

SHORT = ("--num-envs", 2, "--test-envs", 2, "--test-episodes", 2, "--plan.batch-size", 4)

MINE = '''
import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Meet(ParallelEnv):
    """Two agents on a ring shall meet."""

    metadata = {"name": "meet"}
    max_cycles = 10
    possible_agents = ["left", "right"]

    def observation_space(self, agent):
        return spaces.Box(0, 8, (2,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        self.agents, self.time = list(self.possible_agents), 0
        self.places = np.random.default_rng(seed).integers(0, 8, 2)
        return self.look(), {a: {} for a in self.agents}

    def step(self, actions):
        self.time += 1
        self.places = (self.places + [actions[a] - 1 for a in self.possible_agents]) % 8
        met, late = bool(self.places[0] == self.places[1]), self.time == self.max_cycles
        agents, self.agents = self.agents, [] if met or late else self.agents
        return (
            self.look(agents), dict.fromkeys(agents, float(met)), dict.fromkeys(agents, met),
            dict.fromkeys(agents, late and not met), {a: {} for a in agents},
        )

    def look(self, agents=None):
        return {a: self.places[:: 1 if a == "left" else -1].astype(np.float32) for a in agents or self.agents}


def parallel_env():
    return Meet()
'''


def ops(folder: Path) -> None:
    """One op in place of a loop over time, with the same numbers; a wrong call is told what was expected."""
    code = """
import torch

from emix import ops

reward, done = torch.randn(32, 120, dtype=torch.float64), torch.rand(32, 120) < 0.02
value = torch.randn(32, 121, dtype=torch.float64)
ours = ops.lambda_returns(reward, done, value, gamma=0.99, lam=0.8)
theirs, after = torch.zeros_like(reward), value[:, -1]
for t in reversed(range(120)):
    after = reward[:, t] + 0.99 * (1 - done[:, t].double()) * (0.2 * value[:, t + 1] + 0.8 * after)
    theirs[:, t] = after
torch.testing.assert_close(ours, theirs)
try:
    ops.lambda_returns(reward, done, value[:, :-1], gamma=0.99, lam=0.8)
except ValueError as error:
    print(error)
"""
    assert "value" in python(code, folder=folder)


def networks(folder: Path) -> None:
    """Modules with torch's own state dicts: a mixer, an agent, a GRU."""
    code = """
import torch

from emix import nn

theirs, ours = torch.nn.GRU(16, 64, batch_first=True), nn.GRU(16, 64)
ours.load_state_dict(theirs.state_dict())
x = torch.randn(8, 20, 16)
torch.testing.assert_close(ours(x), theirs(x)[0], rtol=1e-5, atol=1e-5)
print(nn.MonotonicMixer.__name__, nn.RecurrentAgent.__name__)
"""
    python(code, folder=folder)


def environment(folder: Path) -> None:
    """An environment of theirs, and one of gymnasium's, trained on by their names."""
    (folder / "meet.py").write_text(MINE)
    run = folder / "mine"
    train = ("train", "qmix", "pettingzoo/meet", "--import", "meet.py", "--steps", 100, "--run-dir", run)
    emix(*train, *SHORT, folder=folder)
    assert (run / "summary.json").exists()
    assert "did you mean gym/CartPole-v1" in emix("envs", "gyn/CartPole-v1", folder=folder, code=2)


def ours_elsewhere(folder: Path) -> None:
    """The battles behind PettingZoo's and gymnasium's interfaces."""
    code = """
import emix

env = emix.envs.parallel_env("battle/3m", seed=1)
observations, infos = env.reset()
print({agent: seen["action_mask"].sum() > 0 for agent, seen in observations.items()})
vector = emix.envs.vector_env("battle/3m", num_envs=8)
print(vector.reset()[0]["obs"].shape)
"""
    assert "(8, 3, 30)" in python(code, folder=folder)


def examples(folder: Path) -> None:
    """Every script of examples/ (about two minutes)."""
    for script in sorted((ROOT / "examples").glob("*.py")):
        assert python(script.read_text(), folder=folder), script


def compiled(folder: Path) -> None:
    """The ops within a function that torch.compile takes whole (about a minute)."""
    code = """
import torch

from emix import ops


@torch.compile(fullgraph=True)
def loss(logits, action):
    return -ops.policy_terms(logits, action).log_prob.mean()


logits = torch.randn(64, 9, requires_grad=True)
loss(logits, torch.randint(9, (64,))).backward()
print(bool(logits.grad.abs().sum() > 0))
"""
    assert "True" in python(code, folder=folder)


if __name__ == "__main__":
    travel("engineer", (ops, networks, environment), (ours_elsewhere, examples, compiled))
