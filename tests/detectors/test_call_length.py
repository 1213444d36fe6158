from __future__ import annotations

import pytest

from detectors.rules import PackError
from tests.detectors.live import Told, ended, found, heard, hold, pack, said, when, wrote


def test_a_call_is_longer_than_so() -> None:
    rules = pack("{duration: {seconds: 1800}}", "any")
    (one,) = found(rules, until=4_000_000)
    assert (one.media_start_ms, one.media_end_ms, one.anchor_ms) == (0, 1_800_000, 0)
    assert when(rules, until=4_000_000) == [1_800_000]
    assert found(rules, ended(1_799_999)) == []
    assert len(found(rules, ended(1_800_000))) == 1


def test_many_turns() -> None:
    rules = pack("{turns: {at_least: 3, of: customer}}", "any")
    turns = [said("嗯", at, at + 500, "customer") for at in (1000, 3000, 5000, 7000)]
    (one,) = found(rules, *turns)
    assert (one.anchor_ms, one.role, one.evidence.how) == (5000, "customer", "count")
    assert found(rules, *turns[:2], said("嗯", 9000, 9500)) == []
    assert found(rules, *turns[:2], said("", 9000, 9500, "customer")) == [], "nothing was said"
    assert found(rules, *turns[:2], said("嗯", 9000, 9500, "unknown")) == []
    partial = wrote("嗯", 9000, 9500, "customer", final=False)
    assert found(rules, *turns[:2], [partial, partial]) == []


def test_turns_of_both_sides() -> None:
    rules = pack("{turns: {at_least: 3}}", "any")
    assert (
        len(found(rules, said("嗯", 0, 500), said("嗯", 1000, 1500, "customer"), said("嗯", 2000, 2500))) == 1
    )
    mixed = [said("嗯", at, at + 500, "unknown") for at in (1000, 3000, 5000)]
    assert len(found(rules, *mixed)) == 1


def test_who_hung_up_and_how_soon() -> None:
    rules = pack("{hangup: {by: customer, within: 20}}", "any")
    (one,) = found(rules, ended(20_000, "customer"))
    assert (one.media_start_ms, one.media_end_ms, one.anchor_ms, one.role) == (
        20_000,
        20_000,
        20_000,
        "customer",
    )
    assert found(rules, ended(20_001, "customer")) == []
    assert found(rules, ended(5000, "agent")) == []
    assert found(rules, ended(5000)) == [], "nobody says who it was"
    assert len(found(pack("{hangup: {within: 20}}", "any"), ended(5000))) == 1


def test_a_connection_that_broke_is_no_hang_up() -> None:
    from streams.events import CallEnded

    broken = Told(5000, CallEnded(call_id="c", media_ms=5000, reason="disconnected", by="customer"))
    assert found(pack("{hangup: {by: customer}}", "any"), [broken]) == []


def test_who_hung_up_after_something_was_said() -> None:
    rules = pack("{hangup: {by: agent, after: {phrase: [我要投诉], role: customer}, seconds: 10}}")
    complaint = said("我要投诉你", 1000, 3000, "customer")
    (one,) = found(rules, complaint, ended(12_000, "agent"))
    assert (one.media_end_ms, one.anchor_ms, one.utterance_id) == (12_000, 12_000, "c:customer:1000")
    assert one.evidence.matched == ("我要投诉",)
    assert found(rules, complaint, ended(13_000, "agent")) == []
    assert found(rules, complaint, ended(5000, "customer")) == []
    assert found(rules, said("我要投诉", 1000, 3000), ended(5000, "agent")) == []
    late = [wrote("我要投诉你", 1000, 3000, "customer", late=8000)]
    assert len(found(rules, late, ended(5000, "agent"))) == 1, "its transcript came after the end"


def test_a_hang_up_of_nothing_is_refused() -> None:
    with pytest.raises(PackError, match="expected one or more of by, within, after in hangup, came none"):
        pack("{hangup: {}}")
    with pytest.raises(PackError, match="expected seconds beside after in hangup, came none"):
        pack("{hangup: {after: {phrase: [投诉]}}}")


LOST = pack("{no_text: {speech: 30}}", "any")


def test_speech_without_a_word_of_text() -> None:
    (one,) = found(LOST, heard(1000, 60_000))
    assert (one.media_start_ms, one.media_end_ms) == (1000, 31_000)
    assert when(LOST, heard(1000, 60_000)) == [31_600]


def test_only_speech_counts_and_that_of_both_at_once_only_once() -> None:
    pieces = [heard(at, at + 10_000) for at in (0, 20_000, 40_000)]
    (one,) = found(LOST, *pieces)
    assert (one.media_start_ms, one.media_end_ms) == (0, 50_000)
    both = [heard(at, at + 10_000, "customer") for at in (0, 20_000)]
    assert found(LOST, *pieces[:2], *both, until=90_000) == []


def test_text_of_either_side_begins_it_anew_and_empty_text_does_not() -> None:
    speech = heard(0, 49_900)
    assert len(found(LOST, speech, [wrote("", 0, 10_000), wrote("", 10_000, 20_000)])) == 1
    assert found(LOST, speech, [wrote("您好", 15_000, 20_000, "customer")]) == []
    (one,) = found(LOST, heard(0, 60_000), [wrote("您好", 15_000, 20_000)])
    assert one.media_end_ms == 50_000


def test_it_is_told_once_until_there_is_text_again() -> None:
    assert len(found(LOST, heard(0, 100_000))) == 1
    told = found(LOST, heard(0, 100_000), [wrote("您好", 50_000, 55_000)])
    assert [d.media_end_ms for d in told] == [30_000, 85_000]


def test_singing_on_hold_is_no_speech() -> None:
    assert found(LOST, hold(5000, 60_000), heard(6000, 59_000)) == []
    assert found(LOST, heard(0, 59_000), hold(20_000, 50_000)) == []
    (one,) = found(LOST, heard(0, 90_000), hold(20_000, 50_000))
    assert (one.media_start_ms, one.media_end_ms) == (0, 60_000)
    assert found(LOST, hold(5000, 60_000, "music"), heard(6000, 59_000)) == []


def test_a_mixed_channel_is_heard_too_and_silence_loses_nothing() -> None:
    assert len(found(LOST, heard(0, 40_000, "unknown"))) == 1
    assert found(LOST, until=200_000) == []
    assert found(LOST, heard(0, 29_900), ended(40_000)) == []
