"""Show the progress of long stages: bars on a terminal and in a notebook, lines of text otherwise."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from rlaif_framework.terminal import escape_controls

T = TypeVar("T")

LOG_WIDTH = 240
"""Width of tables where there is no terminal, so that the cells of a log can be searched."""

LINE_SECONDS = 15.0
"""Time between two lines of progress where there is no terminal."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.2f}/s" if task.speed else "", style="cyan")


def build_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Build a table without lines, with escaped control characters."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in head:
        table.add_column(Text(escape_controls(title)), overflow="fold")
    for row in rows:
        # As `Text`: rich would interpret `[text]` in strings as markup.
        table.add_row(*(Text(escape_controls(cell.replace("\n", " "))) for cell in row))
    return table


class Progress:
    """Prints messages and progress to a console."""

    def __init__(self, console: Console | None = None, verbose: bool = False) -> None:
        self.console = console or Console(quiet=True)
        self.verbose = verbose

    @classmethod
    def create(cls, quiet: bool = False, verbose: bool = False) -> Progress:
        """Create a progress that prints to stdout, in the way of the terminal, notebook or file that shows it."""
        if not quiet and Console().is_jupyter:
            # As a plain stream of text: rich would make a block of HTML of each line.
            return NotebookProgress(Console(force_jupyter=False, force_terminal=False))
        return cls(Console(quiet=quiet), verbose)

    def print(self, text: str) -> None:
        """Print a line without markup, wrapping or highlighting. Control characters are escaped."""
        # Paths may contain brackets, which are not markup, and must not be wrapped, so that they can be copied.
        self.console.print(escape_controls(text), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        """Print a line that only a user who asks for details wants to see."""
        if self.verbose:
            self.print(text)

    def print_table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table, wrapped to the width of a terminal."""
        wide = Console(file=self.console.file, quiet=self.console.quiet, width=LOG_WIDTH)
        (self.console if self.console.is_terminal else wide).print(build_table(head, rows), highlight=False)

    def track(self, items: Iterable[T], total: int, text: str, done: int = 0) -> Iterator[T]:
        """Iterate over items and show the progress; `done` of the `total` items were finished before."""
        return (
            self._bar(items, total, text, done) if self.console.is_terminal else self._lines(items, total, text, done)
        )

    def _bar(self, items: Iterable[T], total: int, text: str, done: int) -> Iterator[T]:
        columns = [
            TextColumn("  {task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        ]
        with Bars(*columns, console=self.console, transient=True) as bars:
            task = bars.add_task(escape_controls(text), total=total, completed=done)
            for item in items:
                yield item
                bars.advance(task)  # the caller has processed the item by now

    def _lines(self, items: Iterable[T], total: int, text: str, done: int) -> Iterator[T]:
        start = last = time.monotonic()
        for count, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - last >= LINE_SECONDS:
                last = now
                # Without the items that were finished before: they took no time in this process.
                rate = count / (now - start)
                left = (total - done - count) / rate
                self.print(f"  {text}: {done + count} of {total}, {rate:.2f}/s, {left:.0f} s left")


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
