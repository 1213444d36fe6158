"""A call through gateway, reader and follower, all in one process: the same alerts as with one runner, also
when messages come twice, out of step, or after whoever followed the call was killed."""

import asyncio
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from detectors.emotion import EmotionDetector
from detectors.panel import Panel
from detectors.privacy import redact
from detectors.rules import parse_pack
from streams import wire
from streams.events import (
    Alert,
    CallEnded,
    CallInfo,
    CallStarted,
    CallUpdated,
    Hold,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Voice,
)
from streams.following import Following
from streams.gateway import GatewayRunner, Recognition
from streams.judge import LocalJudge
from streams.local import LocalRunner
from streams.reading import Reader
from streams.sealing import Sealed
from streams.testing import LoudnessVad, ScriptedTranscriber, play, silence, tone

PACK = parse_pack(
    """
id: test
version: "1"
rules:
  - id: redline.return
    name: {zh: 承诺收益, en: Return promised}
    severity: critical
    role: any
    when: {phrase: [保本保息]}
    cooldown: 2
  - id: dynamics.silence
    name: {zh: 静默, en: Silence}
    severity: warning
    role: any
    when: {silence: {seconds: 4}}
  - id: signal.twice
    name: {zh: 两次, en: Twice}
    severity: warning
    role: any
    when: {count: {of: {phrase: [投诉]}, at_least: 2, seconds: 60}}
""",
    "test.yaml",
)
SAID = ("您好", "这款产品保本保息", "我要投诉你们", "好的")


def words(request):
    return SAID[round(request.seconds * 1000) // 32 % len(SAID)]


def panel(info):
    return Panel(info, PACK, EmotionDetector(info, None))


def speech(seed, pieces=6):
    dice = random.Random(seed)
    out = [silence(300)]
    for _ in range(pieces):
        out += [tone(dice.randrange(600, 2500, 10)), silence(dice.choice((900, 1500, 5200)))]
    return np.concatenate(out)


def frames(call_id, seed):
    channels = [list(play(call_id, c, speech(seed + n))) for n, c in enumerate(("agent", "customer"))]
    for number in range(max(map(len, channels))):
        for channel in channels:
            yield from channel[number : number + 1]


async def one_process(seed):
    told = []

    async def emit(events):
        told.extend(events)

    run = LocalRunner(
        transcriber=ScriptedTranscriber(words),
        detector=panel,
        prompt=lambda call: "",
        redact=redact,
        emit=emit,
        audio=None,
        most_calls=5,
        judge=LocalJudge(LoudnessVad),
    )
    await run.start()
    run.open(CallInfo(call_id="c"), paced=False)
    for frame in frames("c", seed):
        run.hear(frame)
        await run.ready()
    await run.close("c", "hangup")
    await run.stop()
    return told


async def heard(seed):
    """What a gateway sends for the same call."""
    sent = []

    async def send(messages):
        sent.extend(messages)

    run = GatewayRunner(
        name="g",
        prompt=lambda call: "",
        send=send,
        recognition=lambda: Recognition(room=10, workers=1, followers=1),
        audio=None,
        most_calls=5,
        judge=LocalJudge(LoudnessVad),
    )
    await run.start()
    run.open(CallInfo(call_id="c"), paced=False)
    for frame in frames("c", seed):
        run.hear(frame)
    await run.close("c", "hangup")
    await run.stop()
    return sent


async def until(condition):
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


async def read(messages):
    """What a reader answers; every message has to be done at the end."""
    answers, owed = [], []

    def post(message, done):
        answers.append(message.value)
        done()

    async def fetch(call_id, offset):
        raise AssertionError("nothing was asked for")

    reader = Reader(ScriptedTranscriber(words), post, fetch, lambda: None)
    for offset, message in enumerate(messages):
        if isinstance(message.value, wire.Speech):
            owed.append(offset)
            reader.speech(message.value, offset, lambda offset=offset: owed.remove(offset))
    await until(lambda: not owed)
    reader.close()
    return answers


def follower(kept=None):
    store = kept if kept is not None else {}
    return Following(detector=panel, redact=redact, wall=lambda: 1_000.0, restore=store.get)


def take(following, value):
    match value:
        case wire.Signal():
            following.signal(value)
        case wire.Read():
            following.read(value)
        case wire.Found():
            following.found(value)


async def test_what_was_masked_is_sealed_by_whoever_follows_the_call():
    sent = await heard(1)
    following = Following(
        detector=panel,
        redact=lambda text: "*" * len(text),
        wall=lambda: 1_000.0,
        restore=lambda call_id: None,
        seal=lambda utterance_id, text: f"{utterance_id}!{text}",
    )
    for value in [m.value for m in sent if isinstance(m.value, wire.Signal)] + await read(sent):
        take(following, value)
    told = [
        wire.ALERTS.decode(wire.ALERTS.encode(m.value)) for m in following.take() if m.topic is wire.ALERTS
    ]
    said = {
        one.utterance_id: one.text for one in told if isinstance(one, Transcript) and one.final and one.text
    }
    boxes = {one.utterance_id: one.box for one in told if isinstance(one, Sealed)}
    assert set(boxes) == set(said) != set()
    for utterance_id, box in boxes.items():
        name, _, text = box.partition("!")
        assert (name, len(text)) == (utterance_id, len(said[utterance_id]))
        assert "*" not in text


def standing(events):
    last = {event.id: event for event in events if isinstance(event, Alert)}
    return {
        name: (a.rule_id, a.role, a.media_start_ms, a.media_end_ms, a.evidence)
        for name, a in last.items()
        if a.state != "withdrawn"
    }


async def cluster(seed, dice, crashes=0, copies=0):
    """The call through gateway, reader and follower; the follower is killed ``crashes`` times."""
    sent = await heard(seed)
    signals = [m.value for m in sent if isinstance(m.value, wire.Signal)]
    reads = await read(sent)
    # Two topics: the order within each holds, between them anything may happen.
    merged, left = [], [list(signals), [r for r in reads]]
    while any(left):
        line = dice.choice([part for part in left if part])
        merged.append(line.pop(0))
    kept, told, since = {}, [], []
    following = follower(kept)
    crash_at = sorted(dice.randrange(len(merged)) for _ in range(crashes))
    number, pending = 0, []
    queue = list(merged)
    while queue or pending:
        if not queue:
            queue, pending = pending, []
        value = queue.pop(0)
        number += 1
        since.append(value)
        take(following, value)
        if dice.random() < copies:
            take(following, value)
        out = [m.value for m in following.take()]
        told += out
        searches = [v for v in out if isinstance(v, wire.Search)]
        if searches:
            pending += await find(sent, searches)
        if number % 7 == 0:
            if (snapshot := following.snapshot("c")) is not None:
                kept["c"] = snapshot
            else:
                kept.pop("c", None)
            since.clear()
        if crash_at and number >= crash_at[0]:
            crash_at.pop(0)
            following = follower(kept)
            queue = [*since, *queue]
            since = []
    return [v for v in told if not isinstance(v, wire.Search)]


async def find(sent, searches):
    answers = []

    def post(message, done):
        answers.append(message.value)
        done()

    async def fetch(call_id, offset):
        return sent[offset].value

    reader = Reader(ScriptedTranscriber(words), post, fetch, lambda: None)
    for search in searches:
        await reader.search(search, lambda: None)
    await until(lambda: len(answers) == len(searches))
    reader.close()
    return answers


@pytest.mark.parametrize("seed", range(6))
async def test_the_same_call_gives_the_same_alerts_as_in_one_process(seed):
    alone = await one_process(seed)
    split = await cluster(seed, random.Random(seed))
    assert standing(split) == standing(alone)
    assert standing(alone), "a call that raises nothing shows nothing"
    texts = [(t.utterance_id, t.text) for t in alone if isinstance(t, Transcript) and t.final]
    assert sorted((t.utterance_id, t.text) for t in split if isinstance(t, Transcript)) == sorted(texts)
    assert isinstance(split[0], CallStarted)
    assert isinstance(split[-1], CallEnded)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 50), chance=st.integers(0, 2**32), crashes=st.integers(0, 4))
def test_copies_and_crashes_change_no_alert(seed, chance, crashes):
    async def both():
        dice = random.Random(chance)
        return await one_process(seed), await cluster(seed, dice, crashes, copies=0.2)

    alone, split = asyncio.run(both())
    assert standing(split) == standing(alone)
    assert [event for event in split if isinstance(event, CallEnded)]


async def test_the_paces_of_two_gateways_make_one_call():
    """The first gateway is killed; the telephone says its last seconds once more over the second one."""
    sent = [m.value for m in await heard(1)]
    signals = [v for v in sent if isinstance(v, wire.Signal)]
    half = len(signals) // 2
    again = [replace(s, source="other", seq=n) for n, s in enumerate(signals[half - 200 :])]
    began = replace(signals[0], source="other", seq=0)
    again = [began, *(replace(s, seq=s.seq + 1) for s in again)]
    following = follower()
    told = []
    for signal in [*signals[:half], *again]:
        following.signal(signal)
        told += [m.value for m in following.take()]
    edges = [(e.channel, e.media_ms) for e in told if isinstance(e, SpeechStarted)]
    assert len(edges) == len(set(edges)), "what was heard before is not told twice"
    voices = [s.event for s in signals if isinstance(s.event, Voice)]
    owed = {heard_.utterance_id for heard_ in voices}
    for heard_ in voices:
        assert following._calls["c"].followed.owes(heard_.utterance_id)
    assert len(owed) == len(voices)
    late = replace(signals[half], seq=10_000)
    before = following.snapshot("c")
    following.signal(late)
    assert following.snapshot("c") == before, "the gateway that had it before is not listened to any more"


def info(**more):
    return CallInfo(call_id="c", **more)


def signal(seq, event=None, at_ms=0, source="g", at=1_000.0):
    return wire.Signal(
        call_id="c", source=source, seq=seq, heard_ms=at_ms, woken_ms=at_ms, at=at, event=event
    )


def test_a_call_of_which_nothing_comes_is_woken_by_the_clock():
    now = 1_000.0
    following = Following(detector=panel, redact=redact, wall=lambda: now, restore=lambda call_id: None)
    following.signal(signal(0, CallStarted(call=info())))
    edges = (SpeechStarted, 100), (SpeechStopped, 900)
    for number, (edge, at) in enumerate(edges, start=1):
        following.signal(signal(number, edge(call_id="c", channel="agent", media_ms=at), at))
    following.take()
    now += Following.SILENT_S
    following.tick()
    assert following.take() == [], "less is a gateway that failed, over which the call comes back"
    now += 20.0
    following.tick()
    [alert] = [m.value for m in following.take() if isinstance(m.value, Alert)]
    assert alert.rule_id == "dynamics.silence"


def test_a_call_whose_words_do_not_come_is_ended_without_them():
    now = 1_000.0
    following = Following(detector=panel, redact=redact, wall=lambda: now, restore=lambda call_id: None)
    following.signal(signal(0, CallStarted(call=info())))
    following.signal(signal(1, voice(0), 1_000))
    following.signal(signal(2, CallEnded(call_id="c", media_ms=1_000), 1_000))
    assert not [m for m in following.take() if isinstance(m.value, CallEnded)], "words are owed"
    now += Following.DRAIN_S + 1
    following.tick()
    assert [m for m in following.take() if isinstance(m.value, CallEnded)]
    assert "c" not in following
    following.signal(signal(3, at_ms=1_100))
    assert following.take() == [], "it is over"


def test_another_gateway_that_knows_more_of_the_call_updates_it_and_does_not_begin_it_again():
    following = follower()
    following.signal(signal(0, CallStarted(call=info(agent="8001", started_at="2026-01-01T00:00:00.000Z"))))
    following.take()
    known = info(agent="8002", started_at="2026-01-01T00:00:09.000Z")
    following.signal(signal(0, CallStarted(call=known), source="h"))
    [message] = following.take()
    assert isinstance(message.value, CallUpdated)
    assert message.value.call.agent == "8002"
    assert message.value.call.started_at == "2026-01-01T00:00:00.000Z", "it began when it began"


def test_a_call_that_was_heard_of_lately_is_ended_by_its_gateway_alone():
    now = 1_000.0
    following = Following(detector=panel, redact=redact, wall=lambda: now, restore=lambda call_id: None)
    following.signal(signal(0, CallStarted(call=info())))
    following.take()
    ended = CallEnded(call_id="c", media_ms=0, reason="interrupted")
    following.signal(signal(0, ended, source="h:sweep", at=now + 1))
    assert following.take() == []
    following.signal(signal(1, at_ms=50))
    following.signal(signal(0, ended, source="h:sweep", at=now + Following.HEARD_LATELY_S))
    assert [type(m.value) for m in following.take()] == [CallEnded]


def voice(start_ms, channel="agent"):
    return Voice(
        call_id="c",
        channel=channel,
        utterance_id=f"c:{channel}:{start_ms}",
        start_ms=start_ms,
        end_ms=start_ms + 900,
        level_db=-20.0,
        peak_db=-10.0,
        pitch_hz=None,
        pitch_spread=None,
        voiced=0.5,
        paused=0.1,
    )


def reading(start_ms, seq, text="好", source="g"):
    transcript = Transcript(
        call_id="c",
        utterance_id=f"c:agent:{start_ms}",
        role="agent",
        start_ms=start_ms,
        end_ms=start_ms + 900,
        text=text,
        final=True,
    )
    return wire.Read(transcript=transcript, source=source, seq=seq, offset=1)


def texts(following):
    return [m.value.text for m in following.take() if isinstance(m.value, Transcript)]


def test_a_final_that_never_comes_does_not_keep_those_behind_it_from_people_for_long():
    now = 1_000.0
    following = Following(detector=panel, redact=redact, wall=lambda: now, restore=lambda call_id: None)
    following.signal(signal(0, CallStarted(call=info())))
    following.signal(signal(1, voice(0), 1_000))
    following.signal(signal(2, voice(2_000), 3_000))
    following.read(reading(2_000, 2, "保本保息"))
    following.tick()
    assert texts(following) == []
    now += Following.BLOCKED_S + 1
    following.tick()
    told = following.take()
    assert [m.value.text for m in told if isinstance(m.value, Transcript)] == ["", "保本保息"]
    assert [m.value.rule_id for m in told if isinstance(m.value, Alert)] == ["redline.return"]


def test_readings_of_a_gateway_that_is_not_known_yet_wait_for_its_signals():
    following = follower()
    following.signal(signal(0, CallStarted(call=info())))
    following.read(reading(5_000, 1, source="h"))
    assert texts(following) == []
    following.signal(signal(0, CallStarted(call=info()), source="h"))
    following.signal(signal(1, voice(5_000), 6_000, source="h"))
    assert texts(following) == ["好"]


def test_a_backlog_is_no_silence():
    now = 5_000.0
    following = Following(detector=panel, redact=redact, wall=lambda: now, restore=lambda call_id: None)
    following.signal(signal(0, CallStarted(call=info())))
    edges = (SpeechStarted, 100), (SpeechStopped, 900)
    for number, (edge, at) in enumerate(edges, start=1):
        following.signal(signal(number, edge(call_id="c", channel="agent", media_ms=at), at))
    following.take()
    following.tick()
    assert following.take() == [], "it was taken just now, however long ago it was heard"
    now += Following.SILENT_S + 60
    following.tick(caught_up=False)
    assert following.take() == [], "what does not come may be waiting"
    following.tick()
    assert [m.value.rule_id for m in following.take() if isinstance(m.value, Alert)] == ["dynamics.silence"]


def test_a_reading_whose_call_never_comes_is_given_up():
    now = 1_000.0
    following = Following(detector=panel, redact=redact, wall=lambda: now, restore=lambda call_id: None)
    transcript = Transcript(
        call_id="c", utterance_id="c:agent:0", role="agent", start_ms=0, end_ms=900, text="好", final=True
    )
    following.read(wire.Read(transcript=transcript, source="g", seq=0, offset=1))
    assert following.awaits("c")
    now += Following.EARLY_S + 1
    following.tick()
    assert not following.awaits("c")


def test_a_hold_is_for_the_detectors_alone():
    following = follower()
    following.signal(signal(0, CallStarted(call=info())))
    following.take()
    following.signal(signal(1, Hold(call_id="c", media_ms=50, held=True, source="telephony"), 100))
    assert following.take() == []


def test_a_call_kept_under_other_rules_goes_on_with_detectors_that_begin_anew():
    kept = {}
    first = follower(kept)
    first.signal(signal(0, CallStarted(call=info())))
    kept["c"] = first.snapshot("c")
    other = parse_pack(
        """
id: other
version: "2"
rules:
  - id: redline.other
    name: {zh: 其他, en: Other}
    severity: critical
    role: any
    when: {phrase: [转账]}
""",
        "other.yaml",
    )
    second = Following(
        detector=lambda call: Panel(call, other, EmotionDetector(call, None)),
        redact=redact,
        wall=lambda: 1_000.0,
        restore=kept.get,
    )
    second.signal(signal(1, at_ms=500))
    assert "c" in second
    assert second.take() == []


def test_readings_of_a_call_that_is_not_known_wait_for_its_first_signal():
    following = follower()
    transcript = Transcript(
        call_id="c",
        utterance_id="c:agent:0",
        role="agent",
        start_ms=0,
        end_ms=900,
        text="您好",
        final=False,
        confidence=0.9,
    )
    following.read(wire.Read(transcript=transcript, source="g", seq=0, offset=1))
    assert following.take() == []
    following.signal(signal(0, CallStarted(call=info())))
    assert [type(m.value) for m in following.take()] == [CallStarted, Transcript]
