"""torch's settings of the whole process, a default dtype and a default device, reach no environment, replay or learner:
under each of them all numbers and dtypes are the same, bit for bit."""

from contextlib import closing, contextmanager

import pytest
import torch

import emix
from emix.data import fields
from emix.envs import check_env, vector_env
from emix.playing import RandomActor, collect
from emix.training import checkpoint

# Tensors of the device "meta" have no values: whatever used one in place of a tensor on the CPU would raise.
SETTINGS = [(torch.float64, "meta"), (torch.float16, "cpu")]
ENVS = [
    *("matrix/msteps-5", "matrix/penalty-3x4", "matrix/continuous", "prey/stag-hunt", "prey/macf", "battle/2s3z"),
    *("prey/heterogeneous", "foraging/Foraging-8x8-2p-2f-v3", "foraging/Foraging-2s-8x8-2p-2f-v2"),
    "lbf/Foraging-5x5-2p-1f-v3",
]
VECTORS = {"ader@matrix": 150, "facmac@matrix": 150, "perla-mappo@mujoco": 8}  # for actions that are vectors: steps


@contextmanager
def settings(dtype, device):
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (value.dtype, value.device) == (other[name].dtype, other[name].device), name
        assert torch.equal(value, other[name]), name


def episodes(name):
    """What two rollouts of random actions hold, or one where episodes are long."""
    env = emix.make(name, num_envs=3, seed=1)
    actor = RandomActor(env.spec, device="cpu", seed=2)
    found = {}
    for k in range(2 if env.spec.episode_limit < 100 else 1):
        rollout = collect(env, actor, explore=True)
        values = {**rollout.episodes.by_name(), "valid": rollout.episodes.valid, "lengths": rollout.lengths}
        values |= {f"info.{key}": value for key, value in rollout.info.items()} | {"returns": rollout.returns}
        found |= {f"{k}.{key}": value for key, value in values.items()}
    step = env.reset(torch.tensor([True, False, True], device="cpu"))
    found |= {f"reset.{key}": value for key, value in step.info.items()} | {"reset.reward": step.reward}
    env.close()
    return found


@pytest.mark.parametrize("name", ENVS)
@pytest.mark.parametrize(("dtype", "device"), SETTINGS)
def test_environments(name, dtype, device):
    usual = episodes(name)
    with settings(dtype, device):
        assert_same(usual, episodes(name))


@pytest.mark.parametrize(("dtype", "device"), SETTINGS)
def test_the_checker_and_the_adapters(dtype, device):
    with settings(dtype, device):
        check_env(emix.make("prey/macf", num_envs=3))
        env = vector_env("prey/stag-hunt", num_envs=2)
        assert env.observation_space.contains(env.reset()[0])
        assert env.observation_space.contains(env.step(env.action_space.sample() * 0 + 4)[0])


@pytest.mark.parametrize("kind", ["Replay", "TransitionReplay"])
@pytest.mark.parametrize(("dtype", "device"), SETTINGS)
def test_replays(kind, dtype, device):
    env = emix.make("prey/macf", num_envs=3, seed=1)
    rollout = collect(env, RandomActor(env.spec, device="cpu", seed=2), explore=True)

    def sampled():
        replay = getattr(emix.data, kind)(8 if kind == "Replay" else 500, env.spec, device="cpu", seed=3)
        for _ in range(3):
            replay.add(rollout.episodes[:2], rollout.lengths[:2])
        held = replay.export(replay.oldest, replay.added)
        again = getattr(emix.data, kind)(replay.capacity, env.spec, device="cpu", seed=3)
        again.restore(replay.oldest, held)
        batch = again.sample(2)
        assert set(batch.by_name()) == {field.name for field in fields(env.spec)}
        return batch.by_name() | {"valid": batch.valid} | {f"held.{key}": value for key, value in held.items()}

    usual = sampled()
    with settings(dtype, device):
        assert_same(usual, sampled())


def trained(algorithm, folder):
    """The metrics of a short training, byte for byte, all that its checkpoint holds, and what the policy then plays."""
    env = "matrix/continuous" if algorithm in VECTORS else "matrix/msteps-5"
    emix.train(algorithm, env, steps=VECTORS.get(algorithm, 600), seed=1, run_dir=folder, quiet=True)
    manifest = checkpoint.read_manifest(folder / "checkpoint")
    parts = {name: checkpoint.load(folder / "checkpoint", manifest, name) for name in manifest["parts"]}
    tensors = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}
    policy = emix.load(folder)
    with closing(policy.make_env(2)) as env:
        played = collect(env, policy, explore=False).episodes.by_name()
    return (folder / "metrics.jsonl").read_bytes(), tensors | played


@pytest.mark.parametrize(
    "algorithm", ["smix", "coma", "qtran", "ensemble-mix", "ader", "perla-mappo", "ippo", *VECTORS]
)
@pytest.mark.parametrize(("dtype", "device"), SETTINGS[:1])
def test_learners(algorithm, dtype, device, tmp_path):
    metrics, tensors = trained(algorithm, tmp_path / "usual")
    with settings(dtype, device):
        other_metrics, other_tensors = trained(algorithm, tmp_path / "other")
    assert_same(tensors, other_tensors)
    assert metrics == other_metrics
