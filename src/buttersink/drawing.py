"""
Tables as text for a stream, and progress bars on a terminal.

Importing rich costs more than a run with nothing to do, so it is imported where something is drawn.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from buttersink.wording import encodable, rate_text, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TextIO

    from rich.console import Console as Screen
    from rich.progress import Progress, TaskID

    from buttersink.wording import Column, Row

_PATIENCE = 1.0  # seconds a run may take before bars appear
_FRAME = 0.1  # seconds between two drawings of the bars
_LABEL = 26  # characters of a bar's label


class Bar(NamedTuple):
    """What one bar shows; bars with one key are one bar as it moves."""

    key: str
    label: str
    done: int
    total: int | None
    in_bytes: bool = True


class Bars:
    """
    The bars on a terminal, drawn when something moves, so that no thread is needed.

    A run that is over within a second shows none, and does not even import what draws them.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._display: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._due: float | None = None

    def draw(self, bars: Callable[[], Iterable[Bar]]) -> None:
        """Show these bars and no others, if it is time for that."""
        now = time.monotonic()
        if self._due is None:
            self._due = now + _PATIENCE
        if now < self._due:
            return
        self._due = now + _FRAME
        with suppress(OSError, UnicodeError):  # a terminal that went away ends no transfer
            self._draw(list(bars()))

    def write_above(self, line: str) -> bool:
        """Write a line that stays while the bars move on below it; False if there are none."""
        if self._display is None or not self._display.live.is_started:
            return False
        self._display.console.out(line, highlight=False)
        return True

    def clear(self) -> None:
        """Take the bars off the terminal and forget them; the next ones wait their second again."""
        if self._display and self._display.live.is_started:
            with suppress(OSError):
                self._display.stop()
        self._display = None
        self._tasks.clear()
        self._due = None

    def _draw(self, bars: list[Bar]) -> None:
        if self._display is None:
            self._display = _progress(self._stream)
        display = self._display
        for key in self._tasks.keys() - {bar.key for bar in bars}:
            display.remove_task(self._tasks.pop(key))
        for bar in bars:
            self._update(display, bar)
        for task in display.tasks:
            display.update(task.id, rate=rate_text(task.speed) if task.fields["in_bytes"] else "")
        if display.console.is_interactive:  # not where TERM is dumb
            display.start()
            display.refresh()

    def _update(self, display: Progress, bar: Bar) -> None:
        if bar.key not in self._tasks:
            self._tasks[bar.key] = display.add_task(
                "", total=bar.total, in_bytes=bar.in_bytes, amount="", rate=""
            )
        text = size_text if bar.in_bytes else str
        amount = text(bar.done) + (f"/{text(bar.total)}" if bar.total is not None else "")
        label = encodable(bar.label, self._stream)
        display.update(
            self._tasks[bar.key],
            description=label if len(label) <= _LABEL else f"...{label[3 - _LABEL :]}",
            completed=bar.done,
            total=bar.total,
            amount=amount,
        )


def _progress(stream: TextIO) -> Progress:
    from rich.progress import (  # 50 ms that few runs need
        BarColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[amount]}", markup=False, justify="right"),
        TextColumn("{task.fields[rate]}", markup=False, justify="right"),
        TimeRemainingColumn(compact=True),
        console=_screen(stream),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _screen(stream: TextIO) -> Screen:
    from rich.console import Console as Screen

    terminal = stream.isatty()  # whatever the environment would rather have
    return Screen(
        file=stream,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        highlight=False,
        emoji=False,
    )


def draw_table(stream: TextIO, columns: Sequence[Column[Row]], rows: Sequence[Row]) -> str:
    """
    Return the table's lines as they go to `stream`: aligned by what a terminal shows of each cell.

    A row is one line, however long, without control sequences. (rich's own tables take 0.3 ms a
    row, which is a second where there are thousands.)
    """
    from rich.cells import cell_len

    lines = [[column.title for column in columns]]
    lines += [[encodable(column.cell(row), stream) for column in columns] for row in rows]
    widths = [[cell_len(text) for text in line] for line in lines]
    widest = [max(width) for width in zip(*widths, strict=True)]
    text = []
    for line, width in zip(lines, widths, strict=True):
        gaps = (" " * (most - here) for most, here in zip(widest, width, strict=True))
        cells = zip(columns, line, gaps, strict=True)
        padded = (gap + cell if column.right else cell + gap for column, cell, gap in cells)
        text.append("  ".join(padded).rstrip() + "\n")
    return "".join(text)
