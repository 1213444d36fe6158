"""Every page for everybody: axe finds nothing serious on any, in both languages, light and dark.

The pages are those of ``dashboard/web/src/router.ts``: one that is added there is looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.store.drafts import Hand
from detectors.rules import DEFAULT_PACK
from streams.events import CallEnded
from tests.app.store_support import alert, emotion, marker, progress, said, started
from tests.floors import LOADED, PASSWORD, SCREEN, Floor, chromium, floor_for

pytestmark = pytest.mark.browser

WEB = Path(__file__).parent.parent / "dashboard" / "web"
AXE = WEB / "node_modules" / "axe-core" / "axe.min.js"
PEOPLE = {"root": "administrator", "li": "supervisor", "wu": "inspector", "8001": "agent"}
KNOWN = {
    ":id": "seen",
    r":id(\\d+)": "1",
    ":rest(.*)*": "nowhere",
    "forbidden": "forbidden?page=/admin/people",
}
"""What stands for the parameters of an address."""
GRAVE = ("serious", "critical")
RUN = """
async (rules) => {
  // Colours on their way from light to dark are neither: wait until nothing moves that comes to an end.
  for (let still = 0, frame = 0; still < 3 && frame < 200; frame += 1) {
    await new Promise(requestAnimationFrame);
    const moving = document.getAnimations().some(
      (each) => each.playState === 'running' && Number.isFinite(each.effect.getComputedTiming().endTime),
    );
    still = moving ? 0 : still + 1;
  }
  const only = rules === null ? {} : { runOnly: { type: 'rule', values: rules } };
  const { violations } = await axe.run(document, { resultTypes: ['violations'], ...only });
  return violations.map(({ id, impact, help, nodes }) => ({
    id, impact, help, nodes: nodes.map(({ target, failureSummary }) => [target.join(' '), failureSummary]),
  }));
}
"""


class Route(NamedTuple):
    name: str
    path: str

    @property
    def address(self) -> str:
        parts = [KNOWN.get(part, part) for part in self.path.split("/")]
        unknown = [part for part in parts if part.startswith(":")]
        assert not unknown, f"{self.path}: say in KNOWN of this test what {unknown[0]} may be"
        return "/".join(parts)


def routes() -> list[Route]:
    """All of the router that have a page."""
    text = (WEB / "src" / "router.ts").read_text()
    text = text[text.index("routes: [") :]
    found = [Route(name, path) for path, name in re.findall(r"path:\s*'([^']+)',\s*name:\s*'([^']+)'", text)]
    assert len(found) == len(re.findall(r"component:", text)), (
        "a page without a name, or another form of route"
    )
    return found


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    with floor_for(tmp_path_factory.mktemp("access"), PEOPLE) as running:
        for call_id in ("seen", "running"):
            running.append(
                started(call_id, agent="8001", queue="理财专线", customer_level="金卡"),
                progress(call_id=call_id),
                said(500, "您好，这款产品保本保息", call_id),
                said(2000, "我要投诉", call_id, role="customer"),
                emotion(2000, call_id),
                marker(1, call_id),
            )
        severities = ("critical", "warning", "info")
        running.append(*(alert(n, "running", severity=severities[n % 3]) for n in range(1, 7)))
        running.append(alert(11, "seen"), alert(12, "seen", severity="warning"))
        li = running.session("li")
        for number, step in ((1, "acknowledge"), (2, "resolve"), (3, "false-alarm")):
            assert li.post(f"/api/alerts/a{number}/{step}", json={}).status_code == 200
        assert li.post("/api/alerts/a4/comment", json={"text": "已联系座席"}).status_code == 200
        running.append(CallEnded(call_id="seen", media_ms=20_000, reason="hangup"))
        running.service.store.drafts.add(
            Hand("root", None), "bank.zh", DEFAULT_PACK.read_text("utf-8"), "试试"
        )
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not AXE.exists():
        pytest.skip("axe is not installed: run `make dashboard`")
    with chromium() as started_:
        yield started_


@pytest.fixture(scope="module")
def look(browser: Any, floor: Floor) -> Iterator[Any]:
    """Opens an address as somebody, in a language; every context is kept for the next time."""
    pages: dict[tuple[str, str], Any] = {}

    def look(address: str, person: str, language: str) -> Any:
        if (person, language) not in pages:
            context = browser.new_context(viewport=SCREEN, locale="zh-CN", reduced_motion="reduce")
            context.add_init_script(f"localStorage.setItem('duting.language', '{language}')")
            context.add_init_script(path=str(AXE))
            if person:
                context.add_cookies([floor.cookie(person)])
            pages[person, language] = context.new_page()
        page = pages[person, language]
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        page.goto(f"{floor.address}{address}")
        page.wait_for_function(LOADED)
        return page

    yield look
    for page in pages.values():
        page.context.close()


def grave(page: Any) -> list[str]:
    """What axe finds in the page as it is, in light and in dark."""
    found = []
    for scheme, rules in (("light", None), ("dark", ["color-contrast"])):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.wait_for_function("scheme => document.documentElement.classList.contains(scheme)", arg=scheme)
        for one in page.evaluate(RUN, rules):
            if one["impact"] in GRAVE:
                found += [f"{scheme} {one['id']}: {where}: {why}" for where, why in one["nodes"]]
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    return found


def reached(look: Any, route: Route, language: str) -> Any:
    """The page, seen by whoever is let in."""
    people = {"login": ("",), "forbidden": ("li",), "desk": ("8001",)}.get(route.name, tuple(PEOPLE))
    for person in people:
        page = look(route.address, person, language)
        if page.url.partition("?")[0].endswith(route.address.partition("?")[0]):
            return page
    pytest.fail(f"nobody comes to {route.address}")


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("route", routes(), ids=lambda route: route.name)
def test_a_page_has_nothing_that_shuts_anybody_out(look: Any, route: Route, language: str) -> None:
    page = reached(look, route, language)
    assert grave(page) == []


def open_details(page: Any) -> None:
    page.locator("[data-testid=alert-more]").first.click()
    page.get_by_test_id("alert-details").first.wait_for()


def open_keys(page: Any) -> None:
    page.keyboard.press("?")
    page.get_by_test_id("alert-keys").wait_for()


def open_bells(page: Any) -> None:
    page.get_by_test_id("alert-bells").click()
    page.get_by_test_id("sound-info").wait_for()


def add_person(page: Any) -> None:
    page.get_by_test_id("add-person").click()
    page.locator("[name=new-username]").wait_for()


def add_token(page: Any) -> None:
    page.get_by_test_id("add-token").click()
    page.locator("[name=new-token]").wait_for()


def fail_to_log_in(page: Any) -> None:
    page.get_by_test_id("login-username").fill("li")
    page.get_by_test_id("login-password").fill(PASSWORD + "!")
    page.get_by_test_id("login-submit").click()
    page.get_by_role("alert").first.wait_for()


@pytest.mark.parametrize(
    ("address", "act"),
    [
        ("/floor", open_details),
        ("/floor", open_keys),
        ("/floor", open_bells),
        ("/floor?view=rows&group=queue", lambda page: page.get_by_test_id("call-card").first.wait_for()),
        ("/admin/people", add_person),
        ("/admin/tokens", add_token),
        ("/login", fail_to_log_in),
    ],
    ids=["details", "keys", "bells", "rows", "add person", "add token", "wrong password"],
)
def test_what_opens_on_a_page_shuts_nobody_out_either(look: Any, address: str, act: Any) -> None:
    page = look(address, "" if address == "/login" else "root", "zh")
    act(page)
    assert grave(page) == []


# ── by keys alone ─────────────────────────────────────────────────────────────────────────────────

FOCUS = """
() => {
  const here = document.activeElement;
  const field = here.closest('.el-input__wrapper');
  const { width, height, top, bottom } = (field ?? here).getBoundingClientRect();
  // What has the focus is framed, or what it stands for: its card, its field.
  let seen = field !== null && getComputedStyle(field).boxShadow !== 'none';
  for (let box = here, level = 0; box && level < 4; box = box.parentElement, level += 1) {
    const { outlineStyle, outlineWidth } = getComputedStyle(box);
    seen ||= outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2;
  }
  return {
    what: here.dataset.testid ?? here.getAttribute('aria-label') ?? here.textContent.trim().slice(0, 30),
    seen,
    there: width > 0 && height > 0 && bottom > 0 && top < innerHeight,
  };
}
"""


class Keys:
    """Somebody without a mouse, who looks where the focus is after every step."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def focus(self) -> str:
        """What has the focus; it has to be seen."""
        found = self.page.evaluate(FOCUS)
        assert found["seen"], f"nothing shows that the focus is on {found['what']!r}"
        assert found["there"], f"{found['what']!r} has the focus and is out of sight"
        return str(found["what"])

    def tab_to(self, wanted: str, most: int = 60, key: str = "Tab") -> None:
        passed = []
        for _ in range(most):
            self.press(key)
            passed.append(self.focus())
            if passed[-1] == wanted:
                return
        pytest.fail(f"no way to {wanted!r} by {key}; passed {passed}")

    def go_to_alert(self, alert_id: str, most: int = 20) -> None:
        for _ in range(most):
            self.press("j")
            self.focus()
            if self.page.evaluate("document.activeElement.closest('article')?.dataset.alertId") == alert_id:
                return
        pytest.fail(f"no way to the alert {alert_id} by j")


def test_a_supervisor_needs_no_mouse_from_login_to_logout(browser: Any, floor: Floor) -> None:
    context = browser.new_context(viewport=SCREEN, locale="zh-CN")
    page = context.new_page()
    keys = Keys(page)
    page.goto(floor.address)
    page.wait_for_function("() => document.activeElement.dataset.testid === 'login-username'")
    keys.focus()
    page.keyboard.type("li")
    keys.tab_to("login-password", most=2)
    page.keyboard.type(PASSWORD)
    keys.press("Enter")
    page.locator("[data-testid=connection-state][data-state=online]").wait_for()

    floor.call("by-keys", alert(50, "by-keys"))
    mine = page.locator("[data-testid=alert-item][data-alert-id=a50]").first
    mine.wait_for()
    # On a page that was just loaded, the first thing that Tab comes to leads past the bar.
    page.reload()
    mine.wait_for()
    keys.tab_to("跳到主要内容", most=1)
    keys.press("Enter")
    page.wait_for_function("() => document.activeElement.id === 'main'")
    # Along the alerts, to the one; Enter opens its call, and the way back leads to the floor.
    keys.go_to_alert("a50")
    keys.press("Enter")
    page.wait_for_url("**/calls/by-keys?t=50000")
    page.wait_for_function("() => document.activeElement.id === 'main'")
    keys.tab_to("现场", key="Shift+Tab")
    keys.press("Enter")
    page.wait_for_url("**/floor**")
    mine.wait_for()
    keys.go_to_alert("a50")
    # By its button, then by the letter.
    keys.tab_to("alert-acknowledge", most=5)
    keys.press("Enter")
    page.locator("[data-alert-id=a50][data-state=acknowledged]").first.wait_for()
    keys.press("r")
    page.locator("[data-alert-id=a50][data-state=resolved]").first.wait_for()
    keys.tab_to("logout", most=120, key="Shift+Tab")
    keys.press("Enter")
    page.wait_for_url("**/login**")
    page.get_by_test_id("login-username").wait_for()
    assert context.cookies() == []
    context.close()
