"""Hostile inputs for what is attacked, and how much memory they take."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from types import ModuleType
from typing import Any

import psutil

from tests.app.ingest import hostile
from tests.app.ingest.attacked import Attacked, Message, Target, Text


@dataclass
class Figures:
    """What became of inputs."""

    taken: int = 0
    refused: int = 0
    """With the parser's own error."""
    changed: int = 0
    """Of the messages, how many were not sent as a well-behaved peer would have."""
    lives: int = 0
    """Connections, sessions, or whatever takes the inputs."""
    held: int = 0
    """Bytes, at most, of one of them."""

    @property
    def inputs(self) -> int:
        return self.taken + self.refused


class Attack:
    """Inputs for one target, one after the other.

    Args:
        corpus: valid messages beside those that the target makes itself.
        ways: in which messages are changed, of ``hostile.CHANGES``.
        endless: see ``Attacked``.
        figures: what became of them is counted here.
    """

    def __init__(
        self,
        target: Target,
        random: Random,
        figures: Figures,
        *,
        corpus: Sequence[Any] = (),
        ways: Sequence[str] = tuple(hostile.CHANGES),
        endless: bool = False,
    ) -> None:
        self.target, self.random, self.figures = target, random, figures
        self.corpus, self.ways, self.endless = corpus, ways, endless
        self.last: deque[Message] = deque(maxlen=30)
        """The newest inputs of this life."""
        self.attacked = self._begin()

    def _begin(self) -> Attacked:
        self.figures.lives += 1
        self.last.clear()
        attacked = self.target.kind(self.random, self.endless)
        # Half of them are past their beginning when something goes wrong.
        self._calm = self.random.choice((0, 1, 2, 6)) if attacked.has_beginning else 0
        return attacked

    def step(self) -> None:
        """One message: a few inputs, where it comes in pieces."""
        for data in self._inputs():
            self.last.append(data)
            try:
                self.attacked.take(data)
            except self.attacked.own:
                self.figures.refused += 1
                if not self.endless:
                    self.attacked.leave()
                    self.attacked = self._begin()
                    return
            else:
                self.figures.taken += 1
            if self.random.random() < 0.05:
                self.attacked.round(self.random)
            if self.attacked.over:
                self.attacked.leave()
                self.attacked = self._begin()
                return

    def _inputs(self) -> list[Message]:
        random, attacked = self.random, self.attacked
        data = self._message(attacked)
        if self._calm > 0 or random.random() < 0.15:
            self._calm -= 1
            return [data]
        self.figures.changed += 1
        if random.random() < 0.08:
            return [data] * 2
        as_text = not attacked.is_stream and isinstance(data, str) is (random.random() < 0.95)
        other = _wire(self._message(attacked))
        changed = hostile.changed(random, _wire(data), other, self.ways)
        if not as_text:
            return hostile.pieces(random, changed)[:20] if random.random() < 0.2 else [changed]
        if random.random() < 0.05:
            # As it comes where it was in fragments: decoded already.
            return [changed.decode(errors="replace")]
        return [Text(changed)]

    def _message(self, attacked: Attacked) -> Message:
        if self.corpus and self.random.random() < 0.3:
            return attacked.made(self.random.choice(self.corpus))
        return attacked.next(self.random)

    def run(self, inputs: int) -> None:
        enough = self.figures.inputs + inputs
        while self.figures.inputs < enough:
            self.step()


def _wire(data: Message) -> bytes:
    return data if isinstance(data, bytes) else data.encode(errors="surrogatepass")


def held(root: object) -> int:
    """Bytes of all that ``root`` holds, less what belongs to the program."""
    total, seen, rest = 0, {id(root)}, [root]
    while rest:
        one = rest.pop()
        total += one.__sizeof__() if not isinstance(one, type) else 0
        for held_by in gc.get_referents(one):
            if id(held_by) not in seen and not isinstance(held_by, _PROGRAM):
                seen.add(id(held_by))
                rest.append(held_by)
    return total


_PROGRAM = (type, ModuleType, type(held), type(held.__code__), type(len))


class Grown:
    """By how much the process has grown since the first look, at most."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._first: int | None = None
        self.most = 0

    def look(self) -> None:
        gc.collect(0)
        size = self._process.memory_info().rss
        self._first = size if self._first is None else self._first
        self.most = max(self.most, size - self._first)
