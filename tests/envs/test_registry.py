"""Names, parameters and what is installed."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import emix
from emix.envs import EnvInfo, episode_seed, families, list_envs, make, registry
from emix.errors import UsageError


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("matrix/mstep-5", "matrix/msteps-5"),
        ("matrix/penalty-2-3", "matrix/penalty-2x3"),
        ("battle/3n", "battle/3m"),
        ("smax/2s3z", "smac/2s3z"),
        ("prey/stag_hunt", "prey/stag-hunt"),
        ("stag_hunt", "prey/stag-hunt"),
        ("lbf/Foraging-8x8-2p-2f", "lbf/Foraging-8x8-2p-2f-v3"),
        ("Foraging-8x8-2p-2f-v3", "lbf/Foraging-8x8-2p-2f-v3"),
        ("lbf/foraging-8x8-2p-2f-coop-v3", "lbf/Foraging-8x8-2p-2f-coop-v3"),
        ("mamujoco/HalfCheetah", "mamujoco/HalfCheetah-6x1"),
    ],
)
def test_unknown_name_offers_the_closest(name, closest):
    with pytest.raises(UsageError, match=f"unknown environment '{name}': did you mean .*{closest}"):
        make(name)


def test_a_name_like_no_other_gets_the_list():
    names = ", ".join(row.name for row in list_envs())
    assert names.startswith("battle/<map>, foraging/<id>, gym/<id>, lbf/<id>")
    with pytest.raises(UsageError, match=f"the names are {names}"):
        make("zzz")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"num_envs": 0}, "num_envs must be an integer of at least 1, got 0"),
        ({"num_envs": 2.0}, "num_envs must be an integer of at least 1, got 2.0"),
        ({"num_envs": True}, "got True"),
        ({"seed": -1}, r"seed must be an integer from 0 to 2\^63 - 1, got -1"),
        ({"seed": 2**63}, r"seed must be an integer from 0 to 2\^63 - 1, got 9223372036854775808"),
        ({"seed": np.bool_(1)}, r"seed must be an integer from 0 to 2\^63 - 1, got np.True_"),
        ({"first_env": -1}, "first_env must be an integer of at least 0, got -1"),
        ({"first_env": 2**32}, r"first_env \+ num_envs must be at most 2\^32, got 4294967296 \+ 1"),
        ({"size": 3}, "matrix/msteps-2: unknown option 'size', it has none"),
        ({"device": "gpu"}, "device 'gpu' cannot be used"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
    ],
)
def test_parameters_out_of_range(option, text):
    with pytest.raises(UsageError, match=text) as caught:
        make("matrix/msteps-2", **option)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lbf/Foraging-8x8-2p-2f-v2", "got v2: use -v3"),
        ("lbf/Foraging-8x9-2p-2f-v3", "square with sides of at least 5, got 8x9"),
        ("lbf/Foraging-4x4-2p-2f-v3", "got 4x4"),
        ("lbf/Foraging-5x5-1p-1f-v3", "2 to 12 players.* got 1, 1 and 5"),
        ("lbf/Foraging-5x5-2p-0f-v3", "1 to 6 foods.* got 2, 0 and 5"),
        ("lbf/Foraging-6s-5x5-2p-1f-v3", "sight of 1 to 5"),
    ],
)
def test_foraging_that_makes_no_sense(name, text):
    with pytest.raises(UsageError, match=text):
        make(name)


LIBRARIES = ("gym/<id>", "pettingzoo/<module>")  # whatever other libraries have: tests/envs/test_foreign.py
GAMES = ("sc2/<map>", "smac/<map>")  # StarCraft II itself, which no package index has: tests/envs/sc2


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(families, "find_spec", lambda package: None)
    with pytest.raises(UsageError, match=r'pip install "emix\[lbf\]"'):
        make("lbf/Foraging-8x8-2p-2f-v3")
    with pytest.raises(UsageError, match=r'the package gymnasium_robotics, .*: pip install "emix\[mamujoco\]"'):
        make("mamujoco/Swimmer-2x1")
    rows = [row for row in list_envs() if row.name not in GAMES]
    assert [(row.name.partition("/")[0], row.install) for row in rows if not row.installed] == [
        ("lbf", 'pip install "emix[lbf]"'),
        ("mamujoco", 'pip install "emix[mamujoco]"'),
        ("pettingzoo", 'pip install "emix[pettingzoo]"'),
    ]


def test_everything_listed_can_be_made():
    rows = [row for row in list_envs() if row.name not in GAMES]
    assert all(row.installed and not row.install and row.description for row in rows)
    examples = {"map": "3m", "predators": "3", "m": "3", "n": "2", "A": "3", "id": "Foraging-2s-5x5-2p-1f-coop-v3"}
    examples |= {"scenario": "Swimmer", "factorisation": "2x1"}
    for row in rows:
        if row.name in LIBRARIES:
            continue
        name = row.name
        for key, value in examples.items():
            name = name.replace(f"<{key}>", value)
        env = make(name)
        assert env.spec.name == name
        env.close()


def test_the_list_needs_neither_torch_nor_a_simulator():
    code = """import sys, emix.envs
emix.envs.list_envs(), emix.envs.episode_seed(0, 0, 0)
print([m for m in ("torch", "gymnasium", "lbforaging", "mujoco", "pettingzoo") if m in sys.modules])"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_episode_seeds_are_fixed_and_distinct():
    """The literal is part of the contract: a saved run resumes with the same episodes under a later version."""
    assert episode_seed(0, 0, 0) == 1317536309490288386
    seeds = {episode_seed(s, e, k) for s in (0, 1, 2**32, 2**40) for e in range(8) for k in range(50)}
    assert len(seeds) == 4 * 8 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)


def make_walk(name, options, *, num_envs, device, seed, first_env):
    steps = int(name.removeprefix("test/walk-"))
    return SimpleNamespace(steps=steps, options=options, batch=(num_envs, device, seed, first_env))


def make_other(name, options, **batch):
    raise AssertionError("not this one")


@pytest.fixture
def families_of_ones_own(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


@pytest.mark.usefixtures("families_of_ones_own")
def test_an_environment_of_ones_own():
    emix.register_env("test/walk-<steps>", make_walk, description="a walk", options=["wind"], examples=["test/walk-3"])
    env = emix.make("test/walk-12", num_envs=5, seed=2, first_env=7, wind=0.5)
    assert (env.steps, env.options) == (12, {"wind": 0.5})
    assert env.batch == (5, torch.device("cpu"), 2, 7)
    assert make("test/walk-1").batch == (1, torch.device("cpu"), 0, 0)
    assert list_envs()[-1] == EnvInfo("test/walk-<steps>", True, "", "a walk", ("wind",), ("test/walk-3",), {})
    with pytest.raises(UsageError, match="test/walk-12: unknown option 'winds', the only one is wind"):
        make("test/walk-12", winds=1)
    with pytest.raises(UsageError, match=r"unknown environment 'test/wolk-3': did you mean test/walk-3\?"):
        make("test/wolk-3")
    assert make("matrix/msteps-2").spec.name == "matrix/msteps-2"


@pytest.mark.usefixtures("families_of_ones_own")
def test_a_mistyped_name_of_a_family_without_examples():
    emix.register_env("test/walk-<steps>", make_walk, description="a walk")
    with pytest.raises(UsageError, match="did you mean test/walk-<steps>"):
        make("test/wolk-<steps")


@pytest.mark.usefixtures("families_of_ones_own")
@pytest.mark.parametrize(
    ("pattern", "known"),
    [
        ("prey/macf", "prey/macf"),
        ("battle/mine", "battle/<map>"),
        ("<anything>", "matrix/msteps-<m>"),
        ("matrix/<game>-<size>", "matrix/msteps-<m>"),
        ("matrix/con<x>s", "matrix/continuous"),
        ("test/walk-3", "test/walk-<steps>"),
        ("test/<a>-<b>", "test/walk-<steps>"),
        ("<a>-<b>-<c>", "matrix/msteps-<m>"),
    ],
)
def test_names_that_could_mean_two_families_are_refused(pattern, known):
    emix.register_env("test/walk-<steps>", make_walk, description="a walk")
    with pytest.raises(UsageError, match=f"'{re.escape(pattern)}' clashes with the environments '{re.escape(known)}'"):
        emix.register_env(pattern, make_other, description="another")


@pytest.mark.usefixtures("families_of_ones_own")
@pytest.mark.parametrize(
    "pattern", ["test/walk", "test/walk-", "test/run-<steps>", "walk-<steps>", "prey/macf2", "lbf"]
)
def test_names_that_cannot_are_not(pattern):
    emix.register_env("test/walk-<steps>", make_walk, description="a walk")
    emix.register_env(pattern, make_other, description="another")
    assert make("test/walk-3").steps == 3


@pytest.mark.usefixtures("families_of_ones_own")
def test_registering_again():
    for description in ("first", "second"):
        emix.register_env("test/walk-<steps>", make_walk, description=description)
    assert [row.description for row in list_envs()][-1] == "second"
    with pytest.raises(UsageError, match="clashes"):
        emix.register_env("test/walk-<steps>", make_other, description="third")


@pytest.mark.usefixtures("families_of_ones_own")
@pytest.mark.parametrize("pattern", ["", "a b", "a/<", "a/<>", "a/<b", "a/b>"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(UsageError, match="pattern expects a name without spaces"):
        emix.register_env(pattern, make_walk, description="a walk")


@pytest.mark.usefixtures("families_of_ones_own")
@pytest.mark.parametrize(
    ("install", "command"), [("", "pip install no_such_package"), ("pip install other", "pip install other")]
)
def test_an_environment_whose_package_is_missing(install, command):
    emix.register_env("test/walk-<steps>", make_walk, description="a walk", requires="no_such_package", install=install)
    assert list_envs()[-1] == EnvInfo("test/walk-<steps>", False, command, "a walk", (), ("test/walk-<steps>",), {})
    with pytest.raises(UsageError, match=f"needs the package no_such_package, which is not installed: {command}"):
        make("test/walk-3")


MODULE = """
import gymnasium, numpy as np
from gymnasium import spaces
import emix
from emix.envs import HostEnv

class Ring(gymnasium.Env):
    observation_space = spaces.Dict(obs=spaces.Box(0, 6, (2, 1)), state=spaces.Box(0, 6, (2,)))
    action_space = spaces.Box(-1, 1, (2, 1))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.random(2)
        return self.observe(), {}

    def step(self, action):
        self.place = self.place + action[:, 0]
        return self.observe(), 0.0, True, False, {}

    def observe(self):
        return {"obs": self.place[:, None], "state": self.place}

def make_ring(name, options, **batch):
    return HostEnv(name, Ring, episode_limit=1, **batch)

def register():
    emix.register_env("mine/ring", make_ring, description="a ring of my own")
"""
TRY = """
import emix
env = emix.make("mine/ring", num_envs=3)
print(env.spec.name, {row.name: row.description for row in emix.list_envs()}["mine/ring"], env.reset().state.shape)
env.close()
"""


def run(code, folder, *arguments):
    """The output of Python code, or of the command ``emix``, of a user whose modules are in this folder."""
    command = [sys.executable, "-c", code, *arguments]
    environment = os.environ | {"PYTHONPATH": str(folder), "XDG_CONFIG_HOME": str(folder / "config")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder / "elsewhere")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def test_a_package_that_announces_environments(folder):
    (folder / "mine_envs.py").write_text(MODULE)
    announced = folder / "mine-1.0.dist-info"
    announced.mkdir()
    (announced / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (announced / "entry_points.txt").write_text("[emix.envs]\nmine = mine_envs:register\n")
    out = run(TRY, folder)
    assert out.stdout == "mine/ring a ring of my own torch.Size([3, 2])\n", out.stderr


BROKEN = {
    "no_such_function": "mine_envs:no_such_function",
    "no_such_module": "no_such_module:register",
    "raises": "mine_envs:raises",
    "exits": "mine_envs:exits",
}
BREAKS = """
import sys
def raises():
    raise ZeroDivisionError("a bug\\nof theirs")
def exits():
    sys.exit("no licence")
"""
OTHERS = """
import emix
print(emix.make("matrix/msteps-2").spec.name, emix.make("mine/ring").spec.name, len(emix.list_envs()) > 5)
try:
    emix.make("theirs/ring")
except emix.errors.UsageError as error:
    print(error)
"""


@pytest.mark.parametrize("fault", BROKEN)
def test_a_package_that_is_broken_is_named_and_skipped(folder, fault):
    """All else works, the environments of sound packages too; only who asks for an unknown name gets its error."""
    (folder / "mine_envs.py").write_text(MODULE + BREAKS)
    for package, point in (("mine", "mine_envs:register"), ("theirs", BROKEN[fault])):
        announced = folder / f"{package}-1.0.dist-info"
        announced.mkdir()
        (announced / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (announced / "entry_points.txt").write_text(f"[emix.envs]\n{package} = {point}\n")
    out = run(OTHERS, folder)
    first, second = out.stdout.splitlines()
    assert first == "matrix/msteps-2 mine/ring True"
    assert second.startswith("unknown environment 'theirs/ring'")
    assert "theirs announces 'theirs' for emix.envs, which cannot be loaded" in second
    assert out.stderr.count("emix goes on without it: theirs announces 'theirs'") == 1


LIST = "import sys, emix.cli; sys.exit(emix.cli.main(sys.argv[1:]))"


def test_the_command_imports_what_it_is_told(folder):
    (folder / "mine_envs.py").write_text(MODULE + "\nregister()\n")
    for named in ("mine_envs", str(folder / "mine_envs.py")):
        out = run(LIST, folder, "envs", "--import", named)
        assert "mine/ring\n    a ring of my own\n" in out.stdout, out.stderr
    assert "mine/ring" not in run(LIST, folder, "envs").stdout
    out = run(LIST, folder, "envs", "--import", "no_such_module")
    assert out.returncode == 2
    assert out.stderr.startswith("emix: --import no_such_module fails (ModuleNotFoundError")


def test_workers_of_an_environment_from_a_file(folder):
    """A worker process cannot import a module that was read from a file: its classes travel by value."""
    (folder / "other").mkdir()
    (folder / "other" / "ring_file.py").write_text(MODULE + "\nregister()\n")
    code = "from emix.plugins import import_named\nimport_named(['../other/ring_file.py'])" + TRY
    out = run(code, folder)
    assert out.stdout == "mine/ring a ring of my own torch.Size([3, 2])\n", out.stderr
