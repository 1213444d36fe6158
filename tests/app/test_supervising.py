"""Reading what was masked, and notes, over HTTP and in the log; see ``test_takeover``, too."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.errors import StoreError
from app.sealing import Keyring
from app.store import Store
from streams.sealing import Sealed
from streams.supervising import NOTE_LENGTH, NOTES_MOST, REASON_LENGTH, Note
from streams.telling import Teller
from tests.app.store_support import House, house, open_store, said, started
from tests.app.test_takeover import asked

SPOKEN, MASKED = "我的手机是13912345678", "我的手机是*******5678"
KEY = base64.b64encode(b"k" * 32).decode()
RING = Keyring([b"k" * 32])
UTTERANCE = "c1:customer:0"
HEADERS = {"X-Duting": "1"}


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


def test_without_an_address_the_button_says_so(at: House) -> None:
    at.log_in("supervisor")
    answer = at.client.post("/api/calls/c1/takeover", headers=HEADERS, json={"reason": "x"})
    assert answer.json()["error"]["code"] == "takeover_not_set_up"
    at.log_in("inspector")
    answer = at.client.post("/api/calls/c1/takeover", headers=HEADERS, json={"reason": "x"})
    assert answer.status_code == 403


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
