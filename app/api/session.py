"""Logging in and out."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from app.api.attempts import Attempts
from app.api.people import COOKIE, DESK_COOKIE, LoggedIn, address_of, framed_token_of, token_of
from app.api.problems import Problem
from app.settings import Settings
from app.store import Person, Store

CHECKS_AT_ONCE = 2
"""Each takes 64 MiB and a core for a moment."""
CHECKS_WAITING = 32
"""Further ones are turned away."""

router = APIRouter(tags=["session"])


class Login(BaseModel):
    username: str = Field(min_length=1, max_length=64)
    password: str = Field(min_length=1, max_length=256)
    framed: bool = False
    """The desk asks, in the frame of another page."""


class Door:
    """Checks passwords, few at a time."""

    def __init__(self, attempts: Attempts) -> None:
        self.attempts = attempts
        self._slots = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._waiting = 0

    async def check(self, store: Store, login: Login, address: str) -> Person:
        wait = await self.attempts.begin(login.username, address)
        if wait > 0:
            raise Problem("too_many_attempts", {"Retry-After": str(math.ceil(wait))})
        if self._waiting >= CHECKS_WAITING:
            raise Problem("busy", {"Retry-After": "2"})
        self._waiting += 1
        try:
            async with self._slots:
                person = await asyncio.to_thread(store.users.check, login.username, login.password)
        finally:
            self._waiting -= 1
        if person is None:
            raise Problem("wrong_credentials")
        await self.attempts.succeed(login.username, address)
        return person


@router.post("/api/session")
async def log_in(login: Login, request: Request) -> Response:
    """Check a password, open a session; the answer's cookie is the key to everything else."""
    store: Store = request.app.state.store
    settings: Settings = request.app.state.settings
    address = address_of(request)
    person = await request.app.state.door.check(store, login, address)
    framed = login.framed and bool(settings.frame_origins)
    if framed and person.role != "agent":
        raise Problem("desk_only")
    lifetime = timedelta(hours=settings.session_hours)
    token = await asyncio.to_thread(store.sessions.open, person.username, lifetime, address)
    detail = "desk" if framed else None
    await asyncio.to_thread(store.audit.record, person.username, "session.opened", None, address, detail)
    response = _user(person)
    if framed:
        set_framed_session(response, token, settings)
    else:
        set_session(response, token, settings)
    return response


def set_session(response: Response, token: str, settings: Settings) -> None:
    """Neither scripts nor other sites get this cookie."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=settings.session_hours * 3600,
        httponly=True,
        samesite="strict",
        secure=settings.secure_cookies,
    )


def set_framed_session(response: Response, token: str, settings: Settings) -> None:
    """For a frame in another site's page, and only below that site (``Partitioned``, CHIPS).

    A strict cookie does not reach such a frame. That other sites make the browser send this one is no way
    in: ``Guard`` refuses what their pages ask for, and ``Partitioned`` keeps it from them besides. Browsers
    take it over HTTPS only, or from this machine.
    """
    response.set_cookie(
        DESK_COOKIE,
        token,
        max_age=settings.session_hours * 3600,
        httponly=True,
        samesite="none",
        secure=True,
    )
    _partition(response)


def _partition(response: Response) -> None:
    """Python writes this attribute from 3.14 on only."""
    name, value = response.raw_headers[-1]
    response.raw_headers[-1] = (name, value + b"; Partitioned")


@router.get("/api/session")
def who_am_i(person: LoggedIn) -> Response:
    """Who is logged in here."""
    return _user(person)


@router.delete("/api/session", status_code=204)
def log_out(request: Request) -> Response:
    """Close the session, here and in the store. Also without one."""
    store: Store = request.app.state.store
    for token in (token_of(request), framed_token_of(request)):
        if token is not None and (person := store.sessions.person(token)) is not None:
            store.sessions.revoke(token)
            store.audit.record(person.username, "session.closed", None, address_of(request))
    response = Response(status_code=204)
    response.delete_cookie(
        COOKIE, httponly=True, samesite="strict", secure=request.app.state.settings.secure_cookies
    )
    if request.app.state.settings.frame_origins:
        response.delete_cookie(DESK_COOKIE, httponly=True, samesite="none", secure=True)
        _partition(response)
    return response


def _user(person: Person) -> Response:
    return JSONResponse({"user": {"username": person.username, "name": person.name, "role": person.role}})
