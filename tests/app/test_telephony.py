"""What telephony systems tell over HTTP: read, taken once, brought to the call wherever it is heard."""

from __future__ import annotations

import asyncio
import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import LiveError
from app.ingest.assembly import Assembly
from app.ingest.peer import Closed
from app.live import LocalLive
from app.redis_live import RedisLive
from app.telephony import (
    MOST_EVENTS,
    Busy,
    CallOver,
    Full,
    HangupEvent,
    HoldEvent,
    KeyEvent,
    ResumeEvent,
    Switchboard,
    TransferEvent,
    UnknownCall,
    UpdateEvent,
    decoded,
)
from streams.events import Hold, KeyPressed, Transfer
from tests.app.ingest.runner import Runner
from tests.app.ingest.test_assembly import Phone, opened

# ── what is told ──────────────────────────────────────────────────────────────────────────────────


def test_an_event_or_a_list_of_them_is_read():
    assert decoded(b'{"type": "hold"}') == [HoldEvent()]
    body = [
        {"type": "resume", "id": "7"},
        {"type": "transfer", "to": "loans", "media_ms": 5},
        {"type": "key", "channel": "agent"},
        {"type": "key"},
        {"type": "update", "fields": {"queue": "loans", "工单": "1"}},
        {"type": "hangup", "by": "customer"},
    ]
    assert decoded(json.dumps(body).encode()) == [
        ResumeEvent(id="7"),
        TransferEvent(to="loans", media_ms=5),
        KeyEvent(channel="agent"),
        KeyEvent(channel="customer"),
        UpdateEvent(fields={"queue": "loans", "工单": "1"}),
        HangupEvent(by="customer"),
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"hold", "expected JSON"),
        (b'{"type": ' + b"[" * 5_000, "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        (b"[]", "expected 1 to 50 events, got 0"),
        (json.dumps([{"type": "hold"}] * (MOST_EVENTS + 1)).encode(), "expected 1 to 50 events, got 51"),
        (b"{}", "missing required field `type`"),
        (b'{"type": "ring"}', "Invalid value 'ring'"),
        (b'[{"type": "hold"}, {"type": "hold", "by": "agent"}]', "unknown field `by` - at `$[1]`"),
        (b'{"type": "key", "key": "5"}', "unknown field `key`"),
        (b'{"type": "key", "digit": "5"}', "unknown field `digit`"),
        (b'{"type": "hangup", "by": "robot"}', "Invalid enum value 'robot' - at `$.by`"),
        (b'{"type": "hold", "media_ms": -1}', "expected media_ms from 0"),
        (b'{"type": "hold", "media_ms": "now"}', "Expected `int | null`"),
        (b'[{"type": "hold", "id": ""}]', "expected an id of 1 to 128 characters, got 0 - at `$[0]`"),
        (b'{"type": "transfer", "to": ""}', "expected 1 to 128 characters in to"),
        (b'{"type": "update"}', "missing required field `fields`"),
        (b'{"type": "update", "fields": {"queue": 5}}', "Expected `str`"),
        (b'{"type": "update", "fields": {"direction": "up"}}', "expected direction 'inbound' or 'outbound'"),
    ],
)
def test_what_is_wrong_is_said(body, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        decoded(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_a_value_error(body):
    try:
        decoded(body)
    except ValueError as error:
        assert not isinstance(error, msgspec.ValidationError)  # noqa: PT017


# ── one process ───────────────────────────────────────────────────────────────────────────────────


class Place:
    """A gateway with the real assembly and switchboard."""

    def __init__(self, live, shared=False, elsewhere=lambda _: False, stored=None):
        self.runner = Runner(shares_calls=shared)
        self.wall = 1_000.0
        self.assembly = Assembly(self.runner, clock=self.runner.clock, wall=lambda: self.wall)
        self.stored = {} if stored is None else stored

        async def state(call_id):
            return self.stored.get(call_id)

        self.board = Switchboard(
            self.assembly, live, state, shared=shared, elsewhere=elsewhere, wall=lambda: self.wall
        )

    def dial(self, call_id="c"):
        phone = Phone(self.runner)
        self.assembly.join(opened(call_id=call_id), phone)
        phone.say(5_000)
        return phone


@pytest.fixture
def here():
    return Place(LocalLive())


async def test_events_are_told_to_the_call_in_their_order(here):
    here.dial()
    events = [
        HoldEvent(), KeyEvent(), KeyEvent(channel="agent"), TransferEvent(to="loans"), ResumeEvent(),
    ]  # fmt: skip
    assert await here.board.take("c", events) == 5
    assert here.runner.signalled == [
        Hold(call_id="c", media_ms=5_000, held=True, source="telephony"),
        KeyPressed(call_id="c", channel="customer", media_ms=5_000),
        KeyPressed(call_id="c", channel="agent", media_ms=5_000),
        Transfer(call_id="c", media_ms=5_000, to="loans"),
        Hold(call_id="c", media_ms=5_000, held=False, source="telephony"),
    ]


async def test_metadata_is_changed(here):
    here.dial()
    await here.board.take("c", [UpdateEvent(fields={"queue": "loans", "ticket": "7"})])
    [info] = here.runner.updated
    assert (info.queue, info.attributes) == ("loans", {"ticket": "7"})


async def test_what_happened_before_is_told_at_its_time_and_nothing_in_the_future(here):
    here.dial()
    await here.board.take("c", [HoldEvent(media_ms=2_000), ResumeEvent(media_ms=900_000)])
    assert [event.media_ms for event in here.runner.signalled] == [2_000, 5_000]


async def test_a_hang_up_ends_the_call_and_says_by_whom_without_waiting_for_its_last_words(here):
    phone = here.dial()
    assert await here.board.take("c", [HangupEvent(by="customer")]) == 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert here.runner.closed == [("c", "hangup", "customer")]
    assert phone.dropped == 1000
    await here.board.stop()


async def test_an_event_with_an_id_is_done_once(here):
    here.dial()
    assert await here.board.take("c", [KeyEvent(id="1"), KeyEvent(id="1"), KeyEvent(id="2")]) == 2
    assert await here.board.take("c", [KeyEvent(id="2"), KeyEvent(id="3"), KeyEvent()]) == 2
    assert len(here.runner.signalled) == 4


async def test_the_same_id_may_belong_to_another_call(here):
    here.dial("c")
    here.dial("d")
    assert await here.board.take("c", [KeyEvent(id="1")]) == 1
    assert await here.board.take("d", [KeyEvent(id="1")]) == 1


async def test_a_hang_up_that_is_told_again_is_no_error_though_the_call_is_over(here):
    here.dial()
    await here.board.take("c", [HangupEvent(id="9", by="agent")])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    here.stored["c"] = "ended"
    assert await here.board.take("c", [HangupEvent(id="9", by="agent")]) == 0
    assert len(here.runner.closed) == 1


async def test_a_call_that_nobody_knows_and_one_that_is_over_are_refused(here):
    with pytest.raises(UnknownCall):
        await here.board.take("c", [HoldEvent(id="1")])
    here.stored["c"] = "ended"
    with pytest.raises(CallOver):
        await here.board.take("c", [HoldEvent(id="1")])
    here.stored["c"] = "live"
    with pytest.raises(CallOver):
        await here.board.take("c", [HoldEvent(id="1")])


async def test_what_was_refused_may_be_told_again(here):
    with pytest.raises(UnknownCall):
        await here.board.take("c", [HoldEvent(id="1")])
    here.dial()
    assert await here.board.take("c", [HoldEvent(id="1")]) == 1


async def test_one_that_is_being_taken_is_not_taken_twice():
    class Slow(LocalLive):
        def __init__(self):
            super().__init__()
            self.go = asyncio.Event()

        async def post(self, *given):
            await self.go.wait()
            return await super().post(*given)

    live = Slow()
    place = Place(live, shared=True, elsewhere=lambda _: True)
    first = asyncio.create_task(place.board.take("c", [HoldEvent(id="1")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await place.board.take("c", [HoldEvent(id="1")])
    live.go.set()
    assert await first == 1
    assert await place.board.take("c", [HoldEvent(id="1")]) == 0
    assert len(await live.collect("call:c")) == 1


async def test_who_gives_up_asking_has_taken_nothing():
    live = LocalLive()
    place = Place(live, shared=True, elsewhere=lambda _: True)

    async def never(*given):
        await asyncio.Event().wait()

    live.post = never
    asking = asyncio.create_task(place.board.take("c", [HoldEvent(id="1")]))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    del live.post
    assert await place.board.take("c", [HoldEvent(id="1")]) == 1


# ── several gateways ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["local", "redis"])
async def lives(request):
    """The shared state as two gateways see it."""
    if request.param == "local":
        live = LocalLive()
        yield live, live
        return
    url = request.getfixturevalue("redis_url")
    both = RedisLive(url), RedisLive(url)
    yield both
    for live in both:
        await live.aclose()


@pytest.fixture
def both(lives):
    """Two gateways; each knows what the other hears."""
    stored: dict[str, str] = {}
    first = Place(lives[0], shared=True, elsewhere=lambda c: c in second.assembly, stored=stored)
    second = Place(lives[1], shared=True, elsewhere=lambda c: c in first.assembly, stored=stored)
    return first, second


async def test_an_event_that_reaches_the_wrong_gateway_comes_to_the_right_one(both):
    here, there = both
    there.dial()
    assert await here.board.take("c", [HoldEvent(id="1"), KeyEvent(id="2")]) == 2
    await here.board.look()
    assert here.runner.signalled == []
    await there.board.look()
    assert [type(event) for event in there.runner.signalled] == [Hold, KeyPressed]
    await there.board.look()
    assert len(there.runner.signalled) == 2


async def test_it_is_told_at_the_time_at_which_it_came(both):
    here, there = both
    phone = there.dial()
    await here.board.take("c", [HoldEvent()])
    phone.say(400)
    there.wall += 0.4
    await there.board.look()
    assert there.runner.signalled[0].media_ms == 5_000


async def test_the_same_event_told_to_both_gateways_is_done_once(both):
    here, there = both
    there.dial()
    assert await here.board.take("c", [KeyEvent(id="1")]) == 1
    assert await there.board.take("c", [KeyEvent(id="1")]) == 0
    await there.board.look()
    assert len(there.runner.signalled) == 1


async def test_what_is_told_of_a_call_on_its_way_between_two_gateways_waits_for_it(both):
    here, there = both
    phone = here.dial()
    await here.assembly.leave(phone, "c", Closed("disconnected"))
    here.stored["c"] = "live"
    assert await here.board.take("c", [HoldEvent()]) == 1
    await there.board.look()
    there.dial()
    await there.board.look()
    assert [event.held for event in there.runner.signalled] == [True]


async def test_a_hang_up_reaches_the_call_elsewhere(both):
    here, there = both
    there.dial()
    await here.board.take("c", [HangupEvent(by="agent")])
    await there.board.look()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert there.runner.closed == [("c", "hangup", "agent")]


async def test_an_inbox_that_is_full_is_told(both):
    here, there = both
    there.dial()
    for _ in range(100):
        await here.board.take("c", [KeyEvent()])
    with pytest.raises(Full) as full:
        await here.board.take("c", [KeyEvent(id="1")])
    assert full.value.retryable
    await there.board.look()
    assert await here.board.take("c", [KeyEvent(id="1")]) == 1


async def test_a_letter_of_another_release_costs_the_others_nothing(both, lives):
    here, there = both
    there.dial()
    await lives[0].post("call:c", b"\xc1", 60)
    await lives[0].post("other:c", b"", 60)
    await here.board.take("c", [KeyEvent()])
    await there.board.look()
    assert len(there.runner.signalled) == 1


async def test_gateways_look_by_themselves(both):
    here, there = both
    there.board.POLL_S = 0.01
    there.dial()
    await there.board.start()
    await here.board.take("c", [KeyEvent()])
    for _ in range(500):
        if there.runner.signalled:
            break
        await asyncio.sleep(0.01)
    assert len(there.runner.signalled) == 1
    await there.board.stop()


async def test_without_redis_nothing_is_taken_and_looking_goes_on():
    live = RedisLive("redis://127.0.0.1:1/0")
    place = Place(live, shared=True, elsewhere=lambda _: True)
    with pytest.raises(LiveError):
        await place.board.take("c", [HoldEvent(id="1")])
    place.board.POLL_S = 0.001
    await place.board.start()
    await asyncio.sleep(0.05)
    assert place.board._polling is not None
    assert not place.board._polling.done()
    await place.board.stop()
    await live.aclose()
