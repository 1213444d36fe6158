"""Real Chromium at the real server, whose calls come from a plan: the floor as a supervisor works with it."""

from __future__ import annotations

import shutil

import pytest

from app.api.static import FOLDER
from benchmarks.appended import Plan, begin
from benchmarks.rig import server
from tests.test_browser import FLAGS

pytestmark = pytest.mark.browser

CALLS = 120


@pytest.fixture(scope="module")
def rig():
    if not (FOLDER / "index.html").exists():
        pytest.skip("the dashboard is not built: run `make dashboard`")
    with server(program=("benchmarks.appended",)) as started:
        begin(started.folder, Plan(calls=CALLS, events_per_call_s=0.5, alerts_s=2.0, seconds=300))
        yield started


@pytest.fixture
def page(rig):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1366, "height": 768}, locale="zh-CN")
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(f"{rig.address}/floor?group=queue&view=rows&queue=理财专线")
        page.get_by_test_id("login-username").fill(rig.account.username)
        page.get_by_test_id("login-password").fill(rig.account.password)
        page.get_by_test_id("login-submit").click()
        page.wait_for_function(
            "n => Number(document.querySelector('[data-testid=figure-live]')?.textContent) === n",
            arg=CALLS,
            timeout=60_000,
        )
        yield page
        assert page.errors == []
        browser.close()


def cards(page):
    return page.get_by_test_id("call-card")


def order(page) -> list[str]:
    return cards(page).evaluate_all("all => all.map(each => each.dataset.callId)")


def test_a_supervisor_finds_her_calls_and_nothing_moves_under_her_hands(page):
    # The address told which calls, through the login too.
    assert page.get_by_test_id("wall-queue").input_value() == "理财专线"
    heading = page.get_by_test_id("wall-heading")
    heading.first.wait_for()
    assert heading.count() == 1
    assert cards(page).count() <= CALLS // 6 + 3
    heading.click()
    page.wait_for_function("() => !document.querySelector('[data-testid=call-card]')")
    page.get_by_test_id("wall-clear").click()
    page.get_by_test_id("wall-group").select_option("none")
    page.wait_for_function("() => document.querySelectorAll('[data-testid=call-card]').length > 10")
    page.wait_for_url(lambda url: "queue=" not in url)
    # Of the many only those in view are on the page.
    assert cards(page).count() < CALLS // 2

    # By keyboard: the search, down to the calls, along them.
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.dataset.testid") == "wall-search"
    page.keyboard.press("ArrowDown")
    before = order(page)
    assert page.evaluate("document.activeElement.dataset.open") == before[0]
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.open") == before[1]
    # While the keyboard is there, alerts come and the order waits, until it is asked for.
    pill = page.get_by_test_id("wall-moved")
    pill.wait_for(timeout=60_000)
    still = order(page)
    assert [each for each in before if each in still] == [each for each in still if each in before]
    # Asked at once: the next alert brings another.
    assert pill.evaluate(
        "async it => { it.click(); await new Promise(done => setTimeout(done)); return !it.isConnected; }"
    )

    page.keyboard.press("/")
    page.keyboard.type("bench-00007")
    page.wait_for_function("() => document.querySelectorAll('[data-testid=call-card]').length === 1")
    page.wait_for_url("**q=bench-00007**")
    page.reload()
    page.wait_for_function("() => document.querySelectorAll('[data-testid=call-card]').length === 1")
    assert page.get_by_test_id("wall-search").input_value() == "bench-00007"
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_url("**/calls/bench-00007**")


def test_the_head_line_tells_what_is_known_and_says_what_is_not(page):
    assert "%" in page.get_by_test_id("figure-service").inner_text()
    assert "—" in page.get_by_test_id("figure-acknowledge").inner_text()
    assert page.get_by_test_id("figure-acknowledge").get_attribute("title")
