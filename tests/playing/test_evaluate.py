import pytest
import torch

from emix import learners
from emix.playing import evaluate


def test_every_environment_plays_its_quota(scripted_env, policy):
    # Environment 0's episodes are short. Were the first 8 finished episodes taken, most would be its own.
    env = scripted_env([[(1, False)], [(8, False)]])
    means = evaluate(env, policy, 8)
    assert env.episode.tolist() == [4, 4]
    assert means["test_ep_length_mean"] == (1 + 8) / 2
    assert means["test_return_mean"] == (1 + sum(range(11, 19))) / 2
    assert means["test_return_std"] == (sum(range(11, 19)) - 1) / 2
    assert means["test_battle_won_mean"] == 1.0
    assert not any(policy.explored)


def test_episodes_must_be_shared_out_evenly(scripted_env, policy):
    with pytest.raises(ValueError, match="multiple of the 2 environments, got 3"):
        evaluate(scripted_env([[(1, False)], [(2, False)]]), policy, 3)


def test_learner_is_left_as_it_was(scripted_env):
    env = scripted_env([[(4, False)], [(2, True)]])
    algorithm = learners.get("smix")
    learner = algorithm.learner(algorithm.config(), env.spec, device="cpu", seed=0)
    before = {name: value.clone() for name, value in learner.parts.state_dict().items()}
    torch_state = torch.get_rng_state()
    evaluate(env, learner.actor, 4)
    after = learner.parts.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch_state, torch.get_rng_state())
