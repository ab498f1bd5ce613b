"""What `emix doctor` and ``make`` say of StarCraft II's packages, and the commands that mend what is wrong."""

import sys

import pytest

import emix
from emix.cli import doctor
from emix.envs.sc2 import packages
from emix.errors import UsageError

PROTOCOL = "pip uninstall -y s2clientprotocol pys2clientprotocol && pip install pys2clientprotocol"
SMAC = (
    "pip install pys2clientprotocol websocket-client absl-py portpicker && "
    "pip install --no-deps pysc2 git+https://github.com/oxwhirl/smac.git"
)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """``installed(versions, files)``: packages of these versions, and their files before all others on the path."""

    def install(versions, **files):
        usual = packages._version
        monkeypatch.setattr(packages, "_version", lambda name: versions[name] if name in versions else usual(name))
        for path, text in files.items():
            file = tmp_path / "site" / f"{path.replace('__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            (file.parent / "__init__.py").touch()
        for top in {path.partition("__")[0] for path in files}:
            for name in [name for name in sys.modules if name.partition(".")[0] == top]:
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(tmp_path / "site")

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] in ("smac", "websocket")]:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def told(capsys):
    """What `emix doctor` says of each: state, detail, command."""
    doctor.main([])
    lines, found = capsys.readouterr().out.splitlines(), {}
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if not line.startswith(" "):
            mend = following.strip().removeprefix("-> ") if following.startswith(" ") else ""
            found[line[9:27].strip()] = (line[:8].strip(), line[28:], mend)
    return found


def test_both_clashing_packages(installed, house, capsys):
    house()
    installed({"pys2clientprotocol": "1.0.2", "s2clientprotocol": "5.0.17"})
    state, detail, mend = told(capsys)["SC2 messages"]
    assert state == "missing"  # nobody needs it to train on anything else
    assert detail.startswith("pys2clientprotocol 1.0.2 and s2clientprotocol 5.0.17 with protobuf ")
    assert "both install the folder s2clientprotocol" in detail
    assert mend == PROTOCOL
    with pytest.raises(UsageError, match=f"sc2/3m cannot be made: .*both install the folder.*: {PROTOCOL}"):
        emix.make("sc2/3m")


def test_a_protobuf_that_does_not_fit(installed, house, capsys):
    house()
    error = "raise TypeError('Descriptors cannot be created directly.\\nIf this call came from a _pb2.py file')"
    installed(
        {"pys2clientprotocol": None, "s2clientprotocol": "5.0.17", "protobuf": "6.31.1"},
        s2clientprotocol__sc2api_pb2=error,
    )
    assert told(capsys)["SC2 messages"] == (
        "missing",
        "s2clientprotocol 5.0.17 with protobuf 6.31.1 cannot be imported "
        "(Descriptors cannot be created directly. If this call came from a _pb2.py file)",
        PROTOCOL,
    )
    with pytest.raises(UsageError, match=r"sc2/3m cannot be made: s2clientprotocol 5.0.17 with protobuf 6.31.1 cannot"):
        emix.make("sc2/3m")


def test_another_websocket(installed, house):
    house()
    installed({}, websocket__client="")
    look = packages.look_at_websocket()
    assert (look.state, look.mend) == (
        "broken",
        "pip uninstall -y websocket && pip install --force-reinstall websocket-client",
    )


def test_the_optimiser_in_place_of_smac(installed, house, capsys):
    house()
    installed({"smac": "2.4.1"}, smac__facade="raise AssertionError('it is not imported')")
    state, detail, mend = told(capsys)["SMAC"]
    assert state == "missing"
    assert detail.startswith("smac 2.4.1 in ")
    assert detail.endswith(" is another package of the same name (PyPI's is AutoML's optimiser)")
    assert mend == f"pip uninstall -y smac && {SMAC}"
    with pytest.raises(UsageError, match=r"smac/3m cannot be made: smac 2.4.1 in .*AutoML.*pip uninstall -y smac &&"):
        emix.make("smac/3m")


def test_smac_without_what_it_needs(installed, house, capsys):
    house()
    installed({"smac": "1.0.0"}, smac__env__starcraft2="")
    (init,) = [folder / "env" / "__init__.py" for folder in packages._folders("smac")]
    init.write_text("import no_such_pysc2")
    assert told(capsys)["SMAC"] == ("missing", "smac.env cannot be imported (No module named 'no_such_pysc2')", SMAC)


def test_smac_that_works(installed, house, capsys):
    house()
    installed({"smac": "1.0.0"}, smac__env__starcraft2="")
    state, detail, mend = told(capsys)["SMAC"]
    assert (state, mend) == ("ok", "")
    assert detail.startswith("1.0.0 in ")


def test_no_smac(monkeypatch, house):
    house()
    monkeypatch.setattr(packages, "_folders", lambda package: [])
    look = packages.look_at_smac()
    assert (look.state, look.mend) == ("missing", SMAC)
    with pytest.raises(UsageError, match="smac/3m cannot be made: SMAC is not installed"):
        emix.make("smac/3m")


def test_the_game(house, capsys, monkeypatch, tmp_path):
    made = house()
    found = told(capsys)
    assert found["StarCraft II"] == ("ok", f"build 75689 in {made.folder}", "")
    assert found["SMAC's maps"][0] == "ok"
    assert found["websocket-client"][0] == "ok"
    for path in (made.folder / "Maps" / "SMAC_Maps").iterdir():
        path.unlink()
    state, detail, mend = told(capsys)["SMAC's maps"]
    assert (state, detail) == ("missing", f"there are none in {made.folder}/Maps/SMAC_Maps")
    assert mend.endswith(f"SMAC_Maps.zip -d '{made.folder}/Maps'")
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nothing"))
    state, detail, mend = told(capsys)["StarCraft II"]
    assert state == "missing"
    assert detail.startswith(f"StarCraft II is not in {tmp_path / 'nothing'}")
    assert mend.startswith("wget https://blzdistsc2-a.akamaihd.net/Linux/SC2.4.10.zip && unzip -P iagreetotheeula")
