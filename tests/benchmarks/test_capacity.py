"""From which moment the server's own time counts."""

from __future__ import annotations

from app.demo import truth
from benchmarks.capacity import WINDOW_MS, server_delays
from benchmarks.load import LoadReport, Played
from benchmarks.measured import Measured, Socket
from streams.events import Alert, Evidence, Text
from streams.listen import Endpointing


def alert(utterance_id):
    return Alert(
        id="a",
        call_id="c",
        rule_id="redline.x",
        rule_version="1",
        name={},
        severity="critical",
        role="agent",
        media_start_ms=1_000,
        media_end_ms=2_000,
        evidence=Evidence(text=""),
        utterance_id=utterance_id,
    )


def measured(utterance_id, seconds=60.0):
    call = Played("c", "call", 0, 100.0, seconds, "hangup")
    report = LoadReport(100.0, 160.0, 0.0, 0.0, {}, [call], {"call": ()})
    text = Text(utterance_id="c:agent:0", role="agent", start_ms=0, end_ms=3_000, text="x")
    socket = Socket(alerts={"c": [(104.0, alert(utterance_id))]}, finals={"c": [(104.0, text)]})
    score = truth.Score(hit=[(truth.Expected("c", "redline.x", 1.0, 3.0, 2.0), alert(utterance_id))])
    return Measured(report, socket, [], {}, {}, {}), score


def test_the_silence_that_ends_an_utterance_is_no_time_of_the_server():
    [delay] = server_delays(*measured("c:agent:0"))
    cut_s = (3_000 + Endpointing().hangover_at(3_000) + WINDOW_MS) / 1000
    assert abs(delay.seconds - (4.0 - cut_s)) <= 0.021  # sent with the chunk that it stands in


def test_a_call_that_was_hung_up_before_the_silence_was_long_enough_is_cut_at_its_end():
    [delay] = server_delays(*measured("c:agent:0", seconds=3.1))
    assert abs(delay.seconds - 0.9) <= 0.021


def test_an_alert_without_an_utterance_says_nothing_of_the_server():
    assert server_delays(*measured(None)) == []
