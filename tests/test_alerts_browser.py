"""The life of an alert in two real browsers at the real server; only the speech is left out."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass

import httpx
import pytest

from app.api.static import FOLDER
from streams.alert_life import COMMENT_LENGTH
from streams.events import CallEnded
from tests.app.ingest.served import served
from tests.app.store_support import alert, started, until
from tests.test_browser import ARTIFACTS, browser  # noqa: F401

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (FOLDER / "index.html").exists(), reason="the dashboard is not built"),
]

PASSWORD = "correct horse 9"
PEOPLE = {"li": "supervisor", "wang": "supervisor", "wu": "inspector"}
MARKUP = '<b>粗</b><img src=x onerror="window.harmed=1"><script>window.harmed=1</script>'
ESCALATES_S = 60
WITHIN_S = 1.0


@dataclass
class Floor:
    address: str
    service: object
    loop: asyncio.AbstractEventLoop

    def append(self, *events):
        asyncio.run_coroutine_threadsafe(self.service.outlet.append(events), self.loop).result(20)

    def call(self, call_id, *alerts):
        """A call with alerts that were raised just now."""
        self.append(started(call_id, agent="8001", queue="理财专线"), *alerts)

    def session(self, person):
        client = httpx.Client(base_url=self.address, headers={"X-Duting": "1"})
        answer = client.post("/api/session", json={"username": person, "password": PASSWORD})
        assert answer.status_code == 200
        return client


@pytest.fixture(scope="module")
def floor(tmp_path_factory):
    """The service in a thread of its own: the browser is driven by calls that block."""
    folder, ready, over = tmp_path_factory.mktemp("alerts"), threading.Event(), asyncio.Event()
    found = []

    async def serve():
        async with served(folder, escalate_critical_s=ESCALATES_S, escalate_warning_s=1.5) as running:
            for person, role in PEOPLE.items():
                running.service.store.users.ensure(person, PASSWORD, f"{person}主管", role)
            found.append(Floor(running.address, running.service, asyncio.get_running_loop()))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield found[0]
    found[0].loop.call_soon_threadsafe(over.set)
    thread.join(30)


@pytest.fixture
def desk(browser, floor):  # noqa: F811
    """Opens the floor in a browser of its own for somebody."""
    contexts = []

    def open_(person, english=False, **options):
        context = browser.new_context(viewport={"width": 1366, "height": 768}, locale="zh-CN", **options)
        contexts.append(context)
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(floor.address)
        page.get_by_test_id("login-username").fill(person)
        page.get_by_test_id("login-password").fill(PASSWORD)
        page.get_by_test_id("login-submit").click()
        page.locator("[data-testid=connection-state][data-state=online]").wait_for()
        if english:
            page.get_by_test_id("language").click()
        return page

    yield open_
    for context in contexts:
        assert [error for page in context.pages for error in page.errors] == []
        context.close()


def item(page, alert_id, state=None):
    wanted = "" if state is None else f"[data-state={state}]"
    return page.locator(f"[data-testid=alert-item][data-alert-id={alert_id}]{wanted}").first


def focus(page, alert_id):
    item(page, alert_id).get_by_test_id("alert-link").first.focus()


def comment_box(page, alert_id):
    return item(page, alert_id).get_by_test_id("alert-comment-text").first


def test_an_alert_comes_to_both_is_acknowledged_by_key_and_changes_on_the_other_at_once(desk, floor):
    li, wang = desk("li"), desk("wang")
    floor.call("both", alert(1, "both"))
    for page in (li, wang):
        item(page, "a1", "open").wait_for(timeout=5000)
    assert "后升级" in item(li, "a1").get_by_test_id("alert-waited").inner_text()
    li.keyboard.press("j")
    assert li.evaluate("document.activeElement.closest('article').dataset.alertId") == "a1"
    began = time.monotonic()
    li.keyboard.press("a")
    item(wang, "a1", "acknowledged").wait_for(timeout=5000)
    assert time.monotonic() - began < WITHIN_S
    assert "li" in item(wang, "a1").get_by_test_id("alert-state").inner_text()
    assert li.evaluate("document.activeElement.closest('article').dataset.alertId") == "a1"
    li.keyboard.press("r")
    item(wang, "a1", "resolved").wait_for(timeout=5000)
    # What was done is told first, and written into the audit right after.
    until(lambda: len(floor.service.store.audit.about("a1")) == 2)


def test_who_was_slower_is_told_who_was_faster(desk, floor):
    page = desk("wang")
    floor.call("race", alert(2, "race"))
    item(page, "a2", "open").wait_for()
    li = floor.session("li")

    def be_faster(route):
        assert li.post("/api/alerts/a2/acknowledge", json={}).status_code == 200
        route.continue_()

    page.route("**/api/alerts/a2/acknowledge", be_faster)
    focus(page, "a2")
    page.keyboard.press("a")
    refusal = page.get_by_test_id("alert-refusal")
    refusal.get_by_text("li 快了一步").wait_for(timeout=5000)
    assert "已知悉" in refusal.inner_text()
    item(page, "a2", "acknowledged").wait_for()
    assert "li" in item(page, "a2").get_by_test_id("alert-state").inner_text()


def test_what_the_server_does_not_take_is_rolled_back_and_said(desk, floor):
    page = desk("wang")
    floor.call("back", alert(3, "back"))
    item(page, "a3", "open").wait_for()
    seen = []

    def be_away(route):
        seen.append(item(page, "a3").get_attribute("data-state"))
        route.fulfill(status=503, json={"error": {"code": "store_unavailable", "message": {"zh": "稍后"}}})

    page.route("**/api/alerts/a3/false-alarm", be_away)
    focus(page, "a3")
    page.keyboard.press("f")
    page.get_by_test_id("alert-refusal").get_by_text("稍后").wait_for(timeout=5000)
    assert seen == ["false_alarm"]
    item(page, "a3", "open").wait_for()


def test_markup_in_a_comment_is_text_for_everybody(desk, floor):
    li, wang = desk("li"), desk("wang", english=True)
    floor.call("markup", alert(4, "markup"))
    for page in (li, wang):
        item(page, "a4", "open").wait_for()
    item(wang, "a4").get_by_test_id("alert-more").click()
    item(wang, "a4").get_by_text("Nobody has dealt with it yet.").wait_for()
    focus(li, "a4")
    li.keyboard.press("c")
    comment_box(li, "a4").wait_for()
    li.keyboard.insert_text(f"{MARKUP} 手机 13912345678")
    li.keyboard.press("Control+Enter")
    for page in (li, wang):
        shown = item(page, "a4").get_by_test_id("alert-comment")
        shown.wait_for(timeout=5000)
        assert shown.inner_text() == f"{MARKUP} 手机 *******5678"
        assert shown.locator("*").count() == 0
        assert page.evaluate("window.harmed") is None
    until(lambda: comment_box(li, "a4").input_value() == "")  # its answer may come after the event


def test_a_comment_of_ten_thousand_characters_is_refused_politely_and_not_lost(desk, floor):
    page = desk("li")
    floor.call("long", alert(5, "long"))
    item(page, "a5", "open").wait_for()
    focus(page, "a5")
    page.keyboard.press("c")
    box = comment_box(page, "a5")
    box.fill("字" * 10_000)
    count = item(page, "a5").get_by_test_id("alert-comment-count").first
    assert "10000 字，最多 2000 字" in count.inner_text()
    assert item(page, "a5").get_by_test_id("alert-comment-send").first.is_disabled()
    page.keyboard.press("Control+Enter")
    assert len(box.input_value()) == 10_000
    answer = floor.session("li").post("/api/alerts/a5/comment", json={"text": "字" * 10_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "comment_too_long")
    # Also what only the server refuses stays where it was written.
    page.route(
        "**/api/alerts/a5/comment",
        lambda route: route.fulfill(status=422, json=answer.json()),
    )
    box.fill("短")
    page.keyboard.press("Control+Enter")
    page.get_by_test_id("alert-refusal").get_by_text("最多 2000 字").wait_for()
    assert box.input_value() == "短"
    page.unroute("**/api/alerts/a5/comment")
    box.fill("字" * COMMENT_LENGTH)
    page.keyboard.press("Control+Enter")
    item(page, "a5").get_by_test_id("alert-comment").wait_for()
    until(lambda: box.input_value() == "")


def test_an_alert_that_nobody_takes_escalates_in_every_browser(desk, floor):
    li, wang = desk("li"), desk("wang")
    floor.call("late", alert(6, "late", severity="warning"))
    for page in (li, wang):
        item(page, "a6", "escalated").wait_for(timeout=8000)
    item(li, "a6").get_by_test_id("alert-more").click()
    item(li, "a6").get_by_text("无人处理，已升级").wait_for()


def test_a_thousand_alerts_of_one_call_are_one_card_and_the_page_answers(desk, floor):
    page = desk("li")
    floor.call("flood")
    for start in range(1000, 2000, 100):
        floor.append(
            *(
                alert(number, "flood", rule_id=f"rule.{number % 9}", severity="info")
                for number in range(start, start + 100)
            )
        )
    item(page, "a1999").wait_for(timeout=10_000)
    assert page.locator("[data-testid=alert-item]").count() < 100
    cards = page.locator("[data-testid=alert-item]:has(a[href^='/calls/flood'])")
    assert cards.count() == 1
    assert "+" in cards.get_by_test_id("alert-count").inner_text()
    item(page, "a1999").get_by_test_id("alert-more").click()
    item(page, "a1999").get_by_test_id("alert-details").wait_for()
    assert page.locator("[data-testid=alert-item]").count() < 120
    began = time.monotonic()
    focus(page, "a1999")
    page.keyboard.press("f")
    item(page, "a1999", "false_alarm").wait_for(timeout=5000)
    assert time.monotonic() - began < 3


def test_the_keys_are_shown_enter_opens_the_call_and_an_inspector_waits_for_its_end(desk, floor):
    li, wu = desk("li"), desk("wu")
    floor.call("keys", alert(7, "keys"))
    for page in (li, wu):
        item(page, "a7", "open").wait_for()
    li.keyboard.press("?")
    keys = li.get_by_test_id("alert-keys")
    keys.get_by_text("误报").wait_for()
    li.keyboard.press("Escape")
    keys.wait_for(state="hidden")
    focus(wu, "a7")
    wu.keyboard.press("a")
    assert item(wu, "a7").get_by_test_id("alert-acknowledge").count() == 0
    floor.append(CallEnded(call_id="keys", media_ms=20_000, reason="hangup"))
    item(wu, "a7").get_by_test_id("alert-false-alarm").wait_for()
    focus(wu, "a7")
    wu.keyboard.press("f")
    item(li, "a7", "false_alarm").wait_for()
    focus(li, "a7")
    li.keyboard.press("Enter")
    li.wait_for_url("**/calls/keys?t=7000")


def test_the_filter_says_what_it_hides_and_is_kept_in_the_browser(desk, floor):
    page = desk("li")
    floor.call("filter", alert(8, "filter"))
    item(page, "a8", "open").wait_for()
    page.get_by_test_id("alert-filter-critical").click()
    item(page, "a8").wait_for(state="detached")
    page.get_by_test_id("alert-away").wait_for()
    page.reload()
    page.get_by_test_id("alert-away").wait_for()
    page.get_by_text("全部显示").click()
    item(page, "a8").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_what_it_looks_like(desk, floor, language, scheme):
    """For people: the pictures are in ``artifacts``."""
    page = desk("li", english=language == "en", color_scheme=scheme)
    call_id, number = f"look-{language}-{scheme}", 3000 + 10 * ["zh", "en"].index(language)
    number += 5 * ["light", "dark"].index(scheme)
    floor.call(
        call_id,
        alert(number, call_id),
        alert(number + 1, call_id, severity="warning", rule_id="signal.complaint"),
    )
    item(page, f"a{number + 1}", "open").wait_for()
    focus(page, f"a{number + 1}")
    page.keyboard.press("c")
    comment_box(page, f"a{number + 1}").wait_for()
    page.keyboard.insert_text("已请座席更正说法，客户表示理解。")
    page.keyboard.press("Control+Enter")
    item(page, f"a{number + 1}").get_by_test_id("alert-comment").wait_for()
    page.screenshot(path=str(ARTIFACTS / f"alerts.{language}.{scheme}.png"))
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.get_by_test_id("alert-keys").wait_for()
    page.screenshot(path=str(ARTIFACTS / f"alert-keys.{language}.{scheme}.png"))
    page.keyboard.press("Escape")
    page.get_by_test_id("alert-bells").click()
    page.get_by_test_id("sound-info").wait_for()
    page.screenshot(path=str(ARTIFACTS / f"alert-bells.{language}.{scheme}.png"))
    page.goto(f"{floor.address}/rules")
    page.get_by_test_id("precision-row").first.wait_for()
    page.screenshot(path=str(ARTIFACTS / f"rules.{language}.{scheme}.png"))
