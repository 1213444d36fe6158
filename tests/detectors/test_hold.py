from __future__ import annotations

from tests.detectors.live import ended, found, heard, hold, pack, said, when

LONG = pack("{hold: {seconds: 60}}", "any")
SILENCE = pack("{silence: {seconds: 15}}", "any")


def test_still_on_hold_after_so_long() -> None:
    (one,) = found(LONG, hold(10_000), until=100_000)
    assert (one.media_start_ms, one.media_end_ms, one.role) == (10_000, 70_000, "unknown")
    assert when(LONG, hold(10_000), until=100_000) == [70_500]


def test_taken_back_in_time() -> None:
    assert found(LONG, hold(10_000, 69_900), until=100_000) == []
    assert found(LONG, hold(10_000, 69_000, "music"), until=100_000) == []
    assert found(LONG, hold(10_000), ended(69_000)) == []
    assert len(found(LONG, hold(10_000, 70_000), until=100_000)) == 1


def test_each_hold_counts_for_itself() -> None:
    assert found(LONG, hold(10_000, 50_000), hold(60_000, 100_000), until=200_000) == []
    told = found(LONG, hold(10_000, 80_000), hold(100_000), until=200_000)
    assert [d.anchor_ms for d in told] == [10_000, 100_000]


def test_what_the_music_told_first_the_telephony_ends() -> None:
    assert found(LONG, hold(10_000, None, "music"), hold(15_000, 40_000), until=200_000) == []


def test_nobody_is_on_hold_of_whom_nothing_is_told() -> None:
    assert found(LONG, heard(1000, 100_000), ended(200_000)) == []


def test_time_on_hold_is_no_silence() -> None:
    spoken = said("请稍等", 1000, 2000)
    assert found(SILENCE, spoken, hold(4000, 60_000), said("久等了", 61_000, 62_000), until=70_000) == []
    assert len(found(SILENCE, spoken, until=70_000)) == 1


def test_the_music_tells_late_that_it_was_a_hold() -> None:
    spoken = said("请稍等", 1000, 2000)
    back = said("久等了", 61_000, 62_000)
    assert found(SILENCE, spoken, hold(4000, 60_000, "music"), back, until=70_000) == []


def test_what_is_left_of_a_silence_without_the_hold_counts() -> None:
    (one,) = found(SILENCE, said("请稍等", 1000, 2000), hold(12_000, 60_000), until=100_000)
    assert (one.media_start_ms, one.media_end_ms) == (2000, 65_000), "ten seconds before, five after"
    before = found(SILENCE, said("请稍等", 1000, 2000), hold(17_000, 60_000), until=16_000)
    assert [d.media_end_ms for d in before] == [17_000], "it was silent for long enough when the hold began"


def test_a_silence_that_begins_on_hold_counts_from_its_end() -> None:
    events = hold(1000, 40_000), said("在帮您查", 5000, 8000)
    (one,) = found(SILENCE, *events, until=100_000)
    assert (one.media_start_ms, one.media_end_ms) == (8000, 55_000)
    assert found(SILENCE, *events, said("好了", 50_000, 51_000), until=65_000) == []


def test_time_on_hold_may_be_asked_to_count() -> None:
    rules = pack("{silence: {seconds: 15, hold: true}}", "any")
    (one,) = found(rules, said("请稍等", 1000, 2000), hold(4000, 60_000), until=70_000)
    assert one.media_end_ms == 17_000
