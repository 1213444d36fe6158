"""The load's telephones are telephones to the real server, whatever they speak."""

from __future__ import annotations

import asyncio
import time

import pytest
import sqlalchemy

from app.demo.truth import ScriptedCall, Turn
from benchmarks.load import Load, LoadReport, Played
from benchmarks.material import material
from benchmarks.rig import Rig, server
from benchmarks.wires import CHUNK_S, WIRES, spaced
from tests.benchmarks.test_load import CALLS

SHORT = ScriptedCall("short", CALLS / "short.ogg", (Turn(0.0, 9.0, "agent", "好"),))


async def play(rig: Rig, name: str) -> LoadReport:
    wire = WIRES[name]
    load = Load(
        rig.address.replace("http", "ws", 1),
        rig.token,
        [material(SHORT, wire)],
        starts_s=[0.0],
        until_s=[0.0],
        seed=1,
        once=True,
        wire=wire,
    )
    return await load.run()


async def all_at_once(rig: Rig) -> list[LoadReport]:
    return await asyncio.gather(*(play(rig, name) for name in WIRES))


def ended(rig: Rig, count: int) -> dict[str, tuple[int, int]]:
    """Length and gap of the calls that are over, when ``count`` of them are."""
    query = sqlalchemy.text("select call_id, media_ms, gap_ms from calls where state = 'ended'")
    deadline = time.monotonic() + 20
    rows: dict[str, tuple[int, int]] = {}
    while len(rows) < count and time.monotonic() < deadline:
        time.sleep(0.1)
        with sqlalchemy.create_engine(rig.database).connect() as store:
            rows = {call_id: (media_ms, gap_ms) for call_id, media_ms, gap_ms in store.execute(query)}
    return rows


def test_the_server_hears_each_of_them_to_the_end_without_a_gap() -> None:
    with server({"DUTING_AUDIOSOCKET_PORT": "0"}, scripted=True) as rig:
        reports = asyncio.run(all_at_once(rig))
        rows = ended(rig, len(WIRES))
    calls = {name: report.calls[0] for name, report in zip(WIRES, reports, strict=True)}
    assert {name: call.outcome for name, call in calls.items()} == dict.fromkeys(WIRES, "hangup")
    for name, call in calls.items():
        assert (name, *rows[call.call_id]) == (name, pytest.approx(call.seconds * 1000, abs=60), 0)


def test_a_message_of_several_chunks_goes_out_with_its_last() -> None:
    assert spaced([b"a", b"b"], 3) == (b"", b"", b"a", b"", b"", b"b")


@pytest.mark.parametrize("name", WIRES)
def test_all_connections_of_a_call_have_as_much_to_say(name: str) -> None:
    made = material(SHORT, WIRES[name])
    assert len(made.legs) == WIRES[name].legs
    assert len({len(leg) for leg in made.legs}) == 1
    assert made.seconds == pytest.approx(9.4, abs=0.1)


def test_what_was_sent_counts_from_the_message_that_holds_it() -> None:
    def sent(media_s: float, together: int) -> float:
        report = LoadReport(0.0, 1.0, 0.0, 0.0, {}, [], {}, together)
        return report.sent_s(Played("c", "short", 0, 10.0, 9.0, "hangup"), media_s)

    assert sent(0.021, 1) == pytest.approx(10.0 + 2 * CHUNK_S)
    assert sent(0.02, 1) == pytest.approx(10.0 + CHUNK_S)
    assert sent(0.0, 1) == pytest.approx(10.0 + CHUNK_S)
    assert sent(0.021, 5) == pytest.approx(10.1)
    assert sent(0.101, 5) == pytest.approx(10.2)
