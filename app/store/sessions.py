"""Who is logged in. The browser holds a random token, the store only its hash."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from app.store.tables import SessionRow, UserRow
from app.store.times import now, written
from app.store.users import Person, person_of

if TYPE_CHECKING:
    from app.store.database import Store


class Sessions:
    def __init__(self, store: Store, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._clock = clock

    def open(self, username: str, lifetime: timedelta, address: str | None = None) -> str:
        """Log a person in whose password was checked; returns the token, 256 random bits."""
        token = secrets.token_urlsafe(32)
        moment = self._clock()
        with self._store.writing() as session:
            session.execute(delete(SessionRow).where(SessionRow.expires_at <= written(moment)))
            user_id = session.scalars(select(UserRow.user_id).where(UserRow.username == username)).one()
            session.add(
                SessionRow(
                    token_hash=_hash(token),
                    user_id=user_id,
                    created_at=written(moment),
                    expires_at=written(moment + lifetime),
                    address=address,
                )
            )
        return token

    def person(self, token: str) -> Person | None:
        """Whose token this is, with the role of this moment; ``None`` if unknown, expired or revoked, or
        if the account is disabled."""
        return self.persons([token]).get(token)

    def persons(self, tokens: Collection[str]) -> dict[str, Person]:
        """The same for many tokens at once; those that let nobody in are not in the answer."""
        by_hash = {_hash(token): token for token in tokens}
        query = (
            select(SessionRow.token_hash, UserRow)
            .join(UserRow, SessionRow.user_id == UserRow.user_id)
            .where(
                SessionRow.token_hash.in_(by_hash),
                SessionRow.expires_at > written(self._clock()),
                UserRow.disabled_at.is_(None),
            )
        )
        with self._store.reading() as session:
            return {by_hash[token_hash]: person_of(row) for token_hash, row in session.execute(query)}

    def revoke(self, token: str) -> None:
        """Log out. An unknown token is no error."""
        with self._store.writing() as session:
            session.execute(delete(SessionRow).where(SessionRow.token_hash == _hash(token)))

    def revoke_all(self, username: str) -> None:
        """Log a person out everywhere."""
        with self._store.writing() as session:
            user = select(UserRow.user_id).where(UserRow.username == username).scalar_subquery()
            session.execute(delete(SessionRow).where(SessionRow.user_id == user))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
