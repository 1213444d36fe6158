"""What agent and supervisor tell each other while a call runs: whispers, and what a hint was worth.

Part of ``streams.events``; times that end in ``_ms`` are media time, others are wall clock, RFC 3339, UTC.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

Worth = Literal["useful", "not_useful", "dismissed"]
"""``dismissed``: put away without a judgement; one may still follow. A judgement stands."""

WHISPER_LENGTH: Final = 500
"""Characters (code points) at most: it is read while somebody else speaks."""


class HintAnswer(Struct, frozen=True, kw_only=True, tag=True):
    """What the agent said of a hint. Given twice it holds once; see ``stands``."""

    hint_id: str
    call_id: str
    rule_id: str
    media_ms: int
    """Of the hint."""
    answer: Worth
    by: str
    """Account."""


class Whisper(Struct, frozen=True, kw_only=True, tag=True):
    """To the agent of a running call, redacted. Given twice with its id it holds once."""

    id: str
    call_id: str
    text: str
    by: str
    """Account."""
    media_ms: int
    to: str | None = None
    """The agent whose call it was at that moment: who has the call later is not meant. Set where it is
    stored."""
    sent_at: str | None = None
    """Set where it is stored."""
    seen_at: str | None = None
    """When it first stood on the agent's screen; ``None``: not yet."""
    confirmed_at: str | None = None
    """When the agent said that it was read; ``None``: not yet."""


class WhisperSeen(Struct, frozen=True, kw_only=True, tag=True):
    """The agent's desk shows a whisper, or (``confirmed``) the agent has read it. What is so already tells
    nobody anything."""

    whisper_id: str
    call_id: str
    media_ms: int
    """Of the whisper."""
    by: str
    confirmed: bool


def stands(known: Worth | None, told: Worth) -> bool:
    """Whether an answer changes what is known: at first any does, after ``dismissed`` only a judgement."""
    return known is None or (known == "dismissed" and told != "dismissed")
