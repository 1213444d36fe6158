"""``python -m tests.app.kill_appending DATABASE [REDIS]``: processes that die while they store a step.

One process for each moment: the first dies before its first statement to the database, the next before its
second, and so on through the commit, until one has got to the end. Says how many there were. What each of
them wished was the step of an alert of its own, ``a1`` the first's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from app.outlet import LocalOutlet, Outlet
from app.redis_outlet import RedisOutlet
from streams.events import Decided
from tests.app.store_support import EVENTS_KEPT, open_store

MOST = 60
WRITER = "outlet-writer"


def step(number: int) -> Decided:
    return Decided(
        id=f"step {number}",
        call_id="c1",
        alert_id=f"a{number}",
        media_ms=number * 1000 + 500,
        action="acknowledge",
        by="li",
        address="10.0.0.7",
    )


class Death:
    """Kills its process at the n-th of the writer's moments."""

    def __init__(self, at: int) -> None:
        self._left = at
        for target, name in (
            (Engine, "before_cursor_execute"),
            (Session, "before_commit"),
            (Engine, "commit"),
            (Session, "after_commit"),
        ):
            event.listen(target, name, self._pass)

    def _pass(self, *_given: object) -> None:
        if threading.current_thread().name != WRITER:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def live(number: int, database: str, redis: str | None) -> None:
    store = open_store(database)
    outlet: Outlet
    if redis is None:
        outlet = LocalOutlet(store, events_kept=EVENTS_KEPT)
    else:
        outlet = RedisOutlet(store, redis, events_kept=EVENTS_KEPT)
    await outlet.start()
    Death(number)
    await outlet.append([step(number)])


def main(database: str, redis: str | None = None) -> None:
    open_store(database).close()  # so that each of them finds loaded what it needs
    for number in range(1, MOST):
        child = os.fork()
        if child == 0:
            asyncio.run(live(number, database, redis))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            print(number)
            return
        if os.WTERMSIG(status) != signal.SIGKILL:
            raise SystemExit(f"process {number} ended otherwise: {status}")
    raise SystemExit("there is no end to the statements of one step")


if __name__ == "__main__":
    main(*sys.argv[1:])
