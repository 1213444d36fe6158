"""Detections become what people see: an Alert, a Marker, a Hint. Pure; ids follow from the content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from msgspec.structs import replace

from streams.events import Alert, Detection, Evidence, Hint, Latency, Marker, RuleCard, ShadowHit


def identity(kind: str, detection: Detection) -> str:
    """The id of what ``detection`` raises: the same call replayed gives the same id, so that it collapses.

    Derived from call, rule, role and the media time of the utterance (or of the timer's arming), not from the
    phrase's own time, which a second reading of the same audio may move by a few milliseconds.
    """
    key = "\x1f".join((kind, detection.call_id, detection.rule_id, detection.role, str(detection.anchor_ms)))
    return f"{kind}-{hashlib.blake2b(key.encode(), digest_size=10).hexdigest()}"


def redacted(evidence: Evidence, redact: Callable[[str], str]) -> Evidence:
    """The same evidence with personal data masked. ``redact`` keeps lengths, so that spans stay true."""
    text = redact(evidence.text)
    if evidence.spans:
        matched = tuple(text[start:stop] for start, stop in evidence.spans)
    else:
        matched = tuple(redact(m) for m in evidence.matched)
    return replace(evidence, text=text, matched=matched)


def raised(
    detection: Detection, card: RuleCard, latency: Latency, redact: Callable[[str], str]
) -> list[Alert | Marker | Hint | ShadowHit]:
    """What the rule's actions ask for, the alert first; of a rule on trial only that it fired."""
    out: list[Alert | Marker | Hint | ShadowHit] = []
    if detection.shadow:
        hit = ShadowHit(
            id=identity("shadow", detection),
            call_id=detection.call_id,
            rule_id=card.id,
            rule_version=card.version,
            role=detection.role,
            media_start_ms=detection.media_start_ms,
            media_end_ms=detection.media_end_ms,
            utterance_id=detection.utterance_id,
            withdrawn=detection.withdrawn,
        )
        return [hit]
    alert_id = identity("alert", detection) if "alert" in card.actions else None
    if alert_id is not None:
        out.append(
            Alert(
                id=alert_id,
                call_id=detection.call_id,
                rule_id=card.id,
                rule_version=card.version,
                name=card.name,
                severity=card.severity,
                role=detection.role,
                media_start_ms=detection.media_start_ms,
                media_end_ms=detection.media_end_ms,
                evidence=redacted(detection.evidence, redact),
                utterance_id=detection.utterance_id,
                state="withdrawn" if detection.withdrawn else "open",
                latency_ms=latency,
                group=card.group,
                score=card.score,
                advice=card.advice,
            )
        )
    if detection.withdrawn:
        return out
    if "marker" in card.actions:
        out.append(
            Marker(
                id=identity("marker", detection),
                call_id=detection.call_id,
                rule_id=card.id,
                severity=card.severity,
                role=detection.role,
                label=card.name,
                media_start_ms=detection.media_start_ms,
                media_end_ms=detection.media_end_ms,
                alert_id=alert_id,
                rule_version=card.version,
            )
        )
    if "hint" in card.actions and card.hint:
        out.append(
            Hint(
                id=identity("hint", detection),
                call_id=detection.call_id,
                rule_id=card.id,
                text=card.hint,
                media_ms=detection.media_end_ms,
                severity=card.severity,
            )
        )
    return out
