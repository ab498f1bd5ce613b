"""The batch of episodes."""

import torch


def test_lengths_count_the_valid_steps(random_episodes):
    assert random_episodes().lengths.tolist() == [1, 1, 1, 4, 5, 6, 9, 9, 9]


def test_trim_keeps_one_more_observation_than_steps(random_episodes):
    episodes = random_episodes()
    short = episodes[:6].trim(6)
    assert short.batch_size == torch.Size([6])
    assert short.obs.shape[:2] == short.state.shape[:2] == short.avail.shape[:2] == short.actions.shape[:2] == (6, 7)
    assert short.reward.shape == short.terminated.shape == short.truncated.shape == short.valid.shape == (6, 6)
    assert torch.equal(short.lengths, episodes[:6].lengths)
    assert torch.equal(short.obs, episodes.obs[:6, :7])


def test_indexing_takes_whole_episodes(random_episodes):
    episodes = random_episodes()
    chosen = episodes[torch.tensor([5, 3, 5])]
    assert chosen.lengths.tolist() == [6, 4, 6]
    assert torch.equal(chosen.actions[0], chosen.actions[2])
