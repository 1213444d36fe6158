"""Real Chromium on the administrator's pages: accounts, tokens, the audit."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from app.api.application import application
from app.api.static import FOLDER
from app.outlet import LocalOutlet
from app.rulebook import RuleBook
from app.settings import Settings
from app.store import Store
from tests.app.store_support import EVENTS_KEPT, PACK, PASSWORD, open_store, sqlite
from tests.test_browser import FLAGS

pytestmark = pytest.mark.browser


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(sqlite(tmp_path))
    opened.users.add("root", PASSWORD, "管理员", "administrator")
    opened.users.add("zhang", PASSWORD, "张伟", "supervisor", ["贷款"])
    yield opened
    opened.close()


@pytest.fixture
def address(store: Store, tmp_path: Path) -> Iterator[str]:
    if not (FOLDER / "index.html").exists():
        pytest.skip("the dashboard is not built: run `make dashboard`")
    settings = Settings(data_dir=tmp_path, _env_file=None)  # type: ignore[call-arg]
    outlet = LocalOutlet(store, events_kept=EVENTS_KEPT)
    web = application(settings, store, outlet, RuleBook(PACK))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(web, log_level="warning"))

    async def serve() -> None:
        await outlet.start()
        await server.serve(sockets=[listener])
        await outlet.stop()

    serving = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    serving.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    serving.join(20)


@pytest.fixture
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


def enter(browser: Any, address: str, username: str) -> Any:
    page = browser.new_context(viewport={"width": 1366, "height": 768}, locale="zh-CN").new_page()
    page.goto(f"{address}/login")
    page.fill("#username", username)
    page.fill("#password", PASSWORD)
    page.click("[data-testid=login-submit]")
    page.wait_for_url("**/floor")
    return page


def test_the_administrator_looks_after_people_tokens_and_the_audit(
    browser: Any, address: str, store: Store
) -> None:
    theirs, page = enter(browser, address, "zhang"), enter(browser, address, "root")
    page.goto(f"{address}/admin/people")
    page.click("[data-testid=add-person]")
    nasty = "<img src=x onerror=alert(1)>"
    for field, text in (
        ("username", "sun"),
        ("name", nasty),
        ("password", PASSWORD),
        ("teams", "贷款，卡片"),
    ):
        page.fill(f"[name=new-{field}]", text)
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-username=sun]")
    assert nasty in page.inner_text("[data-username=sun]")
    made = store.users.account("sun")
    assert made is not None
    assert (made.role, made.teams) == ("supervisor", ("卡片", "贷款"))
    # Whoever is shut out sees the login page within seconds.
    page.click("[data-username=zhang] button.bad")
    theirs.wait_for_url("**/login*", timeout=10_000)

    page.goto(f"{address}/admin/tokens")
    page.click("[data-testid=add-token]")
    page.fill("[name=new-token]", "bi")
    page.locator("fieldset input[value=read]").check()
    page.keyboard.press("Enter")
    secret = page.wait_for_selector("[data-testid=token-secret]").input_value()
    person = store.tokens.person(secret)
    assert person is not None
    assert person.scopes == ("read",)

    page.goto(f"{address}/admin/audit")
    page.click("[data-testid=verify]")
    assert "✓" in page.wait_for_selector("[data-testid=verdict]").inner_text()
    actions = [row.inner_text() for row in page.query_selector_all("[data-testid=audit-row] code")]
    assert {"user.added", "user.disabled", "token.added", "session.opened"} <= set(actions)


def test_others_are_not_shown_these_pages(browser: Any, address: str) -> None:
    page = enter(browser, address, "zhang")
    assert page.query_selector("a[href='/admin/people']") is None
    page.goto(f"{address}/admin/audit")
    assert "不能管理" in page.wait_for_selector(".note").inner_text()
    assert page.evaluate("fetch('/api/audit').then((answer) => answer.status)") == 403
