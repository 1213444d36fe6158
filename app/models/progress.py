"""What a person who waits for a model is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Progress(Protocol):
    """Told what happens, for a person who waits. One ``begin`` … ``end`` at a time."""

    def say(self, text: str) -> None:
        """One line about what happens now."""

    def begin(self, name: str, total: int | None) -> None:
        """A step of ``total`` bytes begins; ``None`` when its size is not known."""

    def advance(self, count: int) -> None:
        """``count`` more bytes are done."""

    def end(self) -> None:
        """The step is over, finished or not."""


class SilentProgress:
    """Says nothing."""

    def say(self, text: str) -> None: ...
    def begin(self, name: str, total: int | None) -> None: ...
    def advance(self, count: int) -> None: ...
    def end(self) -> None: ...


class RichProgress:
    """A progress bar on standard error, so that standard output stays for data."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TransferSpeedColumn,
        )

        self._console = Console(stderr=True)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        # Where nobody watches (a log file), only the lines of `say` are written.
        self._new: Callable[[], Any] = lambda: Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        )
        self._bar: Any = None
        self._task: Any = None

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begin(self, name: str, total: int | None) -> None:
        self.end()
        self._bar = self._new()
        self._task = self._bar.add_task(name, total=total)
        self._bar.start()

    def advance(self, count: int) -> None:
        if self._bar is not None:
            self._bar.advance(self._task, count)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
