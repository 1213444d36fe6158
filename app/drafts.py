"""The life of a rule pack before it is in force. Pure: a draft and a wish in, the next draft out.

draft ──submit──► submitted ──approve, by another person──► published
  │ ▲                 │
  │ └─── give back ───┘   (whoever wrote it takes it back, or somebody who might have approved it refuses)
  └─discard─► discarded

What is approved is exactly what was looked at: every step names the digest of the text that it was shown.
Nobody approves what they wrote themselves, not even in part: whoever ever changed a draft is one of its
editors for good, also when somebody else changed it last.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from app.errors import DutingError

LONGEST_TEXT: Final = 512 * 1024
"""Bytes of UTF-8 of one pack; the built-in one has a third of that."""
LONGEST_NOTE: Final = 500
"""Characters."""

State = Literal["draft", "submitted", "published", "discarded"]
OPEN: Final = ("draft", "submitted")
Origin = Literal["draft", "rollback"]


class DraftError(DutingError):
    """A step that a draft does not allow; ``code`` is one of ``app.api.problems.MESSAGES``."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Draft(Struct, frozen=True, kw_only=True):
    id: int
    pack_id: str
    """The pack that it would replace."""
    state: State
    text: str
    digest: str
    """SHA-256 of the text, hexadecimal."""
    revision: int
    note: str
    """What it is about, in its author's words."""
    author: str
    editors: tuple[str, ...]
    """Everybody who ever changed it, the author first."""
    edited_by: str
    origin: Origin = "draft"
    of: int | None = None
    """The publication that a rollback brings back."""
    base: str | None = None
    """Version of the pack that was in force when it was begun."""
    created_at: str
    changed_at: str
    submitted_by: str | None = None
    submitted_at: str | None = None
    decided_by: str | None = None
    decided_at: str | None = None
    decision: str = ""
    """Why it was given back."""


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def edited(draft: Draft, text: str, note: str, by: str, seen: str, at: str) -> Draft:
    """With another text. Raises ``DraftError``: what was seen is no more, or it cannot be changed now."""
    _expect(draft, "draft", seen)
    return replace(
        draft,
        text=text,
        digest=digest_of(text),
        note=note,
        revision=draft.revision + 1,
        editors=draft.editors if by in draft.editors else (*draft.editors, by),
        edited_by=by,
        changed_at=at,
    )


def submitted(draft: Draft, by: str, seen: str, at: str) -> Draft:
    """Shown to those who may approve it."""
    _expect(draft, "draft", seen)
    return replace(draft, state="submitted", submitted_by=by, submitted_at=at, changed_at=at, decision="")


def given_back(draft: Draft, by: str, seen: str, reason: str, at: str) -> Draft:
    """Open to changes again: taken back, or refused."""
    _expect(draft, "submitted", seen)
    return replace(draft, state="draft", decided_by=by, decided_at=at, decision=reason, changed_at=at)


def approved(draft: Draft, by: str, seen: str, at: str) -> Draft:
    """In force from now on. Raises ``DraftError`` with ``own_draft`` for whoever had a hand in it."""
    _expect(draft, "submitted", seen)
    if not may_approve(draft, by):
        raise DraftError("own_draft")
    return replace(draft, state="published", decided_by=by, decided_at=at, changed_at=at)


def discarded(draft: Draft, by: str, seen: str, at: str) -> Draft:
    _expect(draft, "draft", seen)
    return replace(draft, state="discarded", decided_by=by, decided_at=at, changed_at=at)


def may_approve(draft: Draft, who: str) -> bool:
    """Whether somebody had no hand in it: a second person."""
    return who not in (*draft.editors, draft.author, draft.edited_by, draft.submitted_by)


def _expect(draft: Draft, state: State, seen: str) -> None:
    if draft.state != state or draft.digest != seen:
        raise DraftError("draft_changed")
