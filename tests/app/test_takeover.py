"""Take-overs: who is heard, what the telephony is asked, and what becomes of it when something fails."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.errors import StoreError
from app.settings import Settings
from app.takeover import Takeovers, signature
from streams.events import CallInfo, OutletEvent, Published
from streams.supervising import Takeover
from tests.app.ingest.served import served
from tests.app.store_support import ended, house, open_store, started, until

HEADERS = {"X-Duting": "1"}
TAKEOVER = {"takeover_url": "https://pbx.bank.example/take", "takeover_secret": "sixteen characters"}


def asked(number: int = 1, at: str = "2026-01-01T00:00:00.000Z", **changes: Any) -> Takeover:
    content: dict[str, Any] = {"id": f"t{number}", "call_id": "c1", "media_ms": 900, "by": "li"}
    return Takeover(**(content | {"at": at, "reason": "承诺保本"} | changes))


def test_of_several_who_ask_one_is_heard_and_an_outcome_is_told_once(database_url: str) -> None:
    store = open_store(database_url)

    def told(second: int, *takeovers: Takeover) -> list[str]:
        at = f"2026-01-01T00:00:{second:02}.000Z"
        return [
            one.published.type for stored in store.log.append([(t, at) for t in takeovers]) for one in stored
        ]

    store.log.append([(started(), "2026-01-01T00:00:00.000Z")])
    assert told(0, asked(1), asked(2), asked(1)) == ["takeover.asked"]
    assert told(9, asked(3)) == []
    failed = asked(1, state="failed", attempts=3, problem="timeout")
    assert told(10, failed, failed, asked(9, state="accepted")) == ["takeover.failed"]
    assert told(11, asked(4)) == ["takeover.asked"]
    assert [one.state for one in store.beside.takeovers("c1")] == ["failed", "asked"]
    # One whose server was killed before it had an answer does not stand in the way for ever.
    assert told(45, asked(5, at="2026-01-01T00:00:45.000Z")) == ["takeover.asked"]
    store.close()


def test_one_that_was_given_up_gives_way_to_its_outcome_and_to_nothing_else(database_url: str) -> None:
    store = open_store(database_url)
    at = "2026-01-01T00:00:00.000Z"
    lost, accepted = asked(state="failed", problem="lost"), asked(state="accepted", status=200)

    def told(takeover: Takeover) -> int:
        return len(store.log.append([(takeover, at)])[0])

    store.log.append([(started(), at), (asked(), at)])
    assert [told(one) for one in (lost, lost, asked(), accepted, lost, accepted)] == [1, 0, 0, 1, 0, 0]
    assert [(one.state, one.problem) for one in store.beside.takeovers("c1")] == [("accepted", None)]
    store.close()


async def test_what_nobody_tells_of_any_more_is_told_to_be_lost_at_the_next_start(database_url: str) -> None:
    store = open_store(database_url)
    at, later = "2023-11-14T22:12:50.499Z", "2023-11-14T22:12:50.500Z"  # half a minute ago
    store.log.append([(event, at) for event in (started(), asked(1, at))])
    store.log.append([(event, later) for event in (started("c2"), asked(2, later, call_id="c2"))])
    done = asyncio.Event()

    async def append(events: Sequence[OutletEvent]) -> None:
        store.log.append([(event, at) for event in events])
        done.set()

    takeovers = of_a_pbx(append)
    await takeovers.start(store.beside.unanswered)
    await done.wait()
    await takeovers.aclose()
    found = [*store.beside.takeovers("c1"), *store.beside.takeovers("c2")]
    assert [(one.id, one.state, one.problem) for one in found] == [
        ("t1", "failed", "lost"),
        ("t2", "asked", None),
    ]
    assert await takeovers.look(store.beside.unanswered) == 0
    store.close()


async def test_a_service_tells_so_when_it_starts(tmp_path: Path) -> None:
    at = "2023-11-14T22:12:50.500Z"
    store = open_store(Settings(data_dir=tmp_path, _env_file=None).database)  # type: ignore[call-arg]
    store.log.append([(started(), at), (asked(at=at), at)])
    async with served(tmp_path):
        await asyncio.to_thread(until, lambda: store.beside.takeovers("c1")[0].problem == "lost")
    store.close()


class Pbx:
    """A telephony that answers what it is told to, and keeps what it was asked."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers, self.asked = list(answers), []  # type: ignore[var-annotated]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, text="x" * 100)


async def outcome(*answers: int | Exception) -> tuple[Takeover, Pbx, list[float]]:
    told: list[Any] = []
    pauses: list[float] = []

    async def append(events: Any) -> None:
        told.extend(events)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    pbx = Pbx(*answers)
    takeovers = of_a_pbx(append, transport=httpx.MockTransport(pbx), pause=pause)
    await all_of(takeovers)
    return told[0], pbx, pauses


def of_a_pbx(append: Any, url: str = TAKEOVER["takeover_url"], **others: Any) -> Takeovers:
    set_ = TAKEOVER | {"takeover_url": url}
    settings = Settings(_env_file=None, **set_)  # type: ignore[call-arg, arg-type]
    return Takeovers(settings, append, clock=lambda: 1_700_000_000.5, **others)


async def all_of(takeovers: Takeovers) -> None:
    takeovers.ask(asked(), CallInfo(call_id="c1", agent="8001", customer="1390000"))
    for task in list(takeovers._running):
        await task
    assert not takeovers._running


async def at_once(_seconds: float) -> None:
    await asyncio.sleep(0)


async def test_a_telephony_that_agrees_is_asked_once_and_signed_to() -> None:
    told, pbx, _ = await outcome(204)
    assert (told.state, told.status, told.attempts) == ("accepted", 204, 1)
    request = pbx.asked[0]
    body = msgspec.json.decode(request.content)
    assert (body["call_id"], body["reason"], body["agent"]) == ("c1", "承诺保本", "8001")
    assert b"1390000" not in request.content
    assert request.headers["x-duting-timestamp"] == "1700000000"
    expected = hmac.new(b"sixteen characters", b"1700000000." + request.content, hashlib.sha256).hexdigest()
    assert request.headers["x-duting-signature"] == f"sha256={expected}"
    assert signature("sixteen characters", "1700000000", request.content) == f"sha256={expected}"


async def test_one_that_refuses_is_not_asked_again() -> None:
    told, pbx, pauses = await outcome(404)
    assert (told.state, told.problem, told.status) == ("failed", "refused", 404)
    assert (len(pbx.asked), pauses) == (1, [])


async def test_one_that_stumbles_is_asked_again_with_the_same_key() -> None:
    told, pbx, pauses = await outcome(503, httpx.ConnectError("no"), 200)
    assert (told.state, told.attempts) == ("accepted", 3)
    assert len({request.headers["idempotency-key"] for request in pbx.asked}) == 1
    assert pauses == [1.0, 3.0]


async def test_one_that_never_answers_has_failed_and_a_redirect_is_not_followed() -> None:
    told, _, _ = await outcome(*[httpx.ReadTimeout("late")] * 3)
    assert (told.state, told.problem, told.status, told.attempts) == ("failed", "timeout", None, 3)
    told, pbx, _ = await outcome(302, 302, 302)
    assert (told.state, told.problem, len(pbx.asked)) == ("failed", "unreachable", 3)


async def test_one_that_answers_a_byte_at_a_time_has_not_answered_in_time() -> None:
    """To such a one no single read takes too long."""
    timeout_s = 0.2

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(timeout_s / 10)
        writer.close()

    told: list[Any] = []

    async def append(events: Any) -> None:
        told.extend(events)

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        takeovers = of_a_pbx(append, url=f"http://127.0.0.1:{port}/", pause=at_once, timeout_s=timeout_s)
        async with asyncio.timeout(10):
            await all_of(takeovers)
    assert [(one.state, one.problem, one.attempts) for one in told] == [("failed", "timeout", 3)]


@pytest.mark.parametrize("url", ["https://pbx.bank\x7f.example/take", "https://xn--.example/take"])
async def test_an_address_that_is_none_is_an_attempt_that_failed(url: str) -> None:
    told: list[Any] = []

    async def append(events: Any) -> None:
        told.extend(events)

    await all_of(of_a_pbx(append, url=url, transport=httpx.MockTransport(Pbx()), pause=at_once))
    assert [(one.state, one.problem) for one in told] == [("failed", "unreachable")]


async def test_an_outcome_waits_for_a_database_that_is_away() -> None:
    told: list[Any] = []
    tries = iter([StoreError("away"), StoreError("away"), None])

    async def append(events: Any) -> None:
        if (error := next(tries)) is not None:
            raise error
        told.extend(events)

    await all_of(of_a_pbx(append, transport=httpx.MockTransport(Pbx(200)), pause=at_once))
    assert [one.state for one in told] == ["accepted"]


async def test_one_that_is_cancelled_ends_although_the_database_is_away_for_good() -> None:
    tries: list[Any] = []

    async def append(events: Any) -> None:
        tries.extend(events)
        raise StoreError("away")

    transport = Lingering("asking")
    takeovers = of_a_pbx(append, transport=transport, pause=at_once)
    takeovers.ask(asked(), CallInfo(call_id="c1"))
    await transport.reached.wait()
    (task,) = takeovers._running
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.done()
    assert [one.problem for one in tries] == ["lost"]


class Lingering(httpx.AsyncBaseTransport):
    """Waits where it is told to; ``reached`` says that it does."""

    def __init__(self, where: str) -> None:
        self.where, self.reached = where, asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._wait("asking")
        return httpx.Response(200)

    async def aclose(self) -> None:
        await self._wait("closing")

    async def _wait(self, where: str) -> None:
        if where == self.where:
            self.reached.set()
            await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("where", "outcome"),
    [("asking", ("failed", "lost", 1)), ("closing", ("accepted", None, 1)), ("away", ("accepted", None, 1))],
)
async def test_at_the_end_of_the_service_what_is_known_is_told(where: str, outcome: tuple[Any, ...]) -> None:
    told: list[Any] = []
    transport = Lingering(where)

    async def append(events: Any) -> None:
        if where == "away" and not transport.reached.is_set():
            raise StoreError("away")
        told.extend(events)

    async def pause(_seconds: float) -> None:
        transport.reached.set()
        await asyncio.Event().wait()

    takeovers = of_a_pbx(append, transport=transport, pause=pause)
    takeovers.ask(asked(), CallInfo(call_id="c1"))
    await transport.reached.wait()
    await takeovers.aclose()
    assert [(one.state, one.problem, one.attempts) for one in told] == [outcome]


def test_a_take_over_is_asked_for_by_people_told_written_down_and_answered(tmp_path: Path) -> None:
    told: list[Published] = []
    with house(tmp_path, set_=TAKEOVER) as at:
        app: Any = at.client.app
        app.state.takeovers._transport = httpx.MockTransport(Pbx(200))
        at.append(started())
        at.log_in("supervisor")
        body = {"reason": "客户情绪激动"}
        assert at.client.get("/api/calls/c1").json()["takeover_possible"] is True
        first = at.client.post("/api/calls/c1/takeover", headers=HEADERS, json=body)
        assert (first.status_code, first.json()["state"]) == (202, "asked")
        for task in list(app.state.takeovers._running):
            at.client.portal.call(_done, task)  # type: ignore[union-attr]
        entry = at.store.audit.about("c1")[0]
        assert (entry.action, entry.detail) == ("call.takeover", f"{first.json()['id']}: 客户情绪激动")
        told = [stored.published for stored in at.store.log.read(0, 100, 100)]
        assert [one.type for one in told[1:]] == ["takeover.asked", "takeover.accepted"]
        at.append(ended())
        late = at.client.post("/api/calls/c1/takeover", headers=HEADERS, json=body)
        assert late.json()["error"]["code"] == "call_ended"


async def _done(task: Any) -> None:
    await task


@pytest.mark.parametrize(
    "settings",
    [{"takeover_url": "http://pbx.example/x", "takeover_secret": "s" * 16}, {"takeover_url": "https://x"}],
)
def test_an_address_without_tls_or_without_a_secret_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="DUTING_TAKEOVER"):
        Settings(_env_file=None, **settings)  # type: ignore[call-arg, arg-type]
