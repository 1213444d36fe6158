"""Who asks, and whether that role may. The one place where roles are checked."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Annotated

import msgspec
from fastapi import Depends, Request
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from app.api.problems import Problem
from app.errors import LiveError
from app.live import Live
from app.store import Person, Store
from dashboard.feed import HEARTBEAT_S, NOT_ALLOWED, NOT_LOGGED_IN, MaySee, Refused

COOKIE = "duting_session"

OVERSEERS = ("supervisor", "inspector", "administrator")
"""Who may see all calls. An agent may not see those of others."""


def address_of(connection: HTTPConnection) -> str:
    """The peer's address; the server's ``--proxy-headers`` decides whether a proxy may name another."""
    return connection.client.host if connection.client is not None else "unknown"


def token_of(connection: HTTPConnection) -> str | None:
    token = connection.cookies.get(COOKIE)
    return token if token and len(token) <= 128 else None


def logged_in(request: Request) -> Person:
    store: Store = request.app.state.store
    token = token_of(request)
    person = store.sessions.person(token) if token is not None else None
    if person is None:
        raise Problem("login_required")
    return person


def role(*allowed: str) -> Callable[[Person], Person]:
    """A dependency that lets only these roles through."""

    def check(person: Annotated[Person, Depends(logged_in)]) -> Person:
        if person.role not in allowed:
            raise Problem("role_not_allowed")
        return person

    return check


overseer = role(*OVERSEERS)
Overseer = Annotated[Person, Depends(overseer)]
supervisor = role("supervisor", "administrator")
Supervisor = Annotated[Person, Depends(supervisor)]
administrator = role("administrator")
Administrator = Annotated[Person, Depends(administrator)]
LoggedIn = Annotated[Person, Depends(logged_in)]


def record_reading(request: Request, person: Person, action: str, call_id: str) -> None:
    """Write into the audit who reads what. A player asks for a file in many pieces: that is one reading."""
    readings: Readings = request.app.state.readings
    if readings.is_new((person.username, action, call_id, address_of(request))):
        store: Store = request.app.state.store
        store.audit.record(person.username, action, call_id, address_of(request))


class Readings:
    """Which readings were written down within the last minute."""

    WITHIN_S = 60.0
    REMEMBERED = 1000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._recent: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def is_new(self, reading: tuple[str, ...]) -> bool:
        now = self._clock()
        with self._lock:
            last = self._recent.get(reading)
            if last is not None and now - last < self.WITHIN_S:
                return False
            self._recent[reading] = now
            self._recent.move_to_end(reading)
            if len(self._recent) > self.REMEMBERED:
                self._recent.popitem(last=False)
        return True


async def may_listen(socket: WebSocket) -> MaySee:
    """The feed's permission: overseers see every event, others none."""
    store: Store = socket.app.state.store
    token = token_of(socket)
    person = await asyncio.to_thread(store.sessions.person, token) if token is not None else None
    if person is None:
        raise Refused(NOT_LOGGED_IN)
    if person.role not in OVERSEERS:
        raise Refused(NOT_ALLOWED)
    await _be_present(socket.app.state.live, person)
    return lambda _event: True


PERSON = "person"
"""The kind under which people who watch are present."""
PRESENT_S = 3 * HEARTBEAT_S


async def _be_present(live: Live, person: Person) -> None:
    """Others see that this person watches; the feed asks with every heartbeat."""
    with suppress(LiveError):  # who watches is worth less than that they see
        await live.announce(PERSON, person.username, msgspec.json.encode(person), PRESENT_S)
