"""Holds, transfers and keys as marks on the timeline."""

from __future__ import annotations

import pytest

from detectors.emotion import EmotionDetector
from detectors.panel import Panel
from detectors.rules import DEFAULT_PACK, PackError, load_pack, parse_pack
from detectors.telephony import CARDS, MOST_MARKS, TelephonyDetector
from streams.events import (
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    Detection,
    Hold,
    KeyPressed,
    Latency,
    Marker,
    Transfer,
)
from streams.raising import raised

CALL = CallInfo(call_id="c")
BANK = load_pack(DEFAULT_PACK)


def held(at: int, on: bool = True, source: str = "telephony") -> Hold:
    return Hold(call_id="c", media_ms=at, held=on, source=source)  # type: ignore[arg-type]


def key(at: int, channel: str = "customer") -> KeyPressed:
    return KeyPressed(call_id="c", channel=channel, media_ms=at)  # type: ignore[arg-type]


def ended(at: int) -> CallEnded:
    return CallEnded(call_id="c", media_ms=at)


def found(*events: CallEvent, interrupted: bool = False) -> list[Detection]:
    """What it marks; woken where it asks to be, maybe taken up anew before each event."""
    detector = TelephonyDetector(CALL)
    out: list[Detection] = []
    for event in events:
        while (wake := detector.wake_at()) is not None and wake <= event.media_ms:
            out += detector.on_wake(wake)  # type: ignore[arg-type]
        if interrupted:
            snapshot, detector = detector.snapshot(), TelephonyDetector(CALL)
            detector.restore(snapshot)
        out += detector.on_event(event)  # type: ignore[arg-type]
    return out


def spans(*events: CallEvent) -> list[tuple[str, int, int]]:
    """The marks as they stand at the end."""
    last = {(d.rule_id, d.role, d.anchor_ms): d for d in found(*events)}
    assert found(*events) == found(*events, interrupted=True)
    return [(d.rule_id, d.media_start_ms, d.media_end_ms) for d in last.values()]


def test_a_hold_is_marked_when_it_begins_and_spans_until_it_is_over() -> None:
    first, second = found(held(4_000), held(40_000, on=False))
    assert (first.media_start_ms, first.media_end_ms) == (4_000, 4_000)
    assert (second.media_start_ms, second.media_end_ms) == (4_000, 40_000)
    assert first.anchor_ms == second.anchor_ms, "it is the same mark"


def test_one_that_lasts_until_the_end_spans_until_then() -> None:
    assert spans(held(4_000), ended(60_000)) == [("call.hold", 4_000, 60_000)]


def test_told_twice_it_is_one() -> None:
    events = held(4_000), held(5_000, source="music"), held(40_000, on=False), held(41_000, on=False)
    assert spans(*events) == [("call.hold", 4_000, 40_000)]


def test_its_end_is_never_before_its_begin() -> None:
    assert spans(held(4_000), held(3_000, on=False)) == [("call.hold", 4_000, 4_000)]


def test_a_transfer_is_a_point() -> None:
    assert spans(Transfer(call_id="c", media_ms=9_000, to="loans")) == [("call.transfer", 9_000, 9_000)]


def test_keys_that_follow_each_other_are_one_mark() -> None:
    pin = [key(at) for at in (1_000, 1_600, 3_500, 5_400)]
    assert spans(*pin, key(7_500), ended(9_000)) == [("call.key", 1_000, 5_400), ("call.key", 7_500, 7_500)]


def test_the_first_key_is_marked_at_once_and_the_rest_when_no_other_follows() -> None:
    assert len(found(key(1_000))) == 1
    assert len(found(key(1_000), key(1_500), key(2_000))) == 1
    assert len(found(key(1_000), key(1_500), key(2_000), held(9_000))) == 3
    assert len(found(key(1_000), key(1_500), ended(1_600))) == 2


def test_each_side_has_its_own_keys() -> None:
    marks = found(key(1_000), key(1_200, "agent"), ended(2_000))
    assert [(mark.role, mark.anchor_ms) for mark in marks] == [("customer", 1_000), ("agent", 1_200)]


def test_a_telephone_that_plays_tones_all_day_floods_nobody() -> None:
    tones = [key(at) for at in range(0, 3_600_000, 3_000)]
    assert len(found(*tones)) == MOST_MARKS


def test_they_are_marks_and_no_alerts_and_hold_no_key() -> None:
    panel = Panel(CALL, BANK, EmotionDetector(CALL), TelephonyDetector(CALL))
    panel.on_event(CallStarted(call=CALL))
    out: list[object] = []
    for event in (held(1_000), Transfer(call_id="c", media_ms=2_000, to="loans"), key(3_000)):
        for detection in panel.on_event(event):
            assert isinstance(detection, Detection)
            out += raised(detection, panel.card(detection.rule_id), Latency(), str)
    assert [type(one) for one in out] == [Marker] * 3
    assert [(m.rule_id, m.severity, m.label["zh"]) for m in out] == [  # type: ignore[attr-defined]
        ("call.hold", "info", "保持"),
        ("call.transfer", "info", "转接"),
        ("call.key", "info", "按键"),
    ]


def test_the_rules_hear_of_them_as_well() -> None:
    panel = Panel(CALL, BANK, None, TelephonyDetector(CALL))
    panel.on_event(CallStarted(call=CALL))
    panel.on_event(held(4_000))
    while (wake := panel.wake_at()) is not None and wake <= 70_000:
        rules = [f.rule_id for f in panel.on_wake(wake) if isinstance(f, Detection)]
        if "dynamics.long_hold" in rules:
            return
    pytest.fail("nobody noticed the long hold")


def test_the_panel_is_woken_for_the_last_key() -> None:
    panel = Panel(
        CALL, parse_pack('id: e\nversion: "1"\nrules: []\n', "e.yaml"), None, TelephonyDetector(CALL)
    )
    assert panel.wake_at() is None
    panel.on_event(key(1_000))
    panel.on_event(key(1_500))
    assert panel.wake_at() == 3_500
    snapshot = panel.snapshot()
    panel.restore(snapshot)
    assert [f.media_end_ms for f in panel.on_wake(3_600) if isinstance(f, Detection)] == [1_500]


@pytest.mark.parametrize("name", list(CARDS))
def test_no_rule_may_be_called_like_them(name: str) -> None:
    rule = f"  - {{id: {name}, name: {{zh: 规, en: R}}, severity: info, role: any, when: {{phrase: [好]}}}}\n"
    with pytest.raises(PackError, match="by which the telephony's events are marked"):
        parse_pack(f'id: t\nversion: "1"\nrules:\n{rule}', "t.yaml")
