"""Reading what was masked, notes and take-overs, over HTTP and in the log."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.errors import StoreError
from app.sealing import Keyring
from app.settings import Settings
from app.store import Store
from app.takeover import Takeovers, signature
from streams.events import CallInfo, OutletEvent, Published
from streams.sealing import Sealed
from streams.supervising import NOTE_LENGTH, NOTES_MOST, REASON_LENGTH, Note, Takeover
from streams.telling import Teller
from tests.app.ingest.served import served
from tests.app.store_support import House, ended, house, open_store, said, started, until

SPOKEN, MASKED = "我的手机是13912345678", "我的手机是*******5678"
KEY = base64.b64encode(b"k" * 32).decode()
RING = Keyring([b"k" * 32])
UTTERANCE = "c1:customer:0"
HEADERS = {"X-Duting": "1"}
TAKEOVER = {"takeover_url": "https://pbx.bank.example/take", "takeover_secret": "sixteen characters"}


def masked(box: str | None = None) -> tuple[Any, ...]:
    box = box or RING.seal(UTTERANCE, SPOKEN)
    sealed = Sealed(call_id="c1", utterance_id=UTTERANCE, media_ms=800, box=box)
    return said(0, MASKED, role="customer"), sealed


@pytest.fixture
def at(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, set_={"pii_keys": KEY}) as house_:
        house_.append(started(agent="agent", team="A"), *masked())
        yield house_


def reveal(at: House, body: Any = None, utterance: str = UTTERANCE) -> httpx.Response:
    body = {"reason": "客户投诉核对号码"} if body is None else body
    return at.client.post(f"/api/calls/c1/utterances/{utterance}/reveal", headers=HEADERS, json=body)


# ── what was masked ───────────────────────────────────────────────────────────────────────────────


def test_the_core_seals_the_originals_of_masked_finals_and_of_nothing_else() -> None:
    posted: list[Any] = []
    teller = Teller(
        lambda text: text.replace("139", "***"),
        posted.extend,
        lambda: 0.0,
        seal=lambda utterance, text: f"{utterance}!{text}",
    )
    teller.transcript(said(0, "您好"))
    teller.transcript(said(1000, "139", final=False))
    assert not any(isinstance(event, Sealed) for event in posted)
    teller.transcript(said(2000, "139"))
    assert (posted[-2].text, posted[-1].box) == ("***", "c1:agent:2000!139")


def test_without_a_key_the_core_keeps_nothing() -> None:
    posted: list[Any] = []
    Teller(lambda text: text.replace("139", "***"), posted.extend, lambda: 0.0).transcript(said(0, "139"))
    assert [type(event).__name__ for event in posted] == ["Transcript"]


def test_who_may_reads_the_original_and_it_was_written_down_with_the_reason(at: House) -> None:
    for role in ("supervisor", "inspector"):
        at.log_in(role)
        answer = reveal(at)
        assert (answer.status_code, answer.json()["text"]) == (200, SPOKEN)
        assert answer.headers["cache-control"] == "no-store"
        entry = at.store.audit.about("c1")[0]
        assert (entry.username, entry.action) == (role, "call.revealed")
        assert entry.detail == f"{UTTERANCE}: 客户投诉核对号码"


@pytest.mark.parametrize("role", ["agent", "administrator"])
def test_the_agent_and_who_keeps_the_accounts_read_no_original(at: House, role: str) -> None:
    at.log_in(role)
    assert reveal(at).status_code == 403


def test_the_original_is_in_no_answer_no_event_and_in_no_row_that_can_be_read(at: House) -> None:
    at.log_in("supervisor")
    detail = at.client.get("/api/calls/c1")
    assert detail.json()["revealable"] == [UTTERANCE]
    assert "13912345678" not in detail.text
    assert "box" not in detail.text
    _, head = at.store.log.bounds()
    told = at.store.log.read(0, head, 100)
    assert [stored.published.type for stored in told] == ["call.started", "utterance.final"]
    raw = b"".join(path.read_bytes() for path in at.settings.data_dir.glob("test.db*"))
    assert b"13912345678" not in raw


def test_where_the_audit_cannot_be_written_nothing_is_answered(
    at: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.log_in("supervisor")

    def fail(*_: Any) -> None:
        raise StoreError("away")

    monkeypatch.setattr(at.store.audit, "record", fail)
    answer = reveal(at)
    assert answer.status_code == 503
    assert "139" not in answer.text


def test_a_reason_is_needed_is_bounded_and_is_masked_itself(at: House) -> None:
    at.log_in("supervisor")
    assert reveal(at, {}).status_code == 422
    assert reveal(at, {"reason": "  "}).json()["error"]["code"] == "reason_needed"
    assert reveal(at, {"reason": "字" * (REASON_LENGTH + 1)}).json()["error"]["code"] == "reason_too_long"
    assert reveal(at, {"reason": "核对 13912345678"}).status_code == 200
    assert at.store.audit.about("c1")[0].detail == f"{UTTERANCE}: 核对 *******5678"


def test_what_was_not_kept_cannot_be_opened_or_is_not_there_is_said(at: House) -> None:
    at.append(said(2000, "密码是****"), said(4000, "别的", role="customer"))
    at.append(*masked(Keyring([b"x" * 32]).seal(UTTERANCE, SPOKEN)))
    at.log_in("supervisor")
    assert reveal(at, utterance="c1:agent:2000").json()["error"]["code"] == "no_original"
    assert reveal(at, utterance="c2:agent:0").json()["error"]["code"] == "unknown_utterance"
    assert reveal(at).json()["error"]["code"] == "original_locked"
    at.append(*masked(RING.seal(UTTERANCE, "从前是另一句话13912345678")))
    assert reveal(at).json()["error"]["code"] == "no_original"
    assert [entry.action for entry in at.store.audit.about("c1")] == []


def test_where_no_key_is_set_the_page_is_told(tmp_path: Path) -> None:
    with house(tmp_path) as at:
        at.append(started(), said(0, MASKED, role="customer"))
        at.log_in("supervisor")
        assert at.client.get("/api/calls/c1").json()["keeps_originals"] is False
        assert reveal(at).json()["error"]["code"] == "originals_not_kept"


def test_a_supervisor_of_another_team_reads_no_original_and_writes_no_note(at: House) -> None:
    at.store.users.set_teams("supervisor", ["B"])
    at.log_in("supervisor")
    assert reveal(at).json()["error"]["code"] == "unknown_call"
    note = at.client.post("/api/calls/c1/notes", headers=HEADERS, json={"text": "x", "media_ms": 0})
    assert note.json()["error"]["code"] == "unknown_call"


# ── notes ─────────────────────────────────────────────────────────────────────────────────────────


def write(at: House, text: str, media_ms: int = 500) -> httpx.Response:
    body = {"text": text, "media_ms": media_ms}
    return at.client.post("/api/calls/c1/notes", headers=HEADERS, json=body)


def test_a_note_is_masked_kept_told_and_written_down(at: House) -> None:
    at.log_in("inspector")
    answer = write(at, f"  核对过了，{SPOKEN}  ")
    assert answer.status_code == 201
    note = answer.json()
    assert (note["text"], note["by"], note["media_ms"]) == (f"核对过了，{MASKED}", "inspector", 500)
    assert at.client.get("/api/calls/c1").json()["notes"] == [note]
    last = at.store.log.read(0, 100, 100)[-1].published
    assert (last.type, last.media_ms) == ("note.added", 500)
    assert at.store.audit.about("c1")[0].action == "call.read"
    assert at.store.audit.about("c1")[1].detail == note["id"]


def test_a_note_is_bounded_and_says_something(at: House) -> None:
    at.log_in("supervisor")
    assert write(at, "字" * NOTE_LENGTH).status_code == 201
    assert write(at, "字" * (NOTE_LENGTH + 1)).json()["error"]["code"] == "note_too_long"
    assert write(at, " \n").json()["error"]["code"] == "comment_empty"
    assert write(at, "x", media_ms=-1).status_code == 422
    assert write(at, "一\0二").json()["text"] == "一\ufffd二"
    broken = b'{"text": "\\ud800", "media_ms": 0}'
    headers = HEADERS | {"Content-Type": "application/json"}
    assert at.client.post("/api/calls/c1/notes", headers=headers, content=broken).status_code in (201, 422)


def test_a_call_takes_so_many_notes_and_then_says_so(at: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("app.store.beside_projection.NOTES_MOST", "app.api.supervising.NOTES_MOST"):
        monkeypatch.setattr(place, 3)
    notes = [
        Note(id=f"n{number}", call_id=call, media_ms=0, by="li", at="2026-01-01T00:00:00.000Z", text="x")
        for number, call in enumerate(["c1", "c1", "c2"])
    ]
    at.append(started("c2", agent="agent", team="A"))
    at.append(*notes, notes[0])
    at.log_in("supervisor")
    assert [write(at, "y").status_code for _ in range(3)] == [201, 409, 409]
    refused = write(at, "y").json()["error"]
    assert (refused["code"], refused["limit"]) == ("too_many_notes", "3")
    assert len(at.store.beside.notes("c1")) == 3
    assert [entry.action for entry in at.store.audit.about("c1")] == ["call.noted"] * 3


def test_many_notes_at_the_same_time_are_not_more(database_url: str) -> None:
    store = open_store(database_url)
    at = "2026-01-01T00:00:00.000Z"
    notes = [
        Note(id=f"n{number}", call_id="c1", media_ms=0, by="li", at=at, text="x")
        for number in range(NOTES_MOST + 5)
    ]
    store.log.append([(started(), at), *((note, at) for note in notes[:-3])])
    assert store.log.append([(note, at) for note in notes[-3:]]) == [[], [], []]
    assert len(store.beside.notes("c1")) == NOTES_MOST
    store.close()


def test_the_agent_of_the_call_is_not_told_of_notes_and_reads_none(at: House) -> None:
    note = Note(id="n1", call_id="c1", media_ms=0, by="li", at="2026-01-01T00:00:00.000Z", text="注意")
    at.log_in("agent")
    cookie = f"duting_session={at.client.cookies['duting_session']}"
    with at.client.websocket_connect("/api/events", headers={"Cookie": cookie}) as socket:
        assert socket.receive_json()["type"] == "hello"
        at.append(note)
        at.append(asked())
        at.append(said(3000, "好的"))
        told = msgspec.json.decode(socket.receive_text())
        assert told["type"] == "utterance.final"
    detail = at.client.get("/api/calls/c1").json()
    assert (detail["notes"], detail["takeovers"], detail["revealable"]) == ([], [], [])
    assert write(at, "x").status_code == 403


# ── take-overs ────────────────────────────────────────────────────────────────────────────────────


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


def test_without_an_address_the_button_says_so(at: House) -> None:
    at.log_in("supervisor")
    answer = at.client.post("/api/calls/c1/takeover", headers=HEADERS, json={"reason": "x"})
    assert answer.json()["error"]["code"] == "takeover_not_set_up"
    at.log_in("inspector")
    answer = at.client.post("/api/calls/c1/takeover", headers=HEADERS, json={"reason": "x"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "settings",
    [{"takeover_url": "http://pbx.example/x", "takeover_secret": "s" * 16}, {"takeover_url": "https://x"}],
)
def test_an_address_without_tls_or_without_a_secret_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="DUTING_TAKEOVER"):
        Settings(_env_file=None, **settings)  # type: ignore[call-arg, arg-type]


def test_everything_beside_a_call_is_there_after_a_restart(database_url: str) -> None:
    store: Store = open_store(database_url)
    at = "2026-01-01T00:00:00.000Z"
    store.log.append([(event, at) for event in (started(), *masked(), *masked(), asked())])
    store.close()
    again = Store.open(database_url)
    assert again.beside.originals("c1") == [UTTERANCE]
    found = again.beside.masked("c1", UTTERANCE)
    assert found is not None
    assert found.box is not None
    assert RING.open(UTTERANCE, found.box) == SPOKEN
    assert again.beside.masked("c2", UTTERANCE) is None
    again.close()
