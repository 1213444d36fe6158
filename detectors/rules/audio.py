"""``audio``: something is wrong with the call's sound: ``silent``, ``dead``, ``clipping``, ``noise``.

For those who run the service: what these are, and how they are measured, is told by ``streams.events`` and
``streams.quality``.
"""

from __future__ import annotations

from typing import Any, Final, cast, get_args

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Moment, Scene, Watch
from detectors.rules.shapes import Schema, choice, some
from streams.events import CallEvent, Emotion, Match, Trouble, TroubleKind

NAMES: Final = ("audio",)
KINDS: Final = get_args(TroubleKind)
SCHEMA: Final[Schema] = some(
    choice(KINDS),
    "声音有问题：没有音频、一路无声、削波、噪声。 The sound is wrong: no audio, a channel without any, too "
    "loud, noise where speech should be.",
)


class Audio(Watch, frozen=True, kw_only=True):
    kinds: tuple[TroubleKind, ...]

    def on_event(self, state: Any, event: CallEvent | Emotion, scene: Scene) -> tuple[Any, Moment | None]:
        if not isinstance(event, Trouble) or not event.present or event.kind not in self.kinds:
            return state, None
        how: Match = "timer" if event.kind == "silent" else "signal"
        since = min(event.since_ms, event.media_ms)
        return state, Moment(since, event.media_ms, event.channel, event.measured, how)


def build(form: Form, book: Book) -> Condition | None:
    items = form.items("audio")
    kinds = [kind for item in items if (kind := item.choice("audio", KINDS)) is not None]
    if len(kinds) < len(items):
        return None
    if not kinds:
        form.problem(f"expected one or more of {', '.join(KINDS)} in audio, came none")
        return None
    return book.watch(
        lambda number: Audio(number=number, kinds=cast("tuple[TroubleKind, ...]", tuple(kinds)))
    )
