"""Accounts: names, roles, passwords (Argon2id)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import argon2
from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import DutingError
from app.store.tables import UserRow
from app.store.times import now, written

if TYPE_CHECKING:
    from app.store.database import Store

ROLES = ("agent", "supervisor", "inspector", "administrator")

PASSWORD_LENGTH = (10, 256)
"""Fewest and most characters; the upper bound keeps hashing from being a way to keep a server busy."""


class AccountError(DutingError):
    """An account cannot be made as asked: name taken, password weak, role unknown."""


class Person(Struct, frozen=True, kw_only=True):
    """Who somebody is, as far as others may know."""

    username: str
    name: str
    role: str
    teams: tuple[str, ...] = ()
    """Whose calls a supervisor sees (``*``: all); the team of an agent. See ``app.rights``."""
    scopes: tuple[str, ...] = ()
    """Of a program (role ``token``): what its token is for."""


class Users:
    def __init__(self, store: Store, hasher: argon2.PasswordHasher | None = None) -> None:
        self._store = store
        self._hasher = hasher or argon2.PasswordHasher()

    def add(self, username: str, password: str, name: str, role: str) -> Person:
        """Make an account. Raises ``AccountError`` and says which of the four is wrong."""
        _check(username, password, name, role)
        taken = AccountError(f"there is an account {username!r} already; choose another name")
        hashed = self._hasher.hash(password)
        with self._store.writing() as session:
            if _find(session, username) is not None:
                raise taken
            session.add(_row(username, hashed, name, role))
            try:
                session.flush()
            except IntegrityError:  # two at once, on PostgreSQL
                raise taken from None
        return Person(username=username, name=name, role=role)

    def ensure(self, username: str, password: str, name: str, role: str) -> Person:
        """Make an account, or set name, role and password of the one there is. For the demo's accounts."""
        _check(username, password, name, role)
        with self._store.reading() as session:
            there = _find(session, username)
        if there is None:
            return self.add(username, password, name, role)
        if not self._matches(there.password, password):
            self.set_password(username, password)
        with self._store.writing() as session:
            row = _find(session, username)
            assert row is not None
            row.name, row.role = name, role
        return Person(username=username, name=name, role=role)

    def set_password(self, username: str, password: str) -> None:
        """Change a password and log the person out everywhere."""
        _check(username, password)
        hashed = self._hasher.hash(password)
        with self._store.writing() as session:
            row = _find(session, username)
            if row is None:
                raise AccountError(f"there is no account {username!r}")
            row.password = hashed
        self._store.sessions.revoke_all(username)

    def check(self, username: str, password: str) -> Person | None:
        """The person, if the password is right. Takes as long when there is no such person.

        Slow (about 50 ms and 64 MiB) by intent: bound how many run at once.
        """
        if len(password) > PASSWORD_LENGTH[1]:
            return None
        with self._store.reading() as session:
            row = _find(session, username)
        if row is None:
            self._matches(_nobody(self._hasher), password)
            return None
        if not self._matches(row.password, password):
            return None
        if self._hasher.check_needs_rehash(row.password):
            self._renew(username, row.password, password)
        return Person(username=row.username, name=row.name, role=row.role)

    def list(self) -> list[Person]:
        with self._store.reading() as session:
            rows = session.scalars(select(UserRow).order_by(UserRow.username)).all()
        return [Person(username=row.username, name=row.name, role=row.role) for row in rows]

    def _matches(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False

    def _renew(self, username: str, seen: str, password: str) -> None:
        """Hash again with today's parameters, unless the password has been changed meanwhile."""
        hashed = self._hasher.hash(password)
        with self._store.writing() as session:
            row = _find(session, username)
            if row is not None and row.password == seen:
                row.password = hashed


@cache
def _nobody(hasher: argon2.PasswordHasher) -> str:
    return hasher.hash("the password of nobody")


def _find(session: Session, username: str) -> UserRow | None:
    return session.scalars(select(UserRow).where(UserRow.username == username)).one_or_none()


def _row(username: str, hashed: str, name: str, role: str) -> UserRow:
    return UserRow(username=username, password=hashed, name=name, role=role, created_at=written(now()))


def _check(username: str, password: str, name: str | None = None, role: str | None = None) -> None:
    if not 1 <= len(username) <= 64 or not username.isprintable() or any(c.isspace() for c in username):
        raise AccountError(
            f"an account's name has 1 to 64 printable characters and no space; got {username!r}"
        )
    if name is not None and (not 1 <= len(name) <= 128 or not name.isprintable() or not name.strip()):
        raise AccountError("a person's name has 1 to 128 printable characters")
    if role is not None and role not in ROLES:
        raise AccountError(f"there is no role {role!r}; the roles are {', '.join(ROLES)}")
    fewest, most = PASSWORD_LENGTH
    if not fewest <= len(password) <= most:
        raise AccountError(f"a password has {fewest} to {most} characters; this one has {len(password)}")
    if len(set(password)) < 4 or password.casefold() == username.casefold():
        raise AccountError("that password is guessed at once: use four different characters, not the name")
