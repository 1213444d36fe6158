"""What came out of one run under load, and the figures made of it. Pure.

A phrase ends when the last sample of its scripted span was sent, on the load's own clock; an alert is there
when it was received on the supervisor's socket. Alerts that were withdrawn are no hits.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.demo import truth
from app.demo.show import percentile
from benchmarks.load import LoadReport, Played
from benchmarks.material import heard as as_heard
from streams.events import Alert, Text

Key = tuple[str, str, float]
"""One alert that the truth asks for: scripted call, rule, start of the turn as played."""


@dataclass(frozen=True)
class Sample:
    """The server at one moment."""

    at_s: float
    cpu_s: float
    """Since its start, all threads and child processes."""
    rss_mib: float
    gauges: dict[str, float]
    """From ``/metrics``: queues (``jobs_final`` …), ``step``, ``calls``; empty when it did not answer."""


@dataclass
class Socket:
    """What a supervisor's socket received; clocks are those of the load."""

    alerts: dict[str, list[tuple[float, Alert]]] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    finals: dict[str, list[tuple[float, Text]]] = field(default_factory=dict)
    steps: list[tuple[float, int, str]] = field(default_factory=list)
    """Every change of the degradation step."""


@dataclass
class Measured:
    """One run."""

    report: LoadReport
    socket: Socket
    samples: list[Sample]
    counters: dict[str, float]
    """What the server counted during the load, from ``/metrics``."""
    stored_alerts: dict[str, str]
    """Alert id → call id, as in the store after the run."""
    gap_ms: dict[str, int]
    """By call, as in the store."""
    supervisor_cpu_s: float = 0.0

    @property
    def admitted(self) -> list[Played]:
        return [call for call in self.report.calls if call.outcome != "refused"]

    def scripted(self) -> list[truth.ScriptedCall]:
        """The truth of every admitted call, under its own id."""
        return [
            as_heard(
                truth.ScriptedCall(p.name, Path(p.name), self.report.turns[p.name]), p.call_id, p.seconds
            )
            for p in self.admitted
        ]

    def score(self, families: tuple[str, ...] = truth.SCORED) -> truth.Score:
        standing = {
            call_id: [a for _, a in alerts if a.id not in self.socket.withdrawn]
            for call_id, alerts in self.socket.alerts.items()
        }
        return truth.score(self.scripted(), standing, families)


@dataclass(frozen=True)
class Delay:
    """From the end of what was said to what it caused."""

    at_s: float
    """Clock at the end of the speech."""
    seconds: float
    what: str
    call_id: str


def alert_delays(measured: Measured, scored: truth.Score) -> list[Delay]:
    """Phrase end → alert on the socket, for every hit, in order of time."""
    played = {call.call_id: call for call in measured.report.calls}
    out = []
    for want, alert in scored.hit:
        arrived = next(t for t, a in measured.socket.alerts[want.call] if a.id == alert.id)
        said = measured.report.sent_s(played[want.call], want.phrase_end)
        out.append(Delay(said, arrived - said, alert.rule_id, want.call))
    return sorted(out, key=lambda d: d.at_s)


def slowest(measured: Measured, scored: truth.Score, most: int = 8) -> list[str]:
    """The alerts that came last: where to look first."""
    names = {call.call_id: call.name for call in measured.report.calls}
    late = sorted(alert_delays(measured, scored), key=lambda d: -d.seconds)[:most]
    return [f"{delay.seconds:.2f} s {names[delay.call_id]} {delay.what}" for delay in late]


def final_delays(measured: Measured) -> list[Delay]:
    """Utterance end → its final transcript on the socket, in order of time."""
    played = {call.call_id: call for call in measured.report.calls}
    out = []
    for call_id, finals in measured.socket.finals.items():
        for arrived, text in finals:
            said = measured.report.sent_s(played[call_id], text.end_ms / 1000)
            out.append(Delay(said, arrived - said, text.role, call_id))
    return sorted(out, key=lambda d: d.at_s)


def outcome_of(measured: Measured, scored: truth.Score) -> dict[Key, tuple[int, int]]:
    """(hits, misses) of everything that was asked for; a repetition within a cooldown is neither."""
    names = {call.call_id: call.name for call in measured.report.calls}
    out: dict[Key, tuple[int, int]] = {}
    for index, wanted in enumerate(([e for e, _ in scored.hit], scored.missed)):
        for want in wanted:
            key = (names[want.call], want.rule, round(want.start, 2))
            hits, misses = out.get(key, (0, 0))
            out[key] = (hits + (index == 0), misses + (index == 1))
    return out


@dataclass(frozen=True)
class Comparison:
    """A run against a run at low load, over what both were asked for."""

    recall: float | None
    """Of the run."""
    recall_low_load: float | None
    """What the same calls, as often as they were played here, would give at low load."""
    lost: int
    """Found whenever it was asked for at low load, and missed here: times."""
    lost_what: tuple[str, ...]


def compared(run: dict[Key, tuple[int, int]], reference: dict[Key, tuple[int, int]]) -> Comparison:
    """Recall of ``run`` beside that of ``reference`` over the same mix of calls."""
    hits = total = 0
    expected = 0.0
    lost: list[str] = []
    for key, (hit, missed) in run.items():
        if key not in reference:
            continue
        before_hit, before_missed = reference[key]
        total += hit + missed
        hits += hit
        expected += (hit + missed) * before_hit / (before_hit + before_missed)
        if not before_missed and missed:
            lost += [f"{key[0]}: {key[1]} at {key[2]:.1f} s"] * missed
    if not total:
        return Comparison(None, None, 0, ())
    return Comparison(hits / total, expected / total, len(lost), tuple(sorted(lost)))


def turns_without_final(measured: Measured, spoken: bool) -> int:
    """Scripted turns of admitted calls that no final overlaps; ``spoken``: none with any text."""
    missing = 0
    for call in measured.scripted():
        finals = [f for _, f in measured.socket.finals.get(call.name, []) if f.text or not spoken]
        for turn in call.turns:
            start, end = turn.start * 1000, turn.end * 1000
            if not any(f.role == turn.role and f.start_ms < end and f.end_ms > start for f in finals):
                missing += 1
    return missing


def undelivered(measured: Measured) -> list[str]:
    """Alerts in the store that never came on the socket."""
    told = {alert.id for alerts in measured.socket.alerts.values() for _, alert in alerts}
    return sorted(set(measured.stored_alerts) - told)


def percentiles(delays: Sequence[Delay]) -> dict[str, float | None]:
    """p50, p95, p99 and the largest, seconds (nearest rank)."""
    values = sorted(d.seconds for d in delays)
    out = {f"p{p}_s": percentile(values, p / 100) for p in (50, 95, 99)}
    out["max_s"] = values[-1] if values else None
    return {key: rounded(value) for key, value in out.items()}


def rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def summary(measured: Measured, reference: dict[Key, tuple[int, int]] | None) -> dict[str, object]:
    """All figures of one run; see README for what each means."""
    report = measured.report
    scored = measured.score()
    everything = measured.score(families=("",))
    call_s = sum(call.seconds for call in measured.admitted)
    speech_s = sum(t.end - t.start for call in measured.scripted() for t in call.turns)
    wall_s = report.ended_s - report.begun_s
    cpu_s = spent(measured.samples, report.begun_s, report.ended_s)
    finals = percentiles(final_delays(measured))
    names = {call.call_id: call.name for call in report.calls}
    out: dict[str, object] = {
        **percentiles(alert_delays(measured, scored)),
        "all_rules_p95_s": percentiles(alert_delays(measured, everything))["p95_s"],
        **{f"final_{key}": value for key, value in finals.items()},
        "alerts": len(scored.hit),
        "expected": len(scored.hit) + len(scored.missed),
        "recall": rounded(scored.recall),
        "precision": rounded(scored.precision),
        "undelivered": len(undelivered(measured)),
        "withdrawn": len(measured.socket.withdrawn),
        "slowest": slowest(measured, scored),
        "missed": sorted({f"{names[want.call]} {want.start:.1f} {want.rule}" for want in scored.missed}),
        "turns": sum(len(call.turns) for call in measured.scripted()),
        "turns_without_final": turns_without_final(measured, spoken=False),
        "turns_without_text": turns_without_final(measured, spoken=True),
        "gap_ms": sum(measured.gap_ms.values()),
        "refused": sum(call.outcome == "refused" for call in report.calls),
        "broken": sum(call.outcome == "broken" for call in report.calls),
        "broken_what": sorted(
            {f"{call.code}: {call.message}" for call in report.calls if call.outcome == "broken"}
        ),
        "worst_step": max((step for _, step, _ in measured.socket.steps), default=0),
        "call_seconds": round(call_s, 1),
        "speech_per_call_second": rounded(speech_s / call_s if call_s else None),
        "server_cpu_s_per_call_second": rounded(cpu_s / call_s if call_s else None, 4),
        "server_cores": rounded(cpu_s / wall_s if wall_s else None, 2),
        "model_s_per_speech_second": rounded(model_share(measured.counters), 4),
        "model_by_kind": model_by_kind(measured.counters),
        "server_rss_mib_max": round(max((s.rss_mib for s in measured.samples), default=0.0)),
        "load_cores": rounded(report.cpu_s / wall_s if wall_s else None),
        "supervisor_cores": rounded(measured.supervisor_cpu_s / wall_s if wall_s else None),
        "load_worst_lag_s": rounded(report.worst_lag_s),
        "valid": report.valid,
    }
    if reference is not None:
        beside = compared(outcome_of(measured, scored), reference)
        out |= {
            "recall_compared": rounded(beside.recall),
            "recall_low_load": rounded(beside.recall_low_load),
            "lost": beside.lost,
            "lost_what": list(beside.lost_what),
        }
    return out


def model_share(counters: dict[str, float]) -> float | None:
    """Worker seconds in batches, partials and retries included, per second of speech sent as finals."""
    speech = counters.get("duting_speech_seconds_total", 0.0)
    return counters.get("duting_batch_seconds_sum", 0.0) / speech if speech else None


def model_by_kind(counters: dict[str, float]) -> dict[str, dict[str, float]]:
    """By kind of job: worker seconds, and how many jobs, most time first."""
    seconds, jobs = (
        {
            name.removeprefix(prefix): value
            for name, value in counters.items()
            if name.startswith(prefix) and value
        }
        for prefix in ("duting_model_seconds_total:", "duting_model_jobs_total:")
    )
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return {kind: {"seconds": round(s, 1), "jobs": round(jobs.get(kind, 0))} for kind, s in ordered}


def spent(samples: Sequence[Sample], begun_s: float, ended_s: float) -> float:
    """CPU seconds of the server between two clocks, from the samples nearest to them inside."""
    inside = [s for s in samples if begun_s <= s.at_s <= ended_s]
    if len(inside) < 2:
        return 0.0
    share = (ended_s - begun_s) / (inside[-1].at_s - inside[0].at_s)
    return (inside[-1].cpu_s - inside[0].cpu_s) * share


@dataclass(frozen=True)
class Stay:
    """How long the service was on a step of degradation."""

    step: int
    name: str
    entered_s: float
    """Since the load began."""
    left_s: float | None
    """``None``: until the end of the run."""


def stays(steps: Sequence[tuple[float, int, str]], begun_s: float) -> list[Stay]:
    """Every step that was entered, with when it was left. The first one, 0, needs no event."""
    # The same step may be told twice (a browser that comes is told where things stand).
    changes = [(0.0, 0, "all")]
    for at, step, name in steps:
        if step != changes[-1][1]:
            changes.append((at - begun_s, step, name))
    ends = [at for at, _, _ in changes[1:]] + [None]
    return [Stay(step, name, at, end) for (at, step, name), end in zip(changes, ends, strict=True)]


def in_order(visited: Sequence[Stay]) -> bool:
    """Whether every change was to the step above or below."""
    return all(abs(a.step - b.step) == 1 for a, b in itertools.pairwise(visited))


def recovery_s(visited: Sequence[Stay], load_end_s: float) -> float | None:
    """Seconds from the end of the load until step 0 for good; 0 if it was there; ``None``: never."""
    last = visited[-1]
    return max(0.0, last.entered_s - load_end_s) if last.step == 0 else None


def slope(times: Sequence[float], values: Sequence[float]) -> float | None:
    """Least-squares slope, units per second; ``None`` for fewer than two moments."""
    n = len(times)
    if n < 2:
        return None
    mean_t, mean_v = sum(times) / n, sum(values) / n
    spread = sum((t - mean_t) ** 2 for t in times)
    if not spread:
        return None
    return sum((t - mean_t) * (v - mean_v) for t, v in zip(times, values, strict=True)) / spread


def fifths(delays: Sequence[Delay], begun_s: float, seconds: float) -> list[list[Delay]]:
    """The delays by fifth of the run in which the phrase ended."""
    out: list[list[Delay]] = [[] for _ in range(5)]
    for delay in delays:
        out[min(4, max(0, int(5 * (delay.at_s - begun_s) / seconds)))].append(delay)
    return out
