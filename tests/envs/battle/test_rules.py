"""What the rules must give whatever the details: duels computed by hand, symmetry, invariants, who wins."""

from itertools import pairwise

import pytest
import torch

import emix
from emix.envs.battle.fields import LAYER, MIND, ORDER, STAT, TRAIT, UNIT
from tests.envs.battle.play import attack_move, first_target, play, random_actions, until_done

STILL = {"spawn_jitter": 0.0, "weapon_delay": False}
ARENA = """
limit: 200
ally:
  - {{unit: {ally}, count: 1, at: [14, 16]}}
enemy:
  - {{unit: {enemy}, count: 1, at: [{x}, 16]}}
enemy_order: guard
terrain:
  walkable: {{2-29: 2-29}}
"""


def arena(folder, ally, enemy, apart, **options):
    file = folder / f"{ally}_{enemy}.yaml"
    file.write_text(ARENA.format(ally=ally, enemy=enemy, x=14 + apart))
    env = emix.make(f"battle/{file}", **(STILL | options))
    env.reset()
    return env


def duel(env):
    """Life and shield of both units before the fight and after each environment step: the ally only attacks."""
    history = []
    while True:
        history.append(env.units[0, [UNIT["health"], UNIT["shield"]]][:, [0, 8]].T.tolist())  # [[h, s], [h, s]]
        if min(history[-1][0][0], history[-1][1][0]) <= 0:
            return history
        env.step(torch.tensor([[6]]))


def disarm(env):
    """The enemy stands and does nothing."""
    env.minds[0, MIND["order"], 8] = ORDER["stop"]


def losses(history, side, what):
    """What a side loses from step to step, but for regeneration: the hits."""
    values = [entry[side][what] for entry in history]
    return [round(a - b, 3) for a, b in pairwise(values) if a - b > 0.5]


@pytest.mark.parametrize(
    ("ally", "enemy", "apart", "shield", "life"),
    [
        ("marine", "marine", 5, [], [6] * 7 + [3]),
        ("stalker", "zealot", 5, [13] * 3 + [11], [1] + [12] * 8 + [3]),  # the fourth hit meets both; armor 1
        ("marauder", "marauder", 6, [], [19] * 6 + [11]),  # 10 + 10 against armored, less 1 armor
        ("stalker", "marauder", 6, [], [17] * 7 + [6]),  # 13 + 5 - 1
        ("hydralisk", "stalker", 5, [12] * 6 + [8], [3] + [11] * 7),
    ],
)
def test_hits_of_a_duel(tmp_path, ally, enemy, apart, shield, life):
    env = arena(tmp_path, ally, enemy, apart)
    disarm(env)
    history = duel(env)
    assert losses(history, 1, 1) == shield
    assert losses(history, 1, 0) == life


def test_the_two_blows_of_a_zealot(tmp_path):
    """8 on the shield, 7 on life, two blows at a time: of a stalker's 80 + 80, 10 + 12 blows."""
    env = arena(tmp_path, "zealot", "stalker", 1)
    disarm(env)
    history = duel(env)
    assert sum(losses(history, 1, 1)) == 80
    assert set(losses(history, 1, 1)) <= {8, 16}
    assert set(losses(history, 1, 0)[:-1]) <= {7, 14}
    loops = 8 * (len(history) - 1)
    assert 10 * 19.2 <= loops <= 11 * 19.2 + 16  # 11 pairs of blows, 10 periods


def test_spine_crawler_and_stalker(tmp_path):
    """25 + 5 against armored on the shield, 29 on life, and armor 2 takes its share of the stalker's 13 + 5."""
    env = arena(tmp_path, "stalker", "spine_crawler", 6)
    history = duel(env)
    assert losses(history, 0, 1)[:2] == [30, 30]
    assert losses(history, 0, 0)[1] == 29
    assert losses(history, 1, 0)[0] == pytest.approx(16, abs=0.2)  # less what it regenerates meanwhile


def test_time_of_a_duel(tmp_path):
    """A marine kills another with its eighth shot, 7 periods of 13.77 loops after the first."""
    env = arena(tmp_path, "marine", "marine", 5)
    disarm(env)
    history = duel(env)
    first = next(t for t, entry in enumerate(history) if entry[1][0] < 45)
    assert 7 * 13.77 - 8 <= 8 * (len(history) - 1 - first) <= 7 * 13.77 + 8


def test_equal_marines_kill_each_other(tmp_path):
    env = arena(tmp_path, "marine", "marine", 5)
    while not (step := env.step(torch.tensor([[6]]))).done:
        pass
    assert (env.units[0, UNIT["health"]][[0, 8]] == 0).all()
    assert step.terminated.item() is True
    assert step.info["battle_won"].item() is False
    assert (step.info["dead_allies"].item(), step.info["dead_enemies"].item()) == (1, 1)


def test_shields_regenerate_after_ten_seconds(tmp_path):
    """160 loops after the last damage the shield gains 2 a second, that is 1 a step; life does not come back."""
    env = arena(tmp_path, "stalker", "marine", 14)
    disarm(env)
    env.units[0, UNIT["shield"], 0], env.units[0, UNIT["health"], 0], env.units[0, UNIT["quiet"], 0] = 10.0, 50.0, 0.0
    shield = []
    for _ in range(40):
        env.step(torch.tensor([[1]]))
        shield.append(env.units[0, UNIT["shield"], 0].item())
    assert shield[18] == 10.0
    assert shield[-1] == pytest.approx(10 + 20, abs=0.5)
    assert env.units[0, UNIT["health"], 0] == 50.0


@pytest.mark.parametrize(("unit", "step_length"), [("marine", 1.125), ("stalker", 1.4766), ("colossus", 1.125)])
def test_walking_speed(tmp_path, unit, step_length):
    env = arena(tmp_path, unit, "marine", 14)
    disarm(env)
    for action, (dx, dy) in {2: (0, 1), 3: (0, -1), 4: (1, 0), 5: (-1, 0)}.items():
        before = env.units[0, [UNIT["x"], UNIT["y"]], 0].clone()
        env.step(torch.tensor([[action]]))
        moved = env.units[0, [UNIT["x"], UNIT["y"]], 0] - before
        assert moved.tolist() == pytest.approx([dx * step_length, dy * step_length], abs=1e-3)


ROW_OF_STALKERS = """
limit: 200
one_hot: {{ally: [stalker, zealot], enemy: [spine_crawler, zealot]}}
ally:
{stalkers}
  - {{unit: zealot, count: 1, at: [13, {zealot}]}}
enemy:
  - {{unit: spine_crawler, count: 1, at: [18.5, 16]}}
enemy_order: guard
terrain:
  walkable: {{{wall}-29: 2-29}}
"""


@pytest.mark.parametrize("wall", [2, 15])
@pytest.mark.parametrize("zealot", [15.6, 16.0, 16.3, 17.0])
@pytest.mark.parametrize("stalkers", [(15.5, 16.8), (15.4, 16.65, 17.9)], ids=len)
def test_a_row_of_others_is_walked_around(tmp_path, stalkers, zealot, wall):
    """Stalkers shoulder to shoulder shoot, and the zealot behind them gets to the enemy, around the other end where a
    wall is at one."""
    lines = "\n".join(f"  - {{unit: stalker, count: 1, at: [14, {y}]}}" for y in stalkers)
    (tmp_path / "row.yaml").write_text(ROW_OF_STALKERS.format(stalkers=lines, zealot=zealot, wall=wall))
    assert attack_with_all(tmp_path / "row.yaml") > 16


def attack_with_all(file):
    """Where the last ally, which strikes by then if it could, has got to in the time in which it walks 15 cells."""
    env = emix.make(f"battle/{file}", **STILL)
    step = env.reset()
    disarm(env)
    for _ in range(14):
        step = env.step(first_target(step, otherwise=4))
        assert not step.done
    last = env.spec.n_agents - 1
    x = float(env.units[0, UNIT["x"], last])
    assert bool(env.minds[0, MIND["held"], last]) == (x > 16)
    return x


def test_allies_do_not_fire_unless_told(tmp_path):
    env = arena(tmp_path, "marine", "marine", 4)
    disarm(env)
    for _ in range(20):
        env.step(torch.tensor([[1]]))
    assert env.units[0, UNIT["health"], 8] == 45


def test_a_move_before_the_wind_up_ends_drops_the_shot(tmp_path):
    """A hydralisk winds up for 3.3 loops; the order is given anew every 8, so the drop is written by hand."""
    env = arena(tmp_path, "hydralisk", "marine", 5)
    disarm(env)
    env.units[0, UNIT["windup"], 0] = 3.0
    env.minds[0, MIND["target"], 0] = 8
    env.step(torch.tensor([[5]]))
    assert env.units[0, UNIT["windup"], 0] == 0
    for _ in range(3):
        env.step(torch.tensor([[1]]))
    assert env.units[0, UNIT["health"], 8] == 45


def mirror(env):
    """Place the enemies as the mirror image of the allies, which they are not by themselves."""
    allies, enemies = env.scenario.allies, env.scenario.enemies
    for unit in {start.unit.name for start in allies}:
        own, theirs = ([k for k, start in enumerate(side) if start.unit.name == unit] for side in (allies, enemies))
        theirs = [env.scenario.enemy_slot + k for k in theirs]
        env.units[:, UNIT["x"], theirs] = 32 - env.units[:, UNIT["x"], own]
        env.units[:, UNIT["y"], theirs] = env.units[:, UNIT["y"], own]


@pytest.mark.parametrize("name", ["3m", "2s3z", "3s5z", "1c3s5z", "MMM"])
def test_the_same_script_on_both_sides_wins_half(name):
    """Of mirror images, draws apart. Three standard deviations of a fair coin are 0.07 for 450 battles."""
    battles = 600
    env = emix.make(f"battle/{name}", num_envs=battles, seed=1, checked=False, episode_limit=400)
    step = env.reset()
    mirror(env)
    attack_move(env, 23.0, 16.0)
    wait = torch.zeros(battles, env.spec.n_agents, dtype=torch.int64)
    for _ in range(400):
        if step.done.all():
            break
        step = env.step(wait)
    dead = [step.info["dead_allies"] == env.spec.n_agents, step.info["dead_enemies"] == len(env.scenario.enemies)]
    won, lost = int((dead[1] & ~dead[0]).sum()), int((dead[0] & ~dead[1]).sum())
    if name == "MMM":  # there a side ends with its last fighter
        won, lost = int(step.info["battle_won"].sum()), int((step.terminated & ~step.info["battle_won"]).sum())
    assert won + lost > 450
    assert abs(won / (won + lost) - 0.5) < 0.07, (won, lost)


@pytest.mark.parametrize("name", ["8m", "2s3z", "MMM2", "1c3s5z"])
def test_reflection(name):
    """A battle whose south and north are swapped takes the swapped course."""
    first, second = (emix.make(f"battle/{name}", seed=3) for _ in range(2))
    step, _ = first.reset(), second.reset()
    there = first.units[:, UNIT["health"]] > 0  # and not the places of units that a map lacks, which lie at (0, 0)
    for row in ("y", "goal_y", "aim_y"):
        second.units[:, UNIT[row]] = torch.where(there, 32 - second.units[:, UNIT[row]], second.units[:, UNIT[row]])
    other = second.reset(torch.zeros(1, dtype=torch.bool))
    swap = torch.arange(first.spec.n_actions)
    swap[2], swap[3] = 3, 2
    generator = torch.Generator().manual_seed(0)
    alive = first.units[0, UNIT["health"]] > 0
    for _ in range(12):
        actions = random_actions(step, generator, attack=0.5)
        assert torch.equal(step.avail, other.avail[:, :, swap])
        step, other = first.step(actions), second.step(swap[actions])
        a, b = first.units[0], second.units[0]
        torch.testing.assert_close(a[UNIT["x"]][alive], b[UNIT["x"]][alive], rtol=0, atol=1e-2)
        torch.testing.assert_close(a[UNIT["y"]][alive], 32 - b[UNIT["y"]][alive], rtol=0, atol=1e-2)
        torch.testing.assert_close(a[UNIT["health"]], b[UNIT["health"]], rtol=0, atol=1e-2)
        torch.testing.assert_close(step.reward, other.reward, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["3m", "27m_vs_30m", "MMM2", "3s5z", "1c3s5z", "so_many_baneling", "corridor", "2c_vs_64zg", "2_corridors"]
)
def test_invariants(name):
    """Nobody stands in a wall, overlaps another by three quarters, or has more life than there is."""
    env = emix.make(f"battle/{name}", num_envs=6, seed=2)
    scenario = env.scenario
    grid = torch.from_numpy(scenario.terrain[0] > 0)
    for step, _, after in play(env, 60, torch.Generator().manual_seed(3), attack=0.6):
        kind = env.minds[:, MIND["kind"]].long().clamp(min=0)  # [B, slots]
        stat = {row: torch.from_numpy(scenario.stats[number])[kind] for row, number in STAT.items()}
        layer = torch.from_numpy(scenario.traits[TRAIT["layer"]])[kind]
        unit = {row: env.units[:, number] for row, number in UNIT.items()}
        alive = unit["health"] > 0
        for row, most in (("health", "health"), ("shield", "shield"), ("energy", "energy_limit")):
            assert ((unit[row] >= 0) & (unit[row] <= stat[most] + 1e-3)).all(), row
        assert (unit["health"][:, : env.spec.n_agents] > 0).equal(~after.avail[:, :, 0])
        assert torch.isfinite(env.units).all()
        ground = alive & (layer != LAYER["air"])
        x, y = (unit[axis].clamp(0, 31.99).long() for axis in ("x", "y"))
        assert grid[y[ground], x[ground]].all()
        both = alive[:, :, None] & alive[:, None] & (layer[:, :, None] == layer[:, None])
        both &= ~torch.eye(scenario.slots, dtype=torch.bool)
        apart = (unit["x"][:, :, None] - unit["x"][:, None]) ** 2 + (unit["y"][:, :, None] - unit["y"][:, None]) ** 2
        distance = stat["radius"][:, :, None] + stat["radius"][:, None]
        assert (apart.sqrt() >= 0.38 * distance)[both].all(), float((apart.sqrt() / distance)[both].min())
        assert (after.info["dead_allies"] >= step.info["dead_allies"]).all()


def test_the_dead_stay_dead():
    env = emix.make("battle/MMM2", num_envs=8, seed=4)
    generator = torch.Generator().manual_seed(0)
    step = env.reset()
    while not step.done.all():
        running = ~step.done
        before = env.units.clone()
        step = env.step(random_actions(step, generator, attack=0.3))
        dead = (before[:, UNIT["health"]] <= 0) & running[:, None]
        for row in ("x", "y", "health", "shield"):
            assert torch.equal(env.units[:, UNIT[row]][dead], before[:, UNIT[row]][dead])
        assert torch.equal(env.units[~running], before[~running])


@pytest.mark.parametrize("name", ["3m", "8m", "25m"])
def test_a_clean_win_returns_twenty(name):
    """Marines do not regenerate. The allies attack-move, as the enemies do."""
    env = emix.make(f"battle/{name}", num_envs=200, seed=6, checked=False)
    step = env.reset()
    attack_move(env, 23.0, 16.0)
    wait, total = torch.zeros(200, env.spec.n_agents, dtype=torch.int64), torch.zeros(200)
    while not step.done.all():
        step = env.step(wait)
        total += step.reward
    won = step.info["battle_won"]
    assert won.sum() >= 2
    torch.testing.assert_close(total[won], torch.full_like(total[won], 20.0), rtol=0, atol=1e-4)
    assert (total[~won] < 20).all()


@pytest.mark.parametrize("name", ["3m", "8m", "2s3z", "3s_vs_3z", "MMM", "1c3s5z", "corridor"])
def test_random_play_never_wins(name):
    env = emix.make(f"battle/{name}", num_envs=100, seed=7)
    generator = torch.Generator().manual_seed(2)
    *_, last = until_done(env, lambda step: random_actions(step, generator))
    assert last.info["battle_won"].float().mean() <= 0.01
