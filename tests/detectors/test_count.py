from __future__ import annotations

import pytest

from detectors.rules import PackError
from tests.detectors.live import Told, found, pack, said, wrote

RULES = pack("{count: {of: {phrase: [听不懂]}, at_least: 3, seconds: 60}}", "customer")


def times(*starts: int, late: int = 1500) -> list[Told]:
    return [t for at in starts for t in said("我听不懂", at, at + 1000, "customer", late=late)]


def test_the_third_time_within_a_minute_tells_it() -> None:
    (one,) = found(RULES, times(1000, 21_000, 61_000))
    assert (one.anchor_ms, one.utterance_id) == (61_000, "c:customer:61000")
    assert (one.media_start_ms, one.media_end_ms) == (1250, 62_000)
    assert one.evidence.how == "count"
    assert one.evidence.matched == ("听不懂",)


def test_twice_or_too_far_apart_or_by_somebody_else_is_nothing() -> None:
    assert found(RULES, times(1000, 21_000)) == []
    assert found(RULES, times(1000, 21_000, 61_100)) == []
    assert found(RULES, times(1000, 21_000), said("您听不懂", 30_000, 31_000)) == []


def test_three_times_in_one_utterance_count_once() -> None:
    assert found(RULES, said("听不懂听不懂听不懂", 1000, 5000, "customer")) == []


def test_it_takes_as_many_more_to_be_told_again() -> None:
    starts = [1000 + 5000 * n for n in range(8)]
    assert [d.anchor_ms for d in found(RULES, times(*starts))] == [11_000, 26_000]


def test_the_times_of_both_sides_count_in_media_time_whatever_comes_first() -> None:
    rules = pack("{count: {of: {phrase: [听不懂]}, at_least: 2, seconds: 10}}", "any")
    late = said("听不懂", 1000, 2000, "customer", late=9000)
    (one,) = found(rules, late, said("听不懂", 5000, 6000))
    assert one.anchor_ms == 5000


def test_a_partial_counts_only_while_its_final_has_not_come() -> None:
    partial = wrote("听不懂", 30_000, 30_500, "customer", late=100, final=False)
    raised, withdrawn = found(
        RULES, times(1000, 21_000), said("听懂了", 30_000, 31_000, "customer"), [partial]
    )
    assert (raised.withdrawn, withdrawn.withdrawn) == (False, True)
    assert len(found(RULES, times(1000, 21_000, 40_000), said("懂了", 30_000, 31_000, "customer"))) == 1


def test_what_is_heard_can_be_counted_too() -> None:
    rules = pack("{count: {of: {silence: {seconds: 5}}, at_least: 2, seconds: 60}}", "any")
    (one,) = found(rules, times(1000, 10_000), until=30_000)
    assert (one.media_start_ms, one.media_end_ms) == (2000, 16_000)


def test_a_count_of_nothing_is_refused() -> None:
    with pytest.raises(PackError, match="expected 'of' in count, came none"):
        pack("{count: {at_least: 3, seconds: 60}}")
