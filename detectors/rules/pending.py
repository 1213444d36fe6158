"""Speech that has been heard and whose words are not known yet: what a watch waits for before it says that
something was left unsaid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from streams.events import CallEvent, Channel, Emotion, SpeechStarted, SpeechStopped, Transcript

START_LATE_MS: Final = 500
"""The start of speech is told up to so much media time after it: it must be long enough to be speech."""
STOP_LATE_MS: Final = 600
"""Its end is told so much later: a pause must be long enough to be an end."""
_SLACK_MS: Final = 300
"""A transcript that ends so shortly before the speech does is the last one of it."""
_MOST: Final = 32


class Stretch(Struct, frozen=True, array_like=True):
    """Speech of one channel, as far as no transcript covers it."""

    channel: Channel
    start_ms: int
    stop_ms: int | None = None
    """``None``: it goes on."""


Pending = tuple[Stretch, ...]


def spoke(pending: Pending, event: CallEvent | Emotion) -> Pending:
    """What is pending after an edge of speech; other events change nothing."""
    if isinstance(event, SpeechStarted):
        if any(s.channel == event.channel and s.stop_ms is None for s in pending):
            return pending
        return (*pending, Stretch(event.channel, event.media_ms))[-_MOST:]
    if isinstance(event, SpeechStopped):
        return tuple(
            replace(s, stop_ms=max(s.start_ms, event.media_ms))
            if s.channel == event.channel and s.stop_ms is None
            else s
            for s in pending
        )
    return pending


def transcribed(pending: Pending, transcript: Transcript) -> Pending:
    """What is pending after a final transcript; those of one channel come in order."""
    if not transcript.final:
        return pending
    end = transcript.end_ms
    left: list[Stretch] = []
    for stretch in pending:
        if stretch.channel != transcript.role or end <= stretch.start_ms:
            left.append(stretch)
        elif stretch.stop_ms is None or stretch.stop_ms > end + _SLACK_MS:
            left.append(replace(stretch, start_ms=end))
    return tuple(left)


def owes(pending: Pending, before_ms: int, concerns: Callable[[Channel], bool]) -> bool:
    """Whether something that one of these channels began to say before ``before_ms`` is not known yet."""
    return any(s.start_ms < before_ms and concerns(s.channel) for s in pending)
