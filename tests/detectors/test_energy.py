from __future__ import annotations

from streams.events import Channel, Voice
from tests.detectors.live import Told, found, pack

RULES = pack("{energy: {of: customer, jump: 8}}", "customer")


def voice(level: float, start: int, end: int, role: Channel = "customer") -> list[Told]:
    event = Voice(
        call_id="c", channel=role, utterance_id=f"c:{role}:{start}", start_ms=start, end_ms=end,
        level_db=level, peak_db=level + 3, pitch_hz=None, pitch_spread=None, voiced=0.5, paused=0.1,
    )  # fmt: skip
    return [Told(end + 520, event)]


USUAL = [voice(-30.0, 1000, 4000), voice(-28.0, 5000, 8000)]


def test_louder_than_in_their_own_first_seconds() -> None:
    (one,) = found(RULES, *USUAL, voice(-21.0, 9000, 11_000))
    assert (one.media_start_ms, one.media_end_ms, one.anchor_ms) == (9000, 11_000, 9000)
    assert (one.role, one.utterance_id) == ("customer", "c:customer:9000")
    assert one.evidence.text == "+8.0 dB"


def test_not_so_much_louder_or_too_short_or_somebody_else() -> None:
    assert found(RULES, *USUAL, voice(-21.1, 9000, 11_000)) == []
    assert found(RULES, *USUAL, voice(-10.0, 9000, 9400)) == []
    assert found(RULES, *USUAL, voice(-10.0, 9000, 11_000, "agent")) == []
    mixed = [voice(level, at, at + 3000, "unknown") for at, level in ((0, -30), (4000, -30), (8000, -9))]
    assert found(RULES, *mixed) == []


def test_nothing_is_judged_before_the_speaker_is_known() -> None:
    assert found(RULES, voice(-30.0, 1000, 4000), voice(-10.0, 5000, 8000)) == []


def test_it_is_told_once_until_the_voice_has_come_down() -> None:
    loud = [voice(-15.0, at, at + 2000) for at in (10_000, 13_000)]
    assert len(found(RULES, *USUAL, *loud)) == 1
    assert len(found(RULES, *USUAL, *loud, voice(-29.0, 16_000, 18_000), voice(-15.0, 20_000, 22_000))) == 2
