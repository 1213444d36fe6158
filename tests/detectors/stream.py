"""What the tests of operators share: a pack of one rule, and a call's events fed to its panel."""

from __future__ import annotations

import msgspec
import pytest

from detectors.panel import Panel
from detectors.rules import Pack, PackError, parse_pack
from streams.events import (
    CallEvent,
    CallInfo,
    CallStarted,
    CallUpdated,
    Channel,
    Detection,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)

CALL = CallInfo(call_id="c")


def pack(when: str, role: str = "agent", more: str = "") -> Pack:
    """A pack of the one rule ``t.rule``; ``more`` begins with a comma."""
    return parse_pack(
        f'id: t\nversion: "1"\nrules:\n  - {{id: t.rule, name: {{zh: 规, en: R}}, severity: warning, '
        f"role: {role}, when: {when}{more}}}\n",
        "t.yaml",
    )


def problems(when: str) -> list[str]:
    """What is wrong with a condition, line and column first."""
    with pytest.raises(PackError) as refused:
        pack(when)
    return [str(problem) for problem in refused.value.problems]


def said(
    text: str,
    role: Channel = "agent",
    start: int = 1000,
    end: int | None = None,
    final: bool = True,
    confidence: float | None = None,
) -> Transcript:
    """An utterance of 100 ms a character where no end is given."""
    return Transcript(
        call_id="c",
        utterance_id=f"c:{role}:{start}",
        role=role,
        start_ms=start,
        end_ms=start + 100 * len(text) if end is None else end,
        text=text,
        final=final,
        confidence=confidence,
    )


def speech(start: int, end: int, role: Channel = "agent") -> tuple[SpeechStarted, SpeechStopped]:
    return (
        SpeechStarted(call_id="c", channel=role, media_ms=start),
        SpeechStopped(call_id="c", channel=role, media_ms=end),
    )


def known(media_ms: int | None = None, **fields: object) -> CallStarted | CallUpdated:
    """The call's start, or with ``media_ms`` an update, with what the telephony knows."""
    call = msgspec.structs.replace(CALL, **fields)
    return CallStarted(call=call) if media_ms is None else CallUpdated(call=call, media_ms=media_ms)


def heard(rules: Pack, *events: CallEvent) -> list[Detection]:
    """What the panel raises; it is woken where it asks to be, between events, and restored on the way."""
    panel = Panel(CALL, rules)
    found: list[Detection] = []
    for event in events:
        wake = panel.wake_at()
        if wake is not None and not isinstance(event, Transcript) and wake <= event.media_ms:
            found += [d for d in panel.on_wake(wake) if isinstance(d, Detection)]
        found += [d for d in panel.on_event(event) if isinstance(d, Detection)]
        snapshot, panel = panel.snapshot(), Panel(CALL, rules)
        panel.restore(snapshot)
    return found


def matched(detection: Detection) -> tuple[str, ...]:
    """What was heard, read off the spans: they must say the same as ``matched``."""
    evidence = detection.evidence
    assert tuple(evidence.text[a:b] for a, b in evidence.spans) == evidence.matched
    return evidence.matched
