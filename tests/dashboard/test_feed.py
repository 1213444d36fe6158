"""The feed: what browsers are sent, when they are sent away, and that none of them slows another."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.websockets import WebSocket

from app.listeners import Listeners
from app.rights import EVERYTHING
from app.subscription import EVENTS_WAITING, Envelope
from dashboard.feed import (
    FRAMES,
    NOT_ALLOWED,
    NOT_LOGGED_IN,
    WRITE_BYTES,
    Feed,
    Refused,
    arrived,
    text_frame,
    text_of,
)
from streams.events import Alert, Evidence, Latency, Published


class Item:
    """An envelope."""

    def __init__(self, published: Published | None, emitted: float | None = None) -> None:
        self.published = published
        self.emitted = emitted
        told = None if published is None else {"cursor": published.cursor, "type": published.type}
        self.frame = text_frame(json.dumps(told).encode())


class Script:
    """An outlet and its one subscription: gives what it was told to, then ends, or is silent for ever."""

    def __init__(self, *batches: Sequence[Item] | Exception, then: str = "end") -> None:
        self.batches = deque(batches)
        self.then = then
        self.head = 7
        self.ended = False
        self.closed = asyncio.Event()
        self.asked: int | str | None = "not asked"
        self.sight: object = None

    def subscribe(self, cursor: int | None, sight: object) -> Script:
        self.asked, self.sight = cursor, sight
        return self

    async def take(self, timeout_s: float | None = None) -> Sequence[Item]:
        if self.batches:
            batch = self.batches.popleft()
            if isinstance(batch, Exception):
                raise batch
            return batch
        if self.then == "silence":
            await asyncio.Event().wait()
        self.ended = True
        return []

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()


class Browser:
    """The other end of a socket."""

    def __init__(self, query: str = "", takes: int | None = None, **headers: str) -> None:
        self.sent: list[dict[str, Any]] = []
        self.takes = takes
        self.reads = asyncio.Event()
        self.gone = asyncio.Event()
        self.sending = asyncio.Event()
        self._connected = False
        headers = {"host": "duting.bank"} | headers
        scope = {
            "type": "websocket",
            "path": "/api/events",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        self.socket = WebSocket(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        await self.gone.wait()
        return {"type": "websocket.disconnect", "code": 1001}

    async def _send(self, message: Any) -> None:
        self.sending.set()
        if self.takes is not None and len(self.texts) >= self.takes and message["type"] == "websocket.send":
            await self.reads.wait()  # the buffers are full, and nobody reads
        self.sent.append(dict(message))

    @property
    def texts(self) -> list[dict[str, Any]]:
        return [json.loads(message["text"]) for message in self.sent if message["type"] == "websocket.send"]

    @property
    def close_code(self) -> int | None:
        return next((sent["code"] for sent in self.sent if sent["type"] == "websocket.close"), None)


def event(cursor: int, kind: Any = "call.updated", call_id: str = "c1") -> Item:
    return Item(Published(cursor=cursor, type=kind, call_id=call_id, at="", media_ms=0))


def raised(cursor: int, emitted: float | None) -> Item:
    alert = Alert(
        id="a1",
        call_id="c1",
        rule_id="r",
        rule_version="1",
        name={},
        severity="critical",
        role="agent",
        media_start_ms=0,
        media_end_ms=1,
        evidence=Evidence(text=""),
        latency_ms=Latency(vad=300.0, queue=20.0, asr=200.0, rules=1.0),
    )
    published = Published(cursor=cursor, type="alert.raised", call_id="c1", at="", media_ms=1, alert=alert)
    return Item(published, emitted)


class Admitted:
    """An admission that lasts until somebody ends it."""

    def __init__(self, sight: object = "everything") -> None:
        self.sight = sight
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.left = False

    async def over(self) -> int:
        return await self.ended

    def leave(self) -> None:
        self.left = True


async def everybody(_: WebSocket) -> Admitted:
    return Admitted()


async def everything(_: WebSocket) -> Admitted:
    return Admitted(EVERYTHING)


def refusing(code: int) -> Any:
    async def permission(_: WebSocket) -> Any:
        raise Refused(code)

    return permission


async def serve(script: Script, browser: Browser, permission: Any = everybody, **options: Any) -> Browser:
    async with asyncio.timeout(10):
        await Feed(script, permission, **({"gather_s": 0.0} | options)).serve(browser.socket)
    return browser


async def test_a_browser_is_greeted_and_then_told_everything_in_order() -> None:
    browser = await serve(Script([event(8), event(9)], [event(10)]), Browser())
    assert browser.texts == [
        {"type": "hello", "cursor": 7, "heartbeat_s": 15.0},
        {"cursor": 8, "type": "call.updated"},
        {"cursor": 9, "type": "call.updated"},
        {"cursor": 10, "type": "call.updated"},
    ]
    assert browser.close_code == 1001


@pytest.mark.parametrize(
    ("query", "asked"), [("", None), ("cursor=", None), ("cursor=0", 0), ("cursor=42", 42)]
)
async def test_it_continues_from_the_cursor_that_it_names(query: str, asked: int | None) -> None:
    script = Script()
    await serve(script, Browser(query))
    assert script.asked == asked


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 30, "%C2%B2", "%20"])
async def test_a_cursor_that_is_no_number_is_refused(cursor: str) -> None:
    script = Script()
    browser = await serve(script, Browser(f"cursor={cursor}"))
    assert browser.close_code == 1008
    assert script.asked == "not asked"


@pytest.mark.parametrize("code", [NOT_LOGGED_IN, NOT_ALLOWED])
async def test_who_may_not_listen_is_told_why_and_nothing_else(code: int) -> None:
    script = Script([event(8)])
    browser = await serve(script, Browser(), refusing(code))
    assert (browser.texts, browser.close_code) == ([], code)
    assert script.asked == "not asked"


async def test_the_log_is_asked_only_for_what_the_person_sees() -> None:
    async def own_calls(_: WebSocket) -> Admitted:
        return Admitted("own calls")

    script = Script([event(8)])
    await serve(script, Browser(), own_calls)
    assert script.sight == "own calls"


async def test_missed_events_are_said() -> None:
    browser = await serve(Script([Item(None), event(12)]), Browser())
    assert [text["type"] for text in browser.texts] == ["hello", "resync", "call.updated"]


async def test_silence_is_broken_by_heartbeats() -> None:
    browser = await serve(Script([], [], [event(8)]), Browser())
    assert [text["type"] for text in browser.texts] == ["hello", "heartbeat", "heartbeat", "call.updated"]


async def test_an_alert_says_how_long_it_took_to_get_here() -> None:
    script = Script([raised(8, 100.0)])
    browser = await serve(script, Browser(), clock=lambda: 100.25)
    latency = browser.texts[1]["alert"]["latency_ms"]
    assert (latency["delivery"], latency["total"]) == (250.0, 771.0)


async def test_an_alert_from_the_past_claims_no_latency() -> None:
    browser = await serve(Script([raised(8, None)]), Browser())
    assert browser.texts[1] == {"cursor": 8, "type": "alert.raised"}


def test_steps_that_an_alert_did_not_take_count_nothing() -> None:
    assert arrived(Latency(rules=2.0), 3.0) == Latency(rules=2.0, delivery=3.0, total=5.0)


async def test_a_browser_that_stops_reading_is_cut_off() -> None:
    script = Script([event(8), event(9)], then="silence")
    browser = await serve(script, Browser(takes=2), send_timeout_s=0.01)
    assert browser.close_code == 1013
    assert script.closed.is_set()


class Wire:
    """The end of a socket that takes whole frames, as the real server's do."""

    def __init__(self, browser: Browser) -> None:
        self.writes: list[bytes] = []
        self.fails = False
        browser.socket.scope["extensions"] = {FRAMES: self.write}

    async def write(self, frames: bytes) -> None:
        if self.fails:
            raise OSError
        self.writes.append(frames)


async def test_what_waits_is_written_at_once_in_the_frames_that_all_browsers_get() -> None:
    items = [event(8), event(9), Item(None), event(10)]
    browser = Browser()
    wire = Wire(browser)
    await serve(Script(items), browser)
    resync = text_frame(b'{"type":"resync"}')
    assert wire.writes == [items[0].frame + items[1].frame + resync + items[3].frame]


async def test_what_waits_is_one_frame_for_a_browser_that_takes_it_so() -> None:
    items = [event(8), event(9), Item(None), event(10)]
    for wired in (True, False):
        browser = Browser("cursor=7&together=1")
        wire = Wire(browser) if wired else None
        await serve(Script(items, [event(11)]), browser)
        lines = [text_of(item.frame) for item in (items[0], items[1])] + [
            '{"type":"resync"}',
            text_of(items[3].frame),
        ]
        frames = ["\n".join(lines), text_of(event(11).frame)]
        if wire is not None:
            assert wire.writes == [text_frame(frame.encode()) for frame in frames]
        else:
            assert [sent["text"] for sent in browser.sent if "text" in sent][1:] == frames


async def test_not_more_is_written_at_once_than_a_browser_can_be_waited_for() -> None:
    items = [event(cursor) for cursor in range(8, 4000)]
    browser = Browser()
    wire = Wire(browser)
    await serve(Script(items), browser)
    assert b"".join(wire.writes) == b"".join(item.frame for item in items)
    assert max(map(len, wire.writes)) <= WRITE_BYTES < sum(map(len, wire.writes))


async def test_a_browser_that_is_gone_when_it_is_written_to_ends_quietly() -> None:
    browser = Browser()
    Wire(browser).fails = True
    script = Script([event(8)], then="silence")
    await serve(script, browser)
    assert script.closed.is_set()


async def test_an_alert_is_made_once_and_tells_each_browser_its_own_latency() -> None:
    now = [100.25]
    alert = raised(8, 100.0)
    feed = Feed(Script([alert]), everybody, gather_s=0.0, clock=lambda: now[0])
    first, second = Browser(), Browser()
    await feed.serve(first.socket)
    now[0] = 100.5
    feed._outlet = Script([alert])
    await feed.serve(second.socket)
    told = [browser.texts[1] for browser in (first, second)]
    assert [each["alert"].pop("latency_ms")["delivery"] for each in told] == [250.0, 500.0]
    assert told[0] == told[1]


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_frame_is_what_other_implementations_read(size: int) -> None:
    from websockets.frames import Frame, Opcode

    text = b"x" * size
    assert text_frame(text) == Frame(Opcode.TEXT, text).serialize(mask=False)
    assert text_of(text_frame(text)) == text.decode()


async def test_a_browser_that_reads_slowly_is_told_to_load_the_floor_and_slows_nobody() -> None:
    listeners = Listeners(None, others_write=False)  # type: ignore[arg-type]
    feed = Feed(listeners, everything, gather_s=0.0)
    slow, quick = Browser(takes=2), Browser()
    serving = [asyncio.create_task(feed.serve(browser.socket)) for browser in (slow, quick)]
    many = 3 * EVENTS_WAITING

    async def told(browser: Browser, cursor: int) -> None:
        while not browser.texts or browser.texts[-1].get("cursor") != cursor:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await asyncio.gather(told(slow, 0), told(quick, 0))
        for cursor in range(1, many + 1):
            published = Published(cursor=cursor, type="marker.added", call_id="c1", at="", media_ms=0)
            listeners.tell([Envelope(published, None, f'{{"cursor":{cursor},"type":"marker.added"}}')])
            if cursor % 100 == 0:
                await asyncio.sleep(0)
        await told(quick, many)
        assert [text["cursor"] for text in quick.texts] == list(range(many + 1))
        slow.takes = None
        slow.reads.set()
        await told(slow, many)
        kinds = [text["type"] for text in slow.texts]
        assert "resync" in kinds
        assert len(kinds) < many
        after = [text["cursor"] for text in slow.texts[kinds.index("resync") + 1 :]]
        assert after == list(range(after[0], many + 1))
        listeners.close()
        await asyncio.gather(*serving)


async def test_a_browser_that_leaves_frees_its_place() -> None:
    script = Script([event(8)], then="silence")
    browser = Browser()
    serving = asyncio.create_task(serve(script, browser))
    await browser.sending.wait()
    browser.gone.set()
    await serving
    assert script.closed.is_set()


@pytest.mark.parametrize("takes", [None, 2])
async def test_who_may_listen_no_more_is_sent_away_at_once_also_while_not_reading(takes: int | None) -> None:
    admitted = Admitted()

    async def permission(_: WebSocket) -> Admitted:
        return admitted

    script = Script([event(8), event(9)], then="silence")
    browser = Browser(takes=takes)
    serving = asyncio.create_task(serve(script, browser, permission))
    await browser.sending.wait()
    await asyncio.sleep(0)
    admitted.ended.set_result(NOT_LOGGED_IN)
    await serving
    assert browser.close_code == NOT_LOGGED_IN
    assert (admitted.left, script.closed.is_set()) == (True, True)


async def test_a_past_that_cannot_be_read_closes_the_socket() -> None:
    browser = await serve(Script(RuntimeError("the disk")), Browser())
    assert browser.close_code == 1011
