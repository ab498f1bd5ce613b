"""``StarCraft2Env``: smac's interface, and that it says what the batch says."""

import numpy as np
import pytest
import torch
from PIL import Image

import emix
from emix.envs.battle import StarCraft2Env
from emix.envs.battle.fields import UNIT
from emix.errors import UsageError

ARGUMENTS = {
    "step_mul": 8, "move_amount": 2, "difficulty": "7", "game_version": None, "continuing_episode": True,
    "obs_all_health": True, "obs_own_health": True, "obs_last_action": True, "obs_pathing_grid": True,
    "obs_terrain_height": True, "obs_instead_of_state": False, "obs_timestep_number": True, "state_last_action": True,
    "state_timestep_number": True, "reward_sparse": False, "reward_only_positive": False, "reward_death_value": 5,
    "reward_win": 100, "reward_defeat": -10, "reward_negative_scale": 1.0, "reward_scale": True,
    "reward_scale_rate": 10, "replay_prefix": "", "window_size_x": 640, "window_size_y": 480, "heuristic_ai": False,
    "heuristic_rest": False, "debug": False,
}  # fmt: skip


def random_choice(env, rng):
    return [int(rng.choice(np.flatnonzero(row))) for row in env.get_avail_actions()]


@pytest.mark.parametrize("arguments", [{}, ARGUMENTS])
def test_it_plays_what_the_batch_plays(arguments):
    env = StarCraft2Env("2s3z", seed=4, **arguments)
    ignored = ("step_mul", "difficulty", "game_version", "continuing_episode", "replay_prefix", "window_size_x",
               "window_size_y", "heuristic_ai", "heuristic_rest", "debug", "reward_sparse")  # fmt: skip
    batch = emix.make("battle/2s3z", seed=4, **{k: v for k, v in arguments.items() if k not in ignored})
    rng = np.random.default_rng(0)
    for _ in range(2):
        (obs, state), step, done = env.reset(), batch.reset(), False
        assert [o.dtype for o in obs] == [np.float32] * 5
        while not done:
            np.testing.assert_array_equal(np.stack(env.get_obs()), step.obs[0].numpy())
            np.testing.assert_array_equal(env.get_state(), step.state[0].numpy())
            assert env.get_avail_actions() == step.avail[0].int().tolist()
            assert (len(obs[0]), len(state)) == (env.get_obs_size(), env.get_state_size())
            actions = random_choice(env, rng)
            reward, done, info = env.step(actions)
            step = batch.step(torch.tensor([actions]))
            assert reward == float(step.reward)
            assert done == bool(step.done)
            assert info["battle_won"] == bool(step.info["battle_won"])
            assert (info["dead_allies"], info["dead_enemies"]) == (
                int(step.info["dead_allies"]),
                int(step.info["dead_enemies"]),
            )


def test_env_info():
    assert StarCraft2Env("MMM").get_env_info() == {
        "state_shape": 290,
        "obs_shape": 160,
        "n_actions": 16,
        "n_agents": 10,
        "episode_limit": 150,
        "agent_features": ["health", "energy/cooldown", "rel_x", "rel_y", "type_0", "type_1", "type_2"],
        "enemy_features": ["health", "rel_x", "rel_y", "type_0", "type_1", "type_2"],
    }
    assert StarCraft2Env().get_env_info()["obs_shape"] == 80  # 8m
    assert StarCraft2Env("3s_vs_3z").get_env_info()["enemy_features"] == ["health", "rel_x", "rel_y", "shield"]


@pytest.mark.parametrize("continuing", [False, True])
def test_a_time_out_is_terminated(continuing):
    env = StarCraft2Env("2s_vs_1sc", seed=1, continuing_episode=continuing, episode_limit=3)
    env.reset()
    for expected in (False, False, True):
        _, done, info = env.step([1, 1])
        assert done is expected
    limit = {"episode_limit": True} if continuing else {}
    assert info == {"battle_won": False, "dead_allies": 0, "dead_enemies": 0, **limit}
    assert env.get_stats() == {
        "battles_won": 0, "battles_game": 1, "battles_draw": 1, "win_rate": 0.0, "timeouts": 1, "restarts": 0,
    }  # fmt: skip


def test_an_action_that_is_not_available():
    env = StarCraft2Env("3m", seed=1)
    env.reset()
    with pytest.raises(AssertionError, match="Agent 1 cannot perform action 6"):
        env.step([1, 6, 1])
    with pytest.raises(AssertionError, match="Agent 0 cannot perform action 0"):
        env.step([0, 1, 1])


@pytest.mark.parametrize(
    "actions",
    [
        [1, 1],
        [1, 1, 1, 1],
        [],
        1,
        [1.0, 1.0, 1.0],
        ["1", "1", "1"],
        [True] * 3,
        [None] * 3,
        [[1], [1], [1]],
        [1, [1], 1],
    ],
)
@pytest.mark.parametrize("heuristic", [False, True])
def test_what_are_no_actions(actions, heuristic):
    """Nothing is played, whatever they are."""
    env = StarCraft2Env("3m", seed=1, heuristic_ai=heuristic)
    env.reset()
    before = env.get_state()
    with pytest.raises(UsageError, match="battle/3m: step expects 3 integers, one action for each agent, got"):
        env.step(actions)
    np.testing.assert_array_equal(env.get_state(), before)
    assert not env.step([1, 1, 1])[1]


@pytest.mark.parametrize("kind", [tuple, np.array, torch.tensor, lambda actions: [np.int64(a) for a in actions]])
def test_what_are_actions(kind):
    env = StarCraft2Env("3m", seed=np.int64(1))
    env.reset()
    assert env.step(kind([1, 2, 4]))[2]["battle_won"] is False


def test_state_dict_and_visibility():
    env = StarCraft2Env("2s3z", seed=2, state_timestep_number=True)
    env.reset()
    rng = np.random.default_rng(1)
    for _ in range(12):
        _, done, _ = env.step(random_choice(env, rng))
        assert not done
        parts = env.get_state_dict()
        assert {name: part.shape for name, part in parts.items()} == {
            "allies": (5, 7), "enemies": (5, 6), "last_action": (5, 11), "timestep": (1,),
        }  # fmt: skip
        np.testing.assert_array_equal(np.concatenate([part.ravel() for part in parts.values()]), env.get_state())
        seen = env.get_visibility_matrix()
        assert (seen.shape, seen.dtype) == ((5, 10), bool)
        for agent, obs in enumerate(env.get_obs()):
            enemies = obs[4 : 4 + 5 * 8].reshape(5, 8)  # obs 80 = 4 + 5 x 8 + 4 x 8 + 4
            others = obs[44 : 44 + 4 * 8].reshape(4, 8)
            assert seen[agent, 5:].tolist() == (enemies[:, 1] > 0).tolist()
            assert np.delete(seen[agent, :5], agent).tolist() == (others[:, 0] > 0).tolist()


def test_unit_types():
    env = StarCraft2Env("MMM", seed=1, enemy_order="sorted")
    with pytest.warns(UserWarning, match="after reset"):
        assert env.get_unit_types() is None
    env.reset()
    assert env.get_unit_types() == [51] * 2 + [48] * 7 + [54] + [48] * 7 + [51] * 2 + [54]


@pytest.mark.parametrize("rest", [False, True])
def test_the_heuristic_fights(rest):
    """It overwrites the caller's actions, walks to its target, and is far better than chance."""
    env = StarCraft2Env("8m", seed=3, heuristic_ai=True, heuristic_rest=rest)
    chance = StarCraft2Env("8m", seed=3)
    rng, totals = np.random.default_rng(0), [0.0, 0.0]
    for k, player in enumerate((env, chance)):
        for _ in range(5):
            player.reset()
            done = False
            while not done:
                actions = random_choice(player, rng)
                before = list(actions)
                reward, done, _ = player.step(actions)
                totals[k] += reward
                if player is env:
                    last = player.get_state_dict()["last_action"]
                    assert last.argmax(1).tolist() == actions
                else:
                    assert actions == before
    assert totals[0] > 3 * totals[1]


def test_the_heuristic_of_a_medivac_heals_the_wounded():
    env = StarCraft2Env("MMM", seed=3, heuristic_ai=True)
    env.reset()
    actions = [1] * 10
    env._env.units[0, UNIT["health"], 4] = 20.0
    env.step(actions)
    assert actions[9] == 6 + 4  # the medivac is the last agent
    assert env._env.units[0, UNIT["health"], 4] > 20.0


def test_pictures(tmp_path, monkeypatch):
    env = StarCraft2Env("3m", seed=1, replay_dir=str(tmp_path), replay_prefix="mine")
    env.reset()
    for _ in range(3):
        env.step([4, 4, 4])
    assert env.render().shape[2] == 3
    path = env.save_replay()
    assert path == tmp_path / "mine_0.gif"
    monkeypatch.setenv("HOME", str(tmp_path))
    env.replay_dir = "~/films"
    assert env.save_replay() == tmp_path / "films" / "mine_0.gif"
    with Image.open(path) as film:
        assert film.n_frames == 4
    env.close()


def test_what_makes_no_sense():
    with pytest.raises(UsageError, match="step_mul expects 8"):
        StarCraft2Env("3m", step_mul=4)
    with pytest.raises(UsageError, match="unknown map '3n'"):
        StarCraft2Env("3n")
    with pytest.raises(UsageError, match="unknown option 'debugg'"):
        StarCraft2Env("3m", debugg=True)
    with pytest.raises(UsageError, match="call reset"):
        StarCraft2Env("3m").step([1, 1, 1])
    for seed in (-1, 2**63, 1.0, True):
        with pytest.raises(UsageError, match=r"seed must be an integer from 0 to 2\^63 - 1, got"):
            StarCraft2Env("3m", seed=seed)
    assert StarCraft2Env("3m", seed=9).seed() == 9
    assert StarCraft2Env("3m").seed() != StarCraft2Env("3m").seed()
