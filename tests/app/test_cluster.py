"""A gateway among others: what it learns of them, and calls that nobody hears any more."""

import msgspec
import pytest

from app.cluster import ASR, DETECT, GATEWAY, Membership
from app.errors import LiveError
from app.live import LocalLive
from streams import wire
from streams.events import CallEnded
from streams.gateway import WorkerState


class Runner:
    def __init__(self, name="one", call_ids=()):
        self.name, self.call_ids = name, list(call_ids)
        self.calls, self.waiting = len(self.call_ids), 0


class House:
    def __init__(self, live_calls=()):
        self.now = 100.0
        self.live = LocalLive(lambda: self.now)
        self.calls = list(live_calls)
        self.sent, self.stored = [], []
        self.membership = Membership(
            self.live,
            lambda: self.calls,
            self._send,
            self._append,
            clock=lambda: self.now,
            wall=lambda: 5.0,
        )

    async def _send(self, messages):
        self.sent += [m.value for m in messages]

    async def _append(self, events):
        self.stored += events

    async def announce(self, kind, name, **state):
        await self.live.announce(kind, name, msgspec.json.encode(WorkerState(**state)), 1e6)


async def test_it_knows_the_workers_and_the_calls_of_others():
    house = House()
    await house.announce(ASR, "a", room=20, step=1, pace_ms=700)
    await house.announce(DETECT, "d")
    await house.announce(GATEWAY, "two", calls=4, call_ids=["x"])
    await house.membership.look(Runner(call_ids=["y"]))
    known = house.membership.recognition
    assert (known.room, known.step, known.pace_ms, known.workers, known.followers) == (20, 1, 700, 1, 1)
    assert known.calls == 4, "its own are not counted twice"
    assert house.membership.missing() is None


async def test_it_says_what_is_missing():
    house = House()
    assert "duting worker asr" in house.membership.missing()
    await house.announce(ASR, "a", room=20)
    await house.membership.look(Runner())
    assert "duting worker detect" in house.membership.missing()


async def test_what_another_release_announces_counts_as_there():
    house = House()
    await house.live.announce(ASR, "a", b"\xff", 1e6)
    await house.membership.look(Runner())
    assert house.membership.recognition.workers == 1
    assert house.membership.recognition.room == 0


async def test_a_call_that_no_gateway_hears_is_ended_when_its_telephone_does_not_come_back():
    house = House([("gone", 7_000), ("mine", 100), ("theirs", 200)])
    runner = Runner(call_ids=["mine"])
    await house.announce(GATEWAY, "two", call_ids=["theirs"])
    await house.membership.look(runner)
    await house.membership.sweep(runner)
    house.now += Membership.ORPHANED_S
    await house.membership.sweep(runner)
    assert house.sent == [], "it may come back"
    house.now += 1.0
    await house.membership.sweep(runner)
    [signal] = house.sent
    assert isinstance(signal, wire.Signal)
    assert signal.event == CallEnded(call_id="gone", media_ms=7_000, reason="interrupted")
    await house.membership.sweep(runner)
    assert len(house.sent) == 1, "once"


async def test_one_that_came_back_in_between_is_not_ended():
    house = House([("gone", 7_000)])
    await house.membership.sweep(Runner())
    house.now += 20
    await house.membership.sweep(Runner(call_ids=["gone"]))
    house.now += 20
    await house.membership.sweep(Runner())
    assert house.sent == []


async def test_one_that_no_worker_knows_is_ended_in_the_store():
    house = House([("gone", 7_000)])
    await house.membership.sweep(Runner())
    house.now += Membership.GIVEN_UP_S + 1
    await house.membership.sweep(Runner())
    assert house.stored == [CallEnded(call_id="gone", media_ms=7_000, reason="interrupted")]


async def test_without_redis_what_was_known_stays():
    house = House()
    await house.announce(ASR, "a", room=20)
    await house.announce(DETECT, "d")
    await house.membership.look(Runner())

    async def away(kind):
        raise LiveError("away")

    house.live.present = away
    with pytest.raises(LiveError):
        await house.membership.look(Runner())
    assert house.membership.recognition.room == 20
