"""Plays a call to a panel as it comes live: edges told late, transcripts later, timers in between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from detectors.panel import Panel
from detectors.rules import Pack, parse_pack
from streams.events import (
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    Channel,
    Detection,
    Emotion,
    Finding,
    Hold,
    Progress,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)

CALL = CallInfo(call_id="c")
ONSET_MS, HANGOVER_MS, TICK_MS = 350, 520, 100


@dataclass(frozen=True)
class Told:
    """Something that happened, and the media time that the call had reached when it was told."""

    at_ms: int
    event: CallEvent | Emotion


@dataclass(frozen=True)
class Saying:
    """Something that the panel said, and when."""

    at_ms: int
    finding: Finding


def pack(when: str, role: str = "agent", more: str = "") -> Pack:
    return parse_pack(
        f'id: t\nversion: "1"\nrules:\n  - {{id: t.rule, name: {{zh: 规, en: R}}, severity: warning, '
        f"role: {role}, when: {when}{more}}}\n",
        "t.yaml",
    )


def said(
    text: str, start: int, end: int, role: Channel = "agent", late: int = 1500, final: bool = True
) -> list[Told]:
    """An utterance: its edges, and its transcript ``late`` milliseconds after its end."""
    return [*heard(start, end, role), wrote(text, start, end, role, late, final)]


def heard(start: int, end: int, role: Channel = "agent") -> list[Told]:
    return [
        Told(start + ONSET_MS, SpeechStarted(call_id="c", channel=role, media_ms=start)),
        Told(end + HANGOVER_MS, SpeechStopped(call_id="c", channel=role, media_ms=end)),
    ]


def wrote(
    text: str, start: int, end: int, role: Channel = "agent", late: int = 1500, final: bool = True
) -> Told:
    return Told(
        end + late,
        Transcript(
            call_id="c", utterance_id=f"c:{role}:{start}", role=role, start_ms=start, end_ms=end, text=text,
            final=final,
        ),
    )  # fmt: skip


def hold(
    start: int, end: int | None = None, source: Literal["telephony", "music"] = "telephony"
) -> list[Told]:
    """On hold; music is told four seconds late, its end two."""
    late = (4000, 2000) if source == "music" else (0, 0)
    begun = Hold(call_id="c", media_ms=start, held=True, source=source)
    over = [Hold(call_id="c", media_ms=end, held=False, source=source)] if end is not None else []
    return [Told(e.media_ms + by, e) for e, by in zip([begun, *over], late, strict=False)]


def ended(at: int, by: Channel | None = None) -> list[Told]:
    return [Told(at, CallEnded(call_id="c", media_ms=at, by=by))]


def in_order(*parts: Iterable[Told]) -> list[Told]:
    return sorted((told for part in parts for told in part), key=lambda told: told.at_ms)


def stream(rules: Pack, *parts: Iterable[Told], until: int = 0, call: CallInfo = CALL) -> list[Saying]:
    """Everything the panel says, with the media time at which it says so."""
    panel = Panel(call, rules)
    out = [Saying(0, finding) for finding in panel.on_event(CallStarted(call=call))]
    events = in_order(*parts)
    last = -(-max([until, *(told.at_ms for told in events)]) // TICK_MS) * TICK_MS
    clock = 0
    while clock <= last:
        while events and events[0].at_ms <= clock:
            told = events.pop(0)
            out += [Saying(told.at_ms, finding) for finding in panel.on_event(told.event)]
        for _ in range(100):
            wake = panel.wake_at()
            if wake is None or wake > clock:
                break
            out += [Saying(clock, finding) for finding in panel.on_wake(clock)]
        wake = panel.wake_at()
        due = min([last + 1, *(told.at_ms for told in events[:1]), *([wake] if wake is not None else [])])
        clock = max(clock + TICK_MS, -(-due // TICK_MS) * TICK_MS)
    return out


def found(rules: Pack, *parts: Iterable[Told], until: int = 0, call: CallInfo = CALL) -> list[Detection]:
    """What it raises."""
    return [
        told.finding
        for told in stream(rules, *parts, until=until, call=call)
        if isinstance(told.finding, Detection)
    ]


def when(rules: Pack, *parts: Iterable[Told], until: int = 0) -> list[int]:
    """Media times that the call had reached when something was raised."""
    return [told.at_ms for told in stream(rules, *parts, until=until) if isinstance(told.finding, Detection)]


def progress(rules: Pack, *parts: Iterable[Told], until: int = 0) -> list[Progress]:
    return [told.finding for told in stream(rules, *parts, until=until) if isinstance(told.finding, Progress)]
