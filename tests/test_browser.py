"""Real Chromium at the real server while a call is played: what the supervisor sees."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from pathlib import Path

import pytest

from app.api.static import FOLDER
from app.phones.call import PhoneCall
from app.phones.twilio import play
from tests.running import PERSON, TOKEN, running

pytestmark = [pytest.mark.browser, pytest.mark.model]

ARTIFACTS = Path(__file__).parent.parent / "artifacts"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    if not (FOLDER / "index.html").exists():
        pytest.skip("the dashboard is not built: run `make dashboard`")
    with running(model_folder.parent, tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    ARTIFACTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser, server):
    context = browser.new_context(viewport={"width": 1366, "height": 768}, locale="zh-CN")
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    log_in(page, server)
    yield page
    context.close()


def log_in(page, server):
    """On the floor as ``PERSON``."""
    page.goto(server.address)
    page.get_by_test_id("login-username").fill(PERSON.username)
    page.get_by_test_id("login-password").fill(PERSON.password)
    page.get_by_test_id("login-submit").click()
    page.get_by_test_id("connection-state").wait_for()


class Telephone(threading.Thread):
    """Plays a call beside the browser, which is driven by blocking calls."""

    def __init__(self, server, call_id, audio):
        super().__init__(daemon=True)
        self._arguments = (
            server.address.replace("http", "ws", 1),
            PhoneCall(
                call_id, audio, TOKEN, {"agent": "8001", "queue": "理财专线", "customer_level": "金卡"}
            ),
            time.monotonic,
        )

    def run(self):
        asyncio.run(play(*self._arguments))


def test_an_alert_appears_on_the_floor_and_its_call_shows_the_marked_words(page, server, short_call):
    telephone = Telephone(server, "seen-in-chromium", short_call)
    telephone.start()
    page.locator("[data-testid=call-card][data-call-id=seen-in-chromium]").wait_for(timeout=15_000)
    alert = page.locator("[data-testid=alert-item][data-rule-id='redline.guaranteed_return']").first
    alert.wait_for(timeout=30_000)
    assert alert.get_attribute("data-severity") == "critical"
    assert "承诺保本保收益" in alert.inner_text()
    page.screenshot(path=str(ARTIFACTS / "floor.zh.png"))
    alert.click()
    page.wait_for_url("**/calls/seen-in-chromium**")
    page.get_by_test_id("transcript-final").first.wait_for()
    telephone.join(40)
    signal = page.locator("mark", has_text="投诉").first
    signal.wait_for(timeout=15_000)
    assert page.get_by_test_id("marker").count() >= 2
    page.screenshot(path=str(ARTIFACTS / "call.zh.png"))
    page.get_by_test_id("language").click()
    page.get_by_text("Guaranteed principal or return").first.wait_for(timeout=10_000)
    page.screenshot(path=str(ARTIFACTS / "call.en.png"))
    assert page.errors == []


def test_a_page_that_lost_its_socket_comes_back_and_shows_what_it_missed(page, server, short_call):
    page.locator("[data-testid=connection-state][data-state=online]").wait_for(timeout=10_000)
    page.context.set_offline(True)
    telephone = Telephone(server, "while-offline", short_call)
    telephone.start()
    telephone.join(40)
    page.context.set_offline(False)
    # The alerts of a call are one card; the newest stands in front, the others behind it.
    of_call = "[data-testid=alert-item]:has(a[href^='/calls/while-offline'])"
    page.locator(of_call).first.get_by_test_id("alert-more").first.click(timeout=30_000)
    page.locator(f"{of_call}[data-rule-id='signal.complaint']").first.wait_for(timeout=30_000)
    assert page.errors == []


def test_a_wrong_password_says_so_and_shows_nothing(browser, server):
    context = browser.new_context(viewport={"width": 1366, "height": 768}, locale="zh-CN")
    page = context.new_page()
    page.goto(f"{server.address}/floor")
    page.get_by_test_id("login-username").fill(PERSON.username)
    page.get_by_test_id("login-password").fill("not the password")
    page.get_by_test_id("login-submit").click()
    page.get_by_role("alert").first.wait_for(timeout=10_000)
    assert page.get_by_test_id("call-card").count() == 0
    page.screenshot(path=str(ARTIFACTS / "login.zh.png"))
    context.close()
