"""The battle's ops as torch sees them: fake kernels, and wrong calls. What they play is tested in tests/envs/battle."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import emix
from emix.ops.battle import BattleTables, battle_reset, battle_step

FLAGS = ["obs_last_action", "obs_pathing_grid", "obs_terrain_height", "obs_timestep_number", "state_timestep_number"]
OPTIONS = [
    {},
    {"obs_all_health": False},
    {"obs_all_health": False, "obs_own_health": True},
    {"state_last_action": False},
]


def started(name="2s3z", **options):
    env = emix.make(f"battle/{name}", num_envs=2, checked=False, **options)
    env.reset()
    return env, torch.ones(2, env.spec.n_agents, dtype=torch.int64)  # [B, n]: everybody stops


@pytest.mark.parametrize("name", ["3m", "2s3z", "MMM2", "corridor"])
@pytest.mark.parametrize("options", [*OPTIONS, *({flag: True} for flag in FLAGS), dict.fromkeys(FLAGS, True)])
def test_fake_kernels_give_the_shapes_of_real_ones(name, options):
    env, stop = started(name, **options)
    where = torch.ones(2, dtype=torch.bool)
    real = (battle_step(env.battles, stop, env.tables), battle_reset(env.battles, where, env.tables, seed=0))
    with FakeTensorMode() as mode:
        state = type(env.battles)(*map(mode.from_tensor, env.battles))
        tables = BattleTables(*map(mode.from_tensor, env.tables[:-1]), layout=env.tables.layout)
        fake = (
            battle_step(state, mode.from_tensor(stop), tables),
            battle_reset(state, mode.from_tensor(where), tables, seed=0),
        )
    for ours, theirs in zip(fake, real, strict=True):
        for found, expected in zip(ours, theirs, strict=True):
            assert (found.shape, found.dtype, found.stride()) == (expected.shape, expected.dtype, expected.stride())


def test_no_battles():
    env, stop = started()
    empty = type(env.battles)(*(tensor[:0].contiguous() for tensor in env.battles))
    assert battle_step(empty, stop[:0], env.tables).obs.shape == (0, 5, env.spec.obs_dim)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stop: stop[:, :3].contiguous(), r"actions must have shape \[2, 5\].*got \[2, 3\]"),
        (lambda stop: stop.int(), "actions must be int64"),
        (lambda stop: stop.T.contiguous().T, "actions must be contiguous"),
    ],
)
def test_wrong_actions(change, message):
    env, stop = started()
    before = env.units.clone()
    with pytest.raises(ValueError, match=message):
        battle_step(env.battles, change(stop), env.tables)
    assert torch.equal(env.units, before)


@pytest.mark.parametrize("first", [-1, 2**32 - 1])
def test_wrong_numbers_of_battles(first):
    env, _ = started()
    where = torch.ones(2, dtype=torch.bool)
    with pytest.raises(ValueError, match=rf"first must be from 0 to 2\^32 - B, .* got {first}"):
        battle_reset(env.battles, where, env.tables, seed=0, first=first)
    battle_reset(env.battles, where, env.tables, seed=0, first=2**32 - 2)


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("stats", lambda t: t[:, :8].contiguous(), "stats must have shape"),
        ("rules", lambda t: t.float(), "rules must be float64"),
        ("terrain", lambda t: t[:1], "terrain must have shape"),
        ("layout", lambda t: t[:5], "layout must have 6 numbers, got 5"),
        ("layout", lambda t: [0, *t[1:]], "layout must name at least one ally"),
    ],
)
def test_wrong_tables(field, wrong, message):
    env, stop = started()
    tables = env.tables._replace(**{field: wrong(getattr(env.tables, field))})
    with pytest.raises(ValueError, match=message):
        battle_step(env.battles, stop, tables)
