"""Drafts of rule packs as they are kept; what may be done with them says ``app.drafts``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec.structs import replace
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import drafts
from app.drafts import OPEN, Draft, DraftError, digest_of
from app.store.audit import AuditAction
from app.store.rule_tables import RuleDraftRow
from app.store.texts import clean
from app.store.times import now, written

if TYPE_CHECKING:
    from app.store.database import Store

MOST_OPEN: Final = 50
"""Drafts and submitted ones at a time; a further one is refused."""
LISTED: Final = 100
"""Of those that are over, the newest."""


class Hand(NamedTuple):
    """Who does something, and from where; both go into the audit."""

    username: str
    address: str | None


Step = Callable[[Draft, str], Draft]
"""The draft as it is and the time, to the draft as it becomes."""


class Drafts:
    """Every step is written together with its entry in the audit. May raise ``DraftError``."""

    def __init__(self, store: Store, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._clock = clock

    def add(self, hand: Hand, pack_id: str, text: str, note: str, *, base: str | None = None) -> Draft:
        """Begin one. Raises ``DraftError`` with ``too_many_drafts``."""
        draft = self._begun(hand, pack_id, text, note, base)
        with self._store.writing() as session:
            return self._insert(session, hand, draft)

    def bring_back(self, hand: Hand, of: int, pack_id: str, text: str, note: str, base: str | None) -> Draft:
        """Begin and submit one with the text of the publication ``of``, both or neither.

        Raises ``DraftError`` with ``too_many_drafts``.
        """
        draft = replace(self._begun(hand, pack_id, text, note, base), origin="rollback", of=of)
        with self._store.writing() as session:
            draft = self._insert(session, hand, draft)
            draft = drafts.submitted(draft, hand.username, draft.digest, draft.created_at)
            self.put(session, draft)
            self._note(session, hand, "rules.submitted", draft)
        return draft

    def edit(self, hand: Hand, draft_id: int, text: str, note: str, seen: str) -> Draft:
        text, note = clean(text), clean(note)
        return self._step(
            hand,
            draft_id,
            "rules.edited",
            lambda draft, at: drafts.edited(draft, text, note, hand.username, seen, at),
        )

    def submit(self, hand: Hand, draft_id: int, seen: str) -> Draft:
        return self._step(
            hand,
            draft_id,
            "rules.submitted",
            lambda draft, at: drafts.submitted(draft, hand.username, seen, at),
        )

    def give_back(self, hand: Hand, draft_id: int, seen: str, reason: str) -> Draft:
        reason = clean(reason)
        return self._step(
            hand,
            draft_id,
            "rules.returned",
            lambda draft, at: drafts.given_back(draft, hand.username, seen, reason, at),
        )

    def discard(self, hand: Hand, draft_id: int, seen: str) -> Draft:
        return self._step(
            hand,
            draft_id,
            "rules.discarded",
            lambda draft, at: drafts.discarded(draft, hand.username, seen, at),
        )

    def get(self, draft_id: int) -> Draft:
        """Raises ``DraftError`` with ``unknown_draft``."""
        with self._store.reading() as session:
            return _draft(session.get(RuleDraftRow, draft_id))

    def all(self) -> list[Draft]:
        """Without their texts, newest first: all that are open, and the last ``LISTED`` of the others."""
        columns = select(RuleDraftRow.body).order_by(RuleDraftRow.draft_id.desc())
        with self._store.reading() as session:
            open_now = session.scalars(columns.where(RuleDraftRow.state.in_(OPEN))).all()
            over = session.scalars(columns.where(RuleDraftRow.state.not_in(OPEN)).limit(LISTED)).all()
        return [msgspec.json.decode(body, type=Draft) for body in (*open_now, *over)]

    # ── inside of a transaction ───────────────────────────────────────────────────────────────────

    def locked(self, session: Session, draft_id: int) -> Draft:
        """The draft, which nobody else changes until the transaction ends."""
        row = select(RuleDraftRow).where(RuleDraftRow.draft_id == draft_id).with_for_update()
        return _draft(session.scalar(row))

    def put(self, session: Session, draft: Draft) -> None:
        row = session.get_one(RuleDraftRow, draft.id)
        for name, value in _columns(draft).items():
            setattr(row, name, value)

    def _begun(self, hand: Hand, pack_id: str, text: str, note: str, base: str | None) -> Draft:
        text, at = clean(text), written(self._clock())
        return Draft(
            id=0,
            pack_id=clean(pack_id),
            state="draft",
            text=text,
            digest=digest_of(text),
            revision=1,
            note=clean(note),
            author=hand.username,
            editors=(hand.username,),
            edited_by=hand.username,
            base=base,
            created_at=at,
            changed_at=at,
        )

    def _insert(self, session: Session, hand: Hand, draft: Draft) -> Draft:
        open_now = select(func.count()).where(RuleDraftRow.state.in_(OPEN))
        if (session.scalar(open_now) or 0) >= MOST_OPEN:
            raise DraftError("too_many_drafts")
        row = RuleDraftRow(**_columns(draft))
        session.add(row)
        session.flush()
        draft = replace(draft, id=row.draft_id)
        row.body = _body(draft)
        self._note(session, hand, "rules.drafted", draft)
        return draft

    def _step(self, hand: Hand, draft_id: int, action: AuditAction, step: Step) -> Draft:
        with self._store.writing() as session:
            draft = step(self.locked(session, draft_id), written(self._clock()))
            self.put(session, draft)
            self._note(session, hand, action, draft)
        return draft

    def _note(self, session: Session, hand: Hand, action: AuditAction, draft: Draft) -> None:
        session.flush()
        detail = f"{draft.pack_id} {draft.digest[:8]}"
        self._store.audit.add(session, hand.username, action, f"draft-{draft.id}", hand.address, detail)


def _columns(draft: Draft) -> dict[str, str]:
    return {
        "pack_id": draft.pack_id,
        "state": draft.state,
        "text": draft.text,
        "digest": draft.digest,
        "body": _body(draft),
    }


def _body(draft: Draft) -> str:
    return msgspec.json.encode(replace(draft, text="")).decode()


def _draft(row: RuleDraftRow | None) -> Draft:
    if row is None:
        raise DraftError("unknown_draft")
    return replace(msgspec.json.decode(row.body, type=Draft), text=row.text)
