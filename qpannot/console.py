"""How qpannot speaks: results on stdout, everything else on stderr.

On a terminal with tables and progress bars, in a pipe quietly and line by line.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from qpannot.errors import QpannotError

Each = Callable[[str, str, float, int], None]
"""Told before each item of a long job, and within a long item: the stage of work (``Proposing``),
the item's name, how many items of this stage are done, a part of one included, and how many there
are."""


def silent(stage: str, name: str, done: float, total: int) -> None:
    """Be an ``Each`` that shows nothing."""


SPARSE_S = 10.0
"""Between two lines of a stage that tells more than a line an item."""

PACE_S = 120.0
"""The time left is reckoned by the pace of the last so many seconds: what an earlier run had done
already, and is passed over in no time, soon counts no more."""


def stdout() -> Console:
    """Return the console results are written to."""
    return Console(highlight=False, soft_wrap=True)


def stderr() -> Console:
    """Return the console progress, warnings and errors are written to."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str = "", *, markup: bool = False) -> None:
    """Write a line of result; with ``markup`` as rich's, else as it is."""
    stdout().print(text, markup=markup)


def show_json(value: Any) -> None:
    """Write a result for scripts."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def show_error(error: QpannotError) -> None:
    """Write what went wrong and what to do next."""
    console = stderr()
    console.print(f"[bold red]Error:[/] {escape(error.message)}")
    if error.hint:
        console.print(f"[bold]Next:[/] {escape(error.hint)}")


def show_skipped(skipped: Iterable[tuple[str, QpannotError]]) -> None:
    """Write why some of many were skipped, and once what to do about each kind of trouble."""
    console = stderr()
    hints: dict[str, None] = {}
    for name, error in skipped:
        reason = error.message.removeprefix(f"{name}: ")
        console.print(f"[yellow]Skipped[/] {escape(name)}: {escape(reason)}")
        if error.hint:
            hints[error.hint] = None
    for hint in hints:
        console.print(f"  [bold]Next:[/] {escape(hint)}")


def show_next(steps: Iterable[str]) -> None:
    """Write what the person should do next, a line a step."""
    for step in steps:
        say(f"[bold]Next:[/] {escape(step)}", markup=True)


def counted(number: int, noun: str) -> str:
    """Return ``1 slide`` or ``2 slides``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Return ``A``, ``A and B`` or ``A, B and C``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def duration(seconds: float) -> str:
    """Return ``45 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


class TimeLeft:
    """Tells how long a stage will still take, at the pace of its last minutes.

    Parameters
    ----------
    clock
        Seconds, as `time.monotonic` gives them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, float]] = deque()

    def seconds(self, done: float, total: int) -> float | None:
        """Return the seconds that are left, None while nothing was done since the first call."""
        now = self._clock()
        if self._seen and done < self._seen[-1][1]:  # the stage begins anew
            self._seen.clear()
        if not self._seen or now - self._seen[-1][0] >= 1:
            self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > PACE_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return (now - then) / (done - before) * (total - done) if done > before else None

    def told(self, done: float, total: int) -> str:
        """Return ``12 min left``, or nothing while that is not known."""
        seconds = self.seconds(done, total)
        return f"{duration(seconds)} left" if seconds else ""


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table: drawn on a terminal, tab-separated lines with a header in a pipe."""
    if not stdout().is_terminal:
        for row in (columns, *rows):
            sys.stdout.write("\t".join(" ".join(cell.split()) for cell in row) + "\n")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(highlight=False).print(table)


@contextmanager
def progress(what: str, *, lines: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far a job of one stage is, as `stages` does of several.

    Yields a function to be called before each item with its name, how many are done and how many
    there are. In a pipe it writes a line an item, unless ``lines`` is false.
    """
    with stages(quiet=() if lines else (what,)) as each:
        yield lambda name, done, total: each(what, name, done, total)


@contextmanager
def stages(*, quiet: Collection[str] = (), sparse: Collection[str] = ()) -> Iterator[Each]:
    """Show how far a job is that goes through stages, with the time each will still take.

    Parameters
    ----------
    quiet
        Stages of which nothing is written in a pipe; of the others a line an item.
    sparse
        Stages of which a line is written every ten seconds.
    """
    console = stderr()
    clocks: dict[str, TimeLeft] = {}
    if not console.is_terminal:
        written: dict[str, float] = {}

        def line(stage: str, name: str, done: float, total: int) -> None:
            if stage in quiet:
                return
            if stage in sparse:
                left = clocks.setdefault(stage, TimeLeft()).told(done, total)
                if time.monotonic() - written.get(stage, -inf) < SPARSE_S:
                    return
                written[stage] = time.monotonic()
                percent = int(100 * done / max(1, total))
                told = ", ".join(filter(None, (name, left)))
                console.print(f"{stage} {percent} % {told}", markup=False)
            else:
                console.print(f"{stage} {int(done) + 1}/{total} {name}", markup=False)

        yield line
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("[dim]{task.fields[name]}"),
        console=console,
        transient=True,
    )
    with bar:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, name: str, done: float, total: int) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    bar.remove_task(task)
                tasks.clear()
                tasks[stage] = bar.add_task(stage, total=total, name="", left="")
            left = clocks.setdefault(stage, TimeLeft()).told(done, total)
            bar.update(tasks[stage], completed=done, total=total, left=left, name=escape(name))

        yield advance
