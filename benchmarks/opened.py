"""``python -m benchmarks.opened --calls N --json OUT``: how soon AudioHook's ``open`` is answered.

N sessions start at the same moment against the real server (words from a script), each connects, sends
``open`` and waits for ``opened``. Genesys gives up after 5 s; calls were lost elsewhere because a server did
something slow before it answered. Prints the distribution and writes OUT.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from pathlib import Path

import websockets
from rich.console import Console

from app.demo.show import percentile
from app.phones.audiohook import MEDIA, PATH, Session, headers
from app.phones.call import PhoneCall
from benchmarks.machine import machine
from benchmarks.rig import Rig, server

STAY_S = 3.0
"""A session sends nothing for so long and closes."""


async def session(rig: Rig, number: int, together: asyncio.Barrier) -> tuple[float, float]:
    """Seconds from ``open`` to ``opened``, and from the first packet to it."""
    call = PhoneCall(f"opened-{number}", Path(), rig.token)
    session_id, address = str(uuid.uuid4()), rig.address.replace("http", "ws", 1)
    await together.wait()
    began = time.monotonic()
    given = headers(call, session_id, address.partition("://")[2], None)
    async with websockets.connect(f"{address}{PATH}", additional_headers=given, open_timeout=30) as socket:
        one = Session(socket, session_id, lambda entity: None)
        reading = asyncio.create_task(one.read())
        sent = time.monotonic()
        await one.say(
            "open",
            {
                "organizationId": given["Audiohook-Organization-Id"],
                "conversationId": call.call_id,
                "participant": {"id": str(uuid.uuid4()), "ani": "+8613800000000"},
                "media": MEDIA,
            },
        )
        await one.opened
        answered = time.monotonic()
        await asyncio.sleep(STAY_S)
        await one.say("close", {"reason": "end"})
        await one.closed
        reading.cancel()
    return answered - sent, answered - began


async def run(rig: Rig, calls: int) -> list[tuple[float, float]]:
    together = asyncio.Barrier(calls)
    return await asyncio.gather(*(session(rig, number, together) for number in range(calls)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for _ in range(given.runs):
        with server({"DUTING_MAX_CALLS": str(2 * given.calls)}, scripted=True) as rig:
            times = asyncio.run(run(rig, given.calls))
        row: dict[str, float | int | None] = {"calls": given.calls}
        for name, values in (("open", sorted(t for t, _ in times)), ("connect", sorted(t for _, t in times))):
            row |= {f"{name}_p{p}_ms": round(1000 * (percentile(values, p / 100) or 0), 1) for p in (50, 95)}
            row[f"{name}_max_ms"] = round(1000 * values[-1], 1)
        rows.append(row)
        Console().print(json.dumps(row), highlight=False)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        worst = max(rows, key=lambda row: row["open_max_ms"] or 0)
        given.json.write_text(json.dumps({"summary": worst, "machine": machine(), "runs": rows}, indent=1))


if __name__ == "__main__":
    main()
