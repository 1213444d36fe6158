from __future__ import annotations

from tests.detectors.live import ended, found, heard, pack, said, when

ONCE = pack("{interruption: {by: agent, overlap: 300}}")
THRICE = pack("{interruption: {by: agent, overlap: 300, times: 3, seconds: 60}}")
CUSTOMER = heard(1000, 6000, "customer")


def test_who_begins_to_speak_into_what_the_other_says_interrupts() -> None:
    (one,) = found(ONCE, CUSTOMER, heard(3000, 9000))
    assert (one.role, one.media_start_ms, one.media_end_ms, one.anchor_ms) == ("agent", 3000, 3300, 3000)
    assert when(ONCE, CUSTOMER, heard(3000, 9000)) == [3900], "while both are still speaking"


def test_the_other_side_does_not_interrupt_by_it() -> None:
    assert found(ONCE, heard(1000, 6000), heard(3000, 9000, "customer")) == []


def test_a_word_of_assent_is_no_interruption() -> None:
    assert found(ONCE, CUSTOMER, heard(3000, 3299)) == []
    assert len(found(ONCE, CUSTOMER, heard(3000, 3300))) == 1


def test_who_has_hardly_begun_is_not_interrupted() -> None:
    assert found(ONCE, CUSTOMER, heard(1999, 9000)) == []
    assert len(found(ONCE, CUSTOMER, heard(2000, 9000))) == 1


def test_to_speak_while_the_other_ends_is_taking_turns() -> None:
    assert found(ONCE, CUSTOMER, heard(5701, 9000)) == []
    assert found(ONCE, CUSTOMER, heard(6100, 9000)) == []


def test_a_breath_does_not_make_one_interruption_two_nor_who_goes_on_the_one_who_cuts_in() -> None:
    assert len(found(ONCE, heard(1000, 20_000, "customer"), heard(3000, 5000), heard(5400, 8000))) == 1
    assert len(found(ONCE, heard(1000, 20_000, "customer"), heard(3000, 5000), heard(5701, 8000))) == 2
    goes_on = heard(1000, 8000), heard(6500, 12_000, "customer"), heard(8200, 12_000)
    assert found(ONCE, *goes_on) == []


def test_an_assent_may_turn_into_an_interruption() -> None:
    (one,) = found(ONCE, heard(1000, 20_000, "customer"), heard(3000, 3200), heard(3700, 8000))
    assert one.anchor_ms == 3700


def test_three_of_them_within_a_minute() -> None:
    def cuts(*starts: int) -> list[object]:
        return [
            part for at in starts for part in (heard(at - 2000, at + 3000, "customer"), heard(at, at + 4000))
        ]

    (one,) = found(THRICE, *cuts(5000, 25_000, 65_000))
    assert (one.media_start_ms, one.media_end_ms, one.evidence.how) == (5000, 65_300, "count")
    assert found(THRICE, *cuts(5000, 25_000, 65_001)) == []
    assert found(THRICE, *cuts(5000, 25_000)) == []
    assert len(found(THRICE, *cuts(*range(5000, 100_000, 10_000)))) == 3, "what was counted is used up"


def test_on_a_mixed_channel_and_by_one_who_speaks_alone_there_is_none() -> None:
    assert found(ONCE, heard(1000, 6000, "unknown"), heard(3000, 9000, "unknown"), ended(20_000)) == []
    assert found(ONCE, heard(1000, 6000, "unknown"), heard(3000, 9000)) == []
    assert found(ONCE, heard(1000, 60_000), said("您好", 61_000, 62_000), ended(70_000)) == []
