"""What was masked, as it was said: sealed before it leaves the core, so that nobody on the way reads it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

Seal = Callable[[str, str], str]
"""From an utterance's id and what was said in it to a box that only the holders of a key open."""


class Sealed(Struct, frozen=True, kw_only=True, tag=True):
    """The text of a final transcript that redaction has changed. Kept beside it; no browser is ever told."""

    call_id: str
    utterance_id: str
    media_ms: int
    """Of the utterance: its end."""
    box: str
