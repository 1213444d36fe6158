"""Real Chromium on both ends: the README's page publishes over WHIP, a supervisor listens over WHEP."""

from __future__ import annotations

import http.server
import re
import shutil
import threading
from pathlib import Path

import av
import pytest

from app.api.static import FOLDER
from app.phones.call import sides
from tests.running import TOKEN
from tests.test_browser import ARTIFACTS, FLAGS, log_in, server  # noqa: F401 - a fixture

pytestmark = [pytest.mark.browser, pytest.mark.model]

README = Path(__file__).parent.parent / "README.md"
LISTEN = """
async (call) => {
  const peer = window.peer = new RTCPeerConnection();
  peer.addTransceiver("audio", { direction: "recvonly" });
  peer.ontrack = ({ streams, track }) => {
    const player = window.player = new Audio();
    player.srcObject = streams[0] ?? new MediaStream([track]);
    player.play();
  };
  await peer.setLocalDescription(await peer.createOffer());
  const answer = await fetch(`/api/calls/${call}/listen`, {
    method: "POST", headers: { "Content-Type": "application/sdp" }, body: peer.localDescription.sdp,
  });
  if (!answer.ok) throw new Error(await answer.text());
  await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
}
"""
ENERGY = """
async () => {
  for (const one of (await window.peer.getStats()).values())
    if (one.type === "inbound-rtp") return one.totalAudioEnergy ?? 0;
  return 0;
}
"""


@pytest.fixture(scope="module")
def microphone(short_call, tmp_path_factory):
    """What the agent says in the short call, as a file that Chromium plays as its microphone."""
    path = tmp_path_factory.mktemp("microphone") / "agent.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(sides(short_call, 48_000)["agent"].reshape(1, -1), "s16", "mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame) + stream.encode(None))
    return path


@pytest.fixture(scope="module")
def browser(microphone):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    flags = [
        *FLAGS,
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
        "--autoplay-policy=no-user-gesture-required",
    ]
    ARTIFACTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield started
        started.close()


@pytest.fixture
def softphone(server, tmp_path):  # noqa: F811
    """The README's page, from an origin of its own; the address of it."""
    page = re.search(r"```html\n(.*?)```", README.read_text(), re.S)[1]
    page = page.replace("https://duting.bank.example", server.address).replace("DUTING_INGEST_TOKEN", TOKEN)
    (tmp_path / "softphone.html").write_text(page)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}/softphone.html"
    served.shutdown()


@pytest.fixture
def supervisor(browser, server):  # noqa: F811
    context = browser.new_context(viewport={"width": 1366, "height": 768}, locale="zh-CN")
    page = context.new_page()
    log_in(page, server)
    yield page
    context.close()


@pytest.mark.skipif(
    not (FOLDER / "index.html").exists(), reason="the dashboard is not built: run `make dashboard`"
)
def test_a_page_publishes_its_microphone_the_alert_appears_and_a_supervisor_hears_it(
    browser, softphone, supervisor
):
    phone = browser.new_context().new_page()
    errors = []
    phone.on("pageerror", lambda error: errors.append(str(error)))
    phone.goto(softphone)
    phone.locator("#call").click()
    supervisor.locator("[data-testid=call-card][data-call-id=call-1]").wait_for(timeout=15_000)
    supervisor.evaluate(LISTEN, "call-1")
    alert = supervisor.locator("[data-testid=alert-item][data-rule-id^=redline]").first
    alert.wait_for(timeout=30_000)
    energy = supervisor.evaluate(ENERGY)
    supervisor.screenshot(path=str(ARTIFACTS / "whip.png"))
    phone.evaluate("window.hangUp()")
    supervisor.locator("[data-testid=call-card][data-call-id=call-1]").wait_for(
        state="detached", timeout=40_000
    )
    assert errors == []
    assert energy > 1e-4
