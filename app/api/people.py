"""Who asks, and whether that person may. The one place where requests meet ``app.rights``."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Annotated, Literal, NamedTuple

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from app.api.problems import Problem
from app.api.vigil import Vigil, Watch
from app.rights import Action, Placed, may, sees
from app.settings import Settings
from app.store import Person, Store
from app.store.audit import AuditAction
from dashboard.feed import NOT_ALLOWED, NOT_LOGGED_IN, Refused
from streams.events import Place

COOKIE = "duting_session"
DESK_COOKIE = "duting_desk"
"""Of a desk in the frame of another site's page, where the usual cookie does not reach; only for agents."""


class Credential(NamedTuple):
    """What a request shows to be let in."""

    kind: Literal["session", "token"]
    secret: str
    framed: bool = False
    """It came with ``DESK_COOKIE``."""

    def person(self, store: Store) -> Person | None:
        """Who that is at this moment; ``None`` if it lets nobody in (any more)."""
        if self.kind == "token":
            return store.tokens.person(self.secret)
        person = store.sessions.person(self.secret)
        return None if self.framed and person is not None and person.role != "agent" else person


def address_of(connection: HTTPConnection) -> str:
    """The peer's address; the server's ``--proxy-headers`` decides whether a proxy may name another."""
    return connection.client.host if connection.client is not None else "unknown"


def token_of(connection: HTTPConnection, cookie: str = COOKIE) -> str | None:
    """The session's."""
    token = connection.cookies.get(cookie)
    return token if token and len(token) <= 128 else None


def framed_token_of(connection: HTTPConnection) -> str | None:
    """That of a desk in another site's frame, where frames are allowed at all."""
    settings: Settings = connection.app.state.settings
    return token_of(connection, DESK_COOKIE) if settings.frame_origins else None


def bearer_of(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def credential_of(connection: HTTPConnection) -> Credential | None:
    """Who shows a token is meant by it, whatever cookies come along: one request is never two people."""
    if (bearer := bearer_of(connection)) is not None:
        return Credential("token", bearer[:256])
    if (token := token_of(connection)) is not None:
        return Credential("session", token)
    framed = framed_token_of(connection)
    return Credential("session", framed, framed=True) if framed is not None else None


def logged_in(request: Request) -> Person:
    store: Store = request.app.state.store
    credential = credential_of(request)
    person = credential.person(store) if credential is not None else None
    if person is None:
        if credential is not None and credential.kind == "token":
            raise Problem("token_refused", {"WWW-Authenticate": "Bearer"})
        raise Problem("login_required")
    return person


def allowed(action: Action) -> Callable[[Person], Person]:
    """A dependency that lets through only those who may do such a thing."""

    def check(person: Annotated[Person, Depends(logged_in)]) -> Person:
        if not may(person, action):
            raise Problem("role_not_allowed")
        return person

    return check


LoggedIn = Annotated[Person, Depends(logged_in)]
Reader = Annotated[Person, Depends(allowed("call.read"))]
Hearer = Annotated[Person, Depends(allowed("call.audio"))]
Listener = Annotated[Person, Depends(allowed("call.listen"))]
Revealer = Annotated[Person, Depends(allowed("call.reveal"))]
Noter = Annotated[Person, Depends(allowed("call.note"))]
Successor = Annotated[Person, Depends(allowed("call.takeover"))]
"""May ask to go on with a call in the agent's place."""
Exporter = Annotated[Person, Depends(allowed("call.export"))]
RuleReader = Annotated[Person, Depends(allowed("rules.read"))]
Supervisor = Annotated[Person, Depends(allowed("alert.handle"))]
"""Looks after alerts."""
Overseer = Annotated[Person, Depends(allowed("alert.judge"))]
"""Says whether alerts were right."""
Whisperer = Annotated[Person, Depends(allowed("call.whisper"))]
AtTheDesk = Annotated[Person, Depends(allowed("desk.use"))]
Colleague = Annotated[Person, Depends(allowed("presence.read"))]
RuleKeeper = Annotated[Person, Depends(allowed("rules.load"))]
RuleWriter = Annotated[Person, Depends(allowed("rules.draft"))]
RulePublisher = Annotated[Person, Depends(allowed("rules.publish"))]
PeopleKeeper = Annotated[Person, Depends(allowed("people.manage"))]
TokenKeeper = Annotated[Person, Depends(allowed("tokens.manage"))]
Auditor = Annotated[Person, Depends(allowed("audit.read"))]


def in_sight(person: Person, call: Placed | None, problem: str = "unknown_call") -> None:
    """Raises the problem where there is no such call, and just the same where the person does not see it."""
    if call is None or not sees(person, call):
        raise Problem(problem)


async def check_sight(request: Request, person: Person, call_id: str) -> Place:
    """Whose call it is, if the person sees it; else there is no such call."""
    store: Store = request.app.state.store
    place = await run_in_threadpool(store.calls.place, call_id)
    in_sight(person, place)
    assert place is not None
    return place


def record_reading(request: Request, person: Person, action: AuditAction, call_id: str) -> None:
    """Write into the audit who reads what. A player asks for a file in many pieces: that is one reading.

    Raises ``StoreError`` where it cannot be written; then it is not known the next time either.
    """
    readings: Readings = request.app.state.readings
    store: Store = request.app.state.store
    reading = (person.username, action, call_id, address_of(request))
    readings.once(reading, lambda: store.audit.record(*reading))


class Readings:
    """Which readings were written down within the last minute. Safe to use from many threads."""

    WITHIN_S = 60.0
    REMEMBERED = 1000
    TURNS = 64
    """Readings that are written down at the same time; a few wait for another one's turn for nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._turns = [Lock() for _ in range(self.TURNS)]
        self._recent: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def once(self, reading: tuple[str, ...], write: Callable[[], None]) -> None:
        """``write`` it, unless it is written down already. Who reads it meanwhile waits for what becomes of
        that, and writes in turn where it failed."""
        with self._turns[hash(reading) % self.TURNS]:
            if not self._is_known(reading):
                write()
                self._remember(reading)

    def _is_known(self, reading: tuple[str, ...]) -> bool:
        with self._lock:
            last = self._recent.get(reading)
        return last is not None and self._clock() - last < self.WITHIN_S

    def _remember(self, reading: tuple[str, ...]) -> None:
        with self._lock:
            self._recent[reading] = self._clock()
            self._recent.move_to_end(reading)
            if len(self._recent) > self.REMEMBERED:
                self._recent.popitem(last=False)


async def may_listen(socket: WebSocket) -> Watch:
    """The feed's permission: who may read calls is told of those in sight."""
    store: Store = socket.app.state.store
    vigil: Vigil = socket.app.state.vigil
    credential = credential_of(socket)
    person = await run_in_threadpool(credential.person, store) if credential is not None else None
    if credential is None or person is None:
        raise Refused(NOT_LOGGED_IN)
    if not may(person, "call.read"):
        raise Refused(NOT_ALLOWED)
    return await vigil.admit(credential.kind, credential.secret, person)
