"""What is told and not stored, as the next of its kind replaces it: partial texts, who speaks, health."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import UNSET, structs

from app.store.texts import clean_event
from streams.events import (
    CallEnded,
    CallStarted,
    EventType,
    Health,
    OutletEvent,
    Published,
    Speaking,
    SpeechStarted,
    SpeechStopped,
    Text,
    Transcript,
)


class Passing:
    """Holds the present state that no row holds: who speaks in which call, the last health.

    ``of`` is for events of this process, ``learn`` for what others published. May be used by the writer's
    thread and by the loop at once: every change replaces one value.
    """

    def __init__(self) -> None:
        self._speaking: dict[str, Speaking] = {}
        self._mine: dict[str, None] = {}
        """Calls whose speech edges came through this process: what others say of them is older."""
        self.health: Health | None = None
        """The last one that was told; ``None`` before the first."""

    def speaking(self, call_id: str) -> Speaking:
        """Who speaks in a call right now; nobody in a call that is not running."""
        return self._speaking.get(call_id, Speaking())

    def mine(self) -> dict[str, Speaking]:
        """By call: who speaks, as far as this process is the one that knows it first."""
        return {call_id: self._speaking[call_id] for call_id in list(self._mine) if call_id in self._speaking}

    def of(self, event: OutletEvent, at: str, cursor: int) -> Published | None:
        """What people are told of this event beside what is stored of it; ``None`` for nothing.

        ``cursor`` is that of the last stored event before it.
        """
        event = clean_event(event)  # as in the rows: the same ids, and nothing that no browser can read
        match event:
            case CallStarted():
                self._speaking.setdefault(event.call_id, Speaking())
                self._mine[event.call_id] = None
            case CallEnded():
                self._forget(event.call_id)
            case SpeechStarted() | SpeechStopped() if event.call_id in self._speaking:
                speaking = structs.replace(
                    self.speaking(event.call_id), **{event.channel: isinstance(event, SpeechStarted)}
                )
                self._speaking[event.call_id] = speaking
                self._mine[event.call_id] = None
                return _told(cursor, "call.updated", event.call_id, at, event.media_ms, speaking=speaking)
            case Transcript(final=False):
                text = Text(
                    utterance_id=event.utterance_id,
                    role=event.role,
                    start_ms=event.start_ms,
                    end_ms=event.end_ms,
                    text=event.text,
                    confidence=event.confidence,
                )
                return _told(cursor, "utterance.partial", event.call_id, at, event.media_ms, utterance=text)
            case Health():
                self.health = event
                return _told(cursor, "health", None, at, None, health=event)
            case _:
                pass
        return None

    def learn(self, published: Published) -> None:
        """Take over what another process published. Not to be given edges of a call that has ended."""
        call_id = published.call_id
        if published.type == "health" and published.health is not UNSET:
            self.health = published.health
        elif call_id is None:
            return
        elif published.type == "call.started":
            self._speaking.setdefault(call_id, Speaking())
        elif published.type == "call.ended":
            self._forget(call_id)
        elif published.type == "call.updated" and published.speaking is not UNSET:
            self._speaking[call_id] = published.speaking
            self._mine.pop(call_id, None)

    def restore(self, live: Iterable[str], speaking: Mapping[str, Speaking], health: Health | None) -> None:
        """Begin from what others left: the calls that run, who spoke in them last, the last health."""
        running = set(live)
        for call_id in running.difference(self._mine):
            self._speaking[call_id] = speaking.get(call_id, self.speaking(call_id))
        for call_id in [call_id for call_id in list(self._speaking) if call_id not in running]:
            if call_id not in self._mine:
                self._speaking.pop(call_id, None)
        if self.health is None:
            self.health = health

    def _forget(self, call_id: str) -> None:
        self._speaking.pop(call_id, None)
        self._mine.pop(call_id, None)


def _told(
    cursor: int, kind: EventType, call_id: str | None, at: str, media_ms: int | None, **content: Any
) -> Published:
    return Published(cursor=cursor, type=kind, call_id=call_id, at=at, media_ms=media_ms, **content)
