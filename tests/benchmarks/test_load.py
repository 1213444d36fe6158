"""benchmarks.load: orders of calls, and a load that plays into a server of the test's own."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from app.demo.truth import ScriptedCall, Turn
from benchmarks.load import GRID_S, Load, LoadReport, Played, orders
from benchmarks.material import CHUNK_S, material

CALLS = Path(__file__).parent.parent / "calls"


def test_a_line_plays_every_call_before_any_comes_again() -> None:
    names = ["a", "b", "c", "d"]
    order = list(islice(orders(names, seed=1, line=0), 8))
    assert sorted(order[:4]) == names
    assert sorted(order[4:]) == names


def test_orders_are_the_same_for_a_seed_and_differ_between_lines() -> None:
    names = list("abcdefgh")
    first, again, other = (list(islice(orders(names, 7, line), 8)) for line in (0, 0, 1))
    assert first == again
    assert first != other


def report(late: dict[int, float]) -> LoadReport:
    return LoadReport(begun_s=100.0, ended_s=200.0, cpu_s=1.0, worst_lag_s=0.0, late=late, calls=[], turns={})


def played(started_s: float) -> Played:
    return Played("one-1", "one", 0, started_s, 60.0, "hangup")


def test_a_sample_is_sent_with_the_chunk_it_stands_in() -> None:
    call = played(100.0)
    assert report({}).sent_s(call, 1.0) == pytest.approx(101.0)
    assert report({}).sent_s(call, 1.001) == pytest.approx(101.02)
    assert report({}).sent_s(call, 0.0) == pytest.approx(100.02)


def test_a_late_chunk_moves_the_end_of_its_phrase() -> None:
    tick = round(1.0 / GRID_S)
    assert report({tick: 0.05}).sent_s(played(100.0), 1.0) == pytest.approx(101.05)
    assert report({tick: 0.05}).sent_s(played(100.0), 1.5) == pytest.approx(101.5)


class Server:
    """Takes streams as the real one does; refuses those after the first ``room``."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.streams: list[list[dict[str, object]]] = []

    async def __call__(self, socket: ServerConnection) -> None:
        messages: list[dict[str, object]] = []
        async for text in socket:
            message = json.loads(text)
            messages.append(message)
            if message["event"] == "start" and len(self.streams) >= self.room:
                await socket.send(json.dumps({"event": "error", "message": "no room"}))
                await socket.close(1013)
                return
            if message["event"] == "start":
                self.streams.append(messages)
            if message["event"] == "stop":
                await socket.close(1000)
                return


async def play(server: Server, lines: int, until_s: float, **more: object) -> LoadReport:
    scripted = ScriptedCall("short", CALLS / "short.ogg", (Turn(0.0, 0.3, "agent", "好"),))
    async with serve(server, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        load = Load(
            f"ws://127.0.0.1:{port}",
            "secret",
            [material(scripted)],
            starts_s=[0.0] * lines,
            until_s=[until_s] * lines,
            seed=1,
            **{"once": False, "again_s": 10.0, **more},  # type: ignore[arg-type]
        )
        return await load.run()


async def test_streams_are_whole_and_in_order() -> None:
    server = Server(room=2)
    report = await play(server, lines=2, until_s=0.0, once=True)
    assert [call.outcome for call in report.calls] == ["hangup"]
    (messages,) = server.streams
    assert [m["event"] for m in messages[:2]] == ["connected", "start"]
    assert messages[-1]["event"] == "stop"
    chunks = round(report.calls[0].seconds / CHUNK_S)
    for track in ("inbound", "outbound"):
        media = [m["media"] for m in messages if m["event"] == "media"]
        numbers = [int(m["chunk"]) for m in media if m["track"] == track]  # type: ignore[index]
        assert numbers == list(range(1, chunks + 1))


async def test_a_refused_call_is_written_down_with_what_the_server_said() -> None:
    server = Server(room=0)
    report = await play(server, lines=1, until_s=1.5)
    (call,) = report.calls
    assert (call.outcome, call.code, call.message) == ("refused", 1013, "no room")


async def test_a_server_that_is_not_there_refuses() -> None:
    load = Load(
        "ws://127.0.0.1:1",
        "secret",
        [material(ScriptedCall("short", CALLS / "short.ogg", (Turn(0.0, 0.3, "agent", "好"),)))],
        starts_s=[0.0],
        until_s=[1.5],
        seed=1,
        once=False,
        again_s=10.0,
    )
    assert [call.outcome for call in (await load.run()).calls] == ["refused"]
