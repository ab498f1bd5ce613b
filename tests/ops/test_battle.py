"""The battle's ops as torch sees them: fake kernels, and wrong calls. What they play is tested in tests/envs/battle."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import emix
from emix.envs.battle import fields
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


@pytest.mark.parametrize(
    ("at", "number", "message"),
    [
        (0, 121, "layout must name at least one ally"),
        (1, 2**40, "layout must name at least one ally"),
        (2, -1, r"layout\[2\] must lie between 0 and 128, got -1"),
        (2, 2**31, r"layout\[2\] must lie between 0 and 128, got 2147483648"),
        (3, 2, r"layout\[3\] must lie between 0 and 1, got 2"),
        (4, -5, r"layout\[4\] must lie between 0 and 1, got -5"),
        (5, 512, r"layout\[5\] must lie between 0 and 511, got 512"),
    ],
)
def test_wrong_layouts(at, number, message):
    env, stop = started()
    layout = [*env.tables.layout[:at], number, *env.tables.layout[at + 1 :]]
    with pytest.raises(ValueError, match=message):
        battle_step(env.battles, stop, env.tables._replace(layout=layout))


NO_SLOTS = (16, -2, 2**31 - 1, -(2**31))  # of 16


@pytest.mark.parametrize("row", ["kind", "order_target", "target", "attacker"])
@pytest.mark.parametrize("slot", NO_SLOTS)
def test_minds_that_name_no_slot(row, slot, emulated):
    """The CPU refuses them before anything is changed; a GPU takes them for nobody, without leaving the tensors."""
    env, stop = started()
    env.minds[1, fields.MIND[row], 3] = slot
    before = env.minds.clone()
    where = torch.zeros(2, dtype=torch.bool)
    for call in (
        lambda: battle_step(env.battles, stop, env.tables),
        lambda: battle_reset(env.battles, where, env.tables, seed=0),
    ):
        if emulated:
            assert call().obs.isfinite().all()
            assert env.minds[1, fields.MIND[row], 3] >= -1
        else:
            message = rf"minds must hold slots from 0 to 15, or -1, in its row {row}, got {slot} in battle 1"
            with pytest.raises(ValueError, match=message):
                call()
            assert torch.equal(env.minds, before)


def test_a_battle_that_starts_may_hold_anything():
    env, _ = started()
    env.minds.fill_(10**6)
    env.units.fill_(torch.nan)
    start = battle_reset(env.battles, torch.ones(2, dtype=torch.bool), env.tables, seed=0)
    assert start.obs.isfinite().all()


def test_an_order_about_nobody(emulated):
    env, stop = started()
    env.minds[0, fields.MIND["order"], 8] = fields.ORDER["attack"]
    env.minds[0, fields.MIND["order_target"], 8] = -1
    if emulated:
        assert battle_step(env.battles, stop, env.tables).obs.isfinite().all()
        return
    with pytest.raises(ValueError, match="minds must hold a slot in its row order_target"):
        battle_step(env.battles, stop, env.tables)


@pytest.mark.parametrize("place", [-1.0, 32.0, 1e30, torch.nan, torch.inf])
def test_units_off_the_map(place, emulated):
    env, stop = started()
    env.units[1, fields.UNIT["y"], 2] = place
    if emulated:
        assert battle_step(env.battles, stop, env.tables).obs.isfinite().all()
        return
    with pytest.raises(ValueError, match="units must be on the map, x and y from 0 to 32, got"):
        battle_step(env.battles, stop, env.tables)


@pytest.mark.parametrize(
    ("table", "row", "number", "message"),
    [
        ("traits", "place", 16, "traits must hold slots from 0 to 15 in its row place, got 16"),
        ("traits", "layer", 40, "traits must hold layers from 0 to 2 in its row layer, got 40"),
        ("stats", "spawn_x", 32.0, "stats must place units on the map"),
        ("stats", "spawn_y", torch.nan, "stats must place units on the map"),
    ],
)
def test_tables_with_wrong_contents(table, row, number, message, emulated):
    env, _ = started(enemy_order="sorted")
    changed = getattr(env.tables, table).clone()
    changed[{"traits": fields.TRAIT, "stats": fields.STAT}[table][row], 8] = number
    tables, everywhere = env.tables._replace(**{table: changed}), torch.ones(2, dtype=torch.bool)
    if emulated:
        battle_reset(env.battles, everywhere, tables, seed=0)
        return
    with pytest.raises(ValueError, match=message):
        battle_reset(env.battles, everywhere, tables, seed=0)


def test_state_shares_no_memory():
    """With itself or with what is read."""
    env, stop = started()
    memory = torch.zeros(env.units.numel() + env.minds.numel(), dtype=torch.float32)
    units = memory[: env.units.numel()].view_as(env.units)
    minds = memory[env.units.numel() - 1 : -1].view(torch.int32).view_as(env.minds)
    with pytest.raises(ValueError, match=r"minds must share no memory with state\.units, which is changed in place"):
        battle_step(env.battles._replace(units=units, minds=minds), stop, env.tables)
    units = env.tables.stats.view(-1)[: env.units.numel()].view_as(env.units)
    with pytest.raises(ValueError, match=r"stats must share no memory with state\.units"):
        battle_step(env.battles._replace(units=units), stop, env.tables)
    actions = env.clock.view(-1)[: stop.numel()].view_as(stop)
    with pytest.raises(ValueError, match=r"actions must share no memory with state\.clock"):
        battle_step(env.battles, actions, env.tables)
