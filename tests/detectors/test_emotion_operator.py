from __future__ import annotations

import pytest

from detectors.rules import Pack, PackError, parse_pack
from detectors.rules.engine import RuleDetector
from streams.events import Channel, Detection, Emotion, Feeling
from tests.detectors.live import CALL, pack, wrote

ANGER = pack("{emotion: {of: customer, feeling: [angry, displeased], level: 6, seconds: 10}}", "customer")
TREND = pack("{emotion: {of: customer, trend: 2}}", "customer")


def feels(
    feeling: Feeling, level: float, start: int, end: int, role: Channel = "customer", trend: float = 0.0
) -> Emotion:
    return Emotion(
        call_id="c", role=role, utterance_id=f"c:{role}:{start}", media_start_ms=start, media_end_ms=end,
        feeling=feeling, level=level, trend=trend, voice=level, words=level,
    )  # fmt: skip


def found(rules: Pack, *events: Emotion) -> list[Detection]:
    detector = RuleDetector(CALL, rules)
    return [d for event in events for d in detector.on_event(event) if isinstance(d, Detection)]


def test_somebody_is_angry_for_so_long() -> None:
    (one,) = found(ANGER, feels("angry", 7, 1000, 4000), feels("displeased", 6, 9000, 11_000))
    assert (one.media_start_ms, one.media_end_ms, one.anchor_ms) == (1000, 11_000, 1000)
    assert (one.role, one.utterance_id, one.evidence.text) == (
        "customer",
        "c:customer:9000",
        "不满 displeased 6.0",
    )


def test_not_for_so_long_or_not_so_much_or_something_else_or_somebody_else() -> None:
    first = feels("angry", 7, 1000, 4000)
    assert found(ANGER, first, feels("angry", 7, 9000, 10_999)) == []
    assert found(ANGER, first, feels("angry", 5.9, 9000, 12_000)) == []
    assert found(ANGER, first, feels("sad", 9, 9000, 12_000)) == []
    assert found(ANGER, first, feels("angry", 9, 9000, 12_000, "agent")) == []


def test_an_utterance_in_between_that_is_calm_begins_it_anew() -> None:
    calm = feels("calm", 1, 5000, 6000)
    assert found(ANGER, feels("angry", 7, 1000, 4000), calm, feels("angry", 7, 9000, 12_000)) == []
    other = feels("calm", 1, 5000, 6000, "agent")
    assert len(found(ANGER, feels("angry", 7, 1000, 4000), other, feels("angry", 7, 9000, 12_000))) == 1


def test_a_long_pause_begins_it_anew() -> None:
    assert found(ANGER, feels("angry", 7, 1000, 4000), feels("angry", 7, 34_001, 38_000)) == []
    assert len(found(ANGER, feels("angry", 7, 1000, 4000), feels("angry", 7, 34_000, 38_000))) == 1


def test_it_is_told_once_until_it_is_over() -> None:
    angry = [feels("angry", 8, at, at + 11_000) for at in (0, 12_000, 24_000)]
    assert len(found(ANGER, *angry)) == 1
    again = feels("calm", 1, 36_000, 37_000), feels("angry", 8, 40_000, 51_000)
    assert [d.anchor_ms for d in found(ANGER, *angry, *again)] == [0, 40_000]


def test_it_gets_worse() -> None:
    assert found(TREND, feels("calm", 3, 0, 1000, trend=1.9)) == []
    assert len(found(TREND, feels("calm", 3, 0, 1000, trend=2.0))) == 1


def test_on_a_mixed_channel_whoever_it_is_counts() -> None:
    (one,) = found(ANGER, feels("angry", 8, 0, 12_000, "unknown"))
    assert one.role == "unknown"


def test_a_feeling_is_never_alone_a_reason_for_a_critical_alert() -> None:
    feeling = "{emotion: {of: customer, level: 6}}"

    def critical(when: str) -> Pack:
        return parse_pack(
            'id: t\nversion: "1"\nrules:\n  - {id: t.rule, name: {zh: 规, en: R}, severity: critical, '
            f"role: customer, when: {when}}}\n",
            "t.yaml",
        )

    for alone in (feeling, f"{{any: [{feeling}, {{phrase: [投诉]}}]}}", f"{{all: [{feeling}, {feeling}]}}"):
        with pytest.raises(PackError, match="never alone a reason for a critical alert"):
            critical(alone)
    assert critical(f"{{all: [{feeling}, {{phrase: [投诉]}}], within: {{turns: 2}}}}").rules


def test_a_feeling_with_words_said_shortly_before() -> None:
    rules = pack(
        "{all: [{emotion: {of: customer, level: 6}}, {phrase: [投诉], role: customer}], "
        "within: {seconds: 10}}",
        "customer",
    )
    detector = RuleDetector(CALL, rules)
    assert detector.on_event(wrote("我要投诉", 1000, 3000, "customer").event) == []
    assert len(detector.on_event(feels("angry", 7, 1000, 3000))) == 1
    assert found(rules, feels("angry", 7, 1000, 3000)) == []


def test_what_is_asked_for_must_be_said() -> None:
    with pytest.raises(PackError, match="expected one or more of feeling, level, trend in emotion"):
        pack("{emotion: {of: customer}}")
    with pytest.raises(PackError, match="did you mean 'angry'"):
        pack("{emotion: {of: customer, feeling: [angri]}}")
