"""From entries that come in any order to events in the order of their cursors. Pure: entries in, entries out.

Several gateways write to one log. Each publishes what it stored after its commit, so that entries may come
out of order, twice, or (a gateway that was killed, Redis restarted) not at all. The store knows the truth:
whatever does not come is read there.

Rules:

* a stored entry at or before the head was told already and is dropped; the one after the head is told;
  later ones wait for what is missing before them;
* a passing entry (not stored) is told as soon as the head has reached the stored entry before it, with the
  head as its cursor: nothing that a gateway publishes overtakes what the same gateway stored before;
* a partial text of an utterance whose final was told, and who speaks in a call that has ended, are dropped:
  they come late.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from msgspec import UNSET, structs

from streams.events import Published

ENTRIES_WAITING = 10_000
"""Most entries that wait for what is missing before them. Beyond, all of them are dropped: the stored ones
are read from the store, the passing ones are replaced by the next of their kind."""

OVER_KEPT = 4096
"""Utterances and calls, each, whose end is remembered; the oldest is forgotten first."""


class Entry(NamedTuple):
    published: Published
    """Its cursor is its own when it is stored; else that of the stored event before it at its gateway."""
    json: str | None
    """Of a stored event, as the store holds it; ``None`` when it is passing."""
    by: str | None
    """The gateway that published it; ``None`` when it was read from the store."""


Deliveries = list[Entry | None]
"""What to tell now, in order. ``None``: events are missed for good, every listener has to resync."""


class Merge:
    """``offer`` what comes from the stream, ``know`` how far the log is; while ``wanted`` is not ``None``,
    read the store from ``head`` up to there and ``fill``."""

    def __init__(self, head: int) -> None:
        self.head = head
        """Cursor of the last stored event that was told."""
        self.late = 0
        """Passing entries that were not told, so far."""
        self._known = head  # the log is at least this far
        self._waiting: list[tuple[int, bool, int, Entry]] = []  # cursor, passing, arrival
        self._arrivals = 0
        self._finals = _Recent(OVER_KEPT)
        self._ended = _Recent(OVER_KEPT)

    @property
    def wanted(self) -> int | None:
        """The cursor up to which something is missing; ``None``: nothing is, as far as is known."""
        if self._waiting:
            cursor, passing, _, _ = self._waiting[0]
            return cursor if passing else cursor - 1
        return self._known if self._known > self.head else None

    def offer(self, entries: Iterable[Entry]) -> Deliveries:
        """Take entries as they come."""
        deliveries: Deliveries = []
        for entry in entries:
            cursor = entry.published.cursor
            passing = entry.json is None
            if not passing and cursor <= self.head:
                continue
            self._arrivals += 1
            heappush(self._waiting, (cursor, passing, self._arrivals, entry))
            self._known = max(self._known, cursor)
            deliveries += self._ready()
        if len(self._waiting) > ENTRIES_WAITING:
            self.late += sum(passing for _, passing, _, _ in self._waiting)
            self._waiting.clear()
        return deliveries

    def know(self, newest: int) -> None:
        """The log has come to this cursor, whether or not its entries have come here."""
        self._known = max(self._known, newest)

    def fill(self, stored: Sequence[Entry], until: int) -> Deliveries:
        """Take what the store holds after the head (at the time of reading) up to ``until``; perhaps only
        the first of them. What it no longer holds is missed for good."""
        deliveries: Deliveries = []
        for entry in stored:
            cursor = entry.published.cursor
            if cursor <= self.head:  # came meanwhile
                continue
            if cursor > self.head + 1:
                deliveries.append(None)
            deliveries.append(self._tell_stored(entry))
            deliveries += self._ready()
        if not stored and until > self.head:
            self.head = until
            deliveries.append(None)
            deliveries += self._ready()
        return deliveries

    def restart(self, newest: int) -> Deliveries:
        """The log went back to this cursor (a restored backup, a fail-over that lost commits)."""
        self.head = self._known = newest
        self._waiting.clear()
        self._finals.clear()
        self._ended.clear()
        return [None]

    def _ready(self) -> Deliveries:
        """What need not wait any more."""
        deliveries: Deliveries = []
        while self._waiting:
            cursor, passing, _, entry = self._waiting[0]
            if cursor > (self.head if passing else self.head + 1):
                break
            heappop(self._waiting)
            if not passing:
                if cursor == self.head + 1:  # else the same once more
                    deliveries.append(self._tell_stored(entry))
            elif self._is_late(entry.published):
                self.late += 1
            else:
                published = entry.published
                if cursor != self.head:
                    published = structs.replace(published, cursor=self.head)
                deliveries.append(Entry(published, None, entry.by))
        return deliveries

    def _tell_stored(self, entry: Entry) -> Entry:
        published = entry.published
        self.head = published.cursor
        match published.type:
            case "utterance.final" if published.utterance is not UNSET:
                self._finals.add(published.utterance.utterance_id)
            case "call.ended" if published.call_id is not None:
                self._ended.add(published.call_id)
            case "call.started" if published.call_id is not None:
                self._ended.discard(published.call_id)
        return entry

    def _is_late(self, published: Published) -> bool:
        if published.call_id is not None and published.call_id in self._ended:
            return True
        utterance = published.utterance
        return utterance is not UNSET and utterance.utterance_id in self._finals


class _Recent:
    """The last so many names."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: dict[str, None] = {}  # in the order of adding

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str) -> None:
        self._names.pop(name, None)
        self._names[name] = None
        if len(self._names) > self._most:
            del self._names[next(iter(self._names))]

    def discard(self, name: str) -> None:
        self._names.pop(name, None)

    def clear(self) -> None:
        self._names.clear()
