"""What a worker does around its consumer: acknowledges late, buries what it cannot read, replaces the stuck.

The consumer is a fake here; the real one is in tests/test_cluster.py.
"""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaError
from faust.types import TP

from streams import wire
from streams.events import CallEnded, CallInfo, CallStarted, Transcript
from streams.following_worker import FollowingWorker
from streams.gateway import WorkerState
from streams.reading_worker import ReadingWorker
from streams.testing import ScriptedTranscriber


class App:
    """What of a Faust application the worker touches."""

    def __init__(self, fails=None, crashed=False, highwater=0):
        self.fails, self.crashed, self.should_stop, self.rebalancing = fails, crashed, False, False
        self.highwater, self.stopped = highwater, 0
        self.consumer = SimpleNamespace(
            assignment=lambda: {TP("signals", 0), TP("speech", 0)},
            highwaters=self._highwaters,
            earliest_offsets=self._earliest,
            _committed_offset={TP("signals", 0): 2},
        )
        self.producer = SimpleNamespace(send_and_wait=self._sent, flush=self._sent)

    async def _highwaters(self, *partitions):
        return dict.fromkeys(partitions, self.highwater)

    async def _earliest(self, *partitions):
        return dict.fromkeys(partitions, 0)

    async def _sent(self, *_):
        pass

    async def start(self):
        if self.fails is not None:
            raise self.fails

    async def stop(self):
        self.stopped += 1


class Sender:
    def __init__(self):
        self.sent, self.buried, self.fails, self.full = [], [], 0, False

    async def start(self):
        pass

    async def stop(self):
        pass

    async def send(self, messages):
        if self.fails:
            self.fails -= 1
            raise KafkaError("no")
        self.sent += [m.value for m in messages]

    async def keep(self, topic, states):
        if self.full:
            raise OSError("no room")

    async def bury(self, topic, key, value, why, place):
        if self.fails:
            self.fails -= 1
            raise KafkaError("no")
        self.buried.append((topic, value, why, place))


class Event:
    def __init__(self, topic, value, offset=0):
        raw = value if isinstance(value, bytes) else topic.encode(value)
        self.message = SimpleNamespace(topic=topic.name, partition=0, offset=offset, key=b"c", value=raw)
        self.acked = 0

    def ack(self):
        self.acked += 1


class Deaf:
    """A detector that finds nothing."""

    def on_event(self, event):
        return []

    def wake_at(self):
        return None

    def snapshot(self):
        return b"state"

    def restore(self, snapshot):
        assert snapshot == b"state"


async def announce(state):
    pass


def following(apps=()):
    worker = FollowingWorker(
        lambda info: Deaf(), lambda text: text, brokers=["b:1"], name="w", announce=announce
    )
    worker._sender = worker.states._sender = Sender()
    worker.states._states = {0: {}}
    worker._loaded.set()
    waiting = list(apps)
    worker._application = lambda: waiting.pop(0)
    return worker


def signal(seq, event=None):
    return wire.Signal(
        call_id="c", source="g", seq=seq, heard_ms=seq * 10, woken_ms=seq * 10, at=1.0, event=event
    )


STARTED = signal(0, CallStarted(call=CallInfo(call_id="c")))


async def delivering(worker):
    task = asyncio.create_task(worker._outbox.deliver())
    await asyncio.sleep(0)
    return task


async def test_a_message_is_acknowledged_when_its_call_is_written_down_and_what_it_told_is_kept():
    worker = following()
    event = Event(wire.SIGNALS, STARTED)
    await worker._message(wire.SIGNALS, event)
    assert event.acked == 0
    task = await delivering(worker)
    await worker._keep()
    assert event.acked == 1
    assert [type(value) for value in worker._sender.sent] == [CallStarted]
    assert worker.states.get("c") is not None
    task.cancel()


async def test_a_heartbeat_in_which_nothing_happened_is_acknowledged_at_once():
    worker = following()
    task = await delivering(worker)
    await worker._message(wire.SIGNALS, Event(wire.SIGNALS, STARTED))
    early = Event(wire.SIGNALS, signal(1), 1)
    await worker._message(wire.SIGNALS, early)
    assert early.acked == 0, "the call's start is not written down yet"
    await worker._keep()
    beat = Event(wire.SIGNALS, signal(2), 2)
    await worker._message(wire.SIGNALS, beat)
    assert (early.acked, beat.acked) == (1, 1)
    task.cancel()


async def test_a_call_that_cannot_be_written_down_is_written_next_time():
    worker = following()
    task = await delivering(worker)
    event = Event(wire.SIGNALS, STARTED)
    await worker._message(wire.SIGNALS, event)

    worker._sender.full = True
    with pytest.raises(OSError, match="no room"):
        await worker._keep()
    assert event.acked == 0
    worker._sender.full = False
    await worker._keep()
    assert event.acked == 1
    task.cancel()


async def test_a_reading_that_came_before_its_call_is_not_acknowledged_before_that_is_known():
    worker = following()
    task = await delivering(worker)
    transcript = Transcript(
        call_id="c", utterance_id="c:agent:0", role="agent", start_ms=0, end_ms=900, text="好", final=True
    )
    read = Event(wire.TRANSCRIPTS, wire.Read(transcript=transcript, source="g", seq=5, offset=1))
    await worker._message(wire.TRANSCRIPTS, read)
    await worker._keep()
    assert read.acked == 0
    await worker._message(wire.SIGNALS, Event(wire.SIGNALS, STARTED))
    await worker._keep()
    assert read.acked == 1, "from now on it is kept with its call"
    task.cancel()


async def test_a_call_that_is_over_leaves_the_table():
    worker = following()
    task = await delivering(worker)
    await worker._message(wire.SIGNALS, Event(wire.SIGNALS, STARTED))
    await worker._keep()
    ended = signal(1, CallEnded(call_id="c", media_ms=10))
    await worker._message(wire.SIGNALS, Event(wire.SIGNALS, ended, 1))
    await worker._keep()
    assert worker.states.get("c") is None
    task.cancel()


async def test_whoever_takes_over_finds_the_call_as_it_was_written_down():
    first = following()
    task = await delivering(first)
    await first._message(wire.SIGNALS, Event(wire.SIGNALS, STARTED))
    await first._keep()
    second = following()
    second.states._states = first.states._states
    again, new = Event(wire.SIGNALS, STARTED), Event(wire.SIGNALS, signal(1), 1)
    await second._message(wire.SIGNALS, again)
    await second._message(wire.SIGNALS, new)
    assert "c" in second.following
    assert second.following.take() == [], "it began with the one before"
    task.cancel()


async def test_partitions_that_go_are_written_down_first_and_forgotten():
    worker = following([App()])
    worker._app = app = App()
    task = await delivering(worker)
    await worker._message(wire.SIGNALS, Event(wire.SIGNALS, STARTED))
    await worker._on_revoked(app, {TP("signals", 0)})
    assert "c" not in worker.following
    assert worker._unacked == {}
    assert worker.states.partitions == set()
    assert worker.readiness() is not None
    task.cancel()


@pytest.mark.parametrize("fails", [0, 2])
async def test_a_message_that_cannot_be_read_is_buried_and_then_acknowledged(fails, monkeypatch):
    worker = following()
    worker._sender.fails = fails
    monkeypatch.setattr(asyncio, "sleep", no_wait)
    event = Event(wire.SIGNALS, b"nonsense", 7)
    await worker._message(wire.SIGNALS, event)
    [(topic, value, why, place)] = worker._sender.buried
    assert (topic, value, place) == ("signals", b"nonsense", "0:7")
    assert "expected a message of Duting" in why
    assert event.acked == 1


async def no_wait(seconds):
    pass


async def test_a_message_over_which_we_fail_is_buried_without_its_words():
    worker = following()

    class Broken(Deaf):
        def on_event(self, event):
            raise ValueError("卡号六二二二")

    worker.following._detector = lambda info: Broken()
    event = Event(wire.SIGNALS, STARTED)
    await worker._message(wire.SIGNALS, event)
    [(_, _, why, _)] = worker._sender.buried
    assert why == "ValueError"
    assert event.acked == 1


async def test_a_consumer_that_does_not_advance_while_messages_wait_is_replaced():
    worker, app = following(), App(highwater=10)
    worker._app, worker._started = app, True
    await worker._measure(app)
    assert worker.lag == 8, "from where it is to begin, though nothing was taken"
    worker._taken = {TP("signals", 0): 5}
    assert worker.lag == 5
    assert worker._trouble(app) is None
    worker._moved_s -= worker.STUCK_S + 1
    assert worker._trouble(app) == "stuck"
    app.rebalancing = True
    assert worker._trouble(app) is None, "while partitions move nothing advances"
    worker._settled_s -= worker.REBALANCE_S + 1
    assert worker._trouble(app) == "rebalance"
    app.rebalancing, worker._ends = False, {TP("signals", 0): 5}
    assert worker._trouble(app) is None
    worker._moved_s -= worker.STUCK_S + 1
    assert worker._trouble(app) is None, "nothing waits"


async def test_a_worker_goes_on_with_a_new_consumer_after_one_that_failed(monkeypatch):
    waits = asyncio.wait_for

    async def soon(awaitable, timeout):  # noqa: ASYNC109
        return await waits(awaitable, min(timeout, 0.01))

    monkeypatch.setattr(asyncio, "wait_for", soon)
    apps = [App(fails=KafkaError("no broker")), App(crashed=True), App()]
    worker = following(apps)
    running = asyncio.create_task(worker.run())
    while not apps[2].consumer or worker._app is not apps[2] or not worker._started:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert worker.readiness() == "it reads the calls in progress"
    worker.stop()
    await running
    assert [app.stopped for app in apps] == [1, 1, 1]


async def test_more_workers_than_partitions_are_told_so():
    worker, app = following(), App()
    app.consumer.assignment = lambda: set()
    worker._app, worker._started = app, True
    assert "more workers of duting-detect than the topic signals has partitions" in worker.readiness()


async def test_what_is_far_behind_is_not_ready():
    worker, app = following(), App(highwater=5_000)
    worker._app, worker._started, worker._taken = app, True, {TP("signals", 0): 1}
    await worker._measure(app)
    assert worker.readiness() == "4999 messages wait for it"


async def test_a_reader_that_has_enough_takes_no_more_until_it_is_eased():
    worker = ReadingWorker(
        ScriptedTranscriber(lambda request: "好"), brokers=["b:1"], name="w", announce=announce
    )
    worker._sender, worker._most = Sender(), 0
    taking = asyncio.create_task(
        worker._take(
            wire.Search(call_id="c", utterance_id="u", text="好", offset=1),
            Event(wire.SPEECH, b"").message,
            lambda: None,
        )
    )
    await asyncio.sleep(0)
    assert not taking.done()
    worker._most = 1
    worker._eased.set()
    await asyncio.wait_for(taking, 5)
    assert isinstance(worker._state(), WorkerState)
    for task in worker._searches:
        task.cancel()
    worker.reader.close()


async def test_a_final_whose_audio_is_broken_is_answered_without_words_and_buried():
    worker = ReadingWorker(
        ScriptedTranscriber(lambda request: "好"), brokers=["b:1"], name="w", announce=announce
    )
    worker._sender = Sender()
    task = await delivering(worker)
    broken = wire.Speech(
        call_id="c",
        channel="agent",
        start_ms=70,
        end_ms=900,
        final=True,
        endpoint="pause",
        packed=b"nonsense",
        source="g",
        seq=4,
    )
    event = Event(wire.SPEECH, broken, 9)
    await worker._message(wire.SPEECH, event)
    await worker._outbox.flush()
    [read] = worker._sender.sent
    assert (read.transcript.utterance_id, read.transcript.text, read.seq) == ("c:agent:70", "", 4)
    assert [(topic, place) for topic, _, _, place in worker._sender.buried] == [("speech", "0:9")]
    assert event.acked == 1
    worker.reader.close()
    task.cancel()


async def test_a_consumer_that_is_replaced_leaves_no_call_behind():
    worker = following()
    await worker._message(wire.SIGNALS, Event(wire.SIGNALS, STARTED))
    worker._gone()
    assert "c" not in worker.following
    assert worker.states.partitions == set()
    assert worker.readiness() is not None
