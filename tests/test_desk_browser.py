"""The agent's desk in real browsers at the real server; only the speech is left out."""

from __future__ import annotations

import asyncio
import http.server
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

import pytest
from msgspec.structs import replace

from app.api.static import FOLDER
from streams.events import Hint, Step
from tests.app.ingest.served import served
from tests.app.store_support import alert, emotion, ended, progress, said, started, until
from tests.test_browser import ARTIFACTS, browser  # noqa: F401

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (FOLDER / "index.html").exists(), reason="the dashboard is not built"),
]

PASSWORD = "correct horse 9"
PEOPLE = {"8001": "agent", "8002": "agent", "li": "supervisor"}
WITHIN_S = 1.0
SMALL, LARGE, NARROW = ({"width": w, "height": h} for w, h in ((360, 640), (1366, 768), (320, 640)))
WHISPER = """async ([call, text]) => (await fetch(`/api/calls/${call}/whispers`, {
    method: 'POST', headers: {'Content-Type': 'application/json', 'X-Duting': '1'},
    body: JSON.stringify({text}) })).status"""


TOO_WIDE = """[...document.querySelectorAll('html, main, header, .panel, .panel button, article')]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 120))"""


@dataclass
class Room:
    address: str
    service: object
    loop: asyncio.AbstractEventLoop
    softphone: str
    """A page of another site that shows the desk in a frame."""

    def append(self, *events):
        asyncio.run_coroutine_threadsafe(self.service.outlet.append(events), self.loop).result(20)

    def hint(self, number, call_id, severity="info", rule="r", media_ms=0):
        text = {"zh": f"提示{number}：请核实身份", "en": f"Hint {number}: check who it is"}
        self.append(
            Hint(
                id=f"h{number}",
                call_id=call_id,
                rule_id=rule,
                text=text,
                media_ms=media_ms,
                severity=severity,
            )
        )


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder, ready, over = tmp_path_factory.mktemp("desk"), threading.Event(), asyncio.Event()
    found, frame = [], []

    class Softphone(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = f'<title>phone</title><iframe width=360 height=640 src="{frame[0]}{self.path}"></iframe>'
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    softphone = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Softphone)
    threading.Thread(target=softphone.serve_forever, daemon=True).start()
    origin = f"http://localhost:{softphone.server_port}"

    async def serve():
        async with served(folder, desk_frames=origin) as running:
            frame.append(running.address)
            for person, role in PEOPLE.items():
                running.service.store.users.ensure(person, PASSWORD, f"{person}号", role)
            found.append(Room(running.address, running.service, asyncio.get_running_loop(), origin))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield found[0]
    found[0].loop.call_soon_threadsafe(over.set)
    thread.join(30)
    softphone.shutdown()


@pytest.fixture
def open_page(browser, room):  # noqa: F811
    """A browser of its own, that keeps what its socket was sent."""
    contexts = []

    def open_(address, size=SMALL, person=None):
        context = browser.new_context(viewport=size, locale="zh-CN")
        contexts.append(context)
        if person is not None:  # logging in takes its time; it has a story of its own here
            token = room.service.store.sessions.open(person, timedelta(hours=1))
            context.add_cookies([{"name": "duting_session", "value": token, "url": room.address}])
        page = context.new_page()
        page.errors, page.frames_told = [], []
        page.on("pageerror", lambda error: page.errors.append(str(error)))

        def told(frame):
            page.frames_told.append(frame)

        page.on("websocket", lambda socket: socket.on("framereceived", told))
        page.goto(address)
        return page

    yield open_
    for context in contexts:
        assert [error for page in context.pages for error in page.errors] == []
        context.close()


def enter(page, person):
    page.get_by_test_id("desk-username").fill(person)
    page.get_by_test_id("desk-password").fill(PASSWORD)
    page.get_by_test_id("desk-submit").click()
    online(page)


def online(page):
    page.locator("[data-testid=desk-connection][data-state=online]").wait_for(timeout=10_000)


@pytest.fixture
def desk(open_page, room):
    def open_(person):
        # Where an agent's browser goes by itself.
        page = open_page(room.address, person=person)
        online(page)
        assert page.url == f"{room.address}/desk"
        return page

    return open_


@pytest.fixture
def floor(open_page, room):
    def open_():
        page = open_page(room.address, LARGE, "li")
        page.locator("[data-testid=connection-state][data-state=online]").wait_for()
        return page

    return open_


def state(page, name):
    page.locator(f"[data-testid=desk][data-state={name}]").wait_for(timeout=5000)


def shown(page, hint):
    page.locator(f"[data-testid=desk-hint][data-hint={hint}]").wait_for(timeout=5000)


def press(page, key, outcome):
    """A key pressed too soon after a change is not taken: again until ``outcome`` (a selector) is there."""
    until(lambda: page.keyboard.press(key) or page.locator(outcome).count())


def heard(page, *words):
    return any(word in str(frame) for frame in page.frames_told for word in words)


def test_a_hint_appears_by_itself_is_answered_by_key_and_nobody_elses_socket_hears_of_it(desk, room):
    page, other = desk("8001"), desk("8002")
    state(page, "idle")
    room.append(started("hinted", agent="8001"))
    state(page, "call")
    room.hint(1, "hinted", rule="r1")
    shown(page, "h1")
    assert "提示1" in page.get_by_test_id("desk-announcement").inner_text()
    # What comes while one is shown waits, the most urgent first; the buttons stay where they are.
    before = page.get_by_test_id("desk-useful").bounding_box()
    room.hint(2, "hinted", rule="r2")
    room.hint(3, "hinted", "critical", rule="r3")
    page.get_by_text("还有 2 条，有更急的").wait_for()
    assert page.get_by_test_id("desk-hint").get_attribute("data-hint") == "h1"
    press(page, "1", "[data-testid=desk-hint][data-hint=h3]")
    assert page.get_by_test_id("desk-useful").bounding_box() == before
    press(page, "2", "[data-testid=desk-hint][data-hint=h2]")
    until(lambda: len([u for u in room.service.store.desk.usefulness() if u.useful or u.not_useful]) == 2)
    # What was done is told first, and written into the audit right after.
    audited = lambda: {entry.detail for entry in room.service.store.audit.about("hinted")}  # noqa: E731
    until(lambda: {"h1 useful", "h3 not_useful"} <= audited())
    # After a reload all of it is still so.
    page.reload()
    shown(page, "h2")
    page.get_by_test_id("desk-earlier").locator("summary").click()
    answers = page.get_by_test_id("desk-earlier-hint").evaluate_all("all => all.map(e => e.dataset.answer)")
    assert sorted(answers) == ["not_useful", "useful"]
    press(page, "Escape", "[data-testid=desk-hint]:not([data-hint])")
    assert heard(page, "hint.answered")
    assert not heard(other, "hinted", "h1")
    state(other, "idle")
    room.append(ended("hinted"))


def test_a_whisper_is_at_the_desk_at_once_and_that_it_was_seen_comes_back(desk, floor, room):
    page, other, li = desk("8001"), desk("8002"), floor()
    room.append(started("whispered", agent="8001", team="A"))
    state(page, "call")
    began = time.monotonic()
    assert li.evaluate(WHISPER, ["whispered", "先安抚客户，手机 13912345678 <b>不要念</b>"]) == 201
    page.get_by_test_id("desk-whisper").wait_for(timeout=5000)
    assert time.monotonic() - began < WITHIN_S
    text = page.get_by_test_id("desk-whisper-text")
    assert text.inner_text() == "先安抚客户，手机 *******5678 <b>不要念</b>"
    assert text.locator("*").count() == 0
    until(lambda: li.wait_for_timeout(20) is None and heard(li, '"type":"whisper.seen"'), 3)
    [whisper] = room.service.store.desk.whispers("whispered")
    assert whisper.seen_at is not None
    assert whisper.confirmed_at is None
    press(page, "Enter", "[data-testid=desk]:not(:has([data-testid=desk-whisper]))")
    until(lambda: room.service.store.desk.whispers("whispered")[0].confirmed_at is not None)
    assert not heard(other, "whispered", "先安抚")
    # The other agent cannot ask for it either, nor whisper.
    get = "async path => (await fetch(path)).status"
    assert other.evaluate(get, "/api/calls/whispered/whispers") == 404
    assert other.evaluate(WHISPER, ["whispered", "x"]) == 403
    room.append(ended("whispered"))
    state(page, "review")
    assert li.evaluate(WHISPER, ["whispered", "晚了"]) == 409


def test_after_the_call_an_appeal_comes_to_the_supervisor_and_the_answer_to_the_agent(desk, floor, room):
    page, li = desk("8001"), floor()
    lacked = Step(id="risk", name={"zh": "风险提示", "en": "Risk"}, state="missed")
    room.append(
        started("appealed", agent="8001"),
        alert(31, "appealed"),
        replace(progress(900, "done", "appealed"), steps=(*progress(0, "done").steps, lacked)),
    )
    state(page, "call")
    room.append(ended("appealed"))
    state(page, "review")
    assert "风险提示" in page.get_by_test_id("desk-lacking").inner_text()
    page.get_by_test_id("desk-appeal-open").click()
    page.get_by_test_id("desk-appeal-reason").fill("我说的是不保本")
    page.get_by_test_id("desk-appeal-send").click()
    page.locator("[data-testid=desk-appeal][data-action=appeal]").wait_for()
    assert page.get_by_test_id("desk-appeal-open").count() == 0
    # It ended: the floor shows it among the call's alerts still.
    item = li.locator("[data-testid=alert-item][data-alert-id=a31]").first
    item.locator("[data-testid=alert-appeal][data-appeal=open]").wait_for(timeout=5000)
    item.get_by_test_id("alert-more").click()
    item.get_by_text("我说的是不保本").wait_for()
    assert item.get_by_test_id("appeal-reject").is_disabled()
    item.get_by_test_id("appeal-reason").fill("录音里是保本")
    item.get_by_test_id("appeal-reject").click()
    item.locator("[data-testid=alert-appeal][data-appeal=rejected]").wait_for(timeout=5000)
    answer = page.locator("[data-testid=desk-appeal][data-action=reject_appeal]")
    answer.wait_for(timeout=5000)
    assert "录音里是保本" in answer.inner_text()


def test_what_happened_while_the_connection_was_cut_is_there_once_afterwards(desk, room):
    page = desk("8001")
    room.append(started("cut", agent="8001"))
    state(page, "call")
    page.context.set_offline(True)
    page.get_by_test_id("desk-cut").wait_for(timeout=5000)
    room.hint(41, "cut")
    room.append(progress(600, "due", "cut"))
    page.context.set_offline(False)
    shown(page, "h41")
    page.locator("[data-testid=desk-step][data-step=greeting]").wait_for()
    page.get_by_test_id("desk-cut").wait_for(state="detached")
    assert page.get_by_test_id("desk-waiting").count() == 0
    room.append(ended("cut"))
    state(page, "review")


def test_what_held_a_hint_as_a_call_ended_holds_none_of_the_next(desk, room):
    page = desk("8001")
    page.clock.install()
    page.reload()
    room.append(started("pointed", agent="8001"))
    room.hint(71, "pointed")
    shown(page, "h71")
    page.get_by_test_id("desk-hint").hover()
    room.append(ended("pointed"))
    state(page, "review")
    page.mouse.move(2, 2)
    room.append(started("unpointed", agent="8001"))
    room.hint(72, "unpointed", rule="r72")
    shown(page, "h72")
    room.hint(73, "unpointed", "critical", rule="r73")
    page.get_by_test_id("desk-waiting").wait_for()
    page.clock.fast_forward(9000)
    shown(page, "h73")
    room.append(ended("unpointed"))


def test_a_call_that_comes_while_an_appeal_is_written_takes_nothing_of_it(desk, floor, room):
    page, li = desk("8001"), floor()
    room.append(started("before", agent="8001"), alert(81, "before"))
    state(page, "call")
    room.append(ended("before"))
    state(page, "review")
    reason = page.get_by_test_id("desk-appeal-reason")
    page.get_by_test_id("desk-appeal-open").click()
    page.keyboard.insert_text("我说的")
    room.append(started("during", agent="8001"))
    assert li.evaluate(WHISPER, ["during", "先安抚客户"]) == 201
    page.get_by_test_id("desk-call-waits").wait_for(timeout=5000)
    page.keyboard.insert_text("不是这样")
    page.keyboard.press("Enter")
    assert reason.input_value() == "我说的不是这样\n"
    assert page.evaluate(TOO_WIDE) == []
    page.screenshot(path=ARTIFACTS / "desk-call-waits.png")
    # To the call, and back to what was written.
    page.get_by_test_id("desk-to-call").click()
    state(page, "call")
    page.get_by_test_id("desk-whisper").wait_for()
    assert room.service.store.desk.whispers("during")[0].confirmed_at is None
    room.append(ended("during"))
    state(page, "review")
    page.locator("[data-testid=desk-review][data-call=during]").wait_for()
    page.get_by_test_id("desk-review-close").click()
    page.locator("[data-testid=desk-last-call][data-call=before]").click()
    reason.wait_for()
    assert reason.input_value() == "我说的不是这样\n"
    # Sent while the next one runs, it makes room for the call.
    room.append(started("next", agent="8001"))
    page.get_by_test_id("desk-call-waits").wait_for(timeout=5000)
    page.get_by_test_id("desk-appeal-send").click()
    state(page, "call")
    assert [each.text for each in room.service.store.alerts.history("a81", 10)] == ["我说的不是这样"]
    room.append(ended("next"))
    state(page, "review")


def test_a_desk_that_cannot_be_read_anew_says_so_until_it_can(desk, room):
    page = desk("8001")
    state(page, "idle")
    page.route("**/api/desk", lambda route: route.fulfill(status=500))
    room.append(started("unread", agent="8001"))
    page.get_by_test_id("desk-stale").wait_for(timeout=5000)
    page.unroute("**/api/desk")
    state(page, "call")
    page.get_by_test_id("desk-stale").wait_for(state="detached")
    room.append(ended("unread"))


def test_in_another_sites_frame_an_agent_logs_in_and_works_and_nothing_else_is_shown(open_page, room):
    page = open_page(f"{room.softphone}/desk", {"width": 400, "height": 700})
    frame = page.frame_locator("iframe")
    frame.get_by_test_id("desk-username").fill("li")
    frame.get_by_test_id("desk-password").fill(PASSWORD)
    frame.get_by_test_id("desk-submit").click()
    frame.get_by_text("只供座席登录").wait_for()
    enter(frame, "8001")
    room.append(started("framed", agent="8001"))
    room.hint(51, "framed")
    frame.locator("[data-testid=desk-hint][data-hint=h51]").wait_for(timeout=5000)
    [cookie] = page.context.cookies(room.address)
    assert (cookie["name"], cookie["sameSite"], cookie["secure"]) == ("duting_desk", "None", True)
    assert cookie["partitionKey"] == "http://localhost"
    page.reload()
    frame.locator("[data-testid=desk-hint][data-hint=h51]").wait_for(timeout=5000)
    # The login page and the floor stay out of frames, also of this one's.
    for path in ("/login", "/floor", "/desk/x"):
        page.goto(f"{room.softphone}{path}")
        until(lambda: page.wait_for_timeout(20) is None and page.frames[1].url.startswith("chrome-error:"))
    room.append(ended("framed"))


def test_how_it_looks(desk, floor, room):
    page, li = desk("8002"), floor()
    room.append(
        started("looks", agent="8002", queue="理财专线", customer="*******5678", customer_level="金卡")
    )
    steps = (
        Step(
            id="greeting", name={"zh": "问候并报工号", "en": "Greeting and number"}, state="done", done_ms=900
        ),
        Step(
            id="identity",
            name={"zh": "核实客户身份", "en": "Verify who it is"},
            state="due",
            due_ms=95_000,
            hint={"zh": "请问您的身份证后四位是？", "en": "May I have the last four digits of your ID?"},
        ),
        Step(id="risk", name={"zh": "提示产品风险", "en": "Explain the risk"}, state="waiting"),
        Step(id="rates", name={"zh": "说明费率", "en": "Explain the fees"}, state="missed"),
        Step(id="close", name={"zh": "结束语", "en": "Closing"}, state="waiting", required=False),
    )
    room.append(
        replace(progress(900, call_id="looks"), steps=steps),
        emotion(1000, "looks", role="agent", feeling="anxious", level=4.0),
        *(said(at, "您好我们这款产品是有风险的请您仔细阅读合同", "looks") for at in (1000, 5000, 9000)),
        alert(61, "looks"),
    )
    room.hint(61, "looks", "warning", "r61", 2_000)
    room.hint(62, "looks", "critical", "r62", 3_000)
    assert li.evaluate(WHISPER, ["looks", "客户是金卡，先安抚情绪，再说明费率，不要急着推荐产品。"]) == 201
    page.get_by_test_id("desk-whisper").wait_for(timeout=5000)
    page.get_by_text("字/分").wait_for()
    pictures(page, "call")
    room.append(ended("looks", 61_000))
    state(page, "review")
    page.get_by_test_id("desk-alert").wait_for()
    pictures(page, "review")
    page.get_by_test_id("desk-review-close").click()
    state(page, "idle")
    pictures(page, "idle")


def pictures(page, name):
    """In both languages and looks; nothing is wider than the frame, however narrow."""
    for language in ("zh", "en"):
        if page.get_by_test_id("language").get_attribute("data-language") != language:
            page.get_by_test_id("language").click()
        for look in ("light", "dark"):
            while page.get_by_test_id("theme").get_attribute("data-theme") != look:
                page.get_by_test_id("theme").click()
            for size in (SMALL, LARGE, NARROW):
                page.set_viewport_size(size)
                if size is not NARROW:
                    page.screenshot(path=ARTIFACTS / f"desk-{name}-{language}-{look}-{size['width']}.png")
                assert page.evaluate(TOO_WIDE) == [], (name, language, size)
    page.get_by_test_id("language").click()
