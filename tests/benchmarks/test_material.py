"""benchmarks.material: silences cut, truth moved along."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.streams import StreamReader

from app.demo.truth import ScriptedCall, Span, Turn
from benchmarks.material import CHUNK_S, LONGEST_SILENCE_S, fitting, heard, kept, material, moved, packed

CALLS = Path(__file__).parent.parent / "calls"


def turn(start: float, end: float, role: str = "agent", **more: object) -> Turn:
    return Turn(start=start, end=end, role=role, text="好", **more)  # type: ignore[arg-type]


def call(*turns: Turn) -> ScriptedCall:
    return ScriptedCall("one", Path("one.ogg"), turns)


def test_a_long_silence_keeps_a_little_on_either_side() -> None:
    assert kept([turn(0, 2), turn(5, 6)], 6.0, longest=0.4) == ((0.0, 2.2), (4.8, 6.0))


def test_a_short_silence_stays() -> None:
    assert kept([turn(0, 2), turn(2.3, 4)], 4.0, longest=0.4) == ((0.0, 4.0),)


def test_silence_at_both_ends_is_cut_to_the_side_of_the_speech() -> None:
    assert kept([turn(3, 5)], 9.0, longest=0.4) == ((2.6, 5.4),)


def test_a_silence_of_one_channel_is_no_silence_while_the_other_one_talks() -> None:
    turns = [turn(0, 8), turn(1, 2, "customer"), turn(8.2, 9, "customer")]
    assert kept(turns, 9.0, longest=0.4) == ((0.0, 9.0),)


def test_a_call_without_turns_keeps_next_to_nothing() -> None:
    assert sum(b - a for a, b in kept([], 60.0, longest=0.4)) == pytest.approx(0.4)


def test_times_move_with_what_was_cut_before_them() -> None:
    stretches = ((0.0, 2.0), (5.0, 9.0))
    assert [moved(t, stretches) for t in (1.0, 2.0, 3.0, 5.0, 7.0)] == [1.0, 2.0, 2.0, 2.0, 4.0]


def test_spans_move_with_their_turn() -> None:
    turns = [turn(0, 2), turn(5, 9, spans=(Span("redline.x", 6, 7),))]
    later = packed(turns, ((0.0, 2.0), (5.0, 9.0)))[1]
    assert (later.start, later.end) == (2.0, 6.0)
    assert later.spans == (Span("redline.x", 3.0, 4.0),)


@given(
    st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.1, 8.0)), min_size=1, max_size=12),
    st.floats(0.0, 5.0),
)
def test_turns_keep_their_length_and_silences_get_short(
    gaps: list[tuple[float, float]], behind: float
) -> None:
    turns, at = [], 0.0
    for silence, length in gaps:
        turns.append(turn(at + silence, at + silence + length))
        at += silence + length
    stretches = kept(turns, at + behind)
    for (_, end), (start, _) in pairwise(stretches):
        assert end <= start
    moved_turns = packed(turns, stretches)
    for before, after in zip(turns, moved_turns, strict=True):
        assert after.end - after.start == pytest.approx(before.end - before.start)
    for a, b in pairwise(moved_turns):
        assert 0 <= b.start - a.end + 1e-6 <= LONGEST_SILENCE_S + 2e-6
    played = sum(b - a for a, b in stretches)
    assert played - moved_turns[-1].end <= LONGEST_SILENCE_S + 1e-6


def test_a_call_that_fits_is_played_to_its_end() -> None:
    assert fitting(call(turn(0, 20)), 21.0, 21.0) == 21.0


def test_a_call_that_does_not_fit_is_hung_up_behind_a_turn() -> None:
    assert fitting(call(turn(0, 10), turn(10, 20)), 21.0, 15.0) == pytest.approx(10 + LONGEST_SILENCE_S / 2)


def test_too_little_time_plays_nothing() -> None:
    assert fitting(call(turn(0, 3), turn(4, 30)), 31.0, 12.0) is None


def test_the_truth_of_a_call_that_was_hung_up_holds_only_whole_turns() -> None:
    cut = heard(call(turn(0, 10), turn(10, 20)), "one-1", 15.0)
    assert cut.name == "one-1"
    assert [t.end for t in cut.turns] == [10]


def test_every_chunk_is_one_media_message_a_track() -> None:
    made = material(ScriptedCall("short", CALLS / "short.ogg", (turn(0.0, 9.0),)))
    assert made.seconds == pytest.approx(9.4, abs=2 * CHUNK_S)
    messages = [json.loads(text) for text in frames(made.legs[0][7])]
    assert [m["media"]["track"] for m in messages] == ["outbound", "inbound"]
    assert {m["media"]["timestamp"] for m in messages} == {"140"}
    assert {m["media"]["chunk"] for m in messages} == {"8"}


def frames(wire: bytes) -> list[bytes]:
    reader = StreamReader()
    reader.feed_data(wire)
    reader.feed_eof()
    out = []
    while reader.buffer:
        parse = Frame.parse(reader.read_exact, mask=True)
        try:
            next(parse)
        except StopIteration as done:
            out.append(bytes(done.value.data))
    return out
