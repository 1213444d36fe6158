"""Real Chromium whose cable is pulled: what happened meanwhile is there afterwards, each thing once."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from app.api.people import may_listen
from dashboard.feed import HEARTBEAT_S, Feed
from tests.app.store_support import alert
from tests.cable import Cable
from tests.floors import SCREEN, Floor, chromium, floor_for

pytestmark = pytest.mark.browser

NIGHT = os.environ.get("HYPOTHESIS_PROFILE") in ("long", "night")
"""Then the heartbeat is that of every day, and the cut lasts on after the page has told of it."""
CUT_S = 60.0
BEAT_S = HEARTBEAT_S if NIGHT else 1.0
"""The page takes a connection for dead after two heartbeats and two seconds: the server tells it which."""


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    with floor_for(tmp_path_factory.mktemp("cut"), {"li": "supervisor"}) as running:
        state = running.web.state
        state.feed = Feed(state.outlet, may_listen, heartbeat_s=BEAT_S)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def shown(page: Any) -> Counter[str]:
    """Of every alert on the page, how often it stands there."""
    ids = "all => all.map(each => each.dataset.alertId)"
    return Counter(page.get_by_test_id("alert-item").evaluate_all(ids))


def test_after_a_cut_everything_that_happened_is_there_and_each_thing_once(
    browser: Any, floor: Floor
) -> None:
    with Cable(floor.address).laid() as cable:
        context = browser.new_context(viewport=SCREEN, locale="zh-CN")
        context.add_cookies([floor.cookie("li")])
        page = context.new_page()
        told: list[str] = []

        def listen(socket: Any) -> None:
            socket.on("framereceived", lambda text: told.append(text))

        page.on("websocket", listen)
        online = page.locator("[data-testid=connection-state][data-state=online]")
        banner = page.get_by_test_id("connection-banner")
        page.goto(f"{cable.address}/floor")
        online.wait_for()
        page.evaluate("window.stayed = true")
        for number in (1, 2):
            floor.call(f"before-{number}", alert(number, f"before-{number}"))
        page.locator("[data-alert-id=a2]").first.wait_for()
        assert banner.count() == 0

        cable.pull()
        cut_at = time.monotonic()
        for number in (3, 4, 5):
            floor.call(f"during-{number}", alert(number, f"during-{number}"))
        answer = floor.session("li").post("/api/alerts/a1/acknowledge", json={})
        assert answer.status_code == 200
        banner.wait_for(timeout=2000 * BEAT_S + 10_000)
        assert "a3" not in shown(page)
        if NIGHT:
            page.wait_for_timeout(max(0.0, CUT_S - (time.monotonic() - cut_at)) * 1000)

        cable.plug()
        floor.call("after", alert(6, "after"))
        online.wait_for(timeout=2000 * BEAT_S + 30_000)
        banner.wait_for(state="detached")
        page.locator("[data-alert-id=a6]").first.wait_for()
        page.locator("[data-alert-id=a1][data-state=acknowledged]").first.wait_for()
        floor.call("last", alert(7, "last"))
        page.locator("[data-alert-id=a7]").first.wait_for()
        page.locator("[data-testid=call-card][data-call-id=last]").wait_for()

        assert shown(page) == {f"a{number}": 1 for number in range(1, 8)}
        cards = page.get_by_test_id("call-card").evaluate_all("all => all.map(each => each.dataset.callId)")
        assert Counter(cards) == dict.fromkeys(
            ["before-1", "before-2", "during-3", "during-4", "during-5", "after", "last"], 1
        )
        # What travels together is one frame, an event a line.
        lines = [json.loads(line) for frame in told for line in frame.splitlines()]
        events = [event for event in lines if "cursor" in event and event["type"] != "hello"]
        assert max(Counter(event["cursor"] for event in events).values()) == 1
        raised = Counter(event["alert"]["id"] for event in events if event["type"] == "alert.raised")
        assert raised == {f"a{number}": 1 for number in range(1, 8)}
        assert page.evaluate("window.stayed") is True
        context.close()
