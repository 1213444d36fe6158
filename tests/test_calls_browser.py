"""The list of calls in a real browser at the real server: looked through, and passed on by its address."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streams.events import CallEnded
from tests.app.store_support import alert, started
from tests.floors import SCREEN, Floor, chromium, floor_for

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    with floor_for(tmp_path_factory.mktemp("calls"), {"wu": "inspector"}) as running:
        for number, (agent, queue) in enumerate([("8001", "理财"), ("8001", "贷款"), ("8002", "理财")], 1):
            running.append(started(f"c{number}", agent=agent, queue=queue))
        running.append(alert(1, "c1"), alert(2, "c3", severity="warning"))
        running.append(CallEnded(call_id="c2", media_ms=20_000, reason="hangup"))
        yield running


@pytest.fixture(scope="module")
def page(floor: Floor) -> Iterator[Any]:
    with chromium() as browser:
        context = browser.new_context(viewport=SCREEN, locale="zh-CN", reduced_motion="reduce")
        context.add_cookies([floor.cookie("wu")])
        yield context.new_page()


def until_listed(page: Any, *call_ids: str) -> None:
    page.wait_for_function(
        """(wanted) => JSON.stringify([...document.querySelectorAll('[data-testid=call-row]')]
            .map((row) => row.dataset.callId)) === JSON.stringify(wanted)""",
        arg=list(call_ids),
    )


def test_calls_are_looked_for_by_keyboard_and_the_address_keeps_it(floor: Floor, page: Any) -> None:
    page.goto(f"{floor.address}/calls")
    until_listed(page, "c3", "c2", "c1")
    page.get_by_test_id("search-agent").fill("8001")
    page.keyboard.press("Enter")
    until_listed(page, "c2", "c1")
    page.get_by_test_id("search-severity").select_option("critical")
    until_listed(page, "c1")
    assert "agent=8001" in page.url
    assert "severity=critical" in page.url
    page.reload()
    until_listed(page, "c1")
    assert page.get_by_test_id("search-agent").input_value() == "8001"
    page.get_by_test_id("search-clear").click()
    until_listed(page, "c3", "c2", "c1")
    assert page.get_by_test_id("search-agent").input_value() == ""


def test_days_are_those_of_the_browser_and_an_empty_answer_says_so(floor: Floor, page: Any) -> None:
    today = datetime.now(UTC).date()
    # The browser's day and this process' may differ by one.
    page.goto(
        f"{floor.address}/calls?from={today - timedelta(days=1)}&to={today + timedelta(days=1)}&state=ended"
    )
    until_listed(page, "c2")
    page.get_by_test_id("search-from").fill(str(today + timedelta(days=2)))
    page.get_by_text("没有符合条件的通话").wait_for()
