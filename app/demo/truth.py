"""Scripted calls with their truth: what was said when, and which rules should have fired.

``NAME.ogg`` beside ``NAME.json``: a list of turns ``{start, end, role, text, emotion, rules, spans}`` in
seconds; ``spans`` says where a rule's phrase itself lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from app.errors import MediaError
from streams.events import Alert, Channel

CALLS = Path(__file__).parent / "calls"
AUDIO_SUFFIXES = (".ogg", ".wav", ".flac")
SCORED = ("redline.", "signal.")
"""Rule families that the published recall and precision speak of."""


class Span(msgspec.Struct, frozen=True):
    rule: str
    start: float
    end: float


class Turn(msgspec.Struct, frozen=True):
    start: float
    end: float
    role: Channel
    text: str
    emotion: str = "neutral"
    rules: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class ScriptedCall:
    name: str
    audio: Path
    turns: tuple[Turn, ...]

    @property
    def expected(self) -> tuple[Expected, ...]:
        """Every rule of every turn that asks for one, once."""
        out = []
        for turn in self.turns:
            for rule in turn.rules:
                span = next((s for s in turn.spans if s.rule == rule), None)
                end = span.end if span else turn.end
                out.append(Expected(self.name, rule, turn.start, turn.end, end))
        return tuple(out)


@dataclass(frozen=True)
class Expected:
    """One alert that the truth asks for."""

    call: str
    rule: str
    start: float
    end: float
    phrase_end: float
    """Latency counts from here."""


def load(folder: Path) -> list[ScriptedCall]:
    """All scripted calls of ``folder``, by name. Raises ``MediaError`` naming the file that is wrong."""
    calls = []
    for truth in sorted(folder.glob("*.json")):
        audio = next((a for s in AUDIO_SUFFIXES if (a := truth.with_suffix(s)).exists()), None)
        if audio is None:
            raise MediaError(f"{truth}: expected the audio beside it ({', '.join(AUDIO_SUFFIXES)})")
        try:
            turns = msgspec.json.decode(truth.read_bytes(), type=tuple[Turn, ...])
        except msgspec.DecodeError as error:
            raise MediaError(f"{truth}: not a call's truth: {error}") from None
        calls.append(ScriptedCall(truth.stem, audio, turns))
    if not calls:
        raise MediaError(f"{folder}: expected scripted calls (NAME.ogg beside NAME.json), found none")
    return calls


@dataclass
class Score:
    """Alerts against truth."""

    hit: list[tuple[Expected, Alert]] = field(default_factory=list)
    missed: list[Expected] = field(default_factory=list)
    unexpected: list[tuple[str, Alert]] = field(default_factory=list)
    """(call name, alert) that no turn asked for."""
    repeated: int = 0
    """Further alerts for a turn that was hit already."""

    @property
    def recall(self) -> float | None:
        wanted = len(self.hit) + len(self.missed)
        return len(self.hit) / wanted if wanted else None

    @property
    def precision(self) -> float | None:
        raised = len(self.hit) + len(self.unexpected)
        return len(self.hit) / raised if raised else None


SLACK_S = 2.5
"""A phrase may be placed this far outside its turn: utterances are cut by pauses, turns by the script."""


def score(
    calls: Iterable[ScriptedCall],
    alerts: dict[str, Sequence[Alert]],
    families: tuple[str, ...] = SCORED,
) -> Score:
    """Match ``alerts`` (by call name) with the truth, for rules whose id starts with one of ``families``.

    An alert hits a turn when it names a rule the turn asks for and lies within it (± ``SLACK_S``). Rules with
    a cooldown fire once for several turns: a turn is also hit when the same rule was raised for an earlier
    turn of the call no longer than 30 s before.
    """
    out = Score()
    for call in calls:
        expected = [e for e in call.expected if e.rule.startswith(families)]
        raised = [a for a in alerts.get(call.name, ()) if a.rule_id.startswith(families)]
        used: set[str] = set()
        for want in expected:
            found = next((a for a in raised if a.id not in used and lies_in(a, want)), None)
            if found is not None:
                used.add(found.id)
                out.hit.append((want, found))
            elif any(lies_in(a, want) for a in raised) or _cooling(want, out.hit):
                out.repeated += 1
            else:
                out.missed.append(want)
        for alert in raised:
            if alert.id in used:
                continue
            if any(lies_in(alert, want) for want in expected):
                out.repeated += 1
            else:
                out.unexpected.append((call.name, alert))
    return out


def lies_in(alert: Alert, want: Expected) -> bool:
    start, end = alert.media_start_ms / 1000, alert.media_end_ms / 1000
    return alert.rule_id == want.rule and start <= want.end + SLACK_S and end >= want.start - SLACK_S


def _cooling(want: Expected, hits: list[tuple[Expected, Alert]]) -> bool:
    return any(
        e.call == want.call and e.rule == want.rule and 0 <= want.start - e.start <= 30 for e, _ in hits
    )
