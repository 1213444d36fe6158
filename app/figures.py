"""The floor in figures that no browser can know by itself: they reach further back than it looks.

They are ``None``, or counted over nothing, where nobody has told what they are made of: never made up.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from threading import Lock

from msgspec import Struct

from app.rights import EVERYTHING, Sight
from app.store import Store
from app.store.figures import Decided, Waited, decided, waited
from app.store.times import now, read, written

IN_HAND = ("acknowledged", "resolved", "false_alarm")
"""States that say that a person has seen the alert."""
ALERTS_REMEMBERED = 2000
"""Those taken in hand last; an older one falls out."""
TAKEN_WITHIN = timedelta(hours=24)
EVENTS_LOOKED_AT = 20_000

WAITED = "waited_s"
"""Attribute of a call, a custom field of its telephony: seconds the customer waited for an answer."""
ANSWER_LIMIT_S = 25.0
ANSWERED_WITHIN = timedelta(hours=1)
CALLS_LOOKED_AT = 3000

KEPT_FOR = timedelta(seconds=5)
"""Two hundred dashboards ask; the store is asked once."""


class Figures(Struct, frozen=True, kw_only=True):
    acknowledge_ms: float | None
    """Median time from an alert to the first person who took it in hand; ``None``: nobody has yet."""
    acknowledged: int
    """Over so many alerts of the last 24 hours."""
    answered: int
    """Calls begun within the last hour of which the telephony said how long the customer waited."""
    in_time: int
    """Those of them that waited ``answer_limit_s`` or less."""
    answer_limit_s: float = ANSWER_LIMIT_S


class FloorFigures:
    """May be asked from several threads. Remembers how far it has read the log, and reads on from there."""

    def __init__(self, store: Store, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._clock = clock
        self._lock = Lock()
        self._cursor = 0
        self._taken: OrderedDict[str, Decided] = OrderedDict()
        """By alert: when somebody first took it in hand."""
        self._read: datetime | None = None
        self._waited: list[Waited] = []
        self._made: dict[Sight, Figures] = {}
        """Of what was read last; as many as there are teams that ask."""

    def __call__(self, sight: Sight = EVERYTHING) -> Figures:
        """Of the calls in sight. Raises ``StoreError``."""
        with self._lock:
            moment = self._clock()
            if self._read is None or not timedelta() <= moment - self._read < KEPT_FOR:
                self._look(moment)
            if sight not in self._made:
                self._made[sight] = self._make(moment, sight)
            return self._made[sight]

    def _look(self, moment: datetime) -> None:
        self._cursor, changes = decided(self._store, self._cursor, EVENTS_LOOKED_AT)
        for change in changes:
            if change.state in IN_HAND:
                self._taken.setdefault(change.alert_id, change)
        while len(self._taken) > ALERTS_REMEMBERED:
            self._taken.popitem(last=False)
        self._waited = waited(self._store, WAITED, written(moment - ANSWERED_WITHIN), CALLS_LOOKED_AT)
        self._read, self._made = moment, {}

    def _make(self, moment: datetime, sight: Sight) -> Figures:
        since = written(moment - TAKEN_WITHIN)
        times = [
            (read(taken.at) - read(taken.raised_at)).total_seconds() * 1000
            for taken in self._taken.values()
            if taken.at >= since and sight.sees(taken.agent, taken.team)
        ]
        waits = seconds(each.told for each in self._waited if sight.sees(each.agent, each.team))
        return Figures(
            acknowledge_ms=statistics.median(times) if times else None,
            acknowledged=len(times),
            answered=len(waits),
            in_time=sum(wait <= ANSWER_LIMIT_S for wait in waits),
        )


def seconds(told: Iterable[str]) -> list[float]:
    """Those that are a number of seconds that somebody can wait: 0 to a day."""
    numbers = []
    for text in told:
        try:
            number = float(text)
        except ValueError:
            continue
        if 0 <= number <= 86_400:  # also false for what is no number
            numbers.append(number)
    return numbers
