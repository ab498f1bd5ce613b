import pytest

from tests.sc2_standin import House


@pytest.fixture
def house(tmp_path, monkeypatch):
    """``house(**arguments)`` makes a stand-in and points ``SC2PATH`` to it."""
    made = []

    def make(**arguments):
        made.append(House(tmp_path / f"StarCraftII-{len(made)}", **arguments))
        monkeypatch.setenv("SC2PATH", str(made[-1].folder))
        return made[-1]

    yield make
    for each in made:
        each.close()
