from __future__ import annotations

from tests.detectors.live import found, heard, pack, when

RULES = pack("{overlap: {share: 0.3, seconds: 10}}", "any")


def test_it_is_told_when_the_share_is_reached_while_both_go_on() -> None:
    (one,) = found(RULES, heard(1000, 20_000), heard(5000, 10_000, "customer"))
    assert (one.media_start_ms, one.media_end_ms, one.role) == (5000, 8000, "unknown")
    assert when(RULES, heard(1000, 20_000), heard(5000, 10_000, "customer"))[0] == 8600


def test_pieces_add_up_within_the_window() -> None:
    pieces = [heard(at, at + 1000, "customer") for at in (2000, 5000, 8000)]
    (one,) = found(RULES, heard(1000, 20_000), *pieces)
    assert (one.media_start_ms, one.media_end_ms) == (2000, 9000)
    apart = [heard(at, at + 1000, "customer") for at in (2000, 7000, 12_000)]
    assert found(RULES, heard(1000, 20_000), *apart) == []


def test_one_after_the_other_or_less_than_the_share_is_nothing() -> None:
    assert found(RULES, heard(1000, 20_000), heard(20_000, 40_000, "customer")) == []
    assert found(RULES, heard(1000, 20_000), heard(5000, 7999, "customer")) == []
    assert len(found(RULES, heard(1000, 20_000), heard(5000, 8000, "customer"))) == 1


def test_it_takes_as_much_again_to_be_told_again() -> None:
    told = found(RULES, heard(1000, 40_000), heard(5000, 13_999, "customer"))
    assert [d.media_end_ms for d in told] == [8000, 11_000]
    assert len({d.anchor_ms for d in told}) == 2


def test_on_a_mixed_channel_nobody_can_tell() -> None:
    assert found(RULES, heard(1000, 60_000, "unknown"), heard(2000, 50_000)) == []
