"""Level-based foraging on tensors: move by move what lbforaging plays from the same start, and starts like its own."""

from functools import partial

import numpy as np
import pytest
import torch

from emix.envs import check_env, make
from emix.envs.foraging_task import read_task
from emix.envs.lbf import Foraging, foraging_settings
from emix.errors import UsageError

TASKS = [
    *("8x8-2p-2f", "5x5-8p-2f", "5x5-12p-1f", "8x8-3p-2f-coop", "10x10-3p-5f", "20x20-10p-3f", "15x15-4p-9f"),
    *("2s-8x8-3p-3f", "2s-10x10-4p-5f", "1s-6x6-6p-2f", "3s-8x8-5p-3f-coop", "7s-8x8-3p-2f"),
]


def name_of(task, version=3, family="foraging"):
    sight, _, rest = task.rpartition("s-")
    return f"{family}/Foraging-{sight + 's-' if sight else ''}{rest}-v{version}"


def start_of(peer):
    """Where lbforaging has put players [n, 3] and foods [f, 3] (row, column, level)."""
    game = peer._env
    players = [[*player.position, player.level] for player in game.players]
    foods = [[*place, game.field[tuple(place)]] for place in np.argwhere(game.field)]
    foods += [[-1, -1, 0]] * (game.max_num_food - len(foods))
    return np.array(players, np.float32), np.array(foods, np.float32)


def start_like(env, peers):
    """Let each environment begin as a peer has begun: the first step."""
    env.reset()
    players, foods = (torch.from_numpy(np.stack(part)) for part in zip(*map(start_of, peers), strict=True))
    env._players = players.permute(1, 2, 0).contiguous()  # [n, 3, E]
    env._foods = foods.permute(1, 2, 0).contiguous()  # [f, 3, E]
    env._spawned = foods[:, :, 2].sum(1)
    return env.reset(torch.zeros(len(peers), dtype=torch.bool))


@pytest.mark.parametrize("task", TASKS)
def test_it_plays_what_lbforaging_plays(task):
    """Observations, rewards and ends of whole episodes, bit for bit; half of the actions aim at the nearest food."""
    settings = foraging_settings(name_of(task, family="lbf"))
    num_envs, loads = 12, 0
    env = make(name_of(task), num_envs=num_envs)
    peers = [Foraging(**settings) for _ in range(num_envs)]
    views = [peer.reset(seed=seed)[0] for seed, peer in enumerate(peers)]
    step, rng = start_like(env, peers), np.random.default_rng(1)
    over = [False] * num_envs
    for _ in range(50):
        for e, view in enumerate(views):
            if not over[e]:
                np.testing.assert_array_equal(step.obs[e].numpy(), view["obs"])
                np.testing.assert_array_equal(step.state[e].numpy(), view["state"])
        assert step.avail.all()
        actions = np.stack([choose(peer._env, rng) for peer in peers])
        step = env.step(torch.from_numpy(actions))
        for e, peer in enumerate(peers):
            if over[e]:
                assert (float(step.reward[e]), bool(step.done[e])) == (0, True)
                continue
            views[e], reward, terminated, truncated, _ = peer.step(actions[e].tolist())
            assert step.reward[e].item() == np.float32(reward)
            assert (bool(step.terminated[e]), bool(step.truncated[e])) == (terminated, truncated)
            loads += reward > 0
            over[e] = terminated or truncated
    assert step.done.all()
    assert loads >= 3


def choose(game, rng):
    """An action for each player: half at random, half towards a food, or loading beside it."""
    foods, actions = np.argwhere(game.field), rng.integers(0, 6, len(game.players))
    if not len(foods):
        return actions
    for i, player in enumerate(game.players):
        apart = foods - np.array(player.position)
        row, column = apart[np.abs(apart).sum(1).argmin()]
        if rng.random() < 0.5:
            vertical = abs(row) > abs(column) or (abs(row) == abs(column) and rng.random() < 0.5)
            actions[i] = 5 if abs(row) + abs(column) == 1 else (1 + (row > 0) if vertical else 3 + (column > 0))
    return actions


def starts(name, num_envs=4000, seed=3):
    """Players [E, n, 3] and foods [E, f, 3] of the first episodes."""
    env = make(name, num_envs=num_envs, seed=seed)
    env.reset()
    return env._players.permute(2, 0, 1).numpy(), env._foods.permute(2, 0, 1).numpy()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("task", ["8x8-2p-2f", "10x10-3p-5f", "5x5-4p-2f", "6x6-3p-3f-coop"])
def test_starts_are_those_of_lbforaging(task, version):
    """What it says of where players and foods may be, and of their levels; all that may be occurs."""
    players, foods = starts(name_of(task, version))
    size, there = read_task(name_of(task)).size, foods[..., 2] > 0
    cells = players[..., 0] * size + players[..., 1]
    assert set(np.unique(cells)) == set(range(size * size))
    assert all(len(set(row)) == len(row) for row in cells.tolist())
    assert set(np.unique(players[..., 2])) == {1, 2}
    cap = np.sort(players[..., 2], axis=1)[:, :3].sum(1)[:, None]  # [E, 1]
    least, most = (cap, cap) if "coop" in task else (np.ones_like(cap), cap if version == 3 else cap - 1)
    assert (~there | ((foods[..., 2] >= least) & (foods[..., 2] <= most))).all()
    for bound in (least, most):
        assert (there & (foods[..., 2] == bound)).any(1).mean() > 0.2
    places = foods[..., :2][there]
    assert (places.min(), places.max()) == (1, size - 2)
    assert len(np.unique(places, axis=0)) == (size - 2) ** 2
    assert (foods[..., :2][~there] == -1).all()
    for row, own in zip(foods[:500], players[:500], strict=True):
        food = [tuple(f[:2]) for f in row if f[2] > 0]
        assert food == sorted(food)
        assert not {tuple(p[:2]) for p in own} & set(food)
        for i, (y, x) in enumerate(food):
            for v, u in food[:i]:
                down, right = abs(y - v), abs(x - u)
                assert max(down, right) > 1
                assert 0 not in (down, right) or down + right > 2


def test_starts_are_as_likely_as_in_lbforaging():
    """The counts of players and foods on each kind of cell (by distance from the border) and of each level."""
    name, count = "8x8-3p-2f", 4000
    peer = Foraging(**foraging_settings(name_of(name, family="lbf")))
    theirs = []
    for seed in range(count):
        peer.reset(seed=seed)
        theirs.append(start_of(peer))
    ours = starts(name_of(name), count)
    for mine, other in zip(ours, map(np.stack, zip(*theirs, strict=True)), strict=True):
        for kind in (lambda rows: np.minimum(rows[..., :2], 7 - rows[..., :2]).min(-1), lambda rows: rows[..., 2]):
            a, b = (np.bincount(kind(rows).astype(int).ravel() + 1, minlength=9) for rows in (mine, other))
            assert (np.abs(a - b) <= 4.5 * np.sqrt(a + b + 1)).all(), (a, b)


def test_a_field_without_room_gets_fewer_foods():
    """lbforaging stops after 1000 tries; a 5 x 5 field has room for two foods at most."""
    _, foods = starts(name_of("5x5-2p-6f"), 500)
    count = (foods[..., 2] > 0).sum(1)
    assert set(count) <= {1, 2}
    env = make(name_of("5x5-2p-6f"), num_envs=3)
    check_env(env, partial(make, name_of("5x5-2p-6f")))


def test_an_episode_pays_one():
    env = make(name_of("5x5-12p-2f"), num_envs=64)
    step, total, rng = env.reset(), torch.zeros(64), torch.Generator().manual_seed(0)
    for _ in range(50):
        step = env.step(torch.randint(1, 6, (64, 12), generator=rng))
        total += step.reward
    assert step.terminated.float().mean() > 0.5
    assert total[step.terminated].tolist() == pytest.approx([1.0] * int(step.terminated.sum()), abs=1e-6)
    assert (total[step.truncated] < 1).all()


def test_the_time_limit_is_an_option():
    env = make(name_of("8x8-2p-2f"), num_envs=2, episode_limit=3)
    assert env.spec.episode_limit == 3
    env.reset()
    nothing = torch.zeros(2, 2, dtype=torch.int64)
    assert [env.step(nothing).truncated.tolist() for _ in range(3)] == [[False] * 2, [False] * 2, [True] * 2]
    for limit in (0, 1.5, True):
        with pytest.raises(UsageError, match="episode_limit expects"):
            make(name_of("8x8-2p-2f"), episode_limit=limit)


@pytest.mark.parametrize("task", ["10x10-3p-5f", "20x20-10p-3f"])
def test_sizes_of_perlas_tasks(task):
    spec = make(name_of(task)).spec
    n, f = (int(part[:-1]) for part in task.split("-")[1:])
    assert (spec.n_agents, spec.n_actions, spec.obs_dim, spec.state_dim) == (n, 6, 3 * (n + f), 3 * n * (n + f))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("foraging/Foraging-8x8-2p-2f-v1", "expected v2 or v3 at the end, got v1"),
        ("foraging/Foraging-8x9-2p-2f-v3", "square with sides of at least 5, got 8x9"),
        ("foraging/Foraging-5x5-1p-1f-v3", "2 to 12 players.* got 1, 1 and 5"),
        ("foraging/Foraging-6s-5x5-2p-1f-v3", "sight of 1 to 5"),
        (
            "foraging/8x8-2p-2f",
            "unknown environment 'foraging/8x8-2p-2f': did you mean .*foraging/Foraging-8x8-2p-2f-v3",
        ),
    ],
)
def test_what_makes_no_sense(name, text):
    with pytest.raises(UsageError, match=text):
        make(name)


def test_a_step_never_waits_for_a_gpu():
    """Meta tensors have no values: whatever would copy one to the host raises."""
    for task in ("8x8-2p-2f", "2s-8x8-3p-2f"):
        env = make(name_of(task), num_envs=4, device="meta")
        env.reset()
        actions = torch.zeros(4, env.spec.n_agents, dtype=torch.int64, device="meta")
        assert env.step(actions).obs.shape == (4, env.spec.n_agents, env.spec.obs_dim)
