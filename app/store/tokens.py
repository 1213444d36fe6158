"""API tokens: what lets a program in, and to what. The store holds only their hashes."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError

from app.errors import DutingError
from app.rights import SCOPES
from app.store.tables import TokenRow
from app.store.texts import listed, names
from app.store.times import now, written
from app.store.users import Person, check_teams

if TYPE_CHECKING:
    from app.store.database import Store

PREFIX: Final = "duting_"
"""By it a token is known where it should not be: in a repository, in a log."""
SHOWN: Final = len(PREFIX) + 6
MOST_DAYS: Final = 3650


class TokenError(DutingError):
    """A token cannot be made as asked, or there is none of that name."""


class Token(Struct, frozen=True, kw_only=True):
    """What is known of a token; not the token."""

    name: str
    begins: str
    """Its first characters."""
    scopes: tuple[str, ...]
    teams: tuple[str, ...]
    """Whose calls it may read; ``*``: all."""
    created_at: str
    created_by: str
    expires_at: str
    revoked_at: str | None


class Tokens:
    def __init__(self, store: Store, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._clock = clock

    def add(
        self, name: str, scopes: Sequence[str], teams: Sequence[str], lifetime: timedelta, by: str
    ) -> tuple[str, Token]:
        """Make a token; it is returned here and can never be read again. Raises ``TokenError``."""
        if not 1 <= len(name) <= 64 or not name.isprintable() or any(c.isspace() for c in name):
            raise TokenError(
                f"a token's name has 1 to 64 printable characters and no space; got {name[:65]!r}"
            )
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            raise TokenError(
                f"expected scopes out of {', '.join(SCOPES)}; got {', '.join(unknown)[:65] or 'none'}"
            )
        if not timedelta(0) < lifetime <= timedelta(days=MOST_DAYS):
            raise TokenError(f"a token lasts up to {MOST_DAYS} days; got {lifetime.days}")
        token, moment = PREFIX + secrets.token_urlsafe(32), self._clock()
        row = TokenRow(
            name=name,
            token_hash=digest(token),
            begins=token[:SHOWN],
            scopes=listed(sorted(set(scopes))),
            teams=listed(check_teams(teams)),
            created_at=written(moment),
            created_by=by,
            expires_at=written(moment + lifetime),
        )
        with self._store.writing() as session:
            session.add(row)
            try:
                session.flush()
            except IntegrityError:
                raise TokenError(
                    f"there is, or was, a token {name!r}; choose another name: the audit knows tokens by it"
                ) from None
            return token, _token(row)

    def list(self) -> list[Token]:
        """All that ever were, newest first."""
        with self._store.reading() as session:
            return [
                _token(row) for row in session.scalars(select(TokenRow).order_by(TokenRow.token_id.desc()))
            ]

    def revoke(self, name: str) -> None:
        """From now on it lets nobody in. Once more is no error. Raises ``TokenError``: there is none."""
        with self._store.writing() as session:
            row = session.scalars(select(TokenRow).where(TokenRow.name == name)).one_or_none()
            if row is None:
                raise TokenError(f"there is no token {name[:65]!r}")
            row.revoked_at = row.revoked_at or written(self._clock())

    def person(self, token: str) -> Person | None:
        """The program that it stands for; ``None`` if it is unknown, expired or revoked."""
        if not token.startswith(PREFIX):
            return None
        with self._store.reading() as session:
            row = session.scalars(
                _good(self._clock()).where(TokenRow.token_hash == digest(token))
            ).one_or_none()
            return None if row is None else person_of(row)

    def hashes(self, scope: str) -> dict[str, str]:
        """Of all that are good for this scope now: hash and name."""
        with self._store.reading() as session:
            rows = session.scalars(_good(self._clock())).all()
        return {row.token_hash: row.name for row in rows if scope in names(row.scopes)}


def digest(token: str) -> str:
    """As the store holds it. A token is 256 random bits: to hash it slowly would protect nothing more."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def person_of(row: TokenRow) -> Person:
    return Person(
        username=f"token:{row.name}",
        name=row.name,
        role="token",
        teams=names(row.teams),
        scopes=names(row.scopes),
    )


def _good(moment: datetime) -> Select[TokenRow]:
    return select(TokenRow).where(TokenRow.revoked_at.is_(None), TokenRow.expires_at > written(moment))


def _token(row: TokenRow) -> Token:
    return Token(
        name=row.name,
        begins=row.begins,
        scopes=names(row.scopes),
        teams=names(row.teams),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
