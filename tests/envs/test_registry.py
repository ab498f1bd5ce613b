"""Names, parameters and what is installed."""

import subprocess
import sys

import pytest

from emix.envs import episode_seed, families, list_envs, make
from emix.errors import UsageError


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("matrix/mstep-5", "matrix/msteps-5"),
        ("matrix/penalty-2-3", "matrix/penalty-2x3"),
        ("battle/3n", "battle/3m"),
        ("smac/2s3z", "battle/2s3z"),
        ("prey/stag_hunt", "prey/stag-hunt"),
        ("stag_hunt", "prey/stag-hunt"),
        ("lbf/Foraging-8x8-2p-2f", "lbf/Foraging-8x8-2p-2f-v3"),
        ("Foraging-8x8-2p-2f-v3", "lbf/Foraging-8x8-2p-2f-v3"),
        ("lbf/foraging-8x8-2p-2f-coop-v3", "lbf/Foraging-8x8-2p-2f-coop-v3"),
    ],
)
def test_unknown_name_offers_the_closest(name, closest):
    with pytest.raises(UsageError, match=f"unknown environment '{name}': did you mean .*{closest}"):
        make(name)


def test_a_name_like_no_other_gets_the_list():
    names = (
        "matrix/msteps-<m>, matrix/penalty-<n>x<A>, matrix/continuous, battle/<map>, prey/stag-hunt, prey/macf, lbf/"
    )
    with pytest.raises(UsageError, match=f"the names are {names}"):
        make("zzz")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"num_envs": 0}, "num_envs must be an integer of at least 1, got 0"),
        ({"num_envs": 2.0}, "num_envs must be an integer of at least 1, got 2.0"),
        ({"num_envs": True}, "got True"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
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


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(families, "find_spec", lambda package: None)
    with pytest.raises(UsageError, match=r'pip install "emix\[lbf\]"'):
        make("lbf/Foraging-8x8-2p-2f-v3")
    assert [(row.name.partition("/")[0], row.install) for row in list_envs() if not row.installed] == [
        ("lbf", 'pip install "emix[lbf]"')
    ]


def test_everything_listed_can_be_made():
    rows = list_envs()
    assert all(row.installed and not row.install and row.description for row in rows)
    examples = {"map": "3m", "m": "3", "n": "2", "A": "3", "id": "Foraging-2s-5x5-2p-1f-coop-v3"}
    for row in rows:
        name = row.name
        for key, value in examples.items():
            name = name.replace(f"<{key}>", value)
        env = make(name)
        assert env.spec.name == name
        env.close()


def test_the_list_needs_neither_torch_nor_a_simulator():
    code = """import sys, emix.envs
emix.envs.list_envs(), emix.envs.episode_seed(0, 0, 0)
print([m for m in ("torch", "gymnasium", "lbforaging", "pettingzoo") if m in sys.modules])"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_episode_seeds_are_fixed_and_distinct():
    """The literal is part of the contract: a saved run resumes with the same episodes under a later version."""
    assert episode_seed(0, 0, 0) == 1317536309490288386
    seeds = {episode_seed(s, e, k) for s in (0, 1, 2**32, 2**40) for e in range(8) for k in range(50)}
    assert len(seeds) == 4 * 8 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)
