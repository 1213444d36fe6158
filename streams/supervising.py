"""What people do with a call beside its alerts: they write a note, they ask to take it over."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

NOTE_LENGTH = 4000
"""Characters that a note may have."""
NOTES_MOST = 500
"""Of one call."""
REASON_LENGTH = 200
"""Characters of a reason: why a call is taken over, why somebody reads what was masked."""

TakeoverState = Literal["asked", "accepted", "failed"]


class Note(Struct, frozen=True, kw_only=True, tag=True):
    """What somebody wrote about a moment of a call. Not for its agent. Given twice it holds once, and only
    while the call has fewer than ``NOTES_MOST``."""

    id: str
    call_id: str
    media_ms: int
    """What it is about."""
    by: str
    """Account."""
    at: str
    """Wall clock, RFC 3339, UTC."""
    text: str
    """Redacted."""


class Takeover(Struct, frozen=True, kw_only=True, tag=True):
    """Somebody wants to go on with a call in the agent's place; the telephony is asked, and answers.

    ``asked`` holds only while no other one of the call is asked for; then, as for what becomes of it, one
    ``takeover.…`` is published. One that was ``lost`` gives way to its outcome, should that come yet.
    """

    id: str
    call_id: str
    media_ms: int
    by: str
    """Account."""
    at: str
    """Wall clock at which it was asked for, RFC 3339, UTC."""
    reason: str
    """Redacted."""
    state: TakeoverState = "asked"
    attempts: int = 0
    """How often the telephony was asked."""
    status: int | None = None
    """Of HTTP: the telephony's last answer; ``None``: there was none."""
    problem: Literal["refused", "unreachable", "timeout", "lost"] | None = None
    """Why it failed. ``lost``: whoever asked was cut off before there was an answer; the telephony may have
    agreed all the same."""
