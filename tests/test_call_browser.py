"""Real Chromium at the page of one call: what is heard, read, written, asked for and taken away there."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.server
import json
import threading
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest

from app.api.static import FOLDER
from app.sealing import Keyring
from streams.events import AudioFrame, CallInfo, Evidence, Step
from streams.sealing import Sealed
from tests.app.ingest.served import served
from tests.app.store_support import alert, emotion, ended, marker, progress, said, started, until
from tests.app.test_evidence import recorded
from tests.test_browser import ARTIFACTS, browser  # noqa: F401

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (FOLDER / "index.html").exists(), reason="the dashboard is not built"),
]

PASSWORD = "correct horse 9"
PEOPLE = {"li": "supervisor", "wu": "inspector"}
KEY = b"k" * 32
SPOKEN, MASKED = "麻烦您记一下，手机是13912345678", "麻烦您记一下，手机是*******5678"
NUMBER = "13912345678"
LENGTH_MS = 60_000
ENERGY = """
async () => {
  for (const one of (await window.peer.getStats()).values())
    if (one.type === "inbound-rtp") return one.totalAudioEnergy ?? 0;
  return 0;
}
"""
STILL = """
async () => {
  const moving = document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime < Infinity);
  await Promise.all(moving.map((one) => one.finished.catch(() => null)));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}
"""
"""Until everything is drawn as it stays."""
KEEP_PEER = """
const Peer = RTCPeerConnection;
window.RTCPeerConnection = function (...given) { return (window.peer = new Peer(...given)); };
"""


@dataclass
class House:
    address: str
    service: object
    loop: asyncio.AbstractEventLoop
    asked: list

    def append(self, *events):
        asyncio.run_coroutine_threadsafe(self.service.outlet.append(events), self.loop).result(20)

    def audit(self, call_id):
        return [
            (entry.username, entry.action, entry.detail) for entry in self.service.store.audit.about(call_id)
        ]


def a_call(call_id):
    """A minute of a call: what both said, felt and did, one number masked, two alerts."""
    turns = [
        (1000, "您好，理财专线为您服务", "agent"),
        (6000, "我想问一下那款理财", "customer"),
        (12_000, "这款产品保本保息，您放心", "agent"),
        (21_000, SPOKEN, "customer"),
        (30_000, "你们上次就是这么说的，我要投诉", "customer"),
        (41_000, "非常抱歉给您带来不便", "agent"),
    ]
    events = [started(call_id, agent="8001", queue="理财专线", customer="139****5678", customer_level="金卡")]
    for start, text, role in turns:
        events.append(said(start, text.replace("1391234", "*******"), call_id, role))
        if NUMBER in text:
            utterance_id = f"{call_id}:{role}:{start}"
            box = Keyring([KEY]).seal(utterance_id, text)
            events.append(Sealed(call_id=call_id, utterance_id=utterance_id, media_ms=start, box=box))
    levels = [(6000, 2.0), (21_000, 3.5), (30_000, 7.2), (50_000, 5.0)]
    events += [emotion(ms, call_id, level=level, trend=1.0) for ms, level in levels]
    events += [emotion(ms, call_id, role="agent", level=level) for ms, level in [(1000, 0.5), (41_000, 2.0)]]
    found = Evidence(text="这款产品保本保息，您放心", matched=("保本保息",), spans=((4, 8),))
    events.append(
        alert(12, call_id, id=f"{call_id}-a12", utterance_id=f"{call_id}:agent:12000", evidence=found)
    )
    complaint = {"rule_id": "signal.complaint", "severity": "warning", "role": "customer"}
    words = Evidence(text="你们上次就是这么说的，我要投诉", matched=("投诉",), spans=((13, 15),))
    events.append(
        alert(
            30,
            call_id,
            id=f"{call_id}-a30",
            name={"zh": "客户投诉", "en": "Complaint"},
            utterance_id=f"{call_id}:customer:30000",
            evidence=words,
            **complaint,
        )
    )
    steps = (
        Step(id="greeting", name={"zh": "问候", "en": "Greeting"}, state="done", done_ms=1500),
        Step(id="risk", name={"zh": "风险提示", "en": "Risk notice"}, state="missed", due_ms=35_000),
        Step(id="sorry", name={"zh": "致歉", "en": "Apology"}, state="done", done_ms=41_200),
    )
    import msgspec

    events.append(msgspec.structs.replace(progress(41_000, call_id=call_id), steps=steps, score=67.0))
    for number in (12, 30):
        one = marker(number, call_id)
        events.append(msgspec.structs.replace(one, id=f"{call_id}-m{number}"))
    return events


@pytest.fixture(scope="module")
def telephony():
    """Agrees to everything."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/take", asked
    server.shutdown()


@pytest.fixture(scope="module")
def house(tmp_path_factory, telephony):
    """The service in a thread of its own: the browser is driven by calls that block."""
    folder, ready, over = tmp_path_factory.mktemp("call"), threading.Event(), asyncio.Event()
    found = []

    async def serve():
        await recorded(folder / "recordings", "past", LENGTH_MS // 1000)
        more = {"pii_keys": base64.b64encode(KEY).decode(), "takeover_url": telephony[0]}
        async with served(folder, takeover_secret="sixteen characters", **more) as running:
            for person, role in PEOPLE.items():
                running.service.store.users.ensure(person, PASSWORD, f"{person}主管", role)
            found.append(House(running.address, running.service, asyncio.get_running_loop(), telephony[1]))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    found[0].append(*a_call("past"), ended("past", LENGTH_MS))
    yield found[0]
    found[0].loop.call_soon_threadsafe(over.set)
    thread.join(30)


@pytest.fixture
def open_call(browser, house):  # noqa: F811
    """Opens a call's page in a browser of its own for somebody."""
    contexts = []

    def open_(person, call_id):
        context = browser.new_context(viewport={"width": 1366, "height": 768}, locale="zh-CN")
        contexts.append(context)
        context.add_init_script(KEEP_PEER)
        page = context.new_page()
        page.errors, page.told = [], []
        page.on("pageerror", lambda error: page.errors.append(str(error)))

        def tell(frame):
            page.told.append(str(frame))

        page.on("websocket", lambda socket: socket.on("framereceived", tell))
        who = {"username": person, "password": PASSWORD}
        address = f"{house.address}/api/session"
        assert context.request.post(address, data=who, headers={"X-Duting": "1"}).ok
        page.goto(f"{house.address}/calls/{call_id}")
        page.get_by_test_id("call-head").wait_for()
        return page

    yield open_
    for context in contexts:
        assert [error for page in context.pages for error in page.errors] == []
        context.close()


@contextlib.contextmanager
def sounding(house, call_id):
    """A call that runs and is heard here: a tone on both sides, at the pace of speech."""
    listening = house.service.rooms.listening
    tone = (np.sin(np.arange(1600) * 2 * np.pi * 440 / 16_000) * 12_000).astype("<i2").tobytes()

    async def sound():
        listening.start(CallInfo(call_id=call_id), 16_000)
        media_ms = 0
        try:
            while True:
                for channel in ("agent", "customer"):
                    frame = AudioFrame(call_id=call_id, channel=channel, media_ms=media_ms, pcm=tone)
                    listening.frame(frame)
                media_ms += 100
                await asyncio.sleep(0.1)
        finally:
            await listening.close(call_id, media_ms)

    running = asyncio.run_coroutine_threadsafe(sound(), house.loop)
    try:
        yield
    finally:
        running.cancel()


def at_ms(page):
    return page.locator("audio").first.evaluate("a => Math.round(a.currentTime * 1000)")


def playing(page):
    return page.locator("audio").first.evaluate("a => !a.paused")


def test_a_marker_a_line_and_a_key_are_heard_and_the_waveform_is_there(open_call):
    page = open_call("li", "past")
    page.locator("[data-testid=waveform] canvas, [data-testid=waveform] div").first.wait_for(timeout=15_000)
    page.get_by_test_id("moods").wait_for()
    assert page.get_by_test_id("nodes").get_by_role("button").count() == 3
    page.get_by_test_id("marker").first.click()
    page.wait_for_function(
        "() => { const a = document.querySelector('audio'); return !a.paused && a.currentTime > 11; }"
    )
    assert 11_000 <= at_ms(page) < 14_000
    page.locator("body").click(position={"x": 3, "y": 400})
    page.keyboard.press("Space")
    until(lambda: not playing(page))
    before = at_ms(page)
    page.keyboard.press("ArrowRight")
    assert abs(at_ms(page) - before - 5000) < 100
    page.keyboard.press("ArrowLeft")
    assert abs(at_ms(page) - before) < 100
    page.locator("[data-utterance='past:customer:30000'] .words").click()
    page.wait_for_function(
        "() => { const a = document.querySelector('audio'); return !a.paused && a.currentTime >= 30; }"
    )


def test_a_masked_number_is_shown_for_a_reason_is_masked_again_and_leaves_an_entry(open_call, house):
    page = open_call("wu", "past")
    line = page.locator("[data-utterance='past:customer:21000']")
    line.get_by_text(MASKED).wait_for()
    assert NUMBER not in page.content()
    line.get_by_test_id("reveal-open").click()
    assert line.get_by_test_id("reveal-send").is_disabled()
    page.keyboard.insert_text("投诉核对号码")
    page.keyboard.press("Enter")
    line.get_by_text(SPOKEN).wait_for(timeout=5000)
    assert ("wu", "call.revealed", "past:customer:21000: 投诉核对号码") in house.audit("past")
    page.screenshot(path=str(ARTIFACTS / "call-revealed.png"))
    line.get_by_test_id("reveal-hide").click()
    line.get_by_text(MASKED).wait_for()
    assert NUMBER not in page.content()


def test_a_number_is_shown_to_who_asked_for_it_and_told_over_no_socket(open_call, house):
    first, *rest = a_call("watched")
    house.append(first)
    asks, looks = open_call("wu", "watched"), open_call("li", "watched")
    house.append(*rest)
    line = "[data-utterance='watched:customer:21000']"
    for page in (asks, looks):
        page.locator(line).get_by_text(MASKED).wait_for(timeout=5000)
    asks.locator(line).get_by_test_id("reveal-open").click()
    asks.locator(line).get_by_test_id("reveal-reason").fill("投诉核对号码")
    asks.keyboard.press("Enter")
    asks.locator(line).get_by_text(SPOKEN).wait_for(timeout=5000)
    house.append(said(50_000, "还有别的吗", "watched"))
    for page in (asks, looks):
        page.get_by_text("还有别的吗").first.wait_for(timeout=5000)
        assert any(MASKED in frame for frame in page.told)
        assert any("还有别的吗" in frame for frame in page.told)
        assert not any(NUMBER in frame for frame in page.told)
    assert NUMBER not in looks.content()
    house.append(ended("watched", LENGTH_MS))


def settled(page):
    """What the page was answered has come to it: this question was asked later."""
    page.evaluate("fetch('/api/session').then((answer) => answer.text())")


def test_a_number_that_comes_after_it_was_no_longer_wanted_is_not_shown(open_call):
    page = open_call("wu", "past")
    kept = []
    page.route("**/reveal", lambda route: kept.append(route))
    line = page.locator("[data-utterance='past:customer:21000']")
    line.get_by_test_id("reveal-open").click()
    page.keyboard.insert_text("投诉核对号码")
    page.keyboard.press("Enter")
    until(lambda: page.wait_for_timeout(20) is None and kept)
    line.get_by_role("button", name="取消").click()
    with page.expect_response("**/reveal") as answered:
        kept[0].continue_()
    assert answered.value.json()["text"] == SPOKEN
    settled(page)
    assert NUMBER not in page.content()
    assert line.get_by_test_id("masked").get_attribute("data-state") == "masked"


@pytest.mark.parametrize(
    ("call_id", "words", "masked"),
    [("reread", "请您记一下，手机是*******5678", 1), ("plain", "请您记一下", 0)],
)
def test_a_number_that_is_shown_goes_when_the_words_are_read_anew(open_call, house, call_id, words, masked):
    house.append(*a_call(call_id))
    page = open_call("wu", call_id)
    line = page.locator(f"[data-utterance='{call_id}:customer:21000']")
    line.get_by_test_id("reveal-open").click()
    line.get_by_test_id("reveal-reason").fill("投诉核对号码")
    page.keyboard.press("Enter")
    line.get_by_text(SPOKEN).wait_for(timeout=5000)
    house.append(said(21_000, words, call_id, "customer"))
    line.get_by_text(words, exact=True).wait_for(timeout=5000)
    assert NUMBER not in page.content()
    assert line.get_by_test_id("reveal-open").count() == masked
    house.append(ended(call_id, LENGTH_MS))


def test_a_call_that_cannot_be_read_anew_says_so_until_it_can(open_call, house):
    house.append(*a_call("unread"))
    page = open_call("li", "unread")
    page.route("**/api/calls/unread", lambda route: route.abort())
    house.append(ended("unread", LENGTH_MS))
    page.get_by_test_id("call-stale").wait_for(timeout=5000)
    assert page.get_by_test_id("transcript-final").count() == 6
    page.unroute("**/api/calls/unread")
    page.get_by_test_id("call-stale").wait_for(state="detached", timeout=10_000)


def test_what_is_being_written_stays_while_somebody_looks_at_another_part(open_call, house):
    house.append(*a_call("written"))
    page = open_call("li", "written")
    for tab, field in (("notes", "note-text"), ("whispers", "whisper-text")):
        page.get_by_test_id(f"tab-{tab}").click()
        page.get_by_test_id(field).fill(f"写到一半 {tab}")
    page.get_by_test_id("tab-alerts").click()
    for tab, field in (("notes", "note-text"), ("whispers", "whisper-text")):
        page.get_by_test_id(f"tab-{tab}").click()
        assert page.get_by_test_id(field).is_visible()
        assert page.get_by_test_id(field).input_value() == f"写到一半 {tab}"
    house.append(ended("written", LENGTH_MS))


def test_evidence_is_taken_away_opens_and_its_hashes_match(open_call, house, tmp_path):
    page = open_call("wu", "past")
    with page.expect_download(timeout=20_000) as taking:
        page.get_by_test_id("evidence").first.click()
    path = tmp_path / taking.value.suggested_filename
    taking.value.save_as(path)
    assert path.name.startswith("duting-evidence-past-past-a12-")
    with zipfile.ZipFile(path) as packed:
        files = {name.partition("/")[2]: packed.read(name) for name in packed.namelist()}
    manifest = json.loads(files.pop("manifest.json"))
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == {
        name: known["sha256"] for name, known in manifest["files"].items()
    }
    assert {"audio.wav", "index.html", "alert.json", "transcript.txt"} <= set(files)
    assert not any(NUMBER.encode() in content for content in files.values())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert ("wu", "call.exported", f"past-a12: sha256 {digest}") in house.audit("past")
    # Without a server, as whoever gets it opens it.
    folder = tmp_path / "opened"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    page.goto((folder / "index.html").as_uri())
    page.get_by_text("这款产品保本保息").first.wait_for()
    page.screenshot(path=str(ARTIFACTS / "evidence.png"), full_page=True)


def test_a_note_appears_at_the_other_ones_page_and_on_the_timeline(open_call, house):
    li, wu = open_call("li", "past"), open_call("wu", "past")
    for page in (li, wu):
        page.get_by_test_id("tab-notes").click()
    li.get_by_test_id("note-text").fill(f"<b>复听</b>：话术违规，客户 {NUMBER}")
    li.keyboard.press("Control+Enter")
    for page in (li, wu):
        shown = page.get_by_test_id("note")
        shown.wait_for(timeout=5000)
        assert "<b>复听</b>：话术违规，客户 *******5678" in shown.inner_text()
        page.get_by_test_id("note-marker").wait_for()
        assert page.get_by_test_id("note").count() == 1
    until(lambda: li.get_by_test_id("note-text").input_value() == "")  # its answer may come after the event
    wu.get_by_test_id("language").click()
    wu.emulate_media(color_scheme="dark")
    wu.get_by_test_id("reveal-open").click()
    wu.get_by_test_id("reveal-reason").fill("complaint")
    wu.screenshot(path=str(ARTIFACTS / "call-notes.png"))


def test_a_running_call_is_heard_taken_over_and_grows(open_call, house):
    house.append(*a_call("live"))
    with sounding(house, "live"):
        page = open_call("li", "live")
        page.get_by_test_id("ear-toggle").click()
        page.locator("[data-testid=ear][data-state=on]").wait_for(timeout=15_000)
        until(lambda: page.evaluate(ENERGY) > 1e-4)
        page.get_by_test_id("ear-side").select_option("agent")
        page.locator("[data-testid=ear][data-state=on]").wait_for(timeout=15_000)
        until(lambda: page.evaluate(ENERGY) > 1e-4)
        page.get_by_test_id("takeover").click()
        page.get_by_test_id("takeover-reason").fill("客户情绪激动")
        page.keyboard.press("Enter")
        page.locator("[data-testid=takeover-state][data-state=accepted]").wait_for(timeout=5000)
        asked = json.loads(house.asked[-1])
        assert (asked["call_id"], asked["by"], asked["reason"]) == ("live", "li", "客户情绪激动")
        page.get_by_test_id("tab-whispers").click()
        page.get_by_test_id("whisper-text").fill("请先安抚客户")
        page.screenshot(path=str(ARTIFACTS / "call-live.png"))
        # Leaving ends it on the server, too.
        assert len(house.service.rooms.sessions) == 1
        page.goto(f"{house.address}/floor")
        until(lambda: not house.service.rooms.sessions)
    house.append(ended("live", LENGTH_MS))


def test_what_it_looks_like(open_call, house):
    """For people: the pictures are in ``artifacts``."""
    page = open_call("li", "past")
    page.locator("[data-testid=waveform]").wait_for(timeout=15_000)
    page.get_by_test_id("marker").first.click()
    page.wait_for_function("() => document.querySelector('audio').currentTime > 11.2")
    page.locator("audio").first.evaluate("a => a.pause()")
    for language in ("zh", "en"):
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.locator(f"html.{scheme}[lang^={language}]").wait_for()
            page.evaluate(STILL)
            page.screenshot(path=str(ARTIFACTS / f"call.{language}.{scheme}.png"))
        page.get_by_test_id("language").click()
    page.set_viewport_size({"width": 2560, "height": 1440})
    page.wait_for_function("() => innerWidth === 2560")
    page.evaluate(STILL)
    page.screenshot(path=str(ARTIFACTS / "call.wall.png"))
