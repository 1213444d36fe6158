"""What is written to do harm, or is only far too much, in real Chromium: it is text, and the page answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from streams.events import CallEnded, CallInfo, CallUpdated, Evidence, Hint, Step
from tests.app.store_support import alert, marker, progress, said, started
from tests.floors import LOADED, SCREEN, Floor, chromium, floor_for

pytestmark = pytest.mark.browser

MARKUP = '<b>粗</b><img src=x onerror="window.harmed=1"><script>window.harmed=1</script>{{7*7}}\'"'
PEOPLE = {"root": "administrator", "8002": "agent"}
ALERTS = 1000
MOST = {"floor": (20.0, 20_000), "call": (30.0, 30_000)}
"""Seconds until a page with all that can be used, on two cores that do other things, too; elements on it."""


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    with floor_for(tmp_path_factory.mktemp("hostile"), PEOPLE) as running:
        names = {"zh": MARKUP, "en": MARKUP}
        told = {
            "agent": MARKUP[:64],
            "queue": MARKUP[:64],
            "customer": MARKUP[:64],
            "customer_level": MARKUP[:64],
            "attributes": {"branch": MARKUP[:64]},
        }
        running.append(
            started("markup", **told | {"agent": "8002"}),
            said(500, MARKUP, "markup"),
            said(2000, "字" * 10_000, "markup", role="customer"),
            progress(call_id="markup", script=MARKUP),
            alert(
                1,
                "markup",
                name=names,
                advice=names,
                evidence=Evidence(text=MARKUP, matched=(MARKUP[:20],), spans=((0, 20),)),
            ),
            marker(1, "markup"),
        )
        about_desk(running, names)
        root = running.session("root")
        for what in ("notes", "whispers"):
            written = {"text": MARKUP, **({"media_ms": 500} if what == "notes" else {})}
            assert root.post(f"/api/calls/markup/{what}", json=written).status_code == 201
        # From here on nobody has an account who could read a whisper.
        running.append(CallUpdated(call=CallInfo(call_id="markup", **told), media_ms=3000))
        rest = {"version": MARKUP, "name": names, "rules": [{"id": MARKUP}]}
        pack = "".join(["id: markup\n", *(f"{key}: {json.dumps(value)}\n" for key, value in rest.items())])
        assert root.post("/api/rules/drafts", json={"text": pack, "note": MARKUP}).status_code == 201
        running.append(started("flood", agent="8001"), said(500, "您好", "flood"))
        severities = ("info", "warning", "critical")
        for first in range(1000, 1000 + ALERTS, 100):
            running.append(
                *(
                    each
                    for number in range(first, first + 100)
                    for each in (
                        *((said(number * 1000, f"第{number}句：保本", "flood"),) if number % 5 == 0 else ()),
                        alert(number, "flood", rule_id=f"rule.{number % 9}", severity=severities[number % 3]),
                        marker(number, "flood"),
                    )
                )
            )
        running.web.state.store.users.ensure("nasty", "correct horse 9", MARKUP, "supervisor")
        yield running


def about_desk(running: Floor, names: dict[str, str]) -> None:
    """A call that is over and one that runs, of one agent, and in both whatever a desk shows."""
    steps = (Step(id="risk", name=names, hint=names, state="due", due_ms=600_000),)
    for call_id in ("desk-past", "desk-now"):
        running.append(
            started(
                call_id, agent="8002", queue=MARKUP[:64], customer=MARKUP[:64], customer_level=MARKUP[:64]
            ),
            replace(progress(0, call_id=call_id, script=MARKUP), steps=steps),
            Hint(id=f"hint-{call_id}", call_id=call_id, rule_id="r", text=names, media_ms=0, severity="info"),
            alert(2, call_id, id=f"alert-{call_id}", name=names, evidence=Evidence(text=MARKUP)),
        )
        sent = running.session("root").post(f"/api/calls/{call_id}/whispers", json={"text": MARKUP})
        assert sent.status_code == 201
        if call_id == "desk-past":
            missed = replace(steps[0], state="missed")
            running.append(replace(progress(900, call_id=call_id, script=MARKUP), steps=(missed,)))
            running.append(CallEnded(call_id=call_id, media_ms=2000, reason="hangup"))


@pytest.fixture
def page(floor: Floor, browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport=SCREEN, locale="zh-CN", reduced_motion="reduce")
    context.add_cookies([floor.cookie("root")])
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("dialog", lambda dialog: page.errors.append(dialog.message))
    yield page
    assert page.errors == []
    context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started_:
        yield started_


Q = quote(MARKUP, safe="")


@pytest.mark.parametrize(
    "address",
    [
        "/floor",
        f"/floor?q={Q}&queue={Q}&team={Q}&group={Q}&view={Q}",
        "/calls",
        f"/calls?q={Q}&state={Q}",
        "/calls/markup",
        "/calls/markup?t=" + Q,
        f"/calls/{Q}",
        "/rules",
        "/rules/drafts",
        "/rules/drafts/1",
        "/rules/history",
        "/admin/people",
        "/admin/audit",
        f"/{Q}",
        f"/forbidden?page={Q}",
    ],
    ids=range(15),
)
def test_markup_is_text_on_every_page_and_in_every_address(page: Any, floor: Floor, address: str) -> None:
    page.goto(f"{floor.address}{address}")
    page.wait_for_function(LOADED)
    all_is_text(page)


def all_is_text(page: Any) -> None:
    assert page.evaluate("window.harmed") is None
    assert page.locator("#app img[src=x], #app script, #app b:has-text('粗')").count() == 0
    assert "49" not in page.title()
    # Whatever is long is cut or wrapped: the page itself does not scroll sideways.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_markup_in_notes_whispers_and_the_errors_of_a_draft_is_text(page: Any, floor: Floor) -> None:
    page.goto(f"{floor.address}/calls/markup")
    for tab, sign in (("notes", "note"), ("whispers", "whisper")):
        page.get_by_test_id(f"tab-{tab}").click()
        assert MARKUP in page.get_by_test_id(sign).inner_text()
        all_is_text(page)
    page.goto(f"{floor.address}/rules/drafts/1")
    page.get_by_test_id("draft-check").click()
    page.get_by_test_id("problem").first.wait_for()
    assert page.get_by_test_id("draft-note").input_value() == MARKUP
    all_is_text(page)


def test_markup_at_a_desk_is_text_in_a_call_and_when_looking_back(page: Any, floor: Floor) -> None:
    page.context.clear_cookies()
    page.context.add_cookies([floor.cookie("8002")])
    page.set_viewport_size({"width": 360, "height": 640})
    page.goto(f"{floor.address}/desk")
    for sign in ("hint-text", "whisper-text", "step"):
        shown = page.get_by_test_id(f"desk-{sign}")
        shown.wait_for()
        assert MARKUP in shown.inner_text()
    all_is_text(page)
    floor.append(CallEnded(call_id="desk-now", media_ms=2000, reason="hangup"))
    review = page.get_by_test_id("desk-review")
    review.get_by_test_id("desk-alert").wait_for()
    assert MARKUP in review.get_by_test_id("desk-alert").inner_text()
    all_is_text(page)
    page.get_by_test_id("desk-review-close").click()
    page.get_by_test_id("desk-last-call").nth(1).click()
    review.get_by_test_id("desk-lacking").wait_for()
    assert MARKUP in review.get_by_test_id("desk-lacking").inner_text()
    all_is_text(page)


@pytest.mark.parametrize(
    "after", ["//evil.example/", "/\\evil.example", "https://evil.example", "javascript:window.harmed=1"]
)
def test_an_address_to_go_to_after_login_is_one_of_ours(page: Any, floor: Floor, after: str) -> None:
    page.goto(f"{floor.address}/login?next={quote(after, safe='')}")
    page.wait_for_url(f"{floor.address}/floor**")
    assert page.evaluate("window.harmed") is None


def open_within(page: Any, address: str, kind: str, sign: str) -> None:
    """The page answers to somebody in time, and is not made of too much."""
    seconds, elements = MOST[kind]
    began = time.monotonic()
    page.goto(address)
    page.locator(sign).first.wait_for(timeout=1000 * seconds)
    # Its script has time for us again.
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert time.monotonic() - began < seconds
    assert page.evaluate("document.querySelectorAll('*').length") < elements


def test_a_floor_and_a_call_with_a_thousand_alerts_can_be_used(page: Any, floor: Floor) -> None:
    open_within(page, f"{floor.address}/floor", "floor", "[data-testid=alert-item]")
    page.get_by_test_id("language").click()
    page.locator("html[lang=en]").wait_for()
    page.get_by_test_id("language").click()
    page.locator("html[lang=zh-CN]").wait_for()
    sign = "[data-testid=transcript-final]"
    open_within(page, f"{floor.address}/calls/flood?t=1500000", "call", sign)
    floor.append(CallEnded(call_id="flood", media_ms=2_100_000, reason="hangup"))
    open_within(page, f"{floor.address}/calls/flood?t=1500000", "call", sign)


def test_every_answer_about_it_comes_within_a_moment(floor: Floor) -> None:
    root = floor.session("root")
    for path in ("/api/floor", "/api/calls/flood", "/api/calls", "/api/rules/precision", "/api/audit"):
        began = time.monotonic()
        assert root.get(path, timeout=20).status_code == 200
        assert time.monotonic() - began < 10, path
