"""Accounts, for administrators. What is changed is written down, and ends the account's sessions."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import Struct
from pydantic import BaseModel, Field
from pydantic.config import JsonDict
from starlette.concurrency import run_in_threadpool

from app.api import views
from app.api.people import PeopleKeeper, address_of
from app.api.problems import Problem
from app.rights import ROLES
from app.store import Person, Store
from app.store.audit import AuditAction
from app.store.users import Account, AccountError, LastAdministrator, UnknownAccount

router = APIRouter(tags=["people"])

Team = Field(default=None, max_length=50)
KNOWN_ROLES: JsonDict = {"enum": list(ROLES)}
"""For the description alone: what is refused is refused with a word about it."""


class NewAccount(BaseModel, extra="forbid"):
    username: str = Field(min_length=1, max_length=64)
    name: str = Field(min_length=1, max_length=128)
    role: str = Field(max_length=64, json_schema_extra=KNOWN_ROLES)
    password: str = Field(min_length=1, max_length=256)
    teams: list[str] | None = Team
    """The role's usual ones if left out."""


class Change(BaseModel, extra="forbid"):
    """What is left out stays."""

    role: str | None = Field(default=None, max_length=64)
    teams: list[str] | None = Team
    disabled: bool | None = None


class NewPassword(BaseModel, extra="forbid"):
    password: str = Field(min_length=1, max_length=256)


class People(Struct, frozen=True, kw_only=True):
    people: list[Account]


@router.get("/api/people")
def people(request: Request, _person: PeopleKeeper) -> Response:
    """All accounts, by name."""
    store: Store = request.app.state.store
    return views.answer(People(people=store.users.accounts()))


@router.post("/api/people", status_code=201)
def add(new: NewAccount, request: Request, person: PeopleKeeper) -> Response:
    """Make an account."""
    store: Store = request.app.state.store
    _may_make(person, new.role)
    try:
        made = store.users.add(new.username, new.password, new.name, new.role, new.teams)
    except AccountError as error:
        raise _refused(error) from None
    _write_down(request, person, "user.added", made.username, f"{made.role} {' '.join(made.teams)}".strip())
    return _told(store, made.username, 201)


@router.patch("/api/people/{username}")
def change(username: str, change: Change, request: Request, person: PeopleKeeper) -> Response:
    """Another role, other teams; shut the account, or open it again."""
    store: Store = request.app.state.store
    _may_touch(store, person, username)
    if username == person.username and (change.role is not None or change.disabled):
        raise Problem("not_yourself")
    try:
        if change.role is not None:
            _may_make(person, change.role)
            now = store.users.set_role(username, change.role)
            _write_down(request, person, "user.role", username, now.role)
        if change.teams is not None:
            now = store.users.set_teams(username, change.teams)
            _write_down(request, person, "user.teams", username, " ".join(now.teams))
        if change.disabled is not None:
            store.users.set_disabled(username, change.disabled)
            _write_down(request, person, "user.disabled" if change.disabled else "user.enabled", username)
    except AccountError as error:
        raise _refused(error) from None
    return _told(store, username)


@router.post("/api/people/{username}/password", status_code=204)
async def set_password(username: str, new: NewPassword, request: Request, person: PeopleKeeper) -> Response:
    """Give an account a new password, and log it out everywhere."""
    store: Store = request.app.state.store
    await run_in_threadpool(_may_touch, store, person, username)
    try:
        await run_in_threadpool(store.users.set_password, username, new.password)
    except AccountError as error:
        raise _refused(error) from None
    await run_in_threadpool(_write_down, request, person, "user.password", username)
    return Response(status_code=204)


def _may_make(person: Person, role: str) -> None:
    """A program makes no administrators: they could do what it may not."""
    if person.role == "token" and role == "administrator":
        raise Problem("role_not_allowed")


def _may_touch(store: Store, person: Person, username: str) -> None:
    account = store.users.account(username)
    if account is None:
        raise Problem("unknown_account")
    _may_make(person, account.role)


def _refused(error: AccountError) -> Problem:
    if isinstance(error, UnknownAccount):
        return Problem("unknown_account")
    if isinstance(error, LastAdministrator):
        return Problem("last_administrator")
    return Problem("account_refused", detail=str(error))


def _write_down(
    request: Request, person: Person, action: AuditAction, username: str, detail: str | None = None
) -> None:
    store: Store = request.app.state.store
    store.audit.record(person.username, action, username, address_of(request), detail)


def _told(store: Store, username: str, status: int = 200) -> Response:
    account = store.users.account(username)
    assert account is not None
    response = views.answer(account)
    response.status_code = status
    return response
