"""Alerts that nobody took in time: told once, whoever looks, also after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from app.escalation import MOST_AT_ONCE, Escalation
from app.outlet import LocalOutlet
from app.redis_outlet import RedisOutlet
from app.store import Store
from app.store.audit import CLOCK
from app.store.times import Patience, written
from streams.events import Alert, Decided
from tests.app.outlet_support import hear
from tests.app.store_support import EVENTS_KEPT, alert, open_store, started

BEGAN = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = open_store(database_url)
    yield store
    store.close()


def raised(store: Store, *alerts: Alert, at: datetime = BEGAN) -> None:
    store.log.append([(started(), written(at)), *((one, written(at)) for one in alerts)])


def state(store: Store, alert_id: str = "a1") -> tuple[str, str | None]:
    found = store.calls.alert(alert_id)
    assert found is not None
    return found[0].state, found[0].escalates_at


async def looked(store: Store, clock: Clock) -> int:
    """One look of a process that then ends."""
    outlet = LocalOutlet(store, events_kept=EVENTS_KEPT, clock=clock)
    await outlet.start()
    due = await Escalation(store, outlet, clock).look()
    await outlet.stop()
    return due


def events_of(store: Store) -> list[str]:
    return [item.published.type for item in store.log.read(0, 10_000, 10_000)]


def test_patience_is_by_severity_and_none_is_for_ever() -> None:
    patience = Patience(critical=30, warning=0.5, info=None)
    at = "2026-03-01T08:30:00.125Z"
    assert patience.until("critical", at) == "2026-03-01T08:30:30.125Z"
    assert patience.until("warning", at) == "2026-03-01T08:30:00.625Z"
    assert patience.until("info", at) is None


def test_an_alert_escalates_when_its_time_is_over_and_not_before(store: Store) -> None:
    raised(store, alert(), alert(2, severity="warning"), alert(3, severity="info"))
    clock = Clock()
    clock.now = BEGAN + timedelta(seconds=29.9)
    assert asyncio.run(looked(store, clock)) == 0
    clock.now = BEGAN + timedelta(seconds=30)
    assert asyncio.run(looked(store, clock)) == 1
    assert state(store) == ("escalated", None)
    assert state(store, "a2") == ("open", written(BEGAN + timedelta(seconds=120)))
    assert state(store, "a3") == ("open", None)
    [change] = store.alerts.history("a1", 10)
    assert (change.action, change.by, change.from_state) == ("escalate", None, "open")
    [entry] = store.audit.about("a1")
    assert (entry.username, entry.action) == (CLOCK, "alert.escalated")


def test_an_alert_that_was_taken_does_not_escalate(store: Store) -> None:
    raised(store, alert())
    wish = Decided(id="1", call_id="c1", alert_id="a1", media_ms=1500, action="acknowledge", by="li")
    store.log.append([(wish, written(BEGAN))])
    clock = Clock()
    clock.now = BEGAN + timedelta(hours=1)
    assert asyncio.run(looked(store, clock)) == 0
    assert state(store) == ("acknowledged", None)


def test_deadlines_that_passed_while_nothing_ran_are_served_after_a_restart(
    database_url: str, store: Store
) -> None:
    raised(store, alert())
    again = open_store(database_url)
    clock = Clock()
    clock.now = BEGAN + timedelta(days=1)
    assert asyncio.run(looked(again, clock)) == 1
    assert asyncio.run(looked(again, clock)) == 0
    again.close()
    assert state(store)[0] == "escalated"


def test_a_thousand_deadlines_are_served_in_portions_oldest_first(store: Store) -> None:
    for number in range(1, MOST_AT_ONCE + 6):
        raised(store, alert(number), at=BEGAN + timedelta(milliseconds=number))
    clock = Clock()
    clock.now = BEGAN + timedelta(minutes=5)
    assert asyncio.run(looked(store, clock)) == MOST_AT_ONCE
    assert state(store, f"a{MOST_AT_ONCE + 1}")[0] == "open"
    assert asyncio.run(looked(store, clock)) == 5


def test_several_gateways_that_see_the_same_deadline_tell_it_once(
    database_url: str, redis_url: str, store: Store
) -> None:
    raised(store, alert())
    clock = Clock()
    clock.now = BEGAN + timedelta(minutes=1)

    async def together() -> list[str]:
        stores = [open_store(database_url) for _ in range(3)]
        outlets = [RedisOutlet(one, redis_url, events_kept=EVENTS_KEPT, clock=clock) for one in stores]
        for outlet in outlets:
            await outlet.start()
        with outlets[0].subscribe(2) as subscription:
            await asyncio.gather(
                *(Escalation(one, outlet, clock).look() for one, outlet in zip(stores, outlets, strict=True))
            )
            heard = await hear(subscription, 3)
        for outlet, one in zip(outlets, stores, strict=True):
            await outlet.stop()
            one.close()
        return [event.published.type for event in heard if event.stored and event.published is not None]

    assert asyncio.run(together()) == ["alert.updated"]
    assert events_of(store).count("alert.updated") == 1
    assert len(store.audit.about("a1")) == 1
    assert len(store.alerts.history("a1", 10)) == 1


def test_the_same_wish_given_twice_holds_once(store: Store) -> None:
    raised(store, alert())
    wish = Decided(id="1", call_id="c1", alert_id="a1", media_ms=1500, action="comment", by="li", text="好")
    told = [store.log.append([(wish, written(BEGAN))]) for _ in range(2)]
    told += [store.log.append([(wish, written(BEGAN)), (wish, written(BEGAN))])]
    assert [len(each) for batch in told for each in batch] == [1, 0, 0, 0]
    assert len(store.alerts.history("a1", 10)) == 1
