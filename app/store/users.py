"""Accounts: names, roles, teams, passwords (Argon2id)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import argon2
from msgspec import Struct
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import DutingError
from app.rights import ALL, ROLES, usual_teams
from app.store.tables import SessionRow, UserRow
from app.store.texts import listed, names
from app.store.times import now, written

if TYPE_CHECKING:
    from app.store.database import Store

PASSWORD_LENGTH = (10, 256)
"""Fewest and most characters; the upper bound keeps hashing from being a way to keep a server busy."""
NO_PASSWORD = "!"  # noqa: S105 - what stands in its place
MOST_TEAMS, LONGEST_TEAM = 50, 64


class AccountError(DutingError):
    """An account cannot be made or changed as asked: name taken, password weak, role unknown."""


class UnknownAccount(AccountError):
    """There is no such account."""


class LastAdministrator(AccountError):
    """Nobody would be left who can administer."""


class Person(Struct, frozen=True, kw_only=True):
    """Who somebody is, as far as others may know."""

    username: str
    name: str
    role: str
    teams: tuple[str, ...] = ()
    """Whose calls a supervisor sees (``*``: all); the team of an agent. See ``app.rights``."""
    scopes: tuple[str, ...] = ()
    """Of a program (role ``token``): what its token is for."""


class Account(Struct, frozen=True, kw_only=True):
    """An account as administrators see it."""

    username: str
    name: str
    role: str
    teams: tuple[str, ...]
    created_at: str
    disabled_at: str | None
    external: bool
    """It came from the identity provider."""


class Users:
    """Whatever changes what an account may do ends its sessions: who logs in again sees what is right now."""

    def __init__(self, store: Store, hasher: argon2.PasswordHasher | None = None) -> None:
        self._store = store
        self._hasher = hasher or argon2.PasswordHasher()

    def add(
        self, username: str, password: str, name: str, role: str, teams: Sequence[str] | None = None
    ) -> Person:
        """Make an account. Raises ``AccountError`` and says which of them is wrong.

        ``teams``: see ``app.rights.usual_teams`` for ``None``.
        """
        _check(username, password, name, role)
        return self._insert(username, self._hasher.hash(password), name, role, teams, None)

    def ensure(
        self, username: str, password: str, name: str, role: str, teams: Sequence[str] | None = None
    ) -> Person:
        """Make an account, or set all of the one there is. For the demo's accounts."""
        _check(username, password, name, role)
        with self._store.reading() as session:
            there = _find(session, username)
        if there is None:
            return self.add(username, password, name, role, teams)
        if not self._matches(there.password, password):
            self.set_password(username, password)
        return self._change(username, name=name, role=role, teams=_teams(role, teams), disabled=False)

    def set_password(self, username: str, password: str) -> None:
        """Change a password and log the person out everywhere."""
        _check(username, password)
        hashed = self._hasher.hash(password)
        with self._store.writing() as session:
            _existing(session, username).password = hashed
            _log_out(session, username)

    def set_role(self, username: str, role: str) -> Person:
        """Give an account another role, with that role's usual teams. Raises ``AccountError``."""
        _check_role(role)
        return self._change(username, role=role, teams=_teams(role, None))

    def set_teams(self, username: str, teams: Sequence[str]) -> Person:
        """Raises ``AccountError``."""
        with self._store.reading() as session:
            role = _existing(session, username).role
        return self._change(username, teams=_teams(role, teams))

    def set_disabled(self, username: str, disabled: bool) -> Person:
        """Shut an account, or open it again; what it did stays under its name. Raises ``AccountError``."""
        return self._change(username, disabled=disabled)

    def check(self, username: str, password: str) -> Person | None:
        """The person, if the password is right and the account open. Takes as long when there is no such
        person.

        Slow (about 50 ms and 64 MiB) by intent: bound how many run at once.
        """
        if len(password) > PASSWORD_LENGTH[1]:
            return None
        with self._store.reading() as session:
            row = _find(session, username)
        if row is None or row.password == NO_PASSWORD:
            self._matches(_nobody(self._hasher), password)
            return None
        if not self._matches(row.password, password) or row.disabled_at is not None:
            return None
        if self._hasher.check_needs_rehash(row.password):
            self._renew(username, row.password, password)
        return person_of(row)

    def welcome(self, subject: str, username: str, name: str, role: str, teams: Sequence[str]) -> Person:
        """The account of somebody whom an identity provider vouches for: made at the first time, afterwards
        with what the provider says of role and teams now.

        ``subject`` is issuer and subject there: a name that passes to somebody else is another account's.
        Raises ``AccountError``: the name is taken by another account, or this one is disabled.
        """
        _check_name(username)
        _check_person_name(name)
        _check_role(role)
        with self._store.reading() as session:
            there = session.scalars(select(UserRow).where(UserRow.subject == subject)).one_or_none()
        if there is None:
            return self._insert(username, NO_PASSWORD, name, role, teams, subject)
        if there.disabled_at is not None:
            raise AccountError(f"the account {there.username!r} is disabled")
        if (there.name, there.role, names(there.teams)) == (name, role, _teams(role, teams)):
            return person_of(there)
        return self._change(there.username, name=name, role=role, teams=_teams(role, teams))

    def able(self) -> list[Person]:
        """Those whose accounts are open, by name."""
        rows = select(UserRow).where(UserRow.disabled_at.is_(None)).order_by(UserRow.username)
        with self._store.reading() as session:
            return [person_of(row) for row in session.scalars(rows)]

    def accounts(self) -> list[Account]:
        """All of them, by name."""
        with self._store.reading() as session:
            return [_account(row) for row in session.scalars(select(UserRow).order_by(UserRow.username))]

    def account(self, username: str) -> Account | None:
        with self._store.reading() as session:
            row = _find(session, username)
            return None if row is None else _account(row)

    def _insert(
        self,
        username: str,
        password: str,
        name: str,
        role: str,
        teams: Sequence[str] | None,
        subject: str | None,
    ) -> Person:
        taken = AccountError(f"there is an account {username!r} already; choose another name")
        row = UserRow(
            username=username,
            password=password,
            name=name,
            role=role,
            teams=listed(_teams(role, teams)),
            created_at=written(now()),
            subject=subject,
        )
        with self._store.writing() as session:
            if _find(session, username) is not None:
                raise taken
            session.add(row)
            try:
                session.flush()
            except IntegrityError:  # two at once, on PostgreSQL
                raise taken from None
            return person_of(row)

    def _change(
        self,
        username: str,
        *,
        name: str | None = None,
        role: str | None = None,
        teams: tuple[str, ...] | None = None,
        disabled: bool | None = None,
    ) -> Person:
        with self._store.writing() as session:
            row = _existing(session, username)
            before = (row.role, row.teams, row.disabled_at is not None)
            was_one = row.role == "administrator" and row.disabled_at is None
            row.name = row.name if name is None else name
            row.role = row.role if role is None else role
            row.teams = row.teams if teams is None else listed(teams)
            if disabled is not None and disabled != (row.disabled_at is not None):
                row.disabled_at = written(now()) if disabled else None
            if was_one and (row.role != "administrator" or row.disabled_at is not None):
                _leave_one(session, username)
            if before != (row.role, row.teams, row.disabled_at is not None):
                _log_out(session, username)
            session.flush()
            return person_of(row)

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


def person_of(row: UserRow) -> Person:
    return Person(username=row.username, name=row.name, role=row.role, teams=names(row.teams))


def check_teams(teams: Sequence[str]) -> tuple[str, ...]:
    """The names in order, each once. Raises ``AccountError``."""
    once = tuple(sorted(set(teams)))
    if len(once) > MOST_TEAMS:
        raise AccountError(f"an account has at most {MOST_TEAMS} teams; got {len(once)}")
    for team in once:
        if not 1 <= len(team) <= LONGEST_TEAM or not team.isprintable() or team != team.strip():
            raise AccountError(
                f"a team's name has 1 to {LONGEST_TEAM} printable characters and no space around it; "
                f"got {team[: LONGEST_TEAM + 1]!r}"
            )
    return (ALL,) if ALL in once else once


@cache
def _nobody(hasher: argon2.PasswordHasher) -> str:
    return hasher.hash("the password of nobody")


def _find(session: Session, username: str) -> UserRow | None:
    return session.scalars(select(UserRow).where(UserRow.username == username)).one_or_none()


def _existing(session: Session, username: str) -> UserRow:
    row = _find(session, username)
    if row is None:
        raise UnknownAccount(f"there is no account {username!r}")
    return row


def _log_out(session: Session, username: str) -> None:
    user = select(UserRow.user_id).where(UserRow.username == username).scalar_subquery()
    session.execute(delete(SessionRow).where(SessionRow.user_id == user))


def _leave_one(session: Session, username: str) -> None:
    others = select(UserRow.user_id).where(
        UserRow.role == "administrator", UserRow.disabled_at.is_(None), UserRow.username != username
    )
    # Locked, where rows can be: of two who shut each other out at the same moment one has to wait.
    if session.scalars(others.with_for_update()).first() is None:
        raise LastAdministrator(f"{username!r} is the only administrator left; make another one first")


def _account(row: UserRow) -> Account:
    return Account(
        username=row.username,
        name=row.name,
        role=row.role,
        teams=names(row.teams),
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        external=row.subject is not None,
    )


def _teams(role: str, given: Sequence[str] | None) -> tuple[str, ...]:
    teams = usual_teams(role) if given is None else check_teams(given)
    if role == "agent" and (len(teams) > 1 or ALL in teams):
        raise AccountError(f"an agent has one team, or none; got {', '.join(teams)}")
    return teams


def _check_name(username: str) -> None:
    if not 1 <= len(username) <= 64 or not username.isprintable() or any(c.isspace() for c in username):
        raise AccountError(
            f"an account's name has 1 to 64 printable characters and no space; got {username[:65]!r}"
        )


def _check_person_name(name: str) -> None:
    if not 1 <= len(name) <= 128 or not name.isprintable() or not name.strip():
        raise AccountError("a person's name has 1 to 128 printable characters")


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise AccountError(f"there is no role {role[:65]!r}; the roles are {', '.join(ROLES)}")


def _check(username: str, password: str, name: str | None = None, role: str | None = None) -> None:
    _check_name(username)
    if name is not None:
        _check_person_name(name)
    if role is not None:
        _check_role(role)
    fewest, most = PASSWORD_LENGTH
    if not fewest <= len(password) <= most:
        raise AccountError(f"a password has {fewest} to {most} characters; this one has {len(password)}")
    if len(set(password)) < 4 or password.casefold() == username.casefold():
        raise AccountError("that password is guessed at once: use four different characters, not the name")
