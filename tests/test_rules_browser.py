"""Real Chromium on the pages about rules: a sentence tried, a draft written, tried on a call, published."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn

from app.api.application import application
from app.api.static import FOLDER
from app.outlet import LocalOutlet
from app.rulebook import RuleBook
from app.settings import Settings
from app.store import Store
from streams.events import CallInfo, Detection, ShadowHit
from tests.app.store_support import (
    EVENTS_KEPT,
    PASSWORD,
    alert,
    ended,
    open_store,
    said,
    sqlite,
    started,
    until,
)
from tests.app.test_rules_reload import said as heard
from tests.test_browser import FLAGS

pytestmark = pytest.mark.browser

PACK = """\
id: house
version: "1"
name: {zh: 本行规则, en: Rules of the house}
rules:
  - id: redline.guarantee
    name: {zh: 承诺保本, en: Guaranteed returns}
    severity: critical
    role: agent
    group: mis_selling
    when: {phrase: [保本保息]}
    hits: [我们保本保息]
    misses: [不保本保息]
  - id: redline.trial
    name: {zh: 承诺保本（试运行）, en: Guaranteed returns (on trial)}
    severity: critical
    role: agent
    mode: shadow
    when: {phrase: [保本保息, 稳赚不赔]}
  - id: signal.complaint
    name: {zh: 投诉意向, en: Complaint}
    severity: warning
    role: customer
    when: {phrase: [我要投诉]}
"""
SHOTS = os.environ.get("DUTING_SHOTS")
"""A folder for pictures of each page, in both languages and themes; none are taken without it."""


class Served(NamedTuple):
    address: str
    store: Store
    book: RuleBook


def calls() -> list[Any]:
    shadow = ShadowHit(
        id="s1",
        call_id="c1",
        rule_id="redline.trial",
        rule_version="1+x",
        role="agent",
        media_start_ms=1000,
        media_end_ms=1500,
    )
    return [
        started("c1", agent="wang", team="贷款"),
        said(1000, "我们这个产品保本保息", "c1"),
        alert(1, "c1", state="resolved"),
        shadow,
        ended("c1"),
        started("c2", agent="li", team="贷款"),
        said(1000, "这个产品稳赚不赔，卡号是************1234", "c2"),
        alert(2, "c2", state="false_alarm"),
        ended("c2"),
    ]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if not (FOLDER / "index.html").exists():
        pytest.skip("the dashboard is not built: run `make dashboard`")
    folder = tmp_path_factory.mktemp("rules")
    (folder / "house.yaml").write_text(PACK, "utf-8")
    store = open_store(sqlite(folder))
    for name, role in (("root", "administrator"), ("second", "administrator"), ("zhang", "supervisor")):
        store.users.add(name, PASSWORD, name.title(), role, ["*"])
    settings = Settings(data_dir=folder, _env_file=None)  # type: ignore[call-arg]
    outlet = LocalOutlet(store, events_kept=EVENTS_KEPT)
    book = RuleBook.open(folder / "house.yaml", store.publications)
    book.record = store.audit.record
    web = application(settings, store, outlet, book)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    ready = threading.Event()
    server = uvicorn.Server(uvicorn.Config(web, log_level="warning"))

    async def serve() -> None:
        await outlet.start()
        await outlet.append(calls())
        ready.set()
        await server.serve(sockets=[listener])
        await web.state.bench.aclose()
        await outlet.stop()

    serving = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    serving.start()
    assert ready.wait(20)
    yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", store, book)
    server.should_exit = True
    serving.join(20)
    store.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started_ = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started_
        started_.close()


@pytest.fixture
def enter(browser: Any, served: Served) -> Iterator[Any]:
    """A page of somebody who is logged in."""
    contexts: list[Any] = []

    def open_(username: str, **options: Any) -> Any:
        context = browser.new_context(
            **{"viewport": {"width": 1366, "height": 768}, "locale": "zh-CN"} | options
        )
        contexts.append(context)
        context.request.post(
            f"{served.address}/api/session",
            data={"username": username, "password": PASSWORD},
            headers={"X-Duting": "1", "Origin": served.address},
        )
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        return page

    yield open_
    wrong = [error for context in contexts for page in context.pages for error in page.errors]
    for context in contexts:
        context.close()
    assert wrong == []


def found(book: RuleBook, text: str) -> list[str]:
    """What a call that begins now is told of."""
    panel = book.panel(CallInfo(call_id="next"))
    return [
        one.rule_id for one in panel.on_event(heard(text)) if isinstance(one, Detection) and not one.shadow
    ]


def shoot(page: Any, name: str) -> None:
    if SHOTS is None:
        return
    for language, scheme in (("zh", "light"), ("en", "dark")):
        page.emulate_media(color_scheme=scheme)
        if page.evaluate("document.documentElement.lang.slice(0, 2)") != language:
            page.locator("header button[title*='English'], header button[title*='中文']").first.click()
        page.wait_for_timeout(300)
        page.screenshot(path=str(Path(SHOTS) / f"rules-{name}.{language}.{scheme}.png"))
    page.locator("header button[title*='中文'], header button[title*='English']").first.click()
    page.emulate_media(color_scheme="light")


def test_a_supervisor_finds_a_rule_its_precision_its_words_and_its_calls(enter: Any, served: Served) -> None:
    page = enter("zhang")
    page.goto(f"{served.address}/rules")
    row = page.locator("[data-rule-id='redline.guarantee']")
    assert "50%" in row.inner_text()
    shoot(page, "list")
    row.get_by_role("button").click()
    page.wait_for_url("**rule=redline.guarantee**")
    source = page.get_by_test_id("rule-source")
    assert "保本保息" in source.inner_text()
    assert source.locator(".at").first.inner_text() == "5"
    assert page.get_by_test_id("rule-alert").first.get_attribute("href") in (
        "/calls/c1?t=1000",
        "/calls/c2?t=2000",
    )
    shoot(page, "rule")
    # On trial, against the live rule beside it.
    page.get_by_test_id("rules-mode").select_option("shadow")
    page.locator("[data-rule-id='redline.trial']").get_by_role("button").click()
    assert page.get_by_test_id("shadow-agree").inner_text() == "1"
    assert page.get_by_test_id("shadow-only_live").inner_text() == "1"
    shoot(page, "shadow")
    # Drafts are none of a supervisor's business.
    assert page.locator("a[href='/rules/drafts']").count() == 0
    page.goto(f"{served.address}/rules/drafts")
    page.wait_for_url("**/forbidden**")


def test_a_sentence_tells_what_fires_and_what_nearly_does(enter: Any, served: Served) -> None:
    page = enter("zhang")
    page.goto(f"{served.address}/rules/test")
    page.get_by_test_id("turn-text").fill("我们这个宝本宝息的")
    page.keyboard.press("Enter")
    fired = page.locator("[data-testid=fired][data-rule-id='redline.guarantee']")
    assert "读音相近" in fired.inner_text()
    assert fired.locator("mark").inner_text() == "宝本宝息"
    page.get_by_test_id("turn-text").fill("我们不保本保息")
    page.get_by_test_id("turn-add").click()
    page.get_by_test_id("turn-text").nth(1).fill("那我要投诉")
    page.get_by_test_id("test-run").click()
    page.locator("[data-testid=fired][data-rule-id='signal.complaint']").wait_for()
    near = page.locator("[data-testid=nearly][data-rule-id='redline.guarantee']")
    assert near.get_attribute("data-why") == "denied"
    assert near.locator("mark").first.inner_text() == "保本保息"
    shoot(page, "test")


def test_a_draft_is_written_tried_on_calls_and_put_in_force_by_a_second_person(
    enter: Any, served: Served
) -> None:
    page = enter("root")
    page.goto(f"{served.address}/rules/drafts")
    page.get_by_test_id("draft-new").click()
    page.wait_for_url("**/rules/drafts/1")
    text = page.get_by_test_id("draft-text")
    page.wait_for_function(
        "() => document.querySelector('[data-testid=draft-text]')?.value.includes('house')"
    )
    better = PACK.replace('version: "1"', 'version: "2"').replace(
        "{phrase: [保本保息]}", "{phrase: [保本保息, 稳赚不赔]}"
    )
    # An error stands beside its line.
    text.fill(better.replace("severity: warning", "severity: alarming"))
    page.get_by_test_id("draft-check").click()
    problem = page.get_by_test_id("problem").first
    line = problem.get_attribute("data-line")
    assert "alarming" in problem.inner_text()
    assert better.splitlines()[int(line or 0) - 1].strip() == "severity: warning"
    assert f"✗ {line}" in page.locator(".gutter .wrong").all_inner_texts()
    shoot(page, "error")
    page.get_by_test_id("draft-submit").click()
    page.get_by_test_id("problem").first.wait_for()
    assert page.get_by_test_id("draft-state").get_attribute("data-state") == "draft"
    # In order, it is tried on the calls of the past.
    text.fill(better)
    page.get_by_test_id("draft-note").fill("加上稳赚不赔")
    page.get_by_test_id("section-backtest").click()
    page.get_by_test_id("backtest-run").click()
    row = page.locator("[data-testid=backtest-rule][data-rule-id='redline.guarantee']")
    row.wait_for(timeout=60_000)
    assert row.locator("td").nth(2).inner_text() == "+1"
    place = page.get_by_test_id("backtest-place").first
    assert "************1234" in place.inner_text()
    assert "c2" in place.inner_text()
    assert "已打码" in page.get_by_test_id("backtest-masked").inner_text()
    shoot(page, "backtest")
    page.get_by_test_id("draft-submit").click()
    # Whoever wrote it cannot approve it, by no way.
    assert "另一位管理员" in page.get_by_test_id("draft-own").inner_text()
    assert page.get_by_test_id("draft-approve").count() == 0
    status = page.evaluate(
        """async () => {
          const draft = await (await fetch('/api/rules/drafts/1')).json()
          const answer = await fetch('/api/rules/drafts/1/approve', {
            method: 'POST', body: JSON.stringify({seen: draft.digest}),
            headers: {'X-Duting': '1', 'Content-Type': 'application/json'},
          })
          return [answer.status, (await answer.json()).error.code]
        }"""
    )
    assert status == [403, "own_draft"]
    assert found(served.book, "稳赚不赔") == []

    other = enter("second")
    other.goto(f"{served.address}/rules/drafts")
    assert "待您批准" in other.get_by_test_id("draft-row").first.inner_text()
    other.goto(f"{served.address}/rules/drafts/1")
    other.get_by_test_id("diff").wait_for()
    assert "稳赚不赔" in other.locator("tr.added").all_inner_texts()[1]
    shoot(other, "approve")
    other.get_by_test_id("draft-approve").click()
    assert "已发布" in other.get_by_test_id("rules-told").inner_text()
    assert found(served.book, "稳赚不赔") == ["redline.guarantee"]
    page.goto(f"{served.address}/rules")
    assert "已发布 #2" in page.locator("tr.group").first.inner_text()
    shoot(page, "published")

    # Back is a publication too.
    page.goto(f"{served.address}/rules/history")
    page.get_by_test_id("publication").first.wait_for()
    assert page.get_by_test_id("publication").count() == 2
    page.get_by_test_id("publication").first.get_by_role("button").first.click()
    page.get_by_test_id("diff").wait_for()
    shoot(page, "history")
    page.get_by_test_id("rollback").click()
    page.get_by_test_id("rules-told").wait_for()
    assert found(served.book, "稳赚不赔") == ["redline.guarantee"]
    page.goto(f"{served.address}/rules/drafts")
    assert "待批准" in page.get_by_test_id("draft-row").first.inner_text()
    shoot(page, "drafts")
    rows, _ = served.store.audit.page(50, action="rules")
    assert {"rules.tested", "rules.drafted", "rules.backtest", "rules.backtest_read", "rules.published"} <= {
        row.action for row in rows
    }


def test_what_is_written_while_a_draft_is_saved_or_checked_is_neither_lost_nor_passed(
    enter: Any, served: Served
) -> None:
    page = enter("root")
    page.goto(f"{served.address}/rules/drafts")
    page.get_by_test_id("draft-new").click()
    page.wait_for_url("**/rules/drafts/*")
    text, told = page.get_by_test_id("draft-text"), page.get_by_test_id("rules-told")
    page.wait_for_function(
        "() => document.querySelector('[data-testid=draft-text]')?.value.includes('house')"
    )
    leaves = "() => dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    assert page.evaluate(leaves)
    kept: list[Any] = []
    page.route("**/api/rules/drafts/*", lambda route: kept.append(route))
    text.press("Control+End")
    page.keyboard.insert_text("# first\n")
    assert not page.evaluate(leaves)
    page.get_by_test_id("draft-save").click()
    until(lambda: page.wait_for_timeout(20) is None and kept)
    text.press("Control+End")
    page.keyboard.insert_text("# second\n")
    kept[0].continue_()
    told.wait_for()
    page.unroute("**/api/rules/drafts/*")
    assert text.input_value().endswith("# first\n# second\n")
    assert not page.evaluate(leaves)
    # What was told changes its language with the page.
    assert told.inner_text() == "已保存"
    page.get_by_test_id("language").click()
    assert told.inner_text() == "Saved"
    page.get_by_test_id("language").click()
    # What was found in a text is not said of another one.
    page.get_by_test_id("draft-check").click()
    checked = page.get_by_test_id("draft-checked")
    checked.locator(".good").wait_for()
    text.press("Control+End")
    page.keyboard.insert_text("# third\n")
    checked.get_by_test_id("draft-outdated").wait_for()
    assert checked.locator(".good").count() == 0
    # Nobody leaves it by mistake.
    asked: list[str] = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.locator("a[href='/rules/drafts']").first.click()
    until(lambda: page.wait_for_timeout(20) is None and asked)
    assert text.input_value().endswith("# third\n")
