"""benchmarks.measured: figures made of what was sent and what arrived."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.demo.truth import Span, Turn
from benchmarks.load import LoadReport, Played
from benchmarks.measured import (
    Delay,
    Measured,
    Sample,
    Socket,
    alert_delays,
    compared,
    fifths,
    final_delays,
    in_order,
    outcome_of,
    percentiles,
    recovery_s,
    slope,
    spent,
    stays,
    summary,
    turns_without_final,
    undelivered,
)
from streams.events import Alert, Evidence, Text

RULE = "redline.guaranteed_return"
TURNS = {
    "sale": (
        Turn(1.0, 5.0, "agent", "这个产品保本保息。", rules=(RULE,), spans=(Span(RULE, 2.0, 4.0),)),
        Turn(6.0, 9.0, "customer", "好的。"),
    )
}


def alert(call_id: str, alert_id: str = "a", rule: str = RULE, start_ms: int = 2000) -> Alert:
    return Alert(
        id=alert_id,
        call_id=call_id,
        rule_id=rule,
        rule_version="1",
        name={"zh": rule},
        severity="critical",
        role="agent",
        media_start_ms=start_ms,
        media_end_ms=start_ms + 2000,
        evidence=Evidence(text="保本保息"),
    )


def text(role: str, start_ms: int, end_ms: int, said: str = "好的") -> Text:
    return Text(utterance_id="u", role=role, start_ms=start_ms, end_ms=end_ms, text=said)  # type: ignore[arg-type]


def measured(
    calls: list[Played],
    socket: Socket,
    stored: dict[str, str] | None = None,
    late: dict[int, float] | None = None,
) -> Measured:
    report = LoadReport(
        begun_s=1000.0,
        ended_s=1100.0,
        cpu_s=2.0,
        worst_lag_s=0.01,
        late=late or {},
        calls=calls,
        turns=TURNS,
    )
    samples = [Sample(1000.0 + 10 * n, 5.0 * n, 500.0, {}) for n in range(11)]
    counters = {"duting_speech_seconds_total": 50.0, "duting_batch_seconds_sum": 5.0}
    return Measured(report, socket, samples, counters, stored or {}, {})


def played(call_id: str = "sale-1", seconds: float = 10.0, outcome: str = "hangup") -> Played:
    return Played(call_id, "sale", 0, 1010.0, seconds, outcome)


def heard(call_id: str = "sale-1", at_s: float = 1015.5) -> Socket:
    return Socket(alerts={call_id: [(at_s, alert(call_id))]})


def test_an_alert_is_late_by_what_passed_since_its_phrase_was_sent() -> None:
    run = measured([played()], heard(at_s=1015.5))
    (delay,) = alert_delays(run, run.score())
    assert delay.seconds == pytest.approx(1.5)


def test_a_phrase_that_the_load_sent_late_ended_late() -> None:
    run = measured([played()], heard(at_s=1015.5), late={round(14 / 0.005): 0.08})
    (delay,) = alert_delays(run, run.score())
    assert delay.seconds == pytest.approx(1.42)


def test_a_withdrawn_alert_is_a_miss() -> None:
    socket = heard()
    socket.withdrawn.add("a")
    scored = measured([played()], socket).score()
    assert (len(scored.hit), len(scored.missed)) == (0, 1)


def test_a_call_that_was_hung_up_before_the_phrase_asks_for_nothing() -> None:
    scored = measured([played(seconds=4.0)], Socket()).score()
    assert (scored.hit, scored.missed) == ([], [])


def test_a_refused_call_asks_for_nothing() -> None:
    run = measured([played(outcome="refused")], Socket())
    assert run.score().missed == []
    assert summary(run, None)["refused"] == 1


def test_a_final_is_late_by_what_passed_since_its_end_was_sent() -> None:
    socket = Socket(finals={"sale-1": [(1016.0, text("agent", 900, 5000))]})
    (delay,) = final_delays(measured([played()], socket))
    assert delay.seconds == pytest.approx(1.0)


def test_a_turn_needs_a_final_of_its_own_side() -> None:
    socket = Socket(finals={"sale-1": [(1016.0, text("agent", 900, 9000))]})
    assert turns_without_final(measured([played()], socket), spoken=False) == 1


def test_an_empty_final_is_a_final_without_text() -> None:
    finals = [(1016.0, text("agent", 900, 5000)), (1020.0, text("customer", 6000, 9000, ""))]
    run = measured([played()], Socket(finals={"sale-1": finals}))
    assert turns_without_final(run, spoken=False) == 0
    assert turns_without_final(run, spoken=True) == 1


def test_an_alert_of_the_store_that_no_socket_saw_is_undelivered() -> None:
    run = measured([played()], heard(), stored={"a": "sale-1", "b": "sale-1"})
    assert undelivered(run) == ["b"]


KEY = ("sale", RULE, 1.0)
OTHER = ("sale", "signal.legal", 6.0)


def test_outcomes_are_counted_by_scripted_call() -> None:
    run = measured([played("sale-1"), played("sale-2")], heard("sale-2"))
    assert outcome_of(run, run.score()) == {KEY: (1, 1)}


def test_lost_is_what_low_load_found() -> None:
    beside = compared({KEY: (1, 2), OTHER: (0, 1)}, {KEY: (1, 0), OTHER: (0, 1)})
    assert beside.lost == 2
    assert beside.recall == pytest.approx(1 / 4)
    assert beside.recall_low_load == pytest.approx(3 / 4)


def test_what_low_load_never_asked_for_is_not_compared() -> None:
    beside = compared({KEY: (0, 3)}, {OTHER: (1, 0)})
    assert (beside.recall, beside.lost) == (None, 0)


@given(st.dictionaries(st.sampled_from([KEY, OTHER]), st.tuples(st.integers(0, 9), st.integers(1, 9))))
def test_a_run_beside_itself_loses_nothing(run: dict[tuple[str, str, float], tuple[int, int]]) -> None:
    beside = compared(run, run)
    assert beside.lost == 0 or any(not missed for _, missed in run.values())
    if beside.recall is not None:
        assert beside.recall == pytest.approx(beside.recall_low_load)


def delays(*seconds: float) -> list[Delay]:
    return [Delay(1000.0 + 10 * n, s, RULE, "sale-1") for n, s in enumerate(seconds)]


def test_percentiles_are_of_nearest_rank() -> None:
    found = percentiles(delays(*[n / 10 for n in range(20, 0, -1)]))
    assert found == {"p50_s": 1.0, "p95_s": 1.9, "p99_s": 2.0, "max_s": 2.0}


def test_percentiles_of_nothing_are_not_known() -> None:
    assert percentiles([]) == {"p50_s": None, "p95_s": None, "p99_s": None, "max_s": None}


def test_fifths_are_of_the_time_of_the_phrase() -> None:
    parts = fifths(delays(1, 2, 3, 4, 5, 6), begun_s=1000.0, seconds=50.0)
    assert [[d.seconds for d in part] for part in parts] == [[1], [2], [3], [4], [5, 6]]


def test_cpu_is_that_of_the_time_of_the_load() -> None:
    samples = [Sample(float(t), t * 0.5, 1.0, {}) for t in range(0, 100, 10)]
    assert spent(samples, 15.0, 65.0) == pytest.approx(25.0)


def test_a_run_too_short_to_sample_cost_nothing_known() -> None:
    assert spent([Sample(5.0, 1.0, 1.0, {})], 0.0, 10.0) == 0.0


STEPS = [(1010.0, 1, "fewer_partials"), (1010.5, 1, "fewer_partials"), (1020.0, 2, "no_partials")]


def test_a_step_is_left_when_the_next_one_is_entered() -> None:
    found = [(s.step, s.entered_s, s.left_s) for s in stays(STEPS, 1000.0)]
    assert found == [(0, 0.0, 10.0), (1, 10.0, 20.0), (2, 20.0, None)]


def test_steps_are_in_order_when_none_is_left_out() -> None:
    assert in_order(stays(STEPS, 1000.0))
    assert not in_order(stays(STEPS[2:], 1000.0))


def test_recovery_counts_from_the_end_of_the_load() -> None:
    back = [*STEPS, (1075.0, 1, "fewer_partials"), (1080.0, 0, "all")]
    assert recovery_s(stays(back, 1000.0), load_end_s=60.0) == pytest.approx(20.0)
    assert recovery_s(stays([], 1000.0), load_end_s=60.0) == 0.0
    assert recovery_s(stays(STEPS, 1000.0), load_end_s=60.0) is None


def test_a_slope_is_units_per_second() -> None:
    assert slope([0.0, 10.0, 20.0], [1.0, 2.0, 3.0]) == pytest.approx(0.1)
    assert slope([1.0], [1.0]) is None
    assert slope([1.0, 1.0], [1.0, 2.0]) is None


def test_the_summary_carries_what_is_promised() -> None:
    run = measured([played()], heard())
    found = summary(run, {KEY: (1, 0)})
    promised = ("p50_s", "p95_s", "p99_s", "max_s", "recall", "lost")
    assert all(name in found for name in promised)
    assert found["lost"] == 0
    assert found["recall"] == 1.0
    assert found["server_cpu_s_per_call_second"] == pytest.approx(5.0)
    assert found["model_s_per_speech_second"] == pytest.approx(0.1)
