"""``python -O`` takes ``assert`` away: nothing in the package may rest on one."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent / "python" / "emix"


def test_the_package_has_no_assert():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert found == [], "raise an error instead, or tell the type checker by typing.cast"


REFUSED = """
import emix, torch
from emix.envs import check_env, vector_env
from emix.envs.battle import StarCraft2Env

def refused(kind, call):
    try:
        call()
    except kind:
        return
    print("not refused:", kind)

game = StarCraft2Env("3m", seed=1)
game.reset()
refused(AssertionError, lambda: game.step([1, 6, 1]))
refused(ValueError, lambda: game.step([1, 1]))
env = emix.make("matrix/penalty-2x3")
env.reset()
refused(ValueError, lambda: env.step(torch.tensor([[0, 3]])))
refused(ValueError, lambda: emix.make("prey/stag-hunt", punishment=float("nan")))
env.spec = emix.data.EnvSpec("wrong", 2, emix.data.Discrete(3), obs_dim=4, state_dim=5, episode_limit=1)
refused(AssertionError, lambda: check_env(env))
print(__debug__)
"""


def test_checks_are_made_without_asserts():
    done = subprocess.run([sys.executable, "-O", "-c", REFUSED], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
