import io

import pytest

from emix.training import progress as module
from emix.training.progress import Progress

TIMING = {"steps_per_s": 1234.5, "frac_env": 0.5, "frac_inference": 0.25, "frac_update": 0.2}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when told."""
    now = [100.0]
    monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    return now


def test_piped_output_is_plain_lines():
    out = io.StringIO()
    progress = Progress(50_000, output=out)
    progress.advance(1000)
    assert out.getvalue() == ""
    progress.log(10_000, {"return_mean": 0.25, "test_return_mean": 0.5}, TIMING)
    progress.log(20_000, {"return_mean": 0.75}, {**TIMING, "frac_test": 0.05})
    progress.close()
    first, second = out.getvalue().splitlines()
    assert "10,000/50,000" in first
    assert "1,234 steps/s" in first
    assert "return 0.250  test return 0.500" in first
    assert "env 50% inference 25% update 20% test 0%" in first
    assert "return 0.750  test return 0.500" in second  # the last evaluation stays
    assert "test 5%" in second
    assert "\x1b" not in out.getvalue()


def test_win_rate_is_shown_where_there_is_one():
    out = io.StringIO()
    row = {"return_mean": 9.0, "battle_won_mean": 0.5, "test_return_mean": 12.0, "test_battle_won_mean": 0.625}
    Progress(50_000, output=out).log(10_000, row, TIMING)
    assert "win rate 0.500  test win rate 0.625" in out.getvalue()
    assert "return" not in out.getvalue()


def test_speed_and_time_left_are_of_the_last_half_minute(clock):
    out = io.StringIO()
    progress = Progress(1_000_000, output=out)
    for second in range(1, 101):  # 1000 steps/s, and from second 50 on 100 steps/s
        clock[0] += 1
        progress.advance(1000 * min(second, 50) + 100 * max(second - 50, 0))
    assert progress.speed() == pytest.approx(100)
    progress.log(55_000, {}, TIMING)
    assert "2:37:30 left" in out.getvalue()


def test_a_resumed_run_does_not_count_the_steps_before(clock):
    progress = Progress(1_000_000, start=500_000, output=io.StringIO())
    clock[0] += 2
    progress.advance(501_000)
    assert progress.speed() == 500


def test_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = Terminal()
    progress = Progress(50_000, output=out)
    progress.log(10_000, {"return_mean": 0.25}, TIMING)
    progress.advance(10_000)
    progress.say("a line")
    progress.close()
    text = out.getvalue()
    assert "10,000/50,000" in text
    assert "return 0.250" in text
    assert "steps/s" in text
    assert "a line" in text


def test_the_shares_are_there_before_the_first_row_of_the_training(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    progress = Progress(50_000, output=out)
    progress.log(0, {"test_return_mean": 1.0}, {**TIMING, "frac_env": 0.0, "frac_inference": 0.0, "frac_test": 1.0})
    progress.advance(100, {"env": 0.75, "update": 0.25})
    assert "env 75% inference 0% update 25% test 0%" in progress._numbers()
    progress.close()


def test_the_history_of_tests_stays_above_the_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    progress = Progress(50_000, output=out)
    for step in (0, 20_000):
        progress.log(step, {"test_return_mean": step / 1000, "test_battle_won_mean": 0.5}, TIMING)
    progress.log(30_000, {"return_mean": 1.0}, TIMING)
    progress.close()
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert any(line.endswith("0  test win rate 0.500  test return 0.000") for line in lines)
    assert any(line.endswith("20,000  test win rate 0.500  test return 20.000") for line in lines)


def test_the_bar_uses_the_width(monkeypatch):
    widths = []
    for columns in (80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        out = Terminal()
        progress = Progress(1_000_000, output=out)
        progress.advance(500_000)
        progress.close()
        widths.append(max(line.count("\u2501") for line in out.getvalue().splitlines()))
    assert widths[1] - widths[0] == 120
