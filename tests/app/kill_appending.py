"""``python -m tests.app.kill_appending DATABASE [REDIS]``: processes that die while they store deeds.

One process for each moment: the first dies before its first statement to the database, the next before its
second, and so on through the commit, until one has got to the end. Says how many there were. What each of
them wished was about a call of its own, ``c1`` the first's: one of everything that people do with a call.
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
from streams.desk import HintAnswer, Whisper, WhisperSeen
from streams.events import AlertAction, Decided, Hint, OutletEvent, Traced
from streams.supervising import Note, Takeover
from tests.app.store_support import EVENTS_KEPT, alert, open_store, started

MOST = 120
WRITER = "outlet-writer"
ADDRESS = "10.0.0.7"
AT = "2026-03-01T08:30:00.125Z"


def call(number: int) -> list[OutletEvent]:
    """What is there before: two alerts, a hint, and a whisper that was not seen yet."""
    name = f"c{number}"
    return [
        started(name, agent="8001"),
        *(alert(number, name, id=f"{letter}{number}") for letter in "ab"),
        Hint(id=f"h{number}", call_id=name, rule_id="r", text={"zh": "请核实"}, media_ms=1),
        Whisper(id=f"w{number}", call_id=name, text="先安抚", by="li", media_ms=0),
    ]


def wishes(number: int) -> list[OutletEvent]:
    name = f"c{number}"

    def step(letter: str, action: AlertAction, by: str) -> Decided:
        return Decided(
            id=f"{action} {number}",
            call_id=name,
            alert_id=f"{letter}{number}",
            media_ms=number * 1000 + 500,
            action=action,
            by=by,
            text="x",
            address=ADDRESS,
        )

    def traced(what: Note | Takeover | HintAnswer | Whisper | WhisperSeen) -> Traced:
        return Traced(what=what, address=ADDRESS)

    return [
        started(name, agent="8001"),  # where the outlet has closed it, which hears no calls
        step("a", "acknowledge", "li"),
        step("b", "appeal", "8001"),
        traced(Note(id=f"n{number}", call_id=name, media_ms=0, by="li", at=AT, text="注意")),
        traced(Takeover(id=f"t{number}", call_id=name, media_ms=0, by="li", at=AT, reason="理由")),
        traced(
            HintAnswer(
                hint_id=f"h{number}", call_id=name, rule_id="r", media_ms=1, answer="useful", by="8001"
            )
        ),
        traced(Whisper(id=f"x{number}", call_id=name, text="慢一点", by="li", media_ms=0)),
        traced(WhisperSeen(whisper_id=f"w{number}", call_id=name, media_ms=0, by="8001", confirmed=True)),
    ]


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
    await outlet.append(wishes(number))


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
    raise SystemExit("there is no end to the statements of one append")


if __name__ == "__main__":
    main(*sys.argv[1:])
