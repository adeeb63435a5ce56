"""Show the progress of stages: a display on a terminal, bars in a notebook, lines of text otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rlaif_framework.terminal import escape_controls, format_seconds

T = TypeVar("T")

LOG_WIDTH = 240
"""Width of tables where there is no terminal, so that the cells of a log can be searched."""

LINE_SECONDS = 15.0
"""Time between two lines of progress where there is no terminal."""

BAR_WIDTH = 16


def build_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Build a table without lines, with escaped control characters."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in head:
        table.add_column(Text(escape_controls(title)), overflow="fold")
    for row in rows:
        # As `Text`: rich would interpret `[text]` in strings as markup.
        table.add_row(*(Text(escape_controls(cell.replace("\n", " "))) for cell in row))
    return table


@dataclass(frozen=True, slots=True)
class Forecast:
    """The time that a run has taken, and what is expected of it, in seconds, when one of its stages starts."""

    spent: float
    """Since the start of the run."""
    stage: float | None
    """Expected time of the stage; None if it is unknown."""
    later: float
    """Expected time of the later stages, without those of unknown time."""
    complete: bool
    """False if the time of a later stage is unknown."""

    def describe_left(self, elapsed: float, loop: float | None) -> str:
        """Describe the time left of the run; empty if nothing is known.

        Args:
            elapsed: Time since the start of the stage.
            loop: Time left of the loop that the stage runs, None if it is unknown.
        """
        if self.stage is None or (loop is None and elapsed >= self.stage):
            left, complete = (loop or 0.0) + self.later, False
        else:  # a stage may have other loops to run
            left, complete = max(loop or 0.0, self.stage - elapsed) + self.later, self.complete
        return f", {'about' if complete else 'at least'} {format_left(left)} left" if left >= 1 else ""


def format_left(seconds: float) -> str:
    """Format a time that is not known to a fraction of a second."""
    return f"{seconds:.0f} s" if seconds < 60 else format_seconds(seconds)


class _Loop:
    """The items of a loop, and the speed at which they are processed."""

    def __init__(self, text: str, total: int, done: int, clock: Callable[[], float]) -> None:
        self.text, self.total, self.done = text, total, done
        self.clock = clock
        self.count = 0
        """Items of this process, without those that were finished before."""
        self.first = self.last = 0.0
        """When the first and the last of them were finished."""

    def advance(self) -> None:
        """Count a finished item."""
        self.count += 1
        self.last = self.clock()
        if self.count == 1:
            self.first = self.last

    @property
    def rate(self) -> float | None:
        """Items per second without the first, whose time includes that of loading; None before the second."""
        return (self.count - 1) / (self.last - self.first) if self.count > 1 and self.last > self.first else None

    @property
    def left(self) -> float | None:
        """Expected time left in seconds; None if the speed is unknown."""
        if self.rate is None:
            return None
        return max(0.0, (self.total - self.done - self.count) / self.rate - (self.clock() - self.last))

    def describe(self) -> str:
        """Describe the items that are finished, their rate and the time left."""
        text = f"{self.done + self.count} of {self.total}"
        if self.rate is None or self.left is None:
            return text
        rate = f"{self.rate:.2f}/s" if self.rate >= 0.1 else f"{1 / self.rate:.0f} s each"
        return f"{text}, {rate}, {format_left(self.left)} left"


class _Display:
    """What a terminal shows: the stage and its loop, and the run."""

    def __init__(self, title: str, forecast: Forecast | None, clock: Callable[[], float]) -> None:
        self.title, self.forecast, self.clock = title, forecast, clock
        self.start = clock()
        self.loop: _Loop | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._describe_stage(options)
        if self.forecast is not None:
            elapsed = self.clock() - self.start
            left = self.forecast.describe_left(elapsed, self.loop.left if self.loop else None)
            yield _one_line(f"run: {format_left(self.forecast.spent + elapsed)} so far{left}")

    def _describe_stage(self, options: ConsoleOptions) -> Text:
        loop = self.loop
        if loop is None:
            return _one_line(f"{self.title}: {format_left(self.clock() - self.start)}")
        name = ": ".join(filter(None, (self.title, escape_controls(loop.text))))
        numbers = loop.describe()
        filled = BAR_WIDTH * min(loop.done + loop.count, loop.total) // max(loop.total, 1)
        full, empty = ("#", ".") if options.ascii_only else ("\u2501", "\u2500")
        bar = full * filled + empty * (BAR_WIDTH - filled)
        # The numbers matter more than the bar and the name of the loop, if the terminal is narrow.
        lines = [_one_line(f"{name} {bar} {numbers}"), _one_line(f"{name} {numbers}")]
        fitting = (line for line in lines if line.cell_len <= options.max_width)
        return next(fitting, _one_line(f"{self.title or name}: {numbers}"))


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


class Progress:
    """Prints messages and progress to a console."""

    def __init__(
        self,
        console: Console | None = None,
        verbose: bool = False,
        screen: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Print to a console.

        Args:
            console: Where to print messages; default: nowhere.
            verbose: If True, print details too.
            screen: The terminal that shows the progress; None to print lines of text to the console.
            clock: Returns the time in seconds.
        """
        self.console = console or Console(quiet=True)
        self.verbose = verbose
        self.screen = screen
        self.clock = clock
        self._live: Live | None = None
        self._display: _Display | None = None

    @classmethod
    def create(cls, quiet: bool = False, verbose: bool = False, stderr: bool = False) -> Progress:
        """Create a progress that prints to stdout, and shows the progress on stderr if that is a terminal.

        Args:
            quiet: If True, print and show nothing.
            verbose: If True, print details too.
            stderr: If True, print to stderr.
        """
        if not quiet and Console().is_jupyter:
            # As a plain stream of text: rich would make a block of HTML of each line.
            return NotebookProgress(Console(force_jupyter=False, force_terminal=False))
        screen = Console(stderr=True)
        # A terminal that cannot move the cursor, and a log that was made a terminal by FORCE_COLOR, get lines.
        shows = not quiet and screen.is_interactive and screen.file.isatty()
        return cls(Console(quiet=quiet, stderr=stderr), verbose, screen if shows else None)

    def print(self, text: str) -> None:
        """Print a line without markup, wrapping or highlighting. Control characters are escaped."""
        # On a terminal above the display, which is drawn again below the line.
        console = self._live.console if self._live is not None and self.console.is_terminal else self.console
        # Paths may contain brackets, which are not markup, and must not be wrapped, so that they can be copied.
        console.print(escape_controls(text), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        """Print a line that only a user who asks for details wants to see."""
        if self.verbose:
            self.print(text)

    def print_table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table, wrapped to the width of a terminal."""
        wide = Console(file=self.console.file, quiet=self.console.quiet, width=LOG_WIDTH)
        (self.console if self.console.is_terminal else wide).print(build_table(head, rows), highlight=False)

    @contextmanager
    def stage(self, title: str, forecast: Forecast | None = None) -> Iterator[None]:
        """Show a stage on the terminal while it runs, with what is expected of the run."""
        with self._shown(title, forecast):
            yield

    def track(self, items: Iterable[T], total: int, text: str, done: int = 0) -> Iterator[T]:
        """Iterate over items and show the progress; `done` of the `total` items were finished before."""
        loop = _Loop(text, total, done, self.clock)
        if self.screen is None or self._display is not None:
            yield from self._track(items, loop)
        else:  # outside of a stage
            with self._shown("", None):
                yield from self._track(items, loop)

    @contextmanager
    def _shown(self, title: str, forecast: Forecast | None) -> Iterator[_Display]:
        """Draw a display on the terminal until the end of the block."""
        display = _Display(escape_controls(title), forecast, self.clock)
        if self.screen is None:
            yield display
            return
        # What plugins print appears above the display; a stdout that is a file or a pipe gets it as without a display.
        live = Live(display, console=self.screen, transient=True, redirect_stdout=sys.stdout.isatty())
        with live:
            self.screen.show_cursor(True)  # a process that is killed would leave the terminal without one
            self._live, self._display = live, display
            try:
                yield display
            finally:
                self._live = self._display = None

    def _track(self, items: Iterable[T], loop: _Loop) -> Iterator[T]:
        prints = self.screen is None or not self.console.is_terminal  # lines go to a log as well
        display, printed = self._display, self.clock()
        outer = display.loop if display else None
        if display is not None:
            display.loop = loop
        try:
            for item in items:
                yield item
                loop.advance()  # the caller has processed the item by now
                if prints and loop.last - printed >= LINE_SECONDS:
                    printed = loop.last
                    self.print(f"  {loop.text}: {loop.describe()}")
        finally:
            if display is not None and display.loop is loop:
                display.loop = outer


class UniqueProgress(Progress):
    """Prints each line once: the members of a family have many in common."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._printed: set[str] = set()

    def print(self, text: str) -> None:
        """Print a line unless it has been printed."""
        if text not in self._printed:
            self._printed.add(text)
            super().print(text)


class NotebookProgress(Progress):
    """Prints lines of text, and shows the bars of tqdm, which notebooks render."""

    def track(self, items: Iterable[T], total: int, text: str, done: int = 0) -> Iterator[T]:
        """Iterate over items and show a bar; `done` of the `total` items were finished before."""
        from tqdm.auto import tqdm

        # Removed at the end, as on a terminal, and not shown for what takes less than a second.
        bar = tqdm(total=total, initial=done, desc=escape_controls(text), leave=False, delay=1, dynamic_ncols=True)
        with bar:
            for item in items:
                yield item
                bar.update()
