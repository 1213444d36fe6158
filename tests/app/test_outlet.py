"""The event log, of one process and of a gateway: order, idempotence, resuming, slow listeners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import app.subscription as subscription_module
import app.writer as writer_module
from app.errors import StoreError
from app.outlet import LocalOutlet, Outlet
from app.redis_outlet import RedisOutlet
from app.rights import EVERYTHING
from app.store import Store
from streams.events import (
    CallInfo,
    CallUpdated,
    Emotion,
    Evidence,
    Gap,
    Health,
    Hint,
    Latency,
    Progress,
    Speaking,
    SpeechStarted,
    SpeechStopped,
)
from tests.app.outlet_support import cursors, drain, hear, told, types
from tests.app.store_support import (
    EVENTS_KEPT,
    alert,
    emotion,
    ended,
    marker,
    open_store,
    progress,
    said,
    started,
)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = open_store(database_url)
    yield store
    store.close()


Make = Callable[..., Outlet]
"""A new outlet on this store, not started; ``events_kept`` if not the usual."""


@pytest.fixture(params=["local", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "local":
        return lambda store, events_kept=EVENTS_KEPT: LocalOutlet(store, events_kept=events_kept)
    url = request.getfixturevalue("redis_url")
    return lambda store, events_kept=EVENTS_KEPT: RedisOutlet(store, url, events_kept=events_kept)


@pytest.fixture
async def outlet(store: Store, make: Make) -> AsyncIterator[Outlet]:
    outlet = make(store)
    await outlet.start()
    yield outlet
    await outlet.stop()


# ── what becomes of an event ──────────────────────────────────────────────────────────────────────


async def test_every_kind_of_event_is_told_in_its_own_words(outlet: Outlet) -> None:
    published = await outlet.append(
        [
            started(),
            SpeechStarted(call_id="c1", channel="agent", media_ms=100),
            said(100, "您", final=False),
            SpeechStopped(call_id="c1", channel="agent", media_ms=900),
            said(100, "您好"),
            Gap(call_id="c1", channel="agent", media_ms=950, duration_ms=40, reason="missing"),
            alert(),
            marker(),
            Hint(
                id="h1", call_id="c1", rule_id="redline.guarantee", text={"zh": "请说明风险"}, media_ms=1500
            ),
            emotion(),
            progress(),
            Health(step=0, name="all", calls=1),
            ended(),
        ]
    )
    assert types(published) == [
        "call.started",
        "call.updated",
        "utterance.partial",
        "call.updated",
        "utterance.final",
        "alert.raised",
        "marker.added",
        "hint.shown",
        "emotion.updated",
        "script.progress",
        "health",
        "call.ended",
    ]
    assert [event.cursor for event in published] == [1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 7, 8]
    assert [Speaking(agent=True), Speaking()] == [
        event.speaking for event in published if event.type == "call.updated"
    ]


async def test_the_call_keeps_its_gaps_its_last_words_and_its_length(outlet: Outlet, store: Store) -> None:
    gap = Gap(call_id="c1", channel="agent", media_ms=950, duration_ms=40, reason="missing")
    await outlet.append(
        [started(), said(2000, "第二句", role="customer"), said(0, "第一句"), gap, gap, ended()]
    )
    call = store.calls.file("c1").call  # type: ignore[union-attr]
    assert (call.gap_ms, call.state, call.media_ms) == (80, "ended", 9000)
    assert "第二句" in call.last_text  # type: ignore[operator]


async def test_how_a_speaker_felt_is_told_once_and_kept_with_the_call(outlet: Outlet, store: Store) -> None:
    first, second = emotion(), emotion(4000, feeling="calm", level=1.0)
    assert types(await outlet.append([started(), second, first])) == [
        "call.started",
        "emotion.updated",
        "emotion.updated",
    ]
    assert await outlet.append([first, second]) == []
    [changed] = await outlet.append([emotion(level=9.0)])
    assert (changed.type, changed.media_ms) == ("emotion.updated", 800)
    assert changed.emotion == emotion(level=9.0)
    kept = store.calls.file("c1").emotions  # type: ignore[union-attr]
    assert [msgspec.json.decode(row.body, type=Emotion) for row in kept] == [emotion(level=9.0), second]


async def test_a_checklist_is_told_when_it_changes_and_the_latest_is_kept_with_the_call(
    outlet: Outlet, store: Store
) -> None:
    first, done = progress(), progress(4_000, "done")
    assert types(await outlet.append([started(), first, first, done])) == [
        "call.started",
        "script.progress",
        "script.progress",
    ]
    # A call that is processed again says on its way what is known.
    assert await outlet.append([first, done]) == []
    [other] = await outlet.append([progress(5_000, script="t")])
    assert other.progress == progress(5_000, script="t")
    await outlet.append([progress(6_000, "too_late")])
    kept = store.calls.file("c1").progress  # type: ignore[union-attr]
    assert [msgspec.json.decode(row.body, type=Progress) for row in kept] == [
        progress(5_000, script="t"),
        progress(6_000, "too_late"),
    ]


async def test_the_same_events_again_tell_nothing(outlet: Outlet) -> None:
    events = [started(), said(), alert(), marker(), ended()]
    assert len(await outlet.append(events)) == 5
    assert await outlet.append(events[1:]) == []


async def test_the_same_event_twice_in_one_transaction_is_told_once(outlet: Outlet) -> None:
    assert types(await outlet.append([started(), alert(), alert()])) == ["call.started", "alert.raised"]


async def test_a_replay_with_other_latencies_is_still_the_same_alert(outlet: Outlet) -> None:
    await outlet.append([started(), alert()])
    assert await outlet.append([alert(latency_ms=Latency(vad=1.0, asr=9999.0))]) == []


async def test_an_alert_that_says_more_is_an_update(outlet: Outlet, store: Store) -> None:
    await outlet.append([started(), alert()])
    more = await outlet.append([alert(evidence=Evidence(text="我们不承诺保本")), alert(state="withdrawn")])
    assert types(more) == ["alert.updated", "alert.updated"]
    floor = store.calls.floor("", 10, EVERYTHING)
    assert [row.state for row, _ in floor.alerts] == ["withdrawn"]
    assert floor.counts == {}


async def test_what_a_person_decided_is_not_taken_back_by_a_replay(outlet: Outlet) -> None:
    await outlet.append([started(), alert(), alert(state="false_alarm", owner="li")])
    assert await outlet.append([alert()]) == []


async def test_a_call_that_was_never_announced_loses_no_alert(outlet: Outlet) -> None:
    assert types(await outlet.append([alert(call_id="ghost")])) == ["call.started", "alert.raised"]


async def test_metadata_that_changes_is_told_and_the_same_again_is_not(outlet: Outlet) -> None:
    await outlet.append([started()])
    update = CallUpdated(call=CallInfo(call_id="c1", agent="8001"), media_ms=10)
    assert types(await outlet.append([update, update])) == ["call.updated"]


async def test_nobody_speaks_in_a_call_that_is_over(outlet: Outlet) -> None:
    await outlet.append([started(), SpeechStarted(call_id="c1", channel="customer", media_ms=0)])
    assert Speaking(customer=True) == outlet.speaking("c1")
    await outlet.append([ended(), SpeechStopped(call_id="c1", channel="customer", media_ms=5)])
    assert Speaking() == outlet.speaking("c1")


async def test_an_event_that_no_database_can_hold_harms_no_other(outlet: Outlet) -> None:
    broken = ended("broken", media_ms=2**63)
    told = await asyncio.gather(*(outlet.append([event]) for event in (started("a"), broken, started("b"))))
    assert [len(published) for published in told] == [1, 0, 1]
    assert types(await outlet.append([broken, started("c")])) == ["call.started"]


async def test_characters_that_a_database_cannot_hold_are_replaced_and_nothing_else_suffers(
    outlet: Outlet, store: Store
) -> None:
    events = [
        started("c\0", agent="8\ud8001", queue="理\0财", attributes={"a\0": "\udfff", "b": "\\u0000"}),
        said(0, "能\0保本\ud800吗", call_id="c\0", role="customer"),
        alert(1, "c\0", evidence=Evidence(text="\0保本", matched=("保\0本",))),
        marker(1, "c\0"),
        emotion(call_id="c\0"),
        progress(call_id="c\0", script="s\0"),
        ended("c\0"),
    ]
    published = await outlet.append(events)
    assert len(published) == len(events)
    assert {event.call_id for event in published} == {"c\ufffd"}
    assert "\0" not in msgspec.json.encode(published).decode()
    assert rb"\u0000" not in msgspec.json.encode(published[1:])
    # The same again is the same, also of what was replaced.
    assert await outlet.append(events[1:]) == []
    file = store.calls.file("c\0")
    assert file is not None
    assert (file.call.agent, file.call.queue) == ("8\ufffd1", "理\ufffd财")
    assert msgspec.json.decode(file.call.info, type=CallInfo).attributes == {
        "a\ufffd": "\ufffd",
        "b": "\\u0000",
    }
    assert [row.text for row in file.utterances] == ["能\ufffd保本\ufffd吗"]
    assert (len(file.alerts), len(file.markers), len(file.emotions), len(file.progress)) == (1, 1, 1, 1)


async def test_a_database_that_is_away_is_said_and_the_same_events_are_taken_later(
    outlet: Outlet, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    def away(_events: object) -> None:
        raise StoreError("the disk is full") from OperationalError("", {}, Exception())

    with monkeypatch.context() as patch:
        patch.setattr(store.log, "append", away)
        with pytest.raises(StoreError, match="disk is full"):
            await outlet.append([started()])
        assert types(await outlet.append([Health(step=0, name="all")])) == ["health"]
    assert types(await outlet.append([started()])) == ["call.started"]


async def test_after_the_stop_nothing_is_taken(store: Store, make: Make) -> None:
    outlet = make(store)
    with pytest.raises(StoreError, match="not started"):
        await outlet.append([started()])
    await outlet.start()
    waiting = asyncio.create_task(outlet.append([started()]))
    await asyncio.sleep(0)
    await outlet.stop()
    assert types(await waiting) == ["call.started"]
    with pytest.raises(StoreError, match="stopped"):
        await outlet.append([started("c2")])


async def test_a_call_whose_audio_comes_again_after_a_crash_is_live_again(outlet: Outlet) -> None:
    await outlet.append([started(), ended(reason="interrupted")])
    assert types(await outlet.append([started()])) == ["call.started"]


# ── listening ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_listener_hears_the_past_then_the_present_and_nothing_twice(store: Store, make: Make) -> None:
    outlet = make(store)
    await outlet.start()
    await outlet.append([started(), *(said(n) for n in range(1200))])
    await told(outlet, 1201)
    early, late, now = outlet.subscribe(0), outlet.subscribe(700), outlet.subscribe(None)
    reading = asyncio.create_task(drain(early))
    await asyncio.gather(*(outlet.append([said(n)]) for n in range(1200, 1300)))
    await outlet.stop()
    heard = [event.cursor for event in await reading if event is not None]
    assert list(range(1, 1302)) == heard
    assert list(range(701, 1302)) == [event.cursor for event in await drain(late) if event is not None]
    assert list(range(1202, 1302)) == [event.cursor for event in await drain(now) if event is not None]


@pytest.mark.parametrize("cursor", [-5, 2, 10**9])
async def test_a_cursor_that_the_log_does_not_know_begins_with_a_resync(outlet: Outlet, cursor: int) -> None:
    await outlet.append([started()])
    await told(outlet, 1)
    with outlet.subscribe(cursor) as subscription:
        assert [envelope.published for envelope in await subscription.take()] == [None]
        await outlet.append([said()])
        assert [envelope.published.type for envelope in await subscription.take() if envelope.published] == [
            "utterance.final"
        ]


async def test_the_log_is_trimmed_and_what_came_of_it_stays(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "TRIM_EVERY", 10)
    outlet = make(store, events_kept=50)
    await outlet.start()
    await outlet.append([started()])
    for beginning in range(0, 100, 10):
        await outlet.append([said(n) for n in range(beginning, beginning + 10)])
    slow = outlet.subscribe(1)
    await outlet.stop()
    oldest, newest = store.log.bounds()
    assert newest == 101
    assert 50 <= newest - oldest + 1 <= 60
    assert None in await drain(slow)
    assert len(store.calls.file("c1").utterances) == 100  # type: ignore[union-attr]


async def test_a_slow_listener_is_told_to_resync_and_slows_nobody(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "EVENTS_WAITING", 10)
    outlet = make(store)
    await outlet.start()
    slow, quick = outlet.subscribe(None), outlet.subscribe(None)
    await outlet.append([started()])
    heard = await hear(quick, 1)
    for n in range(30):
        await outlet.append([said(n)])
        heard += await hear(quick, n + 2)
    await outlet.stop()
    assert list(range(1, 32)) == cursors(heard)
    left = await drain(slow)
    assert left[0] is None
    after = [event.cursor for event in left[1:] if event is not None]
    assert list(range(after[0], 32)) == after
    assert len(left) <= 11


async def test_partial_texts_give_way_before_anything_else(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "EVENTS_WAITING", 10)
    outlet = make(store)
    await outlet.start()
    slow = outlet.subscribe(None)
    await outlet.append([started(), *(said(n, "半", final=False) for n in range(50)), said(), alert()])
    await outlet.stop()
    left = await drain(slow)
    assert None not in left
    assert [event.type for event in left if event is not None and event.type != "utterance.partial"] == [
        "call.started",
        "utterance.final",
        "alert.raised",
    ]


async def test_waiting_for_events_ends_after_the_timeout(outlet: Outlet) -> None:
    with outlet.subscribe(None) as subscription:
        assert await subscription.take(timeout_s=0.001) == []
        assert not subscription.ended


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 4)),
        st.tuples(st.just("partial"), st.just(1)),
        st.tuples(st.just("again"), st.integers(0, 3)),
        st.tuples(st.just("reconnect"), st.just(0)),
        st.tuples(st.just("read"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_a_browser_that_comes_and_goes_misses_nothing_and_gets_nothing_twice(
    steps: list[tuple[str, int]], make: Make, new_database: Callable[[], str]
) -> None:
    async def play(url: str) -> None:
        store = open_store(url)
        outlet = make(store)
        await outlet.start()
        published = [event.cursor for event in await outlet.append([started()])]
        heard: list[int] = []
        cursor = 0
        subscription = outlet.subscribe(cursor)

        def hear(envelopes: list[Any]) -> None:
            nonlocal cursor
            for envelope in envelopes:
                assert envelope.published is not None
                assert envelope.published.cursor >= cursor
                if envelope.published.type != "utterance.partial":
                    heard.append(envelope.published.cursor)
                cursor = envelope.published.cursor

        number = 0
        for step, count in steps:
            if step == "append":
                events = [said(number + n) for n in range(count)]
                number += count
                published += [event.cursor for event in await outlet.append(events)]
            elif step == "partial":
                await outlet.append([said(number, "半", final=False)])
            elif step == "again":
                assert await outlet.append([said(n) for n in range(min(count, number))]) == []
            elif step == "read":
                hear(await subscription.take(timeout_s=0))
            elif step == "reconnect":
                subscription.close()
                subscription = outlet.subscribe(cursor)
            else:
                await outlet.stop()
                outlet = make(store)
                # Alone it closes the call: one event, two with its being opened again.
                await outlet.start()
                await outlet.append([started()])
                published = list(range(1, store.log.bounds()[1] + 1))
                subscription = outlet.subscribe(cursor)
        await outlet.stop()
        while envelopes := await subscription.take(timeout_s=0):
            hear(envelopes)
        store.close()
        assert published == heard == list(range(1, len(heard) + 1))

    asyncio.run(play(new_database()))
