"""Who has begun to speak, and what of it is not transcribed yet. Immutable."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.model import Role
from detectors.rules.pending import Pending, owes, spoke, transcribed
from streams.events import Channel, SpeechStarted, SpeechStopped, Transcript


class Speech(Struct, frozen=True, array_like=True):
    pending: Pending = ()
    first: dict[str, int] = {}
    """By channel, when the first of it began that held words."""

    def edge(self, event: SpeechStarted | SpeechStopped) -> Speech:
        return replace(self, pending=spoke(self.pending, event))

    def transcribed(self, transcript: Transcript) -> Speech:
        """A final transcript; those of a channel come in order and leave nothing out."""
        first = self.first
        if transcript.text and transcript.role not in first:
            # The first sound of speech is when it was heard to begin; a transcript reaches back before it.
            heard = (
                s.start_ms
                for s in self.pending
                if s.channel == transcript.role and s.start_ms < transcript.end_ms
            )
            first = {**first, transcript.role: next(heard, transcript.start_ms)}
        return Speech(transcribed(self.pending, transcript), first)

    def is_owed(self, role: Role, before_ms: int) -> bool:
        """Whether something that this side began to say before then is still being said or transcribed."""
        return owes(self.pending, before_ms, lambda channel: _is(channel, role))

    def first_of(self, role: Role) -> int | None:
        """When this side first spoke: by its words, else by a sound that may hold some."""
        times = [s.start_ms for s in self.pending if _is(s.channel, role)]
        times += [at for channel, at in self.first.items() if _is(channel, role)]
        return min(times, default=None)

    def firsts(self) -> tuple[int | None, ...]:
        return self.first_of("agent"), self.first_of("customer"), self.first_of("any")

    def anew(self) -> Speech:
        """As if nobody had said anything yet; what is being said goes on."""
        return replace(self, first={})


def _is(channel: Channel | str, role: Role) -> bool:
    return role == "any" or channel in (role, "unknown")
