"""Every watch at once, over calls of every shape: nothing depends on where a call was taken up again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.rules import Pack, parse_pack
from detectors.rules.engine import RuleDetector
from detectors.rules.loader import AROUND, LEAVES
from detectors.rules.model import Watch
from streams.events import (
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    CallUpdated,
    Channel,
    Detection,
    Emotion,
    Finding,
    Gap,
    Hold,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Trouble,
    Voice,
)

CALL = CallInfo(call_id="c", queue="cards")
CONDITIONS = (
    "{silence: {seconds: 4}}",
    "{silence: {seconds: 3, between: [agent], from_start: true, hold: true}}",
    "{interruption: {by: agent, overlap: 300}}",
    "{interruption: {by: customer, overlap: 150, times: 2, seconds: 120}}",
    "{overlap: {share: 0.1, seconds: 10}}",
    "{rate: {of: agent, above: 100, seconds: 20, characters: 5}}",
    "{rate: {of: customer, baseline: 1.2, seconds: 5, characters: 5}}",
    "{energy: {of: customer, jump: 3}}",
    "{emotion: {of: customer, feeling: [angry], level: 6, seconds: 2}}",
    "{emotion: {of: agent, trend: 1}}",
    "{hold: {seconds: 5}}",
    "{duration: {seconds: 30}}",
    "{turns: {at_least: 4}}",
    "{hangup: {by: customer, within: 40}}",
    "{hangup: {after: {phrase: [保本]}, seconds: 20}}",
    "{no_text: {speech: 5}}",
    "{audio: [noise, dead]}",
    "{swapped: {of: {phrase: [您好]}, seconds: 10}}",
    "{repeat: {times: 2, similarity: 0.75, min_characters: 3, seconds: 60}}",
    "{sequence: {steps: [{phrase: [保本]}, {phrase: [投诉], role: customer}], seconds: 20}}",
    "{sequence: {steps: [{phrase: [保本]}, {silence: {seconds: 3}}], seconds: 20}}",
    "{count: {of: {phrase: [保本]}, at_least: 2, seconds: 20}}",
    "{count: {of: {any: [{hold: {seconds: 2}}, {phrase: [投诉], role: customer}]}, at_least: 2, "
    "seconds: 30}}",
    "{absent: {of: {phrase: [您好]}, by: 5}}",
    "{absent: {of: {phrase: [您好]}, by: 5, after: first_speech}}",
    "{absent: {of: {phrase: [您好]}, by: 6, after: {phrase: [投诉], role: customer}}}",
    "{absent: {of: {phrase: [您好]}, before: {phrase: [保本]}}}",
    "{all: [{absent: {of: {phrase: [投诉]}, by: 8}}, {attribute: {name: queue, is: cards}}]}",
    "{any: [{silence: {seconds: 6}}, {phrase: [保本], role: agent}]}",
    "{phrase: [保本], anchor: {of: {phrase: [投诉], role: customer}, where: before, seconds: 20}}",
)


def whole() -> Pack:
    rules = "".join(
        f"  - {{id: t.rule{n}, name: {{zh: 规, en: R}}, severity: warning, role: {role}, "
        f"cooldown: {cooldown}, when: {when}}}\n"
        for n, when in enumerate(CONDITIONS)
        for role, cooldown in (("agent" if n % 3 else "any", n % 2 * 5),)
    )
    return parse_pack('id: t\nversion: "1"\nrules:\n' + rules, "t.yaml")


PACK = whole()
TEXTS = ("我们保本", "我要投诉", "您好", "嗯", "", "好的好的好的好的", "请您再说一遍")
Told = tuple[int, CallEvent | Emotion]


def turn(rng: random.Random, clock: int) -> tuple[list[Told], int]:
    """One utterance with all that comes of it, each with the media time at which it is told."""
    role: Channel = rng.choice(("agent", "customer", "agent", "customer", "unknown"))
    start = max(0, clock + rng.choice((-2500, -300, 0, 200, 1000, 4000, 9000)))
    end = start + rng.choice((200, 500, 1500, 3000, 6000))
    said, name = rng.choice(TEXTS), f"c:{role}:{start}"
    late = end + rng.choice((600, 1500, 5000, 16_000))
    level = rng.choice((-30.0, -28.0, -20.0))
    feeling = rng.choice(("angry", "calm"))
    told: list[Told] = [
        (start + rng.choice((0, 350)), SpeechStarted(call_id="c", channel=role, media_ms=start)),
        (end + rng.choice((200, 520)), SpeechStopped(call_id="c", channel=role, media_ms=end)),
        (
            end + 520,
            Voice(
                call_id="c", channel=role, utterance_id=name, start_ms=start, end_ms=end, level_db=level,
                peak_db=level, pitch_hz=None, pitch_spread=None, voiced=0.5, paused=0.1,
            ),
        ),
        (
            late,
            Transcript(
                call_id="c", utterance_id=name, role=role, start_ms=max(0, start - 300), end_ms=end,
                text=said, final=True, confidence=0.9,
            ),
        ),
        (
            late + 1,
            Emotion(
                call_id="c", role=role, utterance_id=name, media_start_ms=start, media_end_ms=end,
                feeling=feeling, level=rng.choice((2.0, 6.5)), trend=rng.choice((0.0, 1.5)), voice=None,
                words=3.0,
            ),
        ),
    ]  # fmt: skip
    if rng.random() < 0.3:
        partial = Transcript(
            call_id="c", utterance_id=name, role=role, start_ms=max(0, start - 300),
            end_ms=(start + end) // 2, text=rng.choice(TEXTS), final=False, settled=rng.choice((None, 0, 3)),
        )  # fmt: skip
        told.append((min(late - 1, (start + end) // 2 + 500), partial))
    return told, end


def telephony(rng: random.Random, clock: int) -> list[Told]:
    held = rng.random() < 0.5
    kind = rng.randrange(6)
    if kind == 0:
        return [(clock + 1, Hold(call_id="c", media_ms=clock, held=held, source="telephony"))]
    if kind == 1:
        return [(clock + 4000, Hold(call_id="c", media_ms=clock, held=held, source="music"))]
    if kind == 2:
        call = CallInfo(call_id="c", queue=rng.choice(("cards", "loans")))
        return [(clock, CallUpdated(call=call, media_ms=clock))]
    if kind == 3:
        return [(clock, Gap(call_id="c", channel="agent", media_ms=clock, duration_ms=500, reason="missing"))]
    if kind == 4:
        noticed = clock + rng.choice((0, 5000))
        trouble = Trouble(
            call_id="c", channel=rng.choice(("agent", "customer", "unknown")),
            kind=rng.choice(("silent", "dead", "clipping", "noise")), present=held, media_ms=noticed,
            since_ms=clock, measured="5 s",
        )  # fmt: skip
        return [(noticed, trouble)]
    return []


def call(seed: int, turns: int) -> list[Told]:
    """A call as its events are told, wakes not included; some of them come after its end."""
    rng = random.Random(seed)
    told: list[Told] = [(0, CallStarted(call=CALL))]
    clock = 0
    for _ in range(turns):
        more, clock = turn(rng, clock)
        told += more + telephony(rng, clock)
    end = clock + rng.choice((0, 100, 3000, 20_000))
    by = rng.choice(("agent", "customer", None))
    told.append((end + 600, CallEnded(call_id="c", media_ms=end, by=by)))
    return sorted(told, key=lambda one: one[0])


def run(told: list[Told], interrupted: frozenset[int] | None = frozenset()) -> list[Finding]:
    """What the rules say; ``interrupted``: before which events they are taken up from a snapshot anew,
    ``None``: before each."""
    detector = RuleDetector(CALL, PACK)
    found: list[Finding] = []
    ended = False
    for index, (at, event) in enumerate(told):
        if interrupted is None or index in interrupted:
            snapshot, detector = detector.snapshot(), RuleDetector(CALL, PACK)
            detector.restore(snapshot)
            assert detector.snapshot() == snapshot
        for _ in range(50):
            wake = detector.wake_at()
            if ended or wake is None or wake > at:
                break
            found += detector.on_wake(at if index % 2 else max(wake, told[index - 1][0]))
        found += detector.on_event(event)
        ended = ended or isinstance(event, CallEnded)
    return found


def test_the_pack_uses_every_operator_that_watches() -> None:
    used = {type(watch).__module__ for rule in PACK.rules for watch in rule.watches}
    modules = {*LEAVES.values(), *AROUND.values()}
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    watching = {kind.__module__ for kind in kinds if issubclass(kind, Watch) and kind is not Watch}
    assert watching <= used


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 14))
def test_a_call_taken_up_again_at_each_event_goes_on_as_it_would_have(seed: int, turns: int) -> None:
    told = call(seed, turns)
    once = run(told)
    assert once == run(told)
    assert once == run(told, interrupted=None)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 60))
def test_or_at_any_one_event(seed: int, at: int) -> None:
    told = call(seed, 8)
    assert run(told) == run(told, interrupted=frozenset((at,)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_detections_lie_within_the_call_and_none_is_said_twice(seed: int) -> None:
    told = call(seed, 10)
    end = max(at for at, _ in told)
    found = [f for f in run(told) if isinstance(f, Detection)]
    for detection in found:
        assert 0 <= detection.media_start_ms <= detection.media_end_ms <= end
        assert detection.evidence.how in ("exact", "pinyin", "timer", "count", "signal", "similar")
    assert all(found.count(one) == 1 for one in found)


def test_each_rule_fires_in_some_call_and_not_in_every_one() -> None:
    raised = [
        {f.rule_id for f in run(call(seed, seed % 20)) if isinstance(f, Detection)} for seed in range(80)
    ]
    for rule in PACK.rules:
        times = sum(1 for one in raised if rule.id in one)
        assert 0 < times < len(raised), (rule.id, rule.when)


def quiet(*events: CallEvent) -> list[str]:
    detector = RuleDetector(CALL, PACK)
    found = detector.on_event(CallStarted(call=CALL))
    for event in events:
        while (wake := detector.wake_at()) is not None and wake <= event.media_ms:
            found += detector.on_wake(event.media_ms)
        found += detector.on_event(event)
    return [str(CONDITIONS[int(f.rule_id[6:])]) for f in found if isinstance(f, Detection)]


def test_a_call_in_which_nobody_says_anything() -> None:
    found = quiet(CallEnded(call_id="c", media_ms=60_000, by="agent"))
    assert found == [
        "{silence: {seconds: 3, between: [agent], from_start: true, hold: true}}",
        "{duration: {seconds: 30}}",
        "{absent: {of: {phrase: [您好]}, by: 5}}",
        "{all: [{absent: {of: {phrase: [投诉]}, by: 8}}, {attribute: {name: queue, is: cards}}]}",
    ]


def test_a_call_that_ends_as_it_begins() -> None:
    assert quiet(CallEnded(call_id="c", media_ms=0)) == []


@pytest.mark.parametrize("seed", range(5))
def test_what_comes_after_the_end_does_no_harm(seed: int) -> None:
    told = call(seed, 10)
    detector = RuleDetector(CALL, PACK)
    for _, event in told:
        detector.on_event(event)
    late = [event for _, event in call(seed + 100, 10)]
    for event in late:
        detector.on_event(event)
        snapshot = detector.snapshot()
        detector.restore(snapshot)
        assert detector.snapshot() == snapshot
    for _ in range(100):
        wake = detector.wake_at()
        if wake is None:
            break
        detector.on_wake(wake)
    assert len(detector.snapshot()) < 40_000


def test_a_call_of_three_hours_stays_small() -> None:
    detector = RuleDetector(CALL, PACK)
    sizes: list[int] = []
    told = call(7, 3000)
    assert told[-1][0] > 3 * 3_600_000
    for index, (at, event) in enumerate(told):
        wake = detector.wake_at()
        if wake is not None and wake <= at:
            detector.on_wake(at)
        detector.on_event(event)
        if index % 500 == 499:
            sizes.append(len(detector.snapshot()))
    assert max(sizes) < 40_000, sizes
    assert max(sizes[len(sizes) // 2 :]) < 1.5 * max(sizes[: len(sizes) // 2])


def test_finals_that_never_come_do_not_pile_up() -> None:
    detector = RuleDetector(CALL, PACK)
    for at in range(0, 3 * 3_600_000, 4000):
        for channel in ("agent", "customer"):
            detector.on_event(SpeechStarted(call_id="c", channel=channel, media_ms=at))
            detector.on_event(SpeechStopped(call_id="c", channel=channel, media_ms=at + 1000))
        wake = detector.wake_at()
        if wake is not None and wake <= at:
            detector.on_wake(at)
    assert len(detector.snapshot()) < 20_000
