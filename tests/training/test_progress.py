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
    assert "won 0.500  test won 0.625" in out.getvalue()
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
    assert "10000/50000" in text
    assert "return 0.250" in text
    assert "steps/s" in text
    assert "a line" in text
