"""A gateway's runner: what it sends of what it hears, and whom it refuses."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import wire
from streams.events import CallEnded, CallInfo, CallStarted, Hold, SpeechStarted, SpeechStopped, Voice
from streams.gateway import GatewayRunner, Recognition, WorkerState
from streams.judge import LocalJudge
from streams.runner import CallRefused
from streams.testing import LoudnessVad, play, silence, tone

THERE = Recognition(room=10, workers=1, followers=1)


class Broker:
    def __init__(self):
        self.sent, self.down = [], False

    async def send(self, messages):
        if self.down:
            raise OSError("no broker")
        self.sent += messages

    def signals(self):
        return [m.value for m in self.sent if isinstance(m.value, wire.Signal)]

    def speech(self):
        return [m.value for m in self.sent if isinstance(m.value, wire.Speech)]


def gateway(broker, recognition=THERE, **changes):
    given = {
        "name": "g",
        "prompt": lambda call: "银行",
        "send": broker.send,
        "recognition": lambda: recognition,
        "audio": None,
        "most_calls": 3,
        "judge": LocalJudge(LoudnessVad),
        "wall": lambda: 1_000.0,
    }
    return GatewayRunner(**{**given, **changes})


async def heard(broker, samples, paced=True, reason="hangup", **changes):
    run = gateway(broker, **changes)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=paced)
    for frame in play("c", "agent", samples):
        run.hear(frame)
    await run.close("c", reason)
    await run.stop()
    return run


async def test_signals_are_numbered_and_speech_names_the_signal_before_it():
    broker = Broker()
    await heard(broker, np.concatenate([silence(300), tone(1_500), silence(900)]))
    signals = broker.signals()
    assert [s.seq for s in signals] == list(range(len(signals)))
    kinds = [type(s.event) for s in signals if s.event is not None]
    assert kinds == [CallStarted, SpeechStarted, SpeechStopped, Voice, CallEnded]
    [final] = [s for s in broker.speech() if s.final]
    voice = next(s for s in signals if isinstance(s.event, Voice))
    assert (final.seq, final.source) == (voice.seq, voice.source)
    assert (final.prompt, final.cut_at, final.live) == ("银行", 1_000.0, True)
    assert wire.utterance(final).utterance_id == voice.event.utterance_id


async def test_beginnings_travel_once_and_the_final_whole():
    broker = Broker()
    await heard(broker, np.concatenate([silence(300), tone(3_000), silence(300), tone(2_000), silence(900)]))
    sent = broker.speech()
    beginnings, finals = [s for s in sent if not s.final], [s for s in sent if s.final]
    assert len(beginnings) > 2
    assert len(finals) == 1
    assert finals[0].skipped == 0
    at = 0
    for message in beginnings:
        assert message.skipped == at
        at += len(wire.unpack(message.packed)) // 2


async def test_timers_are_to_be_served_before_an_event_up_to_where_one_process_had_served_them():
    broker = Broker()
    await heard(broker, np.concatenate([silence(3_000), tone(800), silence(900)]), paced=False)
    signals = broker.signals()
    assert [s.woken_ms for s in signals] == sorted(s.woken_ms for s in signals)
    started = next(s for s in signals if isinstance(s.event, SpeechStarted))
    assert started.woken_ms < started.heard_ms, "the event comes before its own round's timers"


async def test_a_call_that_says_nothing_is_told_of_all_the_same():
    broker, now = Broker(), 100.0
    run = gateway(broker, clock=lambda: now)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    for _ in range(4):
        now += 1.0
        run.serve_timers()
    await run.flush()
    beats = [s for s in broker.signals() if s.event is None]
    assert [s.woken_ms for s in beats] == [1_000, 2_000, 3_000, 4_000]
    await run.stop()


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (Recognition(), "duting worker asr"),
        (Recognition(room=5, workers=1), "duting worker detect"),
        (Recognition(room=2, workers=1, followers=1, calls=2), "at its limit"),
        (Recognition(room=9, workers=1, followers=1, step=4), "refuse_calls"),
    ],
)
async def test_a_call_is_refused_with_what_is_missing(known, why):
    run = gateway(Broker(), known)
    await run.start()
    with pytest.raises(CallRefused, match=why) as refused:
        run.open(CallInfo(call_id="c"), paced=True)
    assert refused.value.retryable
    await run.stop()


async def test_while_the_broker_takes_nothing_what_was_heard_is_kept_and_no_call_is_taken():
    broker = Broker()
    broker.down = True
    run = gateway(broker)
    run.BEHIND = 5
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    for frame in play("c", "agent", np.concatenate([tone(900), silence(900)] * 3)):
        run.hear(frame)
    with pytest.raises(CallRefused, match="broker"):
        run.open(CallInfo(call_id="d"), paced=True)
    broker.down = False
    await run.close("c", "hangup")
    await run.stop()
    assert len([s for s in broker.speech() if s.final]) == 3
    seen = [s.seq for s in broker.signals()]
    assert seen == list(range(len(seen)))


async def test_a_telephone_that_is_cut_off_has_not_hung_up():
    broker = Broker()
    await heard(broker, tone(1_000), reason="disconnected")
    assert not [s for s in broker.signals() if isinstance(s.event, CallEnded)]
    assert [s for s in broker.speech() if s.final], "what was being said is told"


async def test_a_gateway_that_stops_leaves_its_calls_to_others():
    broker = Broker()
    run = gateway(broker)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    for frame in play("c", "agent", tone(1_000)):
        run.hear(frame)
    await run.stop()
    assert not [s for s in broker.signals() if isinstance(s.event, CallEnded)]
    assert len([s for s in broker.speech() if s.final]) == 1


async def test_a_call_that_comes_back_here_is_numbered_anew():
    broker = Broker()
    run = gateway(broker)
    await run.start()
    for _ in range(2):
        run.open(CallInfo(call_id="c"), paced=True)
        await run.close("c", "disconnected")
    await run.stop()
    sources = {s.source for s in broker.signals()}
    assert len(sources) == 2
    assert [s.seq for s in broker.signals() if isinstance(s.event, CallStarted)] == [0, 0]


async def test_what_the_telephony_tells_of_a_hold_goes_to_the_detectors():
    broker = Broker()
    run = gateway(broker)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    hold = Hold(call_id="c", media_ms=0, held=True, source="telephony")
    run.signal(hold)
    await run.flush()
    assert hold in [s.event for s in broker.signals()]
    await run.stop()


STATES = st.lists(
    st.builds(
        WorkerState,
        step=st.integers(0, 4),
        pace_ms=st.none() | st.integers(600, 2_000),
        room=st.integers(0, 50),
        calls=st.integers(0, 50),
    ),
    max_size=5,
)


@given(STATES, STATES, STATES)
def test_the_worst_worker_decides_what_is_asked_and_all_together_what_is_taken(readers, followers, others):
    known = Recognition.of(readers, followers, others)
    assert known.step == max((r.step for r in readers), default=0)
    assert known.room == sum(r.room for r in readers)
    assert (known.workers, known.followers) == (len(readers), len(followers))
    assert known.calls == sum(o.calls for o in others)
    if any(r.pace_ms is None for r in readers):
        assert known.pace_ms is None
    elif readers:
        assert known.pace_ms == max(r.pace_ms for r in readers)


async def test_a_replay_waits_for_the_broker():
    broker = Broker()
    run = gateway(broker)
    run.UNPACED_MESSAGES = 10
    await run.start()
    run.open(CallInfo(call_id="c"), paced=False)
    for frame in play("c", "agent", silence(2_000)):
        run.hear(frame)
        await asyncio.wait_for(run.ready(), 5)
        assert run.waiting <= 12
    await run.close("c", "hangup")
    await run.stop()
