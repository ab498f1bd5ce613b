"""CPU, emulated CUDA kernels and GPU play the same battles, bit for bit.

``courses.json`` holds a hash of everything after each of some steps of some battles. Whatever plays them must come to
the same: it was written by the CPU's kernels, and these tests run against the emulated ones, too. Where the rules are
changed on purpose: ``python -m tests.envs.battle.test_devices`` writes it anew.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch

import emix
from emix.envs.battle.maps import list_maps

COURSES = Path(__file__).with_name("courses.json")
# Together they have every rule: armour, bonus, missiles, healing; shields, second blows; explosions, terrain; beams,
# cliffs; waypoints, regeneration; guards and a closed corridor; a crowd of two types.
MAPS = [
    "3m",
    "MMM2",
    "2s3z",
    "so_many_baneling",
    "bane_vs_bane",
    "1c3s5z",
    "2c_vs_64zg",
    "corridor",
    "2_corridors",
    "3s5z",
]
OPTIONS = {"2_corridors": {"closing_step": 100, "obs_closed": True}}
STEPS, EVERY = 60, 15


def tensors(env, step):
    return [
        env.units,
        env.minds,
        env.clock,
        *(step.obs, step.state, step.avail, step.reward, step.terminated, step.truncated),
        *(step.info[name] for name in sorted(step.info)),
    ]


def play(name, device, seed=7):
    """Yield all tensors after every step; the actions are drawn on the CPU, attacks more often than not."""
    options = {"enemy_order": "shuffled", "checked": False, **OPTIONS.get(name, {})}
    env = emix.make(f"battle/{name}", num_envs=3, device=device, seed=seed, **options)
    generator = torch.Generator().manual_seed(seed)
    step = env.reset()
    yield tensors(env, step)
    for k in range(STEPS):
        weight = step.avail.cpu().double()
        weight[:, :, 6:] *= 10
        weight[:, :, 0] += 1e-9  # a finished battle may offer nothing
        actions = torch.multinomial(weight.flatten(0, 1), 1, generator=generator).view(weight.shape[:2])
        step = env.step(actions.to(device))
        yield tensors(env, step)
        env.advance(10 * k)
        step = env.reset(step.done)


def course(name, device):
    """A hash of all that happened so far, every some steps."""
    digest, hashes = hashlib.sha256(), []
    for k, found in enumerate(play(name, device)):
        for tensor in found:
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        if k % EVERY == 0:
            hashes.append(digest.hexdigest()[:16])
    return hashes


@pytest.mark.parametrize("name", MAPS)
def test_the_course_of_a_battle(name, device):
    assert course(name, device) == json.loads(COURSES.read_text())[name]


@pytest.mark.cuda
@pytest.mark.parametrize("name", list_maps())
def test_cpu_and_gpu_agree_on_every_map(name):
    for k, (found, expected) in enumerate(zip(play(name, "cuda"), play(name, "cpu"), strict=True)):
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours.cpu(), theirs), f"step {k}"


def test_a_course_tells_seeds_apart():
    one, other = (list(play("3m", "cpu", seed)) for seed in (7, 8))
    assert not torch.equal(one[0][0], other[0][0])


def test_battles_have_numbers_among_all_of_a_run(device):
    """Battles 2 to 4 of five are the three of a batch whose first has the number 2."""
    five = emix.make("battle/2s3z", num_envs=5, device=device, seed=7, enemy_order="shuffled", checked=False)
    three = emix.make(
        "battle/2s3z", num_envs=3, device=device, seed=7, first_env=2, enemy_order="shuffled", checked=False
    )
    for _ in range(2):
        one, other = five.reset(), three.reset()
        for _ in range(4):
            for ours, theirs in zip(tensors(three, other), tensors(five, one), strict=True):
                assert torch.equal(ours, theirs[2:])
            east = torch.full((5, 5), 4, device=device)
            one, other = five.step(east), three.step(east[2:].contiguous())
    assert not torch.equal(five.units[0], five.units[2])


if __name__ == "__main__":
    COURSES.write_text(json.dumps({name: course(name, "cpu") for name in MAPS}, indent=1) + "\n")
