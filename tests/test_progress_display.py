"""On a terminal, one display shows the stage, its speed and the time left; nothing of it reaches stdout."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest
from rich.console import Console

from rlaif_framework.cli.interrupts import CLEAR_LINE, CODE, MESSAGE, SHOW_CURSOR
from rlaif_framework.progress import LINE_SECONDS, Forecast, Progress

CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal:
    """A progress on a terminal whose clock stands still."""

    def __init__(self, width: int = 80, log: bool = False, encoding: str = "utf-8") -> None:
        buffer = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
        self.screen = Console(file=buffer, force_terminal=True, width=width, height=30, color_system=None)
        self.log, self.clock = io.StringIO(), Clock()
        console = Console(file=self.log, width=width) if log else self.screen
        self.progress = Progress(console, screen=self.screen, clock=self.clock)

    def read(self) -> str:
        stream = self.screen.file
        assert isinstance(stream, io.TextIOWrapper)
        assert isinstance(stream.buffer, io.BytesIO)
        return CONTROLS.sub("", stream.buffer.getvalue().decode(stream.encoding))

    def look(self) -> list[str]:
        """Print a line, and return the lines of the display that are drawn again below it."""
        self.screen.print("---")
        return self.read().rpartition("---\n")[2].splitlines()


FORECAST = Forecast(spent=60.0, stage=40.0, later=240.0, complete=True)


def test_a_stage_shows_its_loop_and_the_time_left_of_the_run() -> None:
    terminal = Terminal()
    with terminal.progress.stage("[2/5] a/policy", FORECAST):
        assert terminal.look() == ["[2/5] a/policy: 0 s", "run: 1 min so far, about 5 min left"]
        for _ in terminal.progress.track(range(3, 10), 10, "reinforce", done=3):
            terminal.clock.now += 2.0
            shown = terminal.look()
        # Nothing is said of the speed before the second item, and the first is not part of it.
        assert "[2/5] a/policy: reinforce ━━━━──────────── 3 of 10" in terminal.read()
        assert shown == [
            "[2/5] a/policy: reinforce ━━━━━━━━━━━━━━── 9 of 10, 0.50/s, 0 s left",
            "run: 1 min so far, about 4 min left",
        ]
        terminal.clock.now += 200.0
        assert terminal.look() == ["[2/5] a/policy: 4 min", "run: 5 min so far, at least 4 min left"]


@pytest.mark.parametrize(
    ("forecast", "elapsed", "loop", "text"),
    [
        (FORECAST, 10.0, None, ", about 4 min left"),
        (FORECAST, 10.0, 600.0, ", about 14 min left"),  # slower than it was
        (FORECAST, 10.0, 1.0, ", about 4 min left"),  # the first of several loops
        (FORECAST, 50.0, None, ", at least 4 min left"),
        (Forecast(0.0, None, 30.0, True), 10.0, None, ", at least 30 s left"),
        (Forecast(0.0, None, 30.0, True), 10.0, 12.0, ", at least 42 s left"),
        (Forecast(0.0, 20.0, 30.0, False), 10.0, None, ", at least 40 s left"),
        (Forecast(0.0, None, 0.0, False), 10.0, None, ""),
    ],
)
def test_only_what_was_measured_is_said(forecast: Forecast, elapsed: float, loop: float | None, text: str) -> None:
    assert forecast.describe_left(elapsed, loop) == text


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (80, "[2/5] a/policy: reinforce ━━━━━━━━━━━━──── 3 of 4"),
        (40, "[2/5] a/policy: reinforce 3 of 4"),
        (30, "[2/5] a/policy: 3 of 4"),
        (12, "[2/5] a/pol…"),
    ],
)
def test_a_narrow_terminal_gets_the_numbers(width: int, text: str) -> None:
    terminal = Terminal(width)
    with terminal.progress.stage("[2/5] a/policy"):
        shown = [terminal.look() for _ in terminal.progress.track([0], 4, "reinforce", done=3)]
    assert shown == [[text]]


def test_a_terminal_without_utf_8_gets_a_bar_of_ascii() -> None:
    terminal = Terminal(encoding="ascii")
    shown = [terminal.look() for _ in terminal.progress.track([0], 4, "labelling", done=2)]
    assert shown == [["labelling ########........ 2 of 4"]]


def test_slow_items_are_told_by_their_time() -> None:
    terminal = Terminal()
    for _ in terminal.progress.track(range(4), 4, "labelling"):
        shown = terminal.look()
        terminal.clock.now += 100.0
    assert shown[0].endswith("3 of 4, 100 s each, 2 min left")


def test_a_log_gets_lines_and_nothing_of_the_display() -> None:
    terminal = Terminal(log=True)
    with terminal.progress.stage("[2/5] a/policy", FORECAST):
        for _ in terminal.progress.track(range(3), 3, "reinforce"):
            terminal.progress.print("a [note]")
            terminal.clock.now += LINE_SECONDS
    assert terminal.log.getvalue().splitlines() == [
        "a [note]",
        "  reinforce: 1 of 3",
        "a [note]",
        "  reinforce: 2 of 3, 15 s each, 15 s left",
        "a [note]",
        "  reinforce: 3 of 3, 15 s each, 0 s left",
    ]
    assert "note" not in terminal.read()


INTERRUPTED = """
from rlaif_framework.cli.interrupts import handle_interrupts, raise_interrupts
handle_interrupts()
import signal
from rlaif_framework.progress import Progress
progress = Progress.create()
with raise_interrupts(), progress.stage("[1/2] sft"):
    for number in progress.track(range(3), 3, "steps"):
        progress.print(f"line {number}")
        print("a plugin")
        if number == 1:
            signal.raise_signal(signal.SIGINT)
"""


def run_on_terminal(script: str, **environment: str) -> tuple[int, str, str]:
    """Run a script whose stderr alone is a terminal; return its exit code, its output, and what the terminal got."""
    ours, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        check=False,
        env={**os.environ, "TERM": "xterm", **environment},
        # Whoever runs the tests in the background of a shell has them ignore Ctrl-C, and their children with them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux reports the end of a terminal as an error
        pass
    os.close(ours)
    return done.returncode, done.stdout, shown.decode()


def test_an_interrupt_removes_the_display_and_stdout_has_only_the_lines() -> None:
    code, out, shown = run_on_terminal(INTERRUPTED)
    assert (code, out) == (CODE, "line 0\na plugin\nline 1\na plugin\n")
    assert "[1/2] sft: " in shown
    # The display of one line is erased before the message.
    assert re.search(r"\x1b\[2K[^\w]*" + re.escape(f"{CLEAR_LINE}{SHOW_CURSOR}{MESSAGE}\r\n") + "$", shown), shown


def test_a_terminal_that_cannot_move_the_cursor_gets_no_display() -> None:
    code, out, shown = run_on_terminal(INTERRUPTED, TERM="dumb")
    assert (code, out) == (CODE, "line 0\na plugin\nline 1\na plugin\n")
    assert shown.endswith(f"{MESSAGE}\r\n")
    assert "steps" not in shown
