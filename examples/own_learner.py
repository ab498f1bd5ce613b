"""An environment and a learner of one's own: a game of cues, and IPPO, which learns it.

emix train own-ippo cues/4 --import examples/own_learner.py --steps 20000 --seed 1
emix eval runs/own-ippo/cues/4/1   emix plot runs/own-ippo/cues/4/*   emix resume RUN   emix sweep own-ippo cues/4 ...
"""

import tempfile
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import emix
from emix import ops
from emix.data import Discrete, EnvSpec, Episodes, Field, Step
from emix.envs.random import shift_right, splitmix64
from emix.envs.tensor import TensorEnv
from emix.learners.learner import Acted, BaseActor, BaseLearner
from emix.learners.optimiser import Optimiser
from emix.learners.parts import Parts
from emix.learners.plan import Plan

STEPS, AGENTS = 5, 2


class Cues(TensorEnv):
    """``cues/<A>``: each agent sees one of A cues, new at every step; the team is paid the share that names its own."""

    def __init__(self, name, options, *, num_envs, device, seed, first_env):
        cues = int(name.removeprefix("cues/"))
        spec = EnvSpec(name, AGENTS, Discrete(cues), obs_dim=cues, state_dim=AGENTS * cues, episode_limit=STEPS)
        super().__init__(spec, num_envs=num_envs, device=device, seed=seed, first_env=first_env)
        self.keys = torch.zeros_like(self._time)  # [E], of the episodes' random numbers

    def _start(self, where: Tensor, started: Tensor) -> None:
        self.keys = torch.where(where, self._episode_keys(started), self.keys)

    def _cue(self) -> Tensor:  # [E, n]
        counter = AGENTS * self._time[:, None] + torch.arange(AGENTS, device=self.device)
        return shift_right(splitmix64(self.keys[:, None], counter), 40) % self.spec.n_actions

    def _play(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        return (actions == self._cue()).float().mean(1), self._time == STEPS - 1

    def _observe(self) -> tuple[Tensor, Tensor, Tensor]:
        obs = self.spec.action.encode(self._cue())  # [E, n, A]
        return obs, obs.flatten(1), torch.ones_like(obs, dtype=torch.bool)


@dataclass(frozen=True)
class IPPOConfig:
    """Independent PPO (de Witt et al. 2020), in its plainest form: no recurrence, one network for all agents."""

    lr: float = 3e-3
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01
    epochs: int = 4
    plan: Plan = Plan(source="fresh", batch_size=64)  # 64 new episodes, each used in one update


class IPPOActor(BaseActor):
    """Draws from the policies; tests take the likeliest actions."""

    def __init__(self, net: nn.Module, generator: torch.Generator, spec: EnvSpec) -> None:
        self.net, self.generator = net, generator
        self.record = (Field("log_prob", (spec.n_agents,), "float32", "observation"),)
        self.parts = Parts(net=net, generator=generator)

    @torch.no_grad()
    def act(self, step: Step, memory: None, *, explore: bool) -> Acted:
        """Actions [E, n], and their log-probabilities for the update."""
        logits = self.net(step.obs)[..., 1:]  # [E, n, A]
        if explore:
            actions = ops.sample_actions(logits, step.avail, generator=self.generator)
        else:
            actions = logits.masked_fill(~step.avail, -torch.inf).argmax(-1)
        return Acted(actions, None, {"log_prob": ops.policy_terms(logits, actions, step.avail).log_prob})


class IPPO(BaseLearner):
    """Clipped policy gradients on each agent's own advantage."""

    def __init__(self, config: IPPOConfig, spec: EnvSpec, *, device: torch.device | str, seed: int) -> None:
        self.config, self.plan = config, config.plan
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(spec.obs_dim, 64), nn.Tanh(), nn.Linear(64, 1 + spec.n_actions))
        self.net.to(device)
        self.actor = IPPOActor(self.net, torch.Generator(device).manual_seed(seed), spec)
        self.optimiser = Optimiser(self.net, "adam", lr=config.lr, clip=0.5)
        self.parts = Parts(net=self.net, optimiser=self.optimiser, generator=self.actor.generator)

    def update(self, batch: Episodes) -> dict[str, Tensor]:
        """``epochs`` steps on all of the batch."""
        config, valid = self.config, batch.valid.unsqueeze(-1).expand_as(batch.record["log_prob"][:, :-1])  # [B, T, n]
        with torch.no_grad():
            value = self.net(batch.obs)[..., 0]  # [B, T+1, n]
            ends = {"truncated": batch.truncated, "valid": batch.valid}
            advantage = ops.gae(batch.reward, batch.terminated, value, gamma=config.gamma, lam=config.lam, **ends)
            returns = advantage + value[:, :-1]  # [B, T, n]
        for _ in range(config.epochs):
            out, avail = self.net(batch.obs[:, :-1]), batch.avail[:, :-1]
            terms = ops.policy_terms(out[..., 1:], batch.actions[:, :-1], avail)
            ratio = (terms.log_prob - batch.record["log_prob"][:, :-1]).exp()
            clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
            gain = torch.minimum(ratio * advantage, clipped * advantage) + config.entropy * terms.entropy
            loss = self.optimiser.mean((out[..., 0] - returns).square() / 2 - gain, valid)
            norm = self.optimiser.descend(loss)
        return {"loss": loss.detach(), "grad_norm": norm, "entropy": terms.entropy.detach().mean()}


emix.register_env("cues/<A>", Cues, description="name your cue: 2 agents, A cues, best return 5")
emix.register_learner("own-ippo", IPPO, IPPOConfig)


def main() -> None:
    """Train for a few seconds, in one call."""
    with tempfile.TemporaryDirectory() as folder:
        result = emix.train(
            "own-ippo", "cues/4", steps=12_000, seed=1, num_envs=64, test_interval=6_000, runs=folder, quiet=True
        )
    print(f"test return {result.summary['test_return_mean']:.2f} of 5 after {result.summary['env_steps']:,} steps")


if __name__ == "__main__":
    main()
