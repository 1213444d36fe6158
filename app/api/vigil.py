"""Who was let in for longer than one request: whether they still may, and that others see them there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

import msgspec
import structlog
from msgspec import Struct

from app.errors import LiveError, StoreError
from app.live import Live
from app.rights import Sight, sight_of
from app.store import Person, Store
from dashboard.feed import HEARTBEAT_S, NOT_LOGGED_IN

log = structlog.get_logger(__name__)

CHECK_S: Final = 2.0
"""Between two questions to the store, one for all who watch: whoever is shut out is gone so soon."""
AWAY_S: Final = 30.0
"""While the store cannot be asked, those who were let in stay for so long."""
TRY_AGAIN: Final = 1011

PERSON: Final = "person"
"""The kind under which people who watch are present."""
PRESENT_S: Final = 3 * HEARTBEAT_S


class Watching(Struct, frozen=True, kw_only=True):
    """What others may know of somebody who watches; ``teams`` decides who of them."""

    username: str
    name: str
    role: str
    teams: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()


class Watch:
    """One who was let in; see ``dashboard.feed.Admission``."""

    def __init__(self, vigil: Vigil, kind: Literal["session", "token"], secret: str, person: Person) -> None:
        self._vigil = vigil
        self._over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.kind, self.secret, self.person = kind, secret, person

    @property
    def sight(self) -> Sight:
        return sight_of(self.person)

    async def over(self) -> int:
        return await asyncio.shield(self._over)

    def leave(self) -> None:
        self._vigil.watches.discard(self)

    def end(self, code: int) -> None:
        if not self._over.done():
            self._over.set_result(code)


class Vigil:
    """For one event loop. Runs while somebody watches."""

    def __init__(
        self,
        store: Store,
        live: Live,
        *,
        every_s: float = CHECK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watches: set[Watch] = set()
        self._store = store
        self._live = live
        self._every_s = every_s
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._asked = self._announced = clock()

    async def admit(self, kind: Literal["session", "token"], secret: str, person: Person) -> Watch:
        """Look after this person from now on, until the watch is left."""
        watch = Watch(self, kind, secret, person)
        self.watches.add(watch)
        if self._task is None or self._task.done():
            self._asked = self._announced = self._clock()
            self._task = asyncio.create_task(self._run(), name="vigil")
        try:
            await self._announce(person)
        except BaseException:  # the browser is gone already
            watch.leave()
            raise
        return watch

    async def _run(self) -> None:
        while self.watches:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except Exception as error:
                log.error("vigil.failed", error=type(error).__name__)

    async def look(self) -> None:
        """End the watch of whoever may no more, or may something else: with new rights one begins anew."""
        watches = list(self.watches)
        try:
            present = await asyncio.to_thread(self._present, watches)
        except StoreError as error:
            log.warning("vigil.store_away", error=str(error))
            if self._clock() - self._asked >= AWAY_S:
                for watch in watches:
                    watch.end(TRY_AGAIN)
            return
        self._asked = self._clock()
        for watch in watches:
            now = present.get((watch.kind, watch.secret))
            if now is None or _rights(now) != _rights(watch.person):
                watch.end(NOT_LOGGED_IN)
        if self._clock() - self._announced >= HEARTBEAT_S:
            self._announced = self._clock()
            for person in {watch.person.username: watch.person for watch in watches}.values():
                await self._announce(person)

    def _present(self, watches: list[Watch]) -> dict[tuple[str, str], Person]:
        sessions = {watch.secret for watch in watches if watch.kind == "session"}
        tokens = {watch.secret for watch in watches if watch.kind == "token"}
        found: dict[tuple[str, str], Person] = {}
        if sessions:
            known = self._store.sessions.persons(sessions)
            found |= {("session", secret): person for secret, person in known.items()}
        for secret in tokens:
            if (person := self._store.tokens.person(secret)) is not None:
                found["token", secret] = person
        return found

    async def _announce(self, person: Person) -> None:
        """Others see that this person watches. A program is nobody who watches."""
        if person.role == "token":
            return
        watching = Watching(username=person.username, name=person.name, role=person.role, teams=person.teams)
        with suppress(LiveError):  # who watches is worth less than that they see
            await self._live.announce(PERSON, person.username, msgspec.json.encode(watching), PRESENT_S)


def _rights(person: Person) -> tuple[object, ...]:
    return person.username, person.role, person.teams, person.scopes
