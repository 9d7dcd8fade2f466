"""The progress line says what is true at its time, and leaves no garbage behind."""

import io
import re

import jax
import jax.numpy as jnp
import pytest

from gnomon.experiments.console.progress import (
    Progress,
    Rate,
    format_duration,
    format_line,
)
from gnomon.experiments.trial.overview import parameter_table


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """A terminal of one line's memory: `lines` is what a person would see."""

    def isatty(self):
        return True

    @property
    def lines(self):
        seen = []
        for line in self.getvalue().split("\n"):
            # Each part but the last was erased by return and clear-to-the-end.
            seen.append(re.split(r"\r\x1b\[K", line)[-1])
        return seen


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.5, "1m00s"),
        (3599.4, "59m59s"),
        (3599.6, "1h00m"),
        (86399, "1d00h"),
        (90000, "1d01h"),
        (-3, "0s"),
        (float("inf"), "?"),
        (float("nan"), "?"),
    ],
)
def test_durations_carry_at_their_borders(seconds, text):
    assert format_duration(seconds) == text


def test_a_line_has_only_what_is_known():
    assert format_line(0, 100) == "step 0/100 (0%)"
    assert format_line(0, 0) == "step 0/0 (100%)"
    assert format_line(999, 1000) == "step 999/1,000 (99%)"
    assert format_line(5, 10, loss=float("nan")) == "step 5/10 (50%)  loss nan"
    assert format_line(5, 10, remaining=0.0).endswith("ETA 0s")
    assert format_line(5, 10, trials=(0, 7)).startswith("trials 0/7  ")


def test_a_rate_forgets_the_compilation_and_follows_a_change():
    rate = Rate(window=10.0)
    assert rate.value is None
    rate.add(1, 60.0)
    for _ in range(600):
        rate.add(10, 0.1)
    assert rate.value == pytest.approx(100, rel=0.02)
    for _ in range(600):
        rate.add(2, 0.1)
    assert rate.value == pytest.approx(20, rel=0.02)


@pytest.mark.parametrize("seconds", [0.01, 1.0, 50.0])
def test_a_constant_rate_is_exact_from_the_first_event_at_any_spacing(seconds):
    rate = Rate(window=10.0)
    for _ in range(5):
        rate.add(3 * seconds, seconds)
        assert rate.value == pytest.approx(3.0, rel=1e-12)


def test_a_log_gets_a_whole_line_each_interval_and_the_last_state(clock):
    log = io.StringIO()
    with Progress(100, units_per_step=8, unit="bytes", stream=log, clock=clock) as p:
        for step in range(1, 26):
            clock.now += 1.0
            p.update(step, loss=10.0 - step / 10)
    assert log.getvalue().splitlines() == [
        "step 10/100 (10%)  loss 9.0000  1 steps/s  8 bytes/s  ETA 1m30s",
        "step 20/100 (20%)  loss 8.0000  1 steps/s  8 bytes/s  ETA 1m20s",
        "step 25/100 (25%)  loss 7.5000  1 steps/s  8 bytes/s  ETA 1m15s",
    ]


def test_a_log_has_no_control_characters(clock):
    log = io.StringIO()
    with Progress(10, stream=log, clock=clock, interval=0.0) as p:
        for step in range(1, 11):
            clock.now += 1.0
            p.update(step)
            p.message("note")
    assert not set(log.getvalue()) & {"\r", "\x1b"}
    assert log.getvalue().count("note\n") == 10
    assert log.getvalue().count("step ") == 10


def test_a_terminal_keeps_one_line_and_ends_it(clock):
    terminal = Terminal()
    with Progress(100, stream=terminal, clock=clock) as p:
        for step in range(1, 101):
            clock.now += 0.05
            p.update(step, loss=1.0)
    assert terminal.lines == [
        "step 100/100 (100%)  loss 1.0000  20 steps/s  ETA 0s",
        "",
    ]
    # Five a second at most, however often it is told.
    assert terminal.getvalue().count("\r") <= 5 * 5 + 1


def test_a_message_stands_above_the_line_and_does_not_break_it(clock):
    terminal = Terminal()
    with Progress(4, stream=terminal, clock=clock) as p:
        for step in (1, 2):
            clock.now += 1.0
            p.update(step)
        p.message("checkpoint 2 is damaged")
    assert terminal.lines == [
        "checkpoint 2 is damaged",
        "step 2/4 (50%)  1 steps/s  ETA 2s",
        "",
    ]


def test_an_error_ends_the_line_so_that_the_traceback_starts_on_its_own(clock):
    terminal = Terminal()
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117, PT012
        with Progress(4, stream=terminal, clock=clock) as p:
            clock.now += 1.0
            p.update(1)
            raise KeyboardInterrupt
    assert terminal.getvalue().endswith("\n")
    p.close()
    assert terminal.getvalue().count("\n") == 1


def test_nothing_is_written_when_nothing_happened(clock):
    for stream in (io.StringIO(), Terminal()):
        with Progress(4, stream=stream, clock=clock):
            pass
        assert stream.getvalue() == ""


def test_a_line_never_wraps(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    terminal = Terminal()
    with Progress(10**6, trials=60, stream=terminal, clock=clock) as p:
        clock.now += 1.0
        p.update(5, loss=1.0, trials=3)
    assert [len(line) for line in terminal.lines] == [29, 0]


def test_a_dumb_terminal_is_a_log(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    with Progress(10, stream=terminal, clock=clock) as p:
        clock.now += 1.0
        p.update(5)
    assert terminal.getvalue() == "step 5/10 (50%)  5 steps/s  ETA 1s\n"


def test_steps_of_an_earlier_process_are_done_but_are_not_speed(clock):
    p = Progress(1000, start=900, stream=io.StringIO(), clock=clock)
    clock.now += 10.0
    p.update(920)
    assert p.line() == "step 920/1,000 (92%)  2 steps/s  ETA 40s"


def test_loss_and_trials_stay_until_they_are_told_anew(clock):
    p = Progress(10, trials=4, stream=io.StringIO(), clock=clock)
    clock.now += 1.0
    p.update(1, loss=2.0, trials=1)
    p.update(2)
    assert p.line().startswith("trials 1/4  step 2/10 (20%)  loss 2.0000")


def test_the_table_counts_every_parameter_of_arrays_and_of_shapes():
    params = {
        "layers": [{"w": jnp.ones((3, 4))}, {"w": jnp.ones((4, 5), jnp.bfloat16)}],
        "scale": jnp.ones(()),
    }
    table = parameter_table(params)
    assert table == parameter_table(jax.eval_shape(lambda: params))
    lines = table.splitlines()
    assert [line.split()[0] for line in lines[2:-2]] == [
        "layers/0/w",
        "layers/1/w",
        "scale",
    ]
    assert [int(line.split()[-1]) for line in lines[2:-2]] == [12, 20, 1]
    assert lines[-1].split() == ["total", "0.00", "MB", "33"]
    assert len({len(line) for line in lines}) == 1
