"""Who brings which channel of a call, who has left and who comes back."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import IngestError
from app.ingest.assembly import Assembly, Began
from app.ingest.peer import Closed, Opened, Told, call_info
from streams.events import AudioFrame, Gap, Hold, KeyPressed, Transfer, Trouble
from streams.runner import CallRefused
from tests.app.ingest.runner import Runner

BOTH = ("agent", "customer")


class Phone:
    """One connection; says what it is given to say."""

    def __init__(self, runner, channels=BOTH):
        self.runner, self.channels = runner, channels
        self.arrived_s, self.at, self.ready = runner.now, 0, []
        self.dropped = None

    def say(self, milliseconds=1_000):
        self.runner.now += milliseconds / 1000
        for channel in self.channels:
            pcm = b"\x00\x10" * (16 * milliseconds)
            self.ready.append(AudioFrame(call_id="c", channel=channel, media_ms=self.at, pcm=pcm))
        self.at += milliseconds
        self.arrived_s = self.runner.now

    def take(self):
        out, self.ready = self.ready, []
        return out

    def drop(self, message, code):
        self.dropped = code


def opened(channels=BOTH, call_id="c", stamped=False, **metadata):
    return Opened(call_info(call_id, "twilio", metadata), channels, 8_000, stamped=stamped)


def made(**given):
    runner = Runner(**given)
    return runner, Assembly(runner, clock=runner.clock, wall=lambda: 1_000.0 + runner.now)


def joined(runner, assembly, channels=BOTH, **metadata):
    phone = Phone(runner, channels)
    assembly.join(opened(channels, **metadata), phone)
    return phone


def spans(runner):
    return [(type(i).__name__, i.channel, i.media_ms, i.media_ms + i.duration_ms) for i in runner.heard]


async def settled(assembly):
    assembly.sweep()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_two_connections_make_one_call_and_the_last_one_to_hang_up_ends_it():
    runner, assembly = made()
    agent = joined(runner, assembly, ["agent"], agent="8001")
    agent.say()
    runner.listen()
    customer = joined(runner, assembly, ["customer"], customer="尾号 1")
    customer.say()
    runner.listen()
    assert spans(runner) == [
        ("AudioFrame", "agent", 0, 1_000),
        ("Gap", "customer", 0, 1_000),
        ("AudioFrame", "customer", 1_000, 2_000),
    ]
    assert [call.customer for call in runner.updated] == ["尾号 1"]
    await assembly.leave(agent, "c", Closed(by="agent"))
    assert runner.closed == []
    await assembly.leave(customer, "c", Closed())
    assert runner.closed == [("c", "hangup", "agent")]
    assert "c" not in assembly


async def test_whoever_is_cut_off_may_come_back_for_half_a_minute():
    runner, assembly = made()
    phone = joined(runner, assembly)
    phone.say()
    await assembly.leave(phone, "c", Closed("disconnected"))
    runner.now += 29.0
    await settled(assembly)
    assert runner.closed == []
    back = joined(runner, assembly)
    back.say()
    runner.now += 60.0
    await settled(assembly)
    runner.listen()
    assert ("Gap", "agent", 1_000, 30_000) in spans(runner)
    assert len(runner.opened) == 1
    assert runner.closed == []


async def test_a_call_to_which_nobody_comes_back_ends_as_cut_off():
    runner, assembly = made()
    phone = joined(runner, assembly)
    phone.say()
    await assembly.leave(phone, "c", Closed("disconnected"))
    runner.now += 30.5
    await settled(assembly)
    assert runner.closed == [("c", "disconnected", None)]
    # The audio that still waited was heard.
    assert ("AudioFrame", "agent", 0, 1_000) in spans(runner)


async def test_a_peer_that_breaks_its_protocol_may_come_back_too_else_the_call_ends_with_an_error():
    runner, assembly = made()
    phone = joined(runner, assembly)
    await assembly.leave(phone, "c", Closed("disconnected"), error=True)
    runner.now += 31.0
    await settled(assembly)
    assert runner.closed == [("c", "error", None)]


async def test_a_channel_that_comes_over_another_connection_is_refused_while_that_one_lives():
    runner, assembly = made()
    phone = joined(runner, assembly)
    phone.say()
    with pytest.raises(CallRefused, match="in progress already") as refused:
        joined(runner, assembly, ["agent"])
    assert refused.value.retryable
    assert phone.dropped is None
    # It does not know of it, and the call goes on.
    phone.say()
    runner.listen()
    assert spans(runner)[-1] == ("AudioFrame", "customer", 1_000, 2_000)


async def test_a_connection_that_has_sent_nothing_for_two_seconds_gives_its_place_to_another():
    runner, assembly = made()
    dead = joined(runner, assembly)
    dead.say()
    runner.now += 2.5
    back = joined(runner, assembly)
    assert dead.dropped == 4409
    # It has left; that its edge says so once more changes nothing.
    await assembly.leave(dead, "c", Closed("disconnected"))
    back.say()
    runner.listen()
    assert ("Gap", "agent", 1_000, 3_500) in spans(runner)
    assert runner.closed == []


async def test_a_channel_that_the_call_does_not_have_is_refused_and_so_is_a_call_without_room():
    runner, assembly = made()
    joined(runner, assembly)
    with pytest.raises(IngestError, match="expected some of these"):
        joined(runner, assembly, ["unknown"])
    runner.refuse = CallRefused("no room", retryable=True)
    with pytest.raises(CallRefused, match="no room"):
        joined(runner, assembly, call_id="d")
    assert "d" not in assembly


async def test_what_the_telephony_tells_is_told_behind_the_audio_that_came_before_it():
    runner, assembly = made()
    phone = joined(runner, assembly)
    phone.say(3_000)
    for told in (Told("held"), Told("key", "customer"), Told("transfer", to="8002"), Told("resumed")):
        assembly.tell("c", told)
    assert runner.signalled == [
        Hold(call_id="c", media_ms=3_000, held=True, source="telephony"),
        KeyPressed(call_id="c", channel="customer", media_ms=3_000),
        Transfer(call_id="c", media_ms=3_000, to="8002"),
        Hold(call_id="c", media_ms=3_000, held=False, source="telephony"),
    ]
    # While nothing comes the call goes on by the clock.
    runner.now += 10.0
    assembly.tell("c", Told("held"))
    assert runner.signalled[-1].media_ms == 13_000
    with pytest.raises(KeyError):
        assembly.tell("other", Told("held"))


async def test_metadata_that_comes_later_is_told_once_and_keeps_what_was_there():
    runner, assembly = made()
    joined(runner, assembly, agent="8001", product="安享")
    assembly.change("c", {"agent": "8002", "branch": "城西"})
    assembly.change("c", {"agent": "8002"})
    [info] = runner.updated
    assert (info.agent, info.attributes) == ("8002", {"product": "安享", "branch": "城西"})
    assert info.started_at is not None
    with pytest.raises(IngestError, match="direction"):
        assembly.change("c", {"direction": "up"})


async def test_a_telephony_that_says_that_the_call_is_over_ends_it_and_closes_its_connections():
    runner, assembly = made()
    agent, customer = joined(runner, assembly, ["agent"]), joined(runner, assembly, ["customer"])
    agent.say()
    await assembly.hang_up("c", "customer")
    assert (agent.dropped, customer.dropped) == (1000, 1000)
    assert runner.closed == [("c", "hangup", "customer")]
    assert spans(runner) == [("AudioFrame", "agent", 0, 1_000)]
    with pytest.raises(KeyError):
        await assembly.hang_up("c")


async def test_in_a_cluster_a_call_that_was_cut_off_is_let_go_at_once_and_goes_on_where_it_comes_back():
    runner, assembly = made(shares_calls=True)
    phone = joined(runner, assembly)
    phone.say()
    await assembly.leave(phone, "c", Closed("disconnected"), error=True)
    assert runner.closed == [("c", "disconnected", None)]
    runner.now += 9.0
    back = joined(runner, assembly, agent="8002")
    back.say()
    runner.listen()
    assert [call.agent for call in runner.opened] == [None, "8002"]
    assert ("Gap", "agent", 1_000, 10_000) in spans(runner)


async def test_in_a_cluster_a_call_that_began_at_another_gateway_goes_on_with_its_media_time():
    runner = Runner(shares_calls=True)
    asked = asyncio.Event()

    async def earlier(call_id):
        await asked.wait()
        return Began(at=1_000.0 + runner.now - 45.0, media_ms=40_000)

    assembly = Assembly(runner, earlier, runner.clock, lambda: 1_000.0 + runner.now)
    phone = joined(runner, assembly)
    runner.listen()
    assert runner.heard == []  # nobody knows yet where it belongs
    asked.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    phone.say()
    runner.listen()
    assert spans(runner)[:2] == [("Gap", "agent", 40_000, 45_000), ("AudioFrame", "agent", 45_000, 46_000)]


async def test_where_nobody_can_say_when_a_call_began_it_begins_here():
    runner = Runner(shares_calls=True)

    async def earlier(call_id):
        raise OSError("no database")

    assembly = Assembly(runner, earlier, runner.clock, lambda: 1_000.0 + runner.now)
    phone = joined(runner, assembly)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    phone.say()
    runner.listen()
    assert spans(runner)[0] == ("AudioFrame", "agent", 0, 1_000)


steps = st.lists(
    st.tuples(
        st.sampled_from(["join", "say", "leave", "hangup", "wait", "listen", "told"]),
        st.sampled_from([("agent",), ("customer",), BOTH]),
        st.integers(1, 40),
    ),
    max_size=40,
)


@given(steps)
def test_whatever_connections_do_calls_begin_and_end_in_turn_and_no_channel_goes_back(sequence):
    async def play():
        runner, assembly = made()
        phones, reach = [], {}
        for what, channels, number in sequence:
            if what == "join":
                with contextlib.suppress(CallRefused):
                    phones.append(joined(runner, assembly, channels))
            elif what == "wait":
                runner.now += number
            elif what == "listen":
                runner.listen()
            elif what == "told":
                if "c" in assembly:
                    assembly.tell("c", Told("held"))
            elif phones:
                phone = phones[number % len(phones)]
                if what == "say":
                    phone.say(number * 10)
                else:
                    closed = Closed() if what == "hangup" else Closed("disconnected")
                    await assembly.leave(phone, "c", closed)
                    phones.remove(phone)
            await settled(assembly)
            assert len(runner.opened) - len(runner.closed) == len(runner.sources)
            assert ("c" in assembly) == ("c" in runner.sources)
            if "c" not in assembly:
                reach.clear()
            for item in runner.heard:
                assert item.media_ms >= reach.get(item.channel, 0) - 2
                reach[item.channel] = item.media_ms + item.duration_ms
                assert isinstance(item, AudioFrame | Gap)
            runner.heard.clear()
            if "c" not in assembly:
                reach.clear()

    asyncio.run(play())


async def test_what_was_told_late_or_with_its_time_stands_at_its_moment():
    runner, assembly = made()
    phone = joined(runner, assembly)
    phone.say(3_000)
    assembly.tell("c", Told("held"), late_ms=400)
    assembly.tell("c", Told("key"), media_ms=1_200)
    assembly.tell("c", Told("resumed"), media_ms=60_000)
    assembly.tell("c", Told("key"), late_ms=60_000)
    assert [event.media_ms for event in runner.signalled] == [2_600, 1_200, 3_000, 0]


async def test_audio_that_comes_at_another_speed_than_it_is_spoken_is_told_with_that_speed():
    runner, assembly = made()
    phone = joined(runner, assembly)
    for _ in range(300):
        phone.say(128)
        runner.now -= 0.064  # it comes twice as fast
        phone.arrived_s = runner.now
        runner.listen()
    [trouble] = [item for item in runner.heard if isinstance(item, Trouble)]
    assert (trouble.kind, trouble.channel, trouble.present) == ("noise", "unknown", True)
    assert trouble.measured == "2.0 × speed"


async def test_a_side_that_comes_too_slowly_is_told_as_that_side():
    runner, assembly = made()
    agent, customer = joined(runner, assembly, ["agent"]), joined(runner, assembly, ["customer"])
    for _ in range(300):
        agent.say(64)
        customer.say(32)
        runner.now -= 0.032
        agent.arrived_s = customer.arrived_s = runner.now
        runner.listen()
    told = [(t.channel, t.present, t.measured) for t in runner.heard if isinstance(t, Trouble)]
    assert told == [("customer", True, "0.5 × speed")]


async def test_a_call_is_connected_while_somebody_brings_its_audio():
    runner, assembly = made()
    phone = joined(runner, assembly)
    [source] = runner.sources.values()
    assert source.is_connected
    await assembly.leave(phone, "c", Closed("disconnected"))
    assert not source.is_connected
