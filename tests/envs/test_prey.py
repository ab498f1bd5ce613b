"""Stag hunt: rules by hand, and random play against a plain Python version of the source's rules."""

import pytest
import torch

from emix.envs import episode_seed, make
from emix.envs.checker import choose
from emix.errors import UsageError

NAME = "prey/stag-hunt"
RIGHT, DOWN, LEFT, UP, STAY, CATCH = range(6)
STEPS = [(0, 1), (1, 0), (0, -1), (-1, 0)]
GONE = None


def cell(place):
    """The simulator's number of (row, column)."""
    return 14 * 17 + 14 if place is GONE else (place[0] + 2) * 17 + place[1] + 2


def places(cells):
    """(row, column) of each number."""
    return [GONE if value == cell(GONE) else (value // 17 - 2, value % 17 - 2) for value in cells.tolist()]


def stage(agents, stags, **options):
    """One environment with actors at these places; the others have left. A tensor of actions that stay."""
    env = make(NAME, **options)
    env.reset()
    for actors, wanted in ((env._agents, agents), (env._stags, stags)):
        actors[0] = torch.tensor([cell(place) for place in [*wanted, *[GONE] * (8 - len(wanted))]])
    env.reset(torch.tensor([False]))  # look again
    return env, torch.full((1, 8), STAY)


def grid(step, channel):
    """The places in the state where ``channel`` is set."""
    return [tuple(place) for place in step.state.view(10, 10, 3)[:, :, channel].nonzero().tolist()]


def window(step, agent, channel):
    """The places relative to an agent where it sees ``channel``."""
    return [(row - 2, column - 2) for row, column in step.obs[0, agent].view(5, 5, 3)[:, :, channel].nonzero().tolist()]


def test_sizes():
    spec = make(NAME).spec
    sizes = (spec.n_agents, spec.n_actions, spec.obs_dim, spec.state_dim, spec.episode_limit)
    assert sizes == (8, 6, 75, 300, 200)


# A stag between three walls of agents cannot move: (0, 0) has the neighbours (0, 1) and (1, 0) only.
def test_two_agents_catch():
    env, actions = stage([(0, 1), (1, 0), (5, 5), (7, 7)], [(0, 0), (9, 9)])
    actions[0, :2] = CATCH
    step = env.step(actions)
    assert step.reward.tolist() == [10]
    assert places(env._agents[0]) == [GONE, GONE, (5, 5), (7, 7), GONE, GONE, GONE, GONE]
    assert grid(step, 0) == [(5, 5), (7, 7)]
    assert len(grid(step, 1)) == 1
    assert not step.obs[0, :2].any()
    assert step.avail[0, 0].tolist() == [action == STAY for action in range(6)]
    assert step.info["stags_caught"].tolist() == [7]  # six had left before
    assert not step.done


@pytest.mark.parametrize("punishment", [0, -1.5, -2])
def test_one_agent_alone_is_punished(punishment):
    env, actions = stage([(0, 1), (1, 0)], [(0, 0)], punishment=punishment)
    actions[0, 0] = CATCH
    step = env.step(actions)
    assert step.reward.tolist() == [punishment]
    assert grid(step, 0) == [(0, 1), (1, 0)]
    assert grid(step, 1) == [(0, 0)]


def test_one_agent_alone_is_punished_for_every_stag_beside_it():
    agents = [(0, 1), (2, 0), (1, 2), (3, 3)]  # the first is between two stags, (0, 0) and (1, 1)
    env, actions = stage([*agents, (1, 0), (2, 1)], [(0, 0), (1, 1)], punishment=-2)
    actions[0, 0] = CATCH
    assert env.step(actions).reward.tolist() == [-4]


def test_catchers_of_one_stag_cannot_catch_another():
    """Both stags are beside both agents: whichever comes first is caught, and the other escapes unpunished."""
    env, actions = stage([(0, 1), (1, 0)], [(0, 0), (1, 1)], punishment=-2)
    actions[0, :2] = CATCH
    step = env.step(actions)
    assert step.reward.tolist() == [10]
    assert step.terminated.tolist() == [True]  # no agent is left
    assert len(grid(step, 1)) == 1


def test_three_agents_leave_together():
    env, actions = stage([(0, 4), (0, 6), (1, 5), (9, 9)], [(0, 5), (5, 5)])
    actions[0, :3] = CATCH
    assert env.step(actions).reward.tolist() == [10]
    assert places(env._agents[0])[:4] == [GONE, GONE, GONE, (9, 9)]


def test_a_caught_stag_makes_room_in_the_same_step():
    """The stag in the corner is shut in by the other one and an agent; it can only move after the other was caught."""
    moved = 0
    for seed in range(20):
        env, actions = stage([(1, 0), (0, 2), (1, 1)], [(0, 0), (0, 1)], seed=seed)
        actions[0, 1:3] = CATCH
        step = env.step(actions)
        assert step.reward.tolist() == [10]
        moved += grid(step, 1) == [(0, 1)]
        assert grid(step, 1) in ([(0, 1)], [(0, 0)])
    assert 0 < moved < 20


def test_the_last_stag_ends_the_episode():
    env, actions = stage([(0, 1), (1, 0), (5, 5)], [(0, 0)])
    actions[0, :2] = CATCH
    step = env.step(actions)
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([True], [False])
    assert env.step(actions).reward.tolist() == [0]


def test_the_limit_truncates():
    env = make(NAME)
    step = env.reset()
    for t in range(200):
        assert not step.done, t
        step = env.step(torch.full((1, 8), STAY))
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([False], [True])


def test_moves():
    env, actions = stage([(5, 5), (5, 6), (0, 0), (9, 9)], [])
    env._stags[0, 0] = cell((0, 9))
    actions[0, :4] = torch.tensor([UP, DOWN, RIGHT, LEFT])
    env.step(actions)
    assert places(env._agents[0])[:4] == [(4, 5), (6, 6), (0, 1), (9, 8)]


def test_occupied_cells_block():
    """Behind a stag and behind an agent that stays; a train of agents advances as far as the order of moves lets it."""
    env, actions = stage([(0, 1), (5, 5), (5, 4), (1, 0)], [(0, 0)])
    actions[0, 0] = LEFT
    actions[0, 2] = RIGHT
    env.step(actions)
    assert places(env._agents[0])[:3] == [(0, 1), (5, 5), (5, 4)]

    outcomes = set()
    for seed in range(20):
        env, actions = stage([(5, 4), (5, 5)], [(9, 9)], seed=seed)
        actions[0, :2] = RIGHT
        env.step(actions)
        outcomes.add(tuple(places(env._agents[0])[:2]))
    assert outcomes == {((5, 5), (5, 6)), ((5, 4), (5, 6))}


def test_two_agents_want_one_cell():
    winners = set()
    for seed in range(20):
        env, actions = stage([(5, 4), (5, 6)], [(9, 9)], seed=seed)
        actions[0, :2] = torch.tensor([RIGHT, LEFT])
        env.step(actions)
        winners.add(tuple(places(env._agents[0])[:2]))
    assert winners == {((5, 5), (5, 6)), ((5, 4), (5, 5))}


def test_what_is_available():
    env, _ = stage([(0, 0), (9, 9), (5, 5), (5, 6)], [(9, 8)])
    avail = env.reset(torch.tensor([False])).avail[0].int().tolist()
    assert avail[0] == [1, 1, 0, 0, 1, 0]
    assert avail[1] == [0, 0, 1, 1, 1, 1]  # onto the stag, too: it may have moved by then
    assert avail[2] == [1, 1, 1, 1, 1, 0]  # onto another agent
    assert avail[4] == [0, 0, 0, 0, 1, 0]
    with pytest.raises(UsageError, match=r"agent 0: action 2 is not available, expected one of \[0, 1, 4\]"):
        env.step(torch.full((1, 8), LEFT))


def test_diagonals_are_not_beside():
    env, _ = stage([(5, 5)], [(4, 4), (6, 6), (4, 6), (5, 7), (7, 5)])
    assert env.reset(torch.tensor([False])).avail[0, 0].tolist() == [True] * 5 + [False]


def test_observation_and_state():
    env, _ = stage([(0, 0), (2, 2), (3, 0), (5, 9)], [(0, 2), (0, 3), (6, 8)])
    step = env.reset(torch.tensor([False]))
    assert window(step, 0, 0) == [(0, 0), (2, 2)]  # itself, and the farthest corner
    assert window(step, 0, 1) == [(0, 2)]
    assert window(step, 1, 0) == [(-2, -2), (0, 0), (1, -2)]
    assert window(step, 1, 1) == [(-2, 0), (-2, 1)]
    assert window(step, 3, 0) == [(0, 0)]
    assert window(step, 3, 1) == [(1, -1)]
    assert not step.obs[0, 4:].any()
    assert grid(step, 0) == [(0, 0), (2, 2), (3, 0), (5, 9)]
    assert grid(step, 1) == [(0, 2), (0, 3), (6, 8)]
    assert grid(step, 2) == []


def splitmix64(key, counter):
    """In Python's integers, as a signed 64-bit number."""
    z = (key + (counter + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    return z - 2**64 if z >= 2**63 else z


class Plain:
    """One episode with loops and lists, from the rules of the source; the draws are numbered as in the simulator."""

    def __init__(self, seed, index, number, punishment):
        self.key, self.time, self.punishment = episode_seed(seed, index, number), 0, punishment
        shuffled = sorted(range(100), key=lambda i: splitmix64(self.key, i))
        actors = [divmod(i, 10) for i in shuffled[:16]]
        self.agents, self.stags = actors[:8], actors[8:]

    def free(self, place):
        inside = 0 <= place[0] < 10 and 0 <= place[1] < 10
        return inside and place not in self.agents and place not in self.stags

    def step(self, actions):
        draws = [splitmix64(self.key, 100 + 48 * self.time + i) for i in range(48)]
        self.time += 1
        for a in sorted(range(8), key=lambda a: draws[a]):
            if self.agents[a] is not GONE and actions[a] < 4:
                target = tuple(x + d for x, d in zip(self.agents[a], STEPS[actions[a]], strict=True))
                if self.free(target):
                    self.agents[a] = target
        reward, order = 0, sorted(range(8), key=lambda s: draws[8 + s])
        for turn, s in enumerate(order):
            if self.stags[s] is GONE:
                continue
            around = [tuple(x + d for x, d in zip(self.stags[s], move, strict=True)) for move in STEPS]
            hands = [a for a in range(8) if actions[a] == CATCH and self.agents[a] in around]
            if len(hands) >= 2:
                reward += 10
                self.stags[s] = GONE
                for a in hands:
                    self.agents[a] = GONE
                continue
            reward += self.punishment * len(hands)
            wishes = [(draws[16 + 4 * turn + u] % 2**64 >> 1, place) for u, place in enumerate(around)]
            self.stags[s] = max((wish for wish in wishes if self.free(wish[1])), default=(0, self.stags[s]))[1]
        self.stags = [self.stags[s] for s in order]  # the simulator keeps them in the order of their turns
        return reward, set(self.agents) == {GONE} or set(self.stags) == {GONE}


@pytest.mark.parametrize("punishment", [0.0, -2.0])
def test_random_play_against_plain_python(punishment, device):
    env = make(NAME, num_envs=6, seed=3, punishment=punishment, device=device)
    generator = torch.Generator().manual_seed(0)
    caught = punished = 0
    for number in range(2):
        step = env.reset()
        plain = [Plain(3, e, number, punishment) for e in range(6)]
        ended = [False] * 6
        for t in range(60):
            for e in range(6):
                if not ended[e]:
                    assert places(env._agents[e]) == plain[e].agents, (number, t, e)
                    assert places(env._stags[e]) == plain[e].stags, (number, t, e)
            actions = choose(env.spec.action, step, torch.rand(6, 8, generator=generator).to(device))
            # Half of those who can catch do, so that catches happen.
            eager = torch.rand(6, 8, generator=generator).to(device) < 0.5
            actions = torch.where(step.avail[:, :, CATCH] & eager, CATCH, actions)
            step = env.step(actions)
            for e in range(6):
                if not ended[e]:
                    reward, ended[e] = plain[e].step(actions[e].tolist())
                    assert (float(step.reward[e]), bool(step.terminated[e])) == (reward, ended[e])
                    caught, punished = caught + (reward > 0), punished + (reward < 0)
    assert caught > 5
    assert (punished > 5) == (punishment < 0)


def test_every_direction_is_as_likely():
    """A lone stag in the middle of the field, 4000 environments."""
    env = make(NAME, num_envs=4000, seed=1)
    env.reset()
    env._stags[:] = cell(GONE)
    env._stags[:, 0], env._agents[:] = cell((5, 5)), cell(GONE)
    env._agents[:, 0] = cell((0, 0))
    env.step(torch.full((4000, 8), STAY))
    to = env._stags[env._stags != cell(GONE)]
    counts = torch.tensor([(to == cell(place)).sum() for place in ((5, 6), (6, 5), (5, 4), (4, 5))])
    assert counts.sum() == 4000
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 16.3  # chi-squared, 3 degrees of freedom, p = 0.001


def test_placement_is_uniform():
    """Each cell is as likely to hold an agent as a stag: 8 in 100."""
    state = make(NAME, num_envs=5000, seed=2).reset().state.view(5000, 100, 3).sum(0)  # [100, 3]
    expected = 400 * 0.92  # variance of 5000 draws with probability 0.08
    for channel in (0, 1):
        assert int(state[:, channel].sum()) == 40_000
        assert float(((state[:, channel] - 400) ** 2 / expected).sum()) < 155  # 99 degrees of freedom, p = 0.0003


def test_a_step_never_waits_for_a_gpu():
    """Meta tensors have no values: whatever would copy one to the host raises."""
    env = make(NAME, num_envs=4, device="meta")
    env.reset()
    assert env.step(torch.zeros(4, 8, dtype=torch.int64, device="meta")).obs.shape == (4, 8, 75)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"punishment": 1}, "expected a number of at most 0, got 1"),
        ({"punishment": float("nan")}, "got nan"),
        ({"punishment": True}, "got True"),
        ({"punishment": "-2"}, "got '-2'"),
        ({"punish": -2}, "unknown option 'punish', the only one is punishment"),
    ],
)
def test_wrong_options(options, text):
    with pytest.raises(UsageError, match=text):
        make(NAME, **options)
