"""Two gateways as people see them: one floor, one stream of events, one count of wrong passwords."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.api.attempts import FAILURES
from app.redis_live import RedisLive
from app.redis_outlet import RedisOutlet
from streams.events import Health, SpeechStarted
from tests.app.store_support import EVENTS_KEPT, House, alert, house, said, started


@pytest.fixture
def gateway(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Callable[[], House]]:
    """Starts one more."""
    with ExitStack() as running:
        yield lambda: running.enter_context(
            house(
                tmp_path,
                url=database_url,
                outlet=lambda store: RedisOutlet(store, redis_url, events_kept=EVENTS_KEPT),
                live=RedisLive(redis_url),
            )
        )


def test_who_comes_to_a_new_gateway_sees_the_whole_floor_and_goes_on_from_there(
    gateway: Callable[[], House],
) -> None:
    first = gateway()
    first.append(started(), SpeechStarted(call_id="c1", channel="agent", media_ms=0), said(), alert())
    first.append(Health(step=0, name="all", calls=1), said(1000))
    began = time.monotonic()
    second = gateway()
    assert second.log_in().status_code == 200
    floor = second.client.get("/api/floor").json()
    assert time.monotonic() - began < 5
    assert floor["cursor"] == 4
    assert [(call["call_id"], call["speaking"]["agent"]) for call in floor["calls"]] == [("c1", True)]
    assert [found["id"] for found in floor["alerts"]] == ["a1"]
    assert floor["health"]["calls"] == 1
    # A session is good on every gateway.
    first.client.cookies = second.client.cookies
    assert first.client.get("/api/session").json()["user"]["username"] == "supervisor"
    with (
        first.client.websocket_connect("/api/events?cursor=4") as here,
        second.client.websocket_connect("/api/events?cursor=2") as there,
    ):
        assert [here.receive_json()["type"], there.receive_json()["type"]] == ["hello", "hello"]
        second.append(alert(2))
        assert [here.receive_json()["cursor"]] == [5]
        assert [there.receive_json()["cursor"] for _ in range(3)] == [3, 4, 5]


def test_wrong_passwords_count_on_every_gateway(gateway: Callable[[], House]) -> None:
    houses = [gateway(), gateway()]
    for number in range(FAILURES):
        assert houses[number % 2].log_in("supervisor", "wrong password").status_code == 401
    for one in houses:
        answer = one.log_in()
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= 60
    assert houses[0].log_in("inspector").status_code == 200
