"""Appeals in a real browser at the real server: who judges finds those that wait, and answers there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from streams.events import CallEnded
from tests.app.store_support import alert, started
from tests.floors import SCREEN, Floor, chromium, floor_for

pytestmark = pytest.mark.browser

PEOPLE = {"li": "supervisor", "wu": "inspector", "8001": "agent", "8002": "agent"}
WITHIN_MS = 5_000


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    with floor_for(tmp_path_factory.mktemp("appeals"), PEOPLE) as running:
        for number, agent in ((1, "8001"), (2, "8002")):
            call_id = f"c{number}"
            running.append(started(call_id, agent=agent, queue="理财专线"))
            running.append(alert(number * 10, call_id), alert(number * 10 + 1, call_id))
            running.append(CallEnded(call_id=call_id, media_ms=20_000, reason="hangup"))
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started_:
        yield started_


def appeals(browser: Any, floor: Floor, person: str) -> Any:
    context = browser.new_context(viewport=SCREEN, locale="zh-CN", reduced_motion="reduce")
    context.add_cookies([floor.cookie(person)])
    page = context.new_page()
    page.goto(f"{floor.address}/appeals")
    return page


def test_an_appeal_comes_to_the_list_by_itself_and_is_answered_there(browser: Any, floor: Floor) -> None:
    page = appeals(browser, floor, "wu")
    page.get_by_test_id("no-appeals").wait_for()
    reason = "客户自己说的<b>保本</b>"
    answer = floor.session("8001").post("/api/alerts/a10/appeal", json={"reason": reason})
    assert answer.status_code == 200, answer.text
    item = page.locator("[data-testid=alert-item]")
    item.wait_for(timeout=WITHIN_MS)
    assert item.get_attribute("data-alert-id") == "a10"

    item.get_by_test_id("alert-more").click()
    page.get_by_text(reason).wait_for()
    page.get_by_test_id("appeal-reason").fill("确为客户所说")
    page.get_by_test_id("appeal-accept").click()
    # It stays where it was, with its answer.
    page.locator("[data-testid=alert-appeal][data-appeal=accepted]").wait_for(timeout=WITHIN_MS)
    assert item.get_attribute("data-state") == "false_alarm"

    # The next one comes above it, and takes neither the answered one nor what is being written.
    page.get_by_test_id("alert-comment-text").fill("写到一半")
    assert floor.session("8002").post("/api/alerts/a20/appeal", json={"reason": "不是我"}).status_code == 200
    page.locator("[data-alert-id=a20]").wait_for(timeout=WITHIN_MS)
    assert [one.get_attribute("data-alert-id") for one in item.all()] == ["a20", "a10"]
    assert page.get_by_test_id("alert-comment-text").input_value() == "写到一半"
    assert (
        floor.session("li").post("/api/alerts/a20/reject-appeal", json={"reason": "原话"}).status_code == 200
    )
    page.locator("[data-alert-id=a20] [data-appeal=rejected]").wait_for(timeout=WITHIN_MS)

    page.reload()
    page.get_by_test_id("no-appeals").wait_for()
    page.goto(f"{floor.address}/appeals?state=accepted")
    page.locator("[data-alert-id=a10]").wait_for()
    page.context.close()


def test_no_agent_comes_to_the_list(browser: Any, floor: Floor) -> None:
    page = appeals(browser, floor, "8002")
    page.wait_for_url("**/desk")
    assert floor.session("8002").get("/api/alerts?appeal=open").status_code == 403
    page.context.close()
