"""No line of a help is wider than the terminal."""

from __future__ import annotations

import pytest

from emix.cli import COMMANDS, main


@pytest.mark.parametrize("command", ["", *COMMANDS])
@pytest.mark.parametrize("columns", [80, 100])
def test_every_command_fits(
    command: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    try:
        code = main([*([command] if command else []), "--help"])
    except SystemExit as exit:  # how tyro leaves
        code = exit.code
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert lines[0].startswith("usage: emix")
    assert [line for line in lines if len(line) > columns] == []
