"""``emotion``: somebody feels so, at such a level, for so long; or it gets worse.

Judged over the ``Emotion`` of each utterance, as voice and words tell it. ``seconds`` go from the
begin of the first utterance that is as asked for to the end of the last, with none in between that is not.
Told once until one is not. On a mixed channel whoever it is counts.
"""

from __future__ import annotations

from typing import Final, cast, get_args

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.combinators import All, Any, By, Own
from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Moment, Scene, Watch
from streams.events import CallEvent, Channel, Emotion, Feeling

_NAMES: Final[dict[Feeling, str]] = {
    "calm": "平静",
    "pleased": "满意",
    "anxious": "焦急",
    "sad": "难过",
    "displeased": "不满",
    "angry": "愤怒",
}
NAMES: Final = ("emotion",)
_SIDES: Final = ("agent", "customer")
_PAUSE_MS: Final = 30_000
"""Who says nothing for longer has calmed down, or not; nobody knows."""


class EmotionState(Struct, frozen=True, array_like=True):
    since_ms: int | None = None
    """Begin of the first utterance that was as asked for."""
    end_ms: int = 0
    """End of the last."""
    told: bool = False


class Feels(Watch, frozen=True, kw_only=True):
    of: Channel
    feelings: tuple[Feeling, ...]
    """None named: any."""
    level: float | None
    trend: float | None
    lasts_ms: int

    state_type = EmotionState

    def fresh(self) -> EmotionState:
        return EmotionState()

    def on_event(
        self, state: EmotionState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[EmotionState, Moment | None]:
        if not isinstance(event, Emotion) or event.role not in (self.of, "unknown"):
            return state, None
        if not self._is(event):
            return EmotionState(), None
        since = state.since_ms
        if since is None or event.media_start_ms - state.end_ms > _PAUSE_MS:
            state, since = EmotionState(event.media_start_ms), event.media_start_ms
        state = replace(state, end_ms=max(state.end_ms, event.media_end_ms))
        if state.told or state.end_ms - since < self.lasts_ms:
            return state, None
        told = Moment(
            start_ms=since,
            end_ms=state.end_ms,
            role=event.role,
            text=f"{_NAMES[event.feeling]} {event.feeling} {event.level:.1f}",
            anchor_ms=since,
            utterance_id=event.utterance_id,
        )
        return replace(state, told=True), told

    def _is(self, event: Emotion) -> bool:
        return (
            (not self.feelings or event.feeling in self.feelings)
            and (self.level is None or event.level >= self.level)
            and (self.trend is None or event.trend >= self.trend)
        )


def is_alone(condition: Condition) -> bool:
    """Whether a feeling by itself can make it true."""
    match condition:
        case By(_, inner) | Own(inner):
            return is_alone(inner)
        case Any(parts, _):
            return any(is_alone(part) for part in parts)
        case All(parts, _):
            return all(is_alone(part) for part in parts)
        case _:
            return isinstance(condition, Feels)


def build(form: Form, book: Book) -> Condition | None:
    asked = ("feeling", "level", "trend")
    fields = form.fields("emotion", ("of", *asked, "seconds"), ("of",))
    if fields is None or "of" not in fields:
        return None
    if not any(name in fields for name in asked):
        form.problem("expected one or more of feeling, level, trend in emotion, came none")
    of = fields["of"].choice("of", _SIDES)
    feelings = [
        cast(Feeling, choice)
        for item in (fields["feeling"].items("feeling") if "feeling" in fields else ())
        if (choice := item.choice("a feeling", get_args(Feeling))) is not None
    ]
    level = fields["level"].number("level", 0, 10) if "level" in fields else None
    trend = fields["trend"].number("trend", 0.1, 10) if "trend" in fields else None
    seconds = fields["seconds"].number("seconds", 0, 600) if "seconds" in fields else 0
    if of is None or seconds is None:
        return None
    return book.watch(
        lambda number: Feels(
            number=number,
            of=cast(Channel, of),
            feelings=tuple(feelings),
            level=level,
            trend=trend,
            lasts_ms=round(seconds * 1000),
        )
    )
