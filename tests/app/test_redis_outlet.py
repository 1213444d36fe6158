"""Several gateways on one log: all listeners hear all of it once and in order, whatever becomes of Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import delete
from sqlalchemy.exc import OperationalError

from app.errors import LiveError, StoreError
from app.redis_outlet import RedisOutlet
from app.redis_stream import EVENTS
from app.store import Store
from app.store.tables import EventRow
from app.subscription import Envelope, Subscription
from streams.events import Health, Published, Speaking, SpeechStarted, SpeechStopped
from tests.app.outlet_support import cursors, drain, hear, told, types, until
from tests.app.store_support import EVENTS_KEPT, alert, ended, open_store, said, sqlite, started
from tests.redis_services import halt, resume
from tests.services import Server

NOBODY = "redis://127.0.0.1:1/0"


class Gateways:
    """Makes gateways on one database, and takes them down at the end."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._made: list[tuple[RedisOutlet, Store]] = []

    async def start(self, url: str, **options: Any) -> RedisOutlet:
        store = open_store(self._database_url)
        outlet = RedisOutlet(store, url, events_kept=EVENTS_KEPT, **options)
        await outlet.start()
        self._made.append((outlet, store))
        return outlet

    async def stop(self, outlet: RedisOutlet) -> None:
        [[_, store]] = [made for made in self._made if made[0] is outlet]
        self._made.remove((outlet, store))
        await outlet.stop()
        store.close()

    async def stop_all(self) -> None:
        for outlet, _ in list(self._made):
            await self.stop(outlet)


@pytest.fixture
async def gateways(database_url: str) -> AsyncIterator[Gateways]:
    gateways = Gateways(database_url)
    yield gateways
    await gateways.stop_all()


def events(envelopes: list[Envelope]) -> list[Published]:
    return [envelope.published for envelope in envelopes if envelope.published is not None]


def spoke(call_id: str = "c1", channel: Any = "agent", media_ms: int = 0) -> SpeechStarted:
    return SpeechStarted(call_id=call_id, channel=channel, media_ms=media_ms)


class Listener:
    """A browser that keeps all it was sent."""

    def __init__(self, subscription: Subscription) -> None:
        self.heard: list[Envelope] = []
        self._subscription = subscription
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for envelope in self._subscription:
            self.heard.append(envelope)

    async def until(self, cursor: int) -> None:
        await until(lambda: cursor in cursors(self.heard))

    def close(self) -> None:
        self._subscription.close()
        self._task.cancel()


# ── all hear the same ─────────────────────────────────────────────────────────────────────────────


async def test_all_listeners_of_all_gateways_hear_everything_once_and_in_order(
    gateways: Gateways, redis_url: str
) -> None:
    outlets = [await gateways.start(redis_url) for _ in range(3)]
    listeners = [Listener(outlet.subscribe(0)) for outlet in outlets for _ in range(3)]
    await outlets[0].append([started(call) for call in "abc"])

    async def talk(outlet: RedisOutlet, call_id: str) -> None:
        for n in range(40):
            await outlet.append([said(n, "半", call_id=call_id, final=False)])
            await outlet.append([said(n, call_id=call_id), alert(n, call_id, id=f"{call_id}{n}")])

    await asyncio.gather(*(talk(outlet, call) for outlet, call in zip(outlets, "abc", strict=True)))
    for listener in listeners:
        await listener.until(243)
        assert cursors(listener.heard) == list(range(1, 244))
        finals: set[str] = set()
        position = 0
        for event in events(listener.heard):
            assert event.cursor >= position
            position = event.cursor
            if event.type == "utterance.partial":
                assert event.utterance.utterance_id not in finals  # type: ignore[union-attr]
            elif event.type == "utterance.final":
                finals.add(event.utterance.utterance_id)  # type: ignore[union-attr]
        assert types(events(listener.heard)).count("utterance.partial") > 60
        listener.close()


async def test_what_is_only_told_reaches_other_gateways_with_the_right_cursor(
    gateways: Gateways, redis_url: str
) -> None:
    here, there = await gateways.start(redis_url), await gateways.start(redis_url)
    with there.subscribe(None) as subscription:
        await here.append(
            [started(), said(0, "半", final=False), spoke(), Health(step=0, name="all"), said()]
        )
        heard = await hear(subscription, 2)
    assert [(event.type, event.cursor) for event in events(heard)] == [
        ("call.started", 1),
        ("utterance.partial", 1),
        ("call.updated", 1),
        ("health", 1),
        ("utterance.final", 2),
    ]
    assert there.speaking("c1") == Speaking(agent=True)
    assert there.health == Health(step=0, name="all")


async def test_an_alert_says_how_long_it_took_from_gateway_to_gateway(
    gateways: Gateways, redis_url: str
) -> None:
    here = await gateways.start(redis_url)
    there = await gateways.start(redis_url)
    # A clock that is behind must not make an alert come before it was raised.
    behind = await gateways.start(redis_url, clock=lambda: datetime.now(UTC) - timedelta(hours=1))
    subscriptions = [outlet.subscribe(None) for outlet in (here, there, behind)]
    before = time.monotonic()
    await here.append([started(), alert()])
    for subscription in subscriptions:
        for envelope in await hear(subscription, 2):
            assert envelope.emitted is not None
            # What is written down is cut to the millisecond.
            assert before - 0.002 <= envelope.emitted <= time.monotonic()


async def test_what_nobody_sent_to_the_stream_is_found_in_the_store(
    gateways: Gateways, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that was killed between its commit and the stream."""
    here, there = await gateways.start(redis_url), await gateways.start(redis_url)

    async def killed(_: object) -> None:
        await asyncio.Event().wait()

    with there.subscribe(None) as subscription:
        monkeypatch.setattr(here._stream, "send", killed)
        await here.append([started(), alert()])
        assert cursors(await hear(subscription, 2)) == [1, 2]
        # And one that comes after a hole does not come before it.
        await here.append([said()])
        await there.append([said(1000)])
        assert cursors(await hear(subscription, 4)) == [3, 4]


async def test_a_commit_whose_end_nobody_saw_is_told_once(
    gateways: Gateways, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlets = [await gateways.start(redis_url) for _ in range(2)]
    subscriptions = [outlet.subscribe(None) for outlet in outlets]
    await outlets[0].append([started()])
    append = outlets[0]._store.log.append

    def cut_off(batch: Any) -> None:
        append(batch)
        raise StoreError("the connection was lost") from OperationalError("", {}, Exception())

    with monkeypatch.context() as patch:
        patch.setattr(outlets[0]._store.log, "append", cut_off)
        with pytest.raises(StoreError, match="connection was lost"):
            await outlets[0].append([said(), alert()])
    # The outbox gives the same again, and more.
    assert types(await outlets[0].append([said(), alert(), alert(2)])) == ["alert.raised"]
    for subscription in subscriptions:
        assert cursors(await hear(subscription, 4)) == [1, 2, 3, 4]


async def test_a_text_that_is_no_text_is_told_all_the_same(gateways: Gateways, redis_url: str) -> None:
    here, there = await gateways.start(redis_url), await gateways.start(redis_url)
    with there.subscribe(None) as subscription:
        await here.append([started(), said(0, "保\ud800本\0", final=False), said(0, "保\ud800本\0")])
        _, partial, final = events(await hear(subscription, 2))
    assert partial.utterance.text == final.utterance.text == "保\ufffd本\ufffd"  # type: ignore[union-attr]
    assert here.connected


async def test_entries_that_come_late_or_twice_tell_nothing(gateways: Gateways, redis_url: str) -> None:
    outlet = await gateways.start(redis_url)
    with redis.Redis.from_url(redis_url) as client, outlet.subscribe(None) as subscription:
        await outlet.append([started(), *(said(n) for n in range(5))])
        for n in range(5, 10):
            await outlet.append([said(n, "半", final=False), said(n)])
        assert cursors(await hear(subscription, 11)) == list(range(1, 12))
        for _, fields in [*reversed(client.xrange(EVENTS)), *client.xrange(EVENTS)]:
            client.xadd(EVENTS, fields)
        await outlet.append([said(10)])
        heard = await hear(subscription, 12)
    assert [(event.type, event.cursor) for event in events(heard)] == [("utterance.final", 12)]


async def test_entries_that_nobody_can_read_harm_no_other(gateways: Gateways, redis_url: str) -> None:
    outlet = await gateways.start(redis_url)
    with redis.Redis.from_url(redis_url) as client, outlet.subscribe(None) as subscription:
        client.xadd(EVENTS, {"by": "a newer version", "told": b'[[true, {"type": "telepathy"}]]'})
        client.xadd(EVENTS, {"by": b"\xff", "told": b"\xff\xfe"})
        client.xadd(EVENTS, {"something": "else"})
        client.hset("duting:speaking", "c1", b"nonsense")
        await outlet.append([started()])
        assert cursors(await hear(subscription, 1)) == [1]
    assert (await gateways.start(redis_url)).speaking("c1") == Speaking()


# ── browsers that move, gateways that come and go ─────────────────────────────────────────────────


async def test_a_browser_that_moves_to_another_gateway_misses_nothing_and_gets_nothing_twice(
    gateways: Gateways, redis_url: str
) -> None:
    outlets = [await gateways.start(redis_url) for _ in range(2)]
    heard: list[int | None] = []
    cursor = 0
    await outlets[0].append([started()])
    for turn in range(20):
        # It asks at once, perhaps before this gateway has come as far as the one it leaves.
        with outlets[turn % 2].subscribe(cursor) as subscription:
            _, [last] = await asyncio.gather(
                outlets[(turn + 1) % 2].append([said(2 * turn)]),
                outlets[turn % 2].append([said(2 * turn + 1)]),
            )
            heard += cursors(await hear(subscription, last.cursor))
            cursor = heard[-1] or 0
    with outlets[0].subscribe(cursor) as subscription:
        if cursor < 41:
            heard += cursors(await hear(subscription, 41))
    assert heard == list(range(1, 42))


async def test_a_gateway_that_is_behind_waits_for_where_the_browser_was(
    gateways: Gateways, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await gateways.start(redis_url), await gateways.start(redis_url)
    held = asyncio.Event()
    read, bounds = there._stream.read, there._store.log.bounds

    async def late() -> Any:
        entries = await read()
        await held.wait()
        return entries

    monkeypatch.setattr(there._stream, "read", late)
    monkeypatch.setattr(there._store.log, "bounds", lambda: bounds() if held.is_set() else (1, there.head))
    await here.append([started()])
    await told(here, 1)
    await here.append([said(n) for n in range(4)])
    await told(here, 5)
    assert there.head < 5
    with there.subscribe(4) as subscription:
        waiting = asyncio.create_task(subscription.take())
        await asyncio.sleep(0)
        held.set()
        await here.append([said(5)])
        heard = await waiting
        if 6 not in cursors(heard):
            heard += await hear(subscription, 6)
    assert cursors(heard) == [5, 6]


async def test_a_cursor_that_the_log_never_gave_begins_with_a_resync(
    gateways: Gateways, redis_url: str
) -> None:
    outlet = await gateways.start(redis_url)
    await outlet.append([started()])
    await told(outlet, 1)
    with outlet.subscribe(5) as subscription:
        for n in range(3):
            await outlet.append([said(n)])
        await told(outlet, 4)
        assert cursors(await subscription.take()) == [None]
        await outlet.append([said(3)])
        assert cursors(await hear(subscription, 5)) == [5]


async def test_a_gateway_that_joins_knows_what_is_going_on_and_ends_nobodys_calls(
    gateways: Gateways, redis_url: str
) -> None:
    here = await gateways.start(redis_url)
    await here.append([started("c1"), started("c2"), started("over"), spoke("c1"), spoke("over")])
    await here.append([ended("over"), spoke("c2", "customer"), Health(step=1, name="fewer_partials")])
    await told(here, 4)
    began = time.monotonic()
    there = await gateways.start(redis_url)
    assert time.monotonic() - began < 2
    assert there.speaking("c1") == Speaking(agent=True)
    assert there.speaking("c2") == Speaking(customer=True)
    assert there.speaking("over") == Speaking()
    assert there.health == Health(step=1, name="fewer_partials")
    assert there.head == 4
    assert sorted(call for call, _ in there._store.calls.live()) == ["c1", "c2"]
    # The other gateway's edges go on from there, and so do this one's.
    with there.subscribe(None) as subscription:
        await here.append([SpeechStopped(call_id="c1", channel="agent", media_ms=900), said(0)])
        await hear(subscription, 5)
        assert there.speaking("c1") == Speaking()
    await there.append([spoke("c2", "agent")])
    assert there.speaking("c2") == Speaking(agent=True, customer=True)
    await until(lambda: here.speaking("c2") == Speaking(agent=True, customer=True))


async def test_a_gateway_that_stops_has_told_everything(gateways: Gateways, redis_url: str) -> None:
    here, there = await gateways.start(redis_url), await gateways.start(redis_url)
    subscriptions = [here.subscribe(None), there.subscribe(None)]
    appending = [asyncio.create_task(here.append([started(f"c{n}")])) for n in range(50)]
    await asyncio.sleep(0)
    await gateways.stop(here)
    await asyncio.gather(*appending)
    assert [event and event.cursor for event in await drain(subscriptions[0])] == list(range(1, 51))
    assert cursors(await hear(subscriptions[1], 50)) == list(range(1, 51))


# ── Redis comes and goes ──────────────────────────────────────────────────────────────────────────


async def test_redis_killed_and_restarted_empty_costs_no_event_and_shows_none_twice(
    gateways: Gateways, redis_server: Server
) -> None:
    outlets = [await gateways.start(redis_server.url) for _ in range(2)]
    listeners = [Listener(outlet.subscribe(0)) for outlet in outlets for _ in range(2)]
    await outlets[0].append([started("a"), spoke("a")])
    await outlets[1].append([started("b")])
    appended, longest, talking = 2, 0.0, True

    async def talk(outlet: RedisOutlet, call_id: str) -> None:
        nonlocal appended, longest
        n = 0
        while talking:
            began = time.monotonic()
            stored = await outlet.append(
                [said(n, "半", call_id=call_id, final=False), alert(n, call_id, id=f"{call_id}{n}")]
            )
            longest = max(longest, time.monotonic() - began)
            appended += sum(event.type == "alert.raised" for event in stored)
            n += 1
            await asyncio.sleep(0.01)

    talks = [asyncio.create_task(talk(outlet, call)) for outlet, call in zip(outlets, "ab", strict=True)]
    for listener in listeners:
        await listener.until(20)
    for _ in range(2):
        await asyncio.to_thread(redis_server.kill)
        away = appended
        await outlets[0].append([spoke("a", "customer"), spoke("b")])
        for listener in listeners:
            await listener.until(away + 30)
        assert not any(outlet.connected for outlet in outlets)
        await asyncio.to_thread(redis_server.start)
        await until(lambda: all(outlet.connected for outlet in outlets))
        back = appended
        for listener in listeners:
            await listener.until(back + 10)
    talking = False
    await asyncio.gather(*talks)
    for listener in listeners:
        await listener.until(appended)
        assert cursors(listener.heard) == list(range(1, appended + 1))
        listener.close()
    assert longest < 5, "an append waited for Redis"
    # What Redis forgot is there again, what happened meanwhile too.
    third = await gateways.start(redis_server.url)
    for outlet in (*outlets, third):
        await until(lambda outlet=outlet: outlet.speaking("a") == Speaking(agent=True, customer=True))
        await until(lambda outlet=outlet: outlet.speaking("b") == Speaking(agent=True))


async def test_an_emptied_redis_is_noticed_though_its_connections_stay(
    gateways: Gateways, redis_url: str
) -> None:
    outlets = [await gateways.start(redis_url) for _ in range(2)]
    subscription = outlets[1].subscribe(None)
    await outlets[0].append([started(), spoke()])
    await outlets[0].append([Health(step=0, name="all"), said(0)])
    heard = await hear(subscription, 2)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        for n in range(1, 5):
            await outlets[n % 2].append([said(n)])
        heard += await hear(subscription, 6)
        await until(lambda: client.hget("duting:speaking", "c1") is not None)
        await until(lambda: client.get("duting:health") is not None)
        await until(lambda: all(outlet.connected for outlet in outlets))
    await outlets[0].append([said(5)])
    heard += await hear(subscription, 7)
    assert cursors(heard) == list(range(1, 8))
    assert (await gateways.start(redis_url)).speaking("c1") == Speaking(agent=True)


async def test_a_redis_whose_ids_begin_lower_is_joined_anew(gateways: Gateways, redis_url: str) -> None:
    """Restored from an old state, or another server whose clock is behind."""
    outlet = await gateways.start(redis_url)
    with redis.Redis.from_url(redis_url) as client, outlet.subscribe(None) as subscription:
        client.xadd(EVENTS, {"by": "the future"}, id="99999999999999-1")
        await outlet.append([started()])
        heard = await hear(subscription, 1)
        client.delete(EVENTS)
        await outlet.append([said(0, "半", final=False), said(0)])
        heard += await hear(subscription, 2)
        await until(lambda: outlet.connected and (outlet._stream._last < b"99999999999999-1"))
        await outlet.append([said(1, "半", final=False), said(1)])
        heard += await hear(subscription, 3)
    assert cursors(heard) == [1, 2, 3]
    assert types(events(heard))[-2:] == ["utterance.partial", "utterance.final"]


async def test_a_redis_that_answers_nothing_holds_no_append_up(
    gateways: Gateways, redis_server: Server
) -> None:
    here, there = await gateways.start(redis_server.url), await gateways.start(redis_server.url)
    subscriptions = [here.subscribe(None), there.subscribe(None)]
    await here.append([started()])
    heard = [await hear(subscription, 1) for subscription in subscriptions]
    halt(redis_server)
    try:
        began = time.monotonic()
        await here.append([said(0, "半", final=False), alert()])
        assert time.monotonic() - began < 1
        for part, subscription in zip(heard, subscriptions, strict=True):
            part += await hear(subscription, 2)
        await until(lambda: not here.connected and not there.connected)
    finally:
        resume(redis_server)
    await until(lambda: here.connected and there.connected)
    await there.append([said(0)])
    for part, subscription in zip(heard, subscriptions, strict=True):
        part += await hear(subscription, 3)
        assert cursors(part) == [1, 2, 3]
        assert types(events(part))[-1] == "utterance.final"


async def test_a_redis_without_memory_counts_as_away_until_it_has_some(
    gateways: Gateways, redis_server: Server
) -> None:
    outlet = await gateways.start(redis_server.url)
    with redis.Redis.from_url(redis_server.url) as client, outlet.subscribe(None) as subscription:
        client.config_set("maxmemory", 1)
        await outlet.append([started(), said(0, "半", final=False), alert()])
        assert types(events(await hear(subscription, 2))) == [
            "call.started",
            "utterance.partial",
            "alert.raised",
        ]
        await until(lambda: not outlet.connected)
        client.config_set("maxmemory", 0)
        await until(lambda: outlet.connected)
        await outlet.append([said(0)])
        assert cursors(await hear(subscription, 3)) == [3]
        assert client.xlen(EVENTS) >= 3


async def test_without_redis_a_gateway_tells_its_own_events_at_once_and_finds_the_others(
    gateways: Gateways,
) -> None:
    here, there = await gateways.start(NOBODY), await gateways.start(NOBODY)
    subscriptions = [here.subscribe(None), there.subscribe(None)]
    await here.append([started("a"), spoke("a"), said(0, "半", call_id="a", final=False)])
    await there.append([started("b")])
    await here.append([said(0, call_id="a")])
    mine, theirs = [events(await hear(subscription, 3)) for subscription in subscriptions]
    assert [event.cursor for event in mine if event.type != "call.updated"] == [1, 1, 2, 3]
    assert [event.cursor for event in theirs] == [1, 2, 3]
    assert "utterance.partial" in types(mine)
    assert here.speaking("a") == Speaking(agent=True)


async def test_more_than_may_wait_for_redis_is_found_in_the_store(
    gateways: Gateways, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.redis_outlet.EVENTS_QUEUED", 20)
    here, there = await gateways.start(redis_url), await gateways.start(redis_url)
    subscriptions = [here.subscribe(None), there.subscribe(None)]
    await here.append([started(), *(said(n) for n in range(100))])
    for subscription in subscriptions:
        assert cursors(await hear(subscription, 101)) == list(range(1, 102))


async def test_a_log_that_went_back_is_loaded_anew_by_everybody(gateways: Gateways, redis_url: str) -> None:
    """A backup was restored, or a standby took over without the last commits."""
    outlet = await gateways.start(redis_url)
    subscription = outlet.subscribe(None)
    await outlet.append([started(), said(0), said(1)])
    heard = await hear(subscription, 3)
    with outlet._store.writing() as session:
        session.execute(delete(EventRow).where(EventRow.cursor > 1))
    await until(lambda: outlet.head == 1)
    [published] = await outlet.append([said(2)])
    assert published.cursor == 2
    heard += await hear(subscription, 2)
    assert cursors(heard) == [1, 2, 3, None, 2]


async def test_a_url_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    store = open_store(sqlite(tmp_path))
    with pytest.raises(LiveError, match="DUTING_REDIS_URL"):
        RedisOutlet(store, "http://redis", events_kept=EVENTS_KEPT)
    store.close()
