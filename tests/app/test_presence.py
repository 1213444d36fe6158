"""Who watches, and which processes are there; and whether this one may be sent calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from app.cluster import ASR, GATEWAY
from app.errors import LiveError
from app.live import LocalLive
from streams.gateway import WorkerState
from tests.app.store_support import House, house


class Shared(LocalLive):
    away = False

    async def present(self, kind: str) -> dict[str, bytes]:
        if self.away:
            raise LiveError("away")
        return await super().present(kind)

    async def announce(self, kind: str, name: str, info: bytes, seconds: float) -> None:
        if self.away:
            raise LiveError("away")
        await super().announce(kind, name, info, seconds)


@pytest.fixture
def live() -> Shared:
    return Shared()


@pytest.fixture
def at(tmp_path: Path, live: Shared) -> Iterator[House]:
    with house(tmp_path, live=live) as house_:
        yield house_


def test_people_whose_browsers_listen_are_present(at: House) -> None:
    at.log_in("supervisor")
    assert at.client.get("/api/presence").json() == {"people": [], "members": []}
    with at.client.websocket_connect("/api/events") as socket:
        assert socket.receive_json()["type"] == "hello"
        [person] = at.client.get("/api/presence").json()["people"]
    assert person == {"username": "supervisor", "name": "Supervisor", "role": "supervisor"}


def test_processes_of_a_cluster_say_how_they_do(at: House, live: Shared) -> None:
    state = msgspec.json.encode(WorkerState(calls=3, lag=7, step=1, call_ids=["secret"]))
    for kind, name in ((ASR, "asr-1"), (GATEWAY, "gateway-1")):
        at.client.portal.call(live.announce, kind, name, state, 60.0)  # type: ignore[union-attr]
    at.log_in("administrator")
    members = at.client.get("/api/presence").json()["members"]
    assert [(m["kind"], m["name"], m["calls"], m["lag"], m["step"]) for m in members] == [
        ("gateway", "gateway-1", 3, 7, 1),
        ("asr", "asr-1", 3, 7, 1),
    ]
    assert all("call_ids" not in member for member in members)


@pytest.mark.parametrize(("role", "status"), [(None, 401), ("agent", 403), ("inspector", 403)])
def test_others_do_not_see_who_watches(at: House, role: str | None, status: int) -> None:
    if role is not None:
        at.log_in(role)
    assert at.client.get("/api/presence").status_code == status


def test_without_redis_people_go_on_listening_and_presence_says_so(at: House, live: Shared) -> None:
    at.log_in("supervisor")
    live.away = True
    with at.client.websocket_connect("/api/events") as socket:
        assert socket.receive_json()["type"] == "hello"
    response = at.client.get("/api/presence")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "presence_unavailable")


@pytest.mark.parametrize(("missing", "status"), [(None, 200), ("no worker is there", 503)])
def test_readiness_says_what_is_missing(tmp_path: Path, missing: str | None, status: int) -> None:
    with house(tmp_path, ready=lambda: missing) as at:
        response = at.client.get("/readyz")
    assert response.status_code == status
    assert response.json().get("missing") == missing
