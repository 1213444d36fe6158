from __future__ import annotations

import pytest

from detectors.rules import PackError
from tests.detectors.live import Told, found, pack, said, wrote

FAST = pack("{rate: {of: agent, above: 300, seconds: 20, characters: 40}}")


def spoken(characters: int, start: int, end: int, role: str = "agent") -> list[Told]:
    return said("好" * characters, start, end, role)  # type: ignore[arg-type]


def test_more_characters_a_minute_than_so() -> None:
    (one,) = found(FAST, spoken(41, 1000, 9000))
    assert (one.media_start_ms, one.media_end_ms, one.role) == (1000, 9000, "agent")
    assert (one.anchor_ms, one.utterance_id, one.evidence.text) == (1000, "c:agent:1000", "308 字/min")


def test_exactly_so_many_or_too_few_to_say_or_the_other_side() -> None:
    assert found(FAST, spoken(40, 1000, 9000)) == []
    assert found(FAST, spoken(39, 1000, 2000)) == []
    assert found(FAST, spoken(60, 1000, 9000, "customer")) == []
    assert found(FAST, spoken(60, 1000, 9000, "unknown")) == [], "two people speak there"


def test_pauses_and_what_is_no_character_do_not_count() -> None:
    assert len(found(FAST, spoken(21, 1000, 5000), spoken(21, 15_000, 19_000))) == 1
    assert found(FAST, said("好，。！" * 40, 1000, 9000)) == []
    assert found(FAST, said("", 1000, 9000), said("。", 10_000, 11_000)) == []


def test_the_pre_roll_of_an_utterance_is_not_speech() -> None:
    edges = [told for told in spoken(41, 1000, 9000) if told.event.media_ms == 1000 or told.at_ms == 9520]
    assert len(found(FAST, edges, [wrote("好" * 41, 700, 9000)])) == 1, "41 characters in 8 s, not in 8.3"
    assert found(FAST, [wrote("好" * 41, 700, 9000)]) == []


def test_what_is_older_than_the_window_is_forgotten() -> None:
    assert found(FAST, spoken(30, 1000, 5000), spoken(30, 26_000, 30_000)) == []


def test_it_is_told_once_until_the_rate_has_come_back() -> None:
    fast = [spoken(41, at, at + 8000) for at in (1000, 10_000, 20_000)]
    slow = [spoken(41, at, at + 20_000) for at in (40_000,)]
    assert len(found(FAST, *fast)) == 1
    assert len(found(FAST, *fast, *slow, spoken(60, 90_000, 98_000))) == 2


def test_more_slowly_than_so() -> None:
    slow = pack("{rate: {of: agent, below: 100}}")
    assert len(found(slow, spoken(40, 1000, 26_000))) == 1
    assert found(slow, spoken(40, 1000, 20_000)) == []


def test_against_the_speakers_own_rate() -> None:
    rules = pack("{rate: {of: agent, baseline: 1.4, seconds: 10, characters: 20}}")
    usual = [spoken(20, at, at + 6000) for at in (0, 20_000, 40_000)]
    assert len(found(rules, *usual, spoken(30, 60_000, 66_000))) == 1
    assert found(rules, *usual, spoken(27, 60_000, 66_000)) == []
    assert found(rules, spoken(20, 0, 6000), spoken(60, 20_000, 26_000)) == [], "not known yet"


def test_partials_are_not_measured() -> None:
    assert found(FAST, [wrote("好" * 60, 1000, 9000, final=False)]) == []


def test_one_limit_is_needed() -> None:
    with pytest.raises(PackError, match="expected one of above, below, baseline in rate, came none"):
        pack("{rate: {of: agent}}")
