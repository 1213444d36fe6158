"""What is told and not stored, as the next of its kind replaces it: partial texts, who speaks, health."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, structs

from app.store.calls import Places
from app.store.texts import clean_event
from streams.events import (
    CallEnded,
    CallStarted,
    EventType,
    Health,
    OutletEvent,
    Place,
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
        self._places: dict[str, tuple[int, Place]] = {}
        """By call that runs: whose it is, which decides who is told; and the cursor that said so."""
        self.health: Health | None = None
        """The last one that was told; ``None`` before the first."""

    def speaking(self, call_id: str) -> Speaking:
        """Who speaks in a call right now; nobody in a call that is not running."""
        return self._speaking.get(call_id, Speaking())

    def stored(self, published: Published) -> None:
        """Take note of whose calls are, as the log says; also what others wrote, in any order."""
        call_id = published.call_id
        if call_id is None or published.cursor < self._places.get(call_id, (0,))[0]:
            return
        if published.type == "call.ended":
            self._places.pop(call_id, None)
        elif published.call is not UNSET:
            place = Place(agent=published.call.agent, team=published.call.team)
            self._places[call_id] = (published.cursor, place)

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
                return self._told(
                    cursor, "call.updated", event.call_id, at, event.media_ms, speaking=speaking
                )
            case Transcript(final=False):
                text = Text(
                    utterance_id=event.utterance_id,
                    role=event.role,
                    start_ms=event.start_ms,
                    end_ms=event.end_ms,
                    text=event.text,
                    confidence=event.confidence,
                )
                return self._told(
                    cursor, "utterance.partial", event.call_id, at, event.media_ms, utterance=text
                )
            case Health():
                self.health = event
                return self._told(cursor, "health", None, at, None, health=event)
            case _:
                pass
        return None

    def learn(self, published: Published) -> None:
        """Take over what another process published. Not to be given edges of a call that has ended."""
        self.stored(published)
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

    def restore(self, live: Places, speaking: Mapping[str, Speaking], health: Health | None) -> None:
        """Begin from what others left: the calls that run, who spoke in them last, the last health."""
        running = set(live.places)
        for call_id, (cursor, _) in list(self._places.items()):
            if call_id not in running and cursor <= live.cursor:
                self._places.pop(call_id, None)
        for call_id, place in live.places.items():
            if self._places.get(call_id, (0,))[0] <= live.cursor:
                self._places[call_id] = (live.cursor, place)
        for call_id in running.difference(self._mine):
            self._speaking[call_id] = speaking.get(call_id, self.speaking(call_id))
        for call_id in [call_id for call_id in list(self._speaking) if call_id not in running]:
            if call_id not in self._mine:
                self._speaking.pop(call_id, None)
        if self.health is None:
            self.health = health

    def _told(
        self,
        cursor: int,
        kind: EventType,
        call_id: str | None,
        at: str,
        media_ms: int | None,
        **content: Any,
    ) -> Published:
        # Of a call whose place is not known here (yet) only those hear who see everything.
        known = self._places.get(call_id) if call_id is not None else None
        if known is not None:
            content |= {"agent": known[1].agent, "team": known[1].team}
        return Published(cursor=cursor, type=kind, call_id=call_id, at=at, media_ms=media_ms, **content)

    def _forget(self, call_id: str) -> None:
        self._speaking.pop(call_id, None)
        self._mine.pop(call_id, None)
