import asyncio

from streams.events import CallEnded, SpeechStarted
from streams.outbox import Outbox


def ended(number):
    return CallEnded(call_id=f"c{number}", media_ms=0, reason="hangup")


async def delivered(outbox, emit_ready=None):
    task = asyncio.create_task(outbox.deliver())
    await outbox.flush()
    task.cancel()


async def test_events_leave_in_the_order_in_which_they_were_posted():
    stored = []

    async def emit(events):
        stored.extend(events)

    outbox = Outbox(emit, clock=lambda: 0.0)
    events = [ended(n) for n in range(1200)]
    outbox.post(events)
    await delivered(outbox)
    assert stored == events


async def test_what_the_next_one_replaces_is_dropped_when_too_much_waits_and_nothing_else_is():
    stored = []

    async def emit(events):
        stored.extend(events)

    outbox = Outbox(emit, clock=lambda: 0.0)
    outbox.post([ended(n) for n in range(Outbox.CROWDED + 1)])
    outbox.post([SpeechStarted(call_id="c", channel="agent", media_ms=0), ended(-1)])
    await delivered(outbox)
    assert len(stored) == Outbox.CROWDED + 2
    assert stored[-1] == ended(-1)


async def test_flushing_waits_for_what_was_posted_before_and_not_for_what_comes_meanwhile():
    stored = []

    async def emit(events):
        stored.extend(events)
        outbox.post([ended(len(stored))])  # there is always more
        await asyncio.sleep(0)

    outbox = Outbox(emit, clock=lambda: 0.0)
    outbox.post([ended(-1), ended(-2)])
    task = asyncio.create_task(outbox.deliver())
    await asyncio.wait_for(outbox.flush(), 5)
    assert stored[:2] == [ended(-1), ended(-2)]
    task.cancel()
