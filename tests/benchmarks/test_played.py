"""benchmarks.played and benchmarks.peers: what another engine wrote, judged by our rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.demo.truth import ScriptedCall, Span, Turn
from benchmarks.peers import ratios
from benchmarks.played import Audio, Heard, Read, audio, first_seen, score
from detectors.rules import DEFAULT_PACK, Pack, load_pack
from streams.events import SAMPLE_RATE

CALLS = Path(__file__).parent.parent / "calls"
RULE = "redline.guaranteed_return"


@pytest.fixture(scope="module")
def pack() -> Pack:
    return load_pack(DEFAULT_PACK)


def call(*turns: Turn) -> ScriptedCall:
    return ScriptedCall("sale-1", Path("sale.ogg"), turns)


def selling(start: float) -> Turn:
    span = Span(RULE, start + 1, start + 3)
    return Turn(start, start + 4, "agent", "这款产品保本保息。", rules=(RULE,), spans=(span,))


def read(at_s: float, start_s: float, text: str, done: bool = True, channel: str = "agent") -> Read:
    return Read(at_s, channel, start_s, start_s + 4, text, done)  # type: ignore[arg-type]


def test_a_phrase_is_seen_when_its_text_first_stands(pack: Pack) -> None:
    reads = [
        read(102, 1.0, "这款产品", done=False),
        read(104, 1.0, "这款产品保本保息", done=False),
        read(109, 1.0, "这款产品保本保息。"),
    ]
    assert first_seen(Heard(call(selling(1.0)), 100.0, reads), pack) == {(RULE, 1.0): 104}


def test_a_phrase_far_from_its_turn_is_not_that_turns(pack: Pack) -> None:
    reads = [read(160, 50.0, "这款产品保本保息。")]
    assert first_seen(Heard(call(selling(1.0)), 100.0, reads), pack) == {}


def test_what_comes_again_with_every_answer_counts_once(pack: Pack) -> None:
    reads = [read(at, 1.0, "这款产品保本保息。") for at in (105.0, 106.0, 107.0)]
    assert first_seen(Heard(call(selling(1.0)), 100.0, reads), pack) == {(RULE, 1.0): 105.0}


def test_the_delay_counts_from_the_end_of_the_phrase(pack: Pack) -> None:
    reads = [read(105.5, 1.0, "这款产品保本保息。")]
    scored, delays = score([Heard(call(selling(1.0)), 100.0, reads)], pack)
    assert (len(scored.hit), scored.missed) == (1, [])
    assert delays == [pytest.approx(1.5)]


def test_a_phrase_that_was_never_read_is_missed(pack: Pack) -> None:
    scored, delays = score([Heard(call(selling(1.0)), 100.0, [read(105, 1.0, "您好。")])], pack)
    assert (len(scored.missed), delays) == (1, [])


def test_a_call_is_heard_on_both_channels_at_the_engines_rate() -> None:
    heard = audio(ScriptedCall("short", CALLS / "short.ogg", (Turn(0.0, 20.0, "agent", "好"),)))
    assert set(heard.samples) == {"agent", "customer"}
    assert heard.seconds == pytest.approx(18.3, abs=0.1)
    assert all(np.abs(samples).max() > 1000 for samples in heard.samples.values())


def test_a_call_that_is_hung_up_is_heard_up_to_there() -> None:
    whole = Audio(call(), {"agent": np.zeros(10 * SAMPLE_RATE, np.int16)})
    assert whole.first(2.5).seconds == pytest.approx(2.5)


def row(engine: str, calls: int, p50: float | None, p95: float | None, seen: float) -> dict[str, object]:
    return {"engine": engine, "calls": calls, "p50_s": p50, "p95_s": p95, "seen": seen}


def test_ratios_are_against_ours_at_the_same_number_of_calls() -> None:
    rows = [
        row("duting", 1, 0.5, 1.0, 1.0),
        row("peer", 1, 1.0, 3.0, 0.5),
        row("peer", 2, 9.0, 9.0, 0.1),
    ]
    assert ratios(rows) == [{"engine": "peer", "calls": 1, "p50": 2.0, "p95": 3.0, "seen": 2.0}]


def test_there_is_no_ratio_without_a_figure_or_below_zero() -> None:
    rows = [row("duting", 1, -0.1, 1.0, 1.0), row("peer", 1, 1.0, None, 0.0)]
    assert ratios(rows) == [{"engine": "peer", "calls": 1, "p50": None, "p95": None, "seen": None}]
