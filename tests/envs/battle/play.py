"""How tests play battles."""

import torch

from emix.envs.battle.fields import MIND, ORDER, UNIT


def random_actions(step, generator, attack=0.0):
    """[B, n] uniformly random available actions; with probability ``attack`` one with a target where there is one."""
    weight = step.avail.double()
    bold = torch.rand(weight.shape[:2], generator=generator, dtype=torch.float64) < attack  # [B, n]
    aimed = weight[:, :, 6:].any(2) & bold
    weight[:, :, :6] *= ~aimed[:, :, None]
    return torch.multinomial(weight.flatten(0, 1), 1, generator=generator).view(weight.shape[:2])


def play(env, steps, generator, attack=0.0):
    """Yield the step before, the actions and the step after, for ``steps`` environment steps; done battles restart."""
    step = env.reset()
    for _ in range(steps):
        actions = random_actions(step, generator, attack)
        after = env.step(actions)
        yield step, actions, after
        step = env.reset(after.done) if after.done.any() else after


def until_done(env, choose):
    """Play every battle to its end with ``choose(step)`` and yield each step."""
    step = env.reset()
    yield step
    while not step.done.all():
        step = env.step(choose(step))
        yield step


def first_target(step, otherwise):
    """[B, n]: attack the first enemy in reach; else ``otherwise`` where available, else stop; the dead do nothing."""
    aim = step.avail[:, :, 6:].int().argmax(2) + 6
    move = torch.where(step.avail[:, :, otherwise], otherwise, 1)
    return torch.where(step.avail[:, :, 6:].any(2), aim, torch.where(step.avail[:, :, 0], 0, move))


def attack_move(env, x, y):
    """Let all allies attack-move to a point, as the enemies do."""
    allies = slice(0, env.spec.n_agents)
    env.minds[:, MIND["order"], allies] = ORDER["attack_move"]
    env.units[:, UNIT["goal_x"], allies], env.units[:, UNIT["goal_y"], allies] = x, y
