"""Conditions inside those with state: whose words they judge, and when in the call they came true."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from detectors.rules.combinators import All, Any, By, Framed, Not, Own
from detectors.rules.form import Form
from detectors.rules.model import Condition, Moment, Rule, Scene, Turn
from streams.events import Channel

Inner = Callable[[Form], Condition | None]
"""Builds the condition that stands in a piece of a pack; the loader hands it to operators that hold some."""


def may_say(condition: Condition, rule: Rule, channel: Channel) -> bool:
    """Whether what is said on a channel can make an ``own`` condition true."""
    match condition:
        case By(role, _):
            return channel in (role, "unknown")
        case Any(parts, _) | All(parts, _):
            return any(may_say(part, rule, channel) for part in parts)
        case Framed(inner=inner):
            return may_say(inner, rule, channel)
        case _:
            return rule.concerns(channel)


def speaker(condition: Condition, rule: Rule) -> Channel:
    """Whose doing an ``own`` condition is; ``unknown`` where both sides can make it true."""
    sides: list[Channel] = [side for side in ("agent", "customer") if may_say(condition, rule, side)]
    return sides[0] if len(sides) == 1 else "unknown"


def phrases(condition: Condition) -> tuple[str, ...]:
    """What it looks for, in words, as far as it says so."""
    match condition:
        case By(_, inner) | Own(inner) | Not(inner, _):
            return phrases(inner)
        case Framed(inner=inner):
            return phrases(inner)
        case Any(parts, _) | All(parts, _):
            return tuple(dict.fromkeys(text for part in parts for text in phrases(part)))
        case _:
            texts = getattr(condition, "texts", ())
            return texts if isinstance(texts, tuple) else ()


def seen(condition: Condition, scene: Scene, turn: Turn) -> Moment | None:
    """When and where the condition came true in this turn, in media time; ``None`` if it did not."""
    found = condition.find(scene, turn)
    if found is None:
        return None
    transcript = turn.transcript
    anchor = transcript.start_ms
    utterance = transcript.utterance_id if turn.is_speech else None
    if found.moment is not None:
        if found.moment.anchor_ms is not None:
            return found.moment
        if not turn.is_speech:
            anchor = found.moment.start_ms
        return replace(found.moment, anchor_ms=anchor, utterance_id=utterance)
    spans = found.spans if turn.is_speech else ()
    start = transcript.time_of(spans[0][0]) if spans else transcript.start_ms
    end = transcript.time_of(max(b for _, b in spans)) if spans else transcript.end_ms
    return Moment(
        start_ms=start,
        end_ms=max(start, end),
        role=transcript.role,
        text=transcript.text,
        how=found.how,
        expected=found.expected,
        spans=spans,
        confidence=found.confidence,
        anchor_ms=anchor,
        utterance_id=utterance,
    )


def order(moment: Moment) -> tuple[int, int, int]:
    """Sorts moments by media time, those of one utterance by their place in it."""
    return moment.start_ms, moment.spans[0][0] if moment.spans else 0, moment.end_ms
