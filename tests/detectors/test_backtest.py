"""A pack over calls of the past."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from detectors.backtest import Hit, StoredCall, compare, limits, replay
from detectors.rules import parse_pack
from streams.events import CallInfo, Channel, Emotion, SpeechStarted, SpeechStopped, Transcript
from tests.detectors.stream import pack

PACK = parse_pack(
    """\
id: little
version: "1"
rules:
  - id: redline.one
    name: {zh: 一, en: One}
    severity: critical
    role: agent
    when: {phrase: {any: [保本保息], match: exact}}
  - id: trial.two
    name: {zh: 二, en: Two}
    severity: info
    role: any
    mode: shadow
    when: {phrase: {any: [投诉], match: exact}}
  - id: dynamics.silence
    name: {zh: 三, en: Three}
    severity: warning
    role: any
    when: {silence: {seconds: 15}}
""",
    "little.yaml",
)


def said(start: int, end: int, text: str = "您好", role: Channel = "agent") -> Transcript:
    return Transcript(
        call_id="c",
        utterance_id=f"c:{role}:{start}",
        role=role,
        start_ms=start,
        end_ms=end,
        text=text,
        final=True,
    )


def call(*finals: Transcript, media_ms: int = 0) -> StoredCall:
    return StoredCall(call=CallInfo(call_id="c"), media_ms=media_ms, reason="hangup", finals=finals)


def hit(start: int, rule_id: str = "redline.one", call_id: str = "c", **fields: Any) -> Hit:
    return Hit(call_id=call_id, rule_id=rule_id, start_ms=start, end_ms=start + 500, **fields)


def edges(stored: StoredCall) -> list[tuple[str, str, int]]:
    return [
        (type(e).__name__[6:], e.channel, e.media_ms)
        for e in stored.events()
        if isinstance(e, SpeechStarted | SpeechStopped)
    ]


def test_speech_edges_come_from_the_utterances_without_their_preroll() -> None:
    stored = call(said(1000, 3000), said(5000, 5200, role="customer"))
    assert edges(stored) == [
        ("Started", "agent", 1300),
        ("Stopped", "agent", 3000),
        ("Started", "customer", 5200),
        ("Stopped", "customer", 5200),
    ]


def test_an_utterance_cut_in_the_middle_of_speech_is_one_stretch_of_it() -> None:
    assert edges(call(said(1000, 9000), said(9000, 12_000))) == [
        ("Started", "agent", 1300),
        ("Stopped", "agent", 12_000),
    ]


def test_a_stored_call_raises_what_is_said_and_what_is_not_and_counts_trials() -> None:
    stored = call(said(1000, 3000, "保本保息"), said(20_000, 22_000, "我要投诉", "customer"), media_ms=50_000)
    assert [(found.rule_id, found.start_ms, found.shadow) for found in replay(PACK, stored)] == [
        ("redline.one", 1000, False),
        ("dynamics.silence", 3000, False),
        ("trial.two", 21_000, True),
        ("dynamics.silence", 22_000, False),
    ]


def test_how_somebody_felt_then_is_told_again_before_the_words_it_was_found_in() -> None:
    rules = pack("{emotion: {of: customer, feeling: angry, level: 6}}", "customer")
    angry = Emotion(
        call_id="c",
        role="customer",
        utterance_id="c:customer:1000",
        media_start_ms=1000,
        media_end_ms=3000,
        feeling="angry",
        level=8.0,
        trend=0.0,
        voice=None,
        words=8.0,
    )
    stored = replace(call(said(1000, 3000, "气死我了", "customer"), media_ms=9000), emotions=(angry,))
    kinds = [type(event) for event in stored.events()]
    assert kinds.index(Emotion) == kinds.index(Transcript) - 1
    assert [found.rule_id for found in replay(rules, stored)] == ["t.rule"]
    assert limits(rules.rules[0]) == ()


def test_a_rule_that_needs_what_is_not_stored_is_limited() -> None:
    assert limits(pack("{any: [{phrase: [保本]}, {hold: {seconds: 60}}]}").rules[0]) == ("hold",)


def test_an_empty_call_raises_nothing() -> None:
    assert replay(PACK, call()) == []


def test_hits_in_the_same_utterance_are_the_same_wherever_their_words_were_put() -> None:
    then = [hit(1000, utterance_id="c:agent:0", state="false_alarm")]
    now = [hit(9000, utterance_id="c:agent:0")]
    diff = compare(PACK, then, now)[0]
    assert (diff.rule_id, diff.same, diff.new, diff.gone) == ("redline.one", tuple(then), (), ())


def test_hits_of_another_call_another_rule_or_another_minute_are_not_the_same() -> None:
    then = [hit(1000), hit(1000, "trial.two")]
    now = [hit(1000, call_id="d"), hit(90_000), hit(1000, "dynamics.silence")]
    one, two, three = compare(PACK, then, now)
    assert [len(d.same) for d in (one, two, three)] == [0, 0, 0]
    assert (len(one.new), len(one.gone)) == (2, 1)
    assert (len(two.new), len(two.gone)) == (0, 1)
    assert (len(three.new), len(three.gone)) == (1, 0)


def test_a_rule_that_the_pack_has_no_more_is_told_too() -> None:
    *_, last = compare(PACK, [hit(1000, "redline.old")], [])
    assert (last.rule_id, len(last.gone)) == ("redline.old", 1)


def test_the_closest_hits_belong_together() -> None:
    (diff, *_) = compare(PACK, [hit(1000), hit(4000)], [hit(4100), hit(20_000)])
    assert [found.start_ms for found in diff.same] == [4000]
    assert [found.start_ms for found in diff.gone] == [1000]
    assert [found.start_ms for found in diff.new] == [20_000]


def test_a_rule_that_needs_only_words_is_not_limited() -> None:
    assert limits(PACK.rules[0]) == ()


HITS = st.lists(
    st.builds(
        hit,
        start=st.integers(0, 30_000),
        rule_id=st.sampled_from(["redline.one", "trial.two", "redline.old"]),
        call_id=st.sampled_from(["c", "d"]),
        utterance_id=st.sampled_from([None, "u1", "u2"]),
    ),
    max_size=12,
)


@given(HITS, HITS)
def test_every_hit_is_told_exactly_once(then: list[Hit], now: list[Hit]) -> None:
    diffs = compare(PACK, then, now)
    assert sum(len(d.same) + len(d.gone) for d in diffs) == len(then)
    assert sum(len(d.same) + len(d.new) for d in diffs) == len(now)


@given(HITS)
def test_a_pack_compared_with_itself_is_the_same(hits: list[Hit]) -> None:
    assert all(not d.new and not d.gone for d in compare(PACK, hits, hits))
