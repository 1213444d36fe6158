"""Acknowledging messages in the order in which they came, in whatever order they are done. Pure.

A consumer commits up to the last message that is acknowledged with no gap before it. Faust's takes a gap of
one message at the committed position for none (faust-streaming 0.15.3, ``Consumer._new_offset``), and would
commit past a message that is still being worked on; so nothing is acknowledged before all that came earlier.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable


class InOrder:
    """One queue for each partition. Grows with what is not done; who feeds it bounds that."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[_Message]] = {}

    def __len__(self) -> int:
        """Messages that are not acknowledged yet."""
        return sum(map(len, self._waiting.values()))

    def add(self, partition: Hashable, ack: Callable[[], object]) -> Callable[[], None]:
        """A message has come; call what is returned when nothing of it is owed any more, once or again."""
        line = self._waiting.setdefault(partition, deque())
        message = _Message(ack)
        line.append(message)

        def done() -> None:
            message.done = True
            while line and line[0].done:
                line.popleft().ack()

        return done

    def clear(self) -> None:
        """Partitions move: what is not acknowledged comes again, here or elsewhere."""
        for line in self._waiting.values():
            line.clear()
        self._waiting.clear()


class _Message:
    __slots__ = ("ack", "done")

    def __init__(self, ack: Callable[[], object]) -> None:
        self.ack, self.done = ack, False
