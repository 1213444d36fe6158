"""All who listen to the event log in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client import Gauge

from app.rights import EVERYTHING, Sight
from app.store import Store
from app.store.projection import Stored
from app.subscription import Envelope, Subscription, in_sight

EVENTS_PER_READ = 500

subscribers = Gauge("duting_subscribers", "Listeners to the event log")


class Listeners:
    """Makes subscriptions and gives each of them what is told. For one event loop.

    A slow listener never slows the others: each has a bounded queue, see ``app.subscription``.
    """

    def __init__(self, store: Store, *, others_write: bool) -> None:
        """``others_write``: another process may have told an event before this one hears of it."""
        self._store = store
        self._others_write = others_write
        self._subscriptions: set[Subscription] = set()
        self._closed = False
        self.head = 0
        """Cursor of the last stored event that was told."""

    def subscribe(self, cursor: int | None, sight: Sight = EVERYTHING) -> Subscription:
        """Everything in sight after ``cursor``, then as it happens; ``None``: as it happens only.

        A cursor that is older than what is kept, or that the log never gave, begins with a resync; one
        that only other processes have come to yet is waited for. Close the subscription after use; as a
        context manager it closes itself.
        """
        # Between here and the return nothing is told: what the store holds up to the head and what is
        # told from now on meet without a hole and without overlap.
        subscription = Subscription(self.head, self._read, self._forget, sight)
        if cursor is not None and cursor < self.head:
            subscription.replay(cursor, self.head)
        elif cursor is not None and cursor > self.head:
            if self._others_write:
                subscription.skip(cursor)
            else:
                subscription.lose()
        if self._closed:
            subscription.close()
        else:
            self._subscriptions.add(subscription)
            subscribers.inc()
        return subscription

    def tell(self, envelopes: Sequence[Envelope]) -> None:
        """Give all of them what happened, in this order."""
        for envelope in envelopes:
            if envelope.stored and envelope.published is not None:
                self.head = envelope.published.cursor
        # Two hundred supervisors have a handful of different sights: each is worked out once.
        views: dict[Sight, Sequence[Envelope]] = {}
        for subscription in self._subscriptions:
            if subscription.sight not in views:
                views[subscription.sight] = in_sight(subscription.sight, envelopes)
            if views[subscription.sight]:
                subscription.offer(views[subscription.sight])

    def close(self) -> None:
        """End all subscriptions, also those made from now on."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.close()

    def _forget(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.discard(subscription)
            subscribers.dec()

    async def _read(self, after: int, until: int) -> list[Stored]:
        return await asyncio.to_thread(self._store.log.read, after, until, EVENTS_PER_READ)
