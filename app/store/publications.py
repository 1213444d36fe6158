"""Rule packs that were put in force, with who wrote them and who approved them.

Written, never changed. Of each pack the last publication counts; every process that runs rules reads it, see
``app.rulebook``. Before a pack is published for the first time, the file that it replaces is written down
too, so that there is something to compare with and to go back to.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import drafts
from app.drafts import Draft, DraftError, digest_of
from app.store.drafts import Hand
from app.store.postgres import PUBLISHING, hold
from app.store.rule_tables import RulePublicationRow
from app.store.times import now, written

if TYPE_CHECKING:
    from app.store.database import Store

FILES: Final = "(files)"
"""In place of an author: it came with the installation."""

Kind = Literal["draft", "rollback", "file", "withdrawn"]
"""``file``: what was in force before the first publication. ``withdrawn``: the file is in force again."""


class Publication(Struct, frozen=True, kw_only=True):
    id: int
    pack_id: str
    version: str
    """As alerts carry it: declared version, ``+`` and eight hexadecimal digits of the text's hash."""
    digest: str
    """SHA-256 of the text, hexadecimal."""
    text: str
    origin: Kind
    of: int | None = None
    """The publication that a rollback brought back."""
    draft_id: int | None = None
    author: str
    editors: tuple[str, ...] = ()
    submitted_by: str | None = None
    approver: str
    at: str
    note: str = ""


class Replaced(NamedTuple):
    """The pack in a file that a publication replaces."""

    version: str
    text: str


class Publications:
    """May raise ``DraftError``."""

    def __init__(self, store: Store, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._clock = clock

    def head(self) -> int:
        """Number of the last publication of any pack; 0: there is none."""
        with self._store.reading() as session:
            return _head(session)

    def in_force(self) -> tuple[int, list[Publication]]:
        """``head``, and of every pack that was published and not withdrawn the last, by the packs' ids."""
        last = select(func.max(RulePublicationRow.publication_id)).group_by(RulePublicationRow.pack_id)
        rows = select(RulePublicationRow).where(RulePublicationRow.publication_id.in_(last))
        with self._store.reading() as session:
            found = [_publication(row) for row in session.scalars(rows)]
            return _head(session), sorted(
                (one for one in found if one.origin not in ("withdrawn", "file")), key=lambda one: one.pack_id
            )

    def get(self, publication_id: int) -> Publication:
        """Raises ``DraftError`` with ``unknown_publication``."""
        with self._store.reading() as session:
            row = session.get(RulePublicationRow, publication_id)
            if row is None:
                raise DraftError("unknown_publication")
            return _publication(row)

    def before(self, publication: Publication) -> Publication | None:
        """The one before it of the same pack."""
        query = select(RulePublicationRow).where(
            RulePublicationRow.pack_id == publication.pack_id,
            RulePublicationRow.publication_id < publication.id,
        )
        with self._store.reading() as session:
            row = session.scalar(query.order_by(RulePublicationRow.publication_id.desc()).limit(1))
            return None if row is None else _publication(row)

    def page(self, limit: int, before: int | None = None) -> tuple[list[Publication], int | None]:
        """Without their texts, newest first, and ``before`` of the page that follows."""
        query = select(RulePublicationRow.body).order_by(RulePublicationRow.publication_id.desc())
        if before is not None:
            query = query.where(RulePublicationRow.publication_id < before)
        with self._store.reading() as session:
            bodies = session.scalars(query.limit(limit + 1)).all()
        found = [msgspec.json.decode(body, type=Publication) for body in bodies]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def publish(
        self, hand: Hand, draft_id: int, seen: str, version: str, head: int, replaced: Replaced | None
    ) -> tuple[Draft, Publication]:
        """Put a submitted draft in force; ``hand`` approves it.

        ``seen`` is the digest that was looked at, ``version`` that of the compiled pack, ``head`` the last
        publication beside which it was checked. Draft, publication and audit entry are there together once
        this returns, or none of them is. Raises ``DraftError``: ``own_draft``, ``draft_changed``, or
        ``rules_moved`` where another pack was published since.
        """
        at = written(self._clock())
        with self._store.writing() as session:
            hold(session, PUBLISHING)
            if _head(session) != head:
                raise DraftError("rules_moved")
            draft = drafts.approved(self._store.drafts.locked(session, draft_id), hand.username, seen, at)
            known = select(func.count()).where(RulePublicationRow.pack_id == draft.pack_id)
            if replaced is not None and not session.scalar(known):
                self._add(session, _of_file(draft.pack_id, replaced, at))
            made = self._add(
                session,
                Publication(
                    id=0,
                    pack_id=draft.pack_id,
                    version=version,
                    digest=draft.digest,
                    text=draft.text,
                    origin=draft.origin,
                    of=draft.of,
                    draft_id=draft.id,
                    author=draft.author,
                    editors=draft.editors,
                    submitted_by=draft.submitted_by,
                    approver=hand.username,
                    at=at,
                    note=draft.note,
                ),
            )
            self._store.drafts.put(session, draft)
            session.flush()
            detail = f"{draft.pack_id} {version}, by {draft.author}"
            self._store.audit.add(
                session, hand.username, "rules.published", f"publication-{made.id}", hand.address, detail
            )
        return draft, made

    def withdraw(self, hand: Hand, pack_id: str) -> Publication | None:
        """Put the file of that id in force again, without a second person; ``None``: it is already.

        For the command line of the machine alone: whoever has that could change the file as well.
        """
        with self._store.writing() as session:
            hold(session, PUBLISHING)
            rows = select(RulePublicationRow).where(RulePublicationRow.pack_id == pack_id)
            last = session.scalar(rows.order_by(RulePublicationRow.publication_id.desc()).limit(1))
            if last is None or last.origin in ("withdrawn", "file"):
                return None
            made = self._add(
                session,
                Publication(
                    id=0,
                    pack_id=pack_id,
                    version="",
                    digest=digest_of(""),
                    text="",
                    origin="withdrawn",
                    author=hand.username,
                    approver=hand.username,
                    at=written(self._clock()),
                ),
            )
            session.flush()
            self._store.audit.add(
                session, hand.username, "rules.unpublished", f"publication-{made.id}", hand.address, pack_id
            )
            return made

    def _add(self, session: Session, publication: Publication) -> Publication:
        row = RulePublicationRow(
            pack_id=publication.pack_id, origin=publication.origin, text=publication.text, body=""
        )
        session.add(row)
        session.flush()
        publication = replace(publication, id=row.publication_id)
        row.body = msgspec.json.encode(replace(publication, text="")).decode()
        return publication


def _of_file(pack_id: str, file: Replaced, at: str) -> Publication:
    return Publication(
        id=0,
        pack_id=pack_id,
        version=file.version,
        digest=digest_of(file.text),
        text=file.text,
        origin="file",
        author=FILES,
        approver=FILES,
        at=at,
    )


def _head(session: Session) -> int:
    return session.scalar(select(func.max(RulePublicationRow.publication_id))) or 0


def _publication(row: RulePublicationRow) -> Publication:
    return replace(msgspec.json.decode(row.body, type=Publication), text=row.text)
