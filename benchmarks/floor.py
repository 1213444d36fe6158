"""``python -m benchmarks.floor --calls N --seconds S --json OUT``: the floor in a real browser.

The real server process; N live calls with two events a call and second (who speaks, partial and final texts,
emotion, script), calls that end and begin, ``--rate`` alerts a second: all handed to the real outlet in the
server, as by the runner, and told over the real socket. Chromium shows a supervisor ``/floor``, 1366 × 768.
Frames are the distances between the calls of ``requestAnimationFrame`` over S seconds, at rest and while a
mouse wheel scrolls the wall up and down (1,400 pixels a second). A frame that comes late counts as one long
one: ``frame_p95_ms`` and ``scrolling_p95_ms`` are of them, ``long_frames`` are those of more than 100 ms.

Memory is in MiB, as the system sees it: ``page_mib`` the process that shows the page, ``browser_mib`` all
of Chromium's processes; both PSS, in which what several processes share counts in parts, so that it counts
once in all. ``blank_page_mib`` and ``blank_browser_mib`` are the same of an empty ``about:blank`` before it,
with the same flags: what Chromium needs for itself. ``heap_mib`` is the page's JavaScript heap.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from benchmarks import plots
from benchmarks.appended import Plan, begin
from benchmarks.machine import machine
from benchmarks.rig import Rig, ServerProbe, server

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
SETTLE_S = 8.0
"""From all calls being there to the first frame that counts."""
DENSITIES = ("cards", "rows", "tiles")
COLUMNS = (
    "calls", "density", "events_s", "fps", "frame_p95_ms", "frame_max_ms", "long_frames",
    "scrolling_fps", "scrolling_p95_ms", "scrolling_max_ms", "scrolling_long_frames",
    "heap_mib", "page_mib", "browser_mib", "blank_page_mib", "blank_browser_mib", "nodes",
    "page_cores", "scrolling_page_cores", "server_cores", "load_1min",
)  # fmt: skip

FRAMES = """
seconds => new Promise(done => {
  const times = [];
  const from = performance.now();
  const next = now => {
    times.push(now);
    if (now - from < seconds * 1000) requestAnimationFrame(next);
    else done(times.slice(1).map((time, at) => time - times[at]));
  };
  requestAnimationFrame(next);
})
"""
SCROLL_PX = 2000
SCROLL_PX_S = 1400
COUNT = """
() => {
  const real = WebSocket;
  window.__events = 0;
  window.WebSocket = class extends real {
    constructor(...given) {
      super(...given);
      this.addEventListener('message', ({ data }) => (window.__events += data.split('\\n').length));
    }
  };
}
"""


def processes(root: psutil.Process) -> Iterator[psutil.Process]:
    for process in root.children(recursive=True):
        try:
            if "chrom" in process.name():
                yield process
        except psutil.NoSuchProcess:
            continue


def page_process(root: psutil.Process, page: Page) -> psutil.Process:
    """The one that shows this page: the one that computes while the page does."""
    renderers = [each for each in processes(root) if "--type=renderer" in each.cmdline()]
    before = {each.pid: sum(each.cpu_times()[:2]) for each in renderers}
    page.evaluate("() => { const until = performance.now() + 400; while (performance.now() < until); }")
    return max(renderers, key=lambda each: sum(each.cpu_times()[:2]) - before[each.pid])


def memory(root: psutil.Process, shows: psutil.Process) -> tuple[float, float]:
    """MiB of the page's process and of all of the browser's, both PSS."""
    whole = 0.0
    for process in processes(root):
        try:
            whole += process.memory_full_info().pss
        except psutil.Error:
            continue
    return shows.memory_full_info().pss / 2**20, whole / 2**20


def scroll(page: Page, seconds: float) -> list[float]:
    """Frames while the wheel turns down and up again, from wherever the wall stands."""
    box = page.get_by_test_id("wall").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    # Evaluating waits for its result, and the gesture too: the frames are counted by the page meanwhile.
    page.evaluate(f"seconds => {{ window.__frames = ({FRAMES})(seconds); }}", seconds)
    began, way = time.monotonic(), -1
    while time.monotonic() - began < seconds:
        session.send(
            "Input.synthesizeScrollGesture",
            {
                "x": box["x"] + box["width"] / 2,
                "y": box["y"] + box["height"] / 2,
                "yDistance": way * SCROLL_PX,
                "speed": SCROLL_PX_S,
                "gestureSourceType": "mouse",
                "preventFling": True,
            },
        )
        way = -way
    session.detach()
    frames: list[float] = page.evaluate("window.__frames")
    page.mouse.move(5, 5)
    return frames


def in_figures(prefix: str, frames: list[float]) -> dict[str, Any]:
    ordered = sorted(frames)
    return {
        f"{prefix}fps" if prefix else "fps": round(1000 * len(frames) / sum(frames), 1),
        f"{prefix or 'frame_'}p95_ms": round(ordered[int(len(ordered) * 0.95)], 1),
        f"{prefix or 'frame_'}max_ms": round(ordered[-1], 1),
        f"{prefix}long_frames": sum(frame > 100 for frame in frames),
    }


def measure(
    rig: Rig, page: Page, density: str, seconds: float, me: psutil.Process, shows: psutil.Process
) -> dict[str, Any]:
    page.get_by_test_id(f"density-{density}").click()
    page.mouse.move(5, 5)
    page.wait_for_timeout(2000)
    probe = ServerProbe(rig.pid, rig.address)
    probe.take()
    cpu = sum(shows.cpu_times()[:2])
    events, began = page.evaluate("window.__events"), time.monotonic()
    still = page.evaluate(FRAMES, seconds)
    took = time.monotonic() - began
    told = page.evaluate("window.__events") - events
    cpu_after = sum(shows.cpu_times()[:2])
    probe.take()
    began = time.monotonic()
    scrolling = scroll(page, seconds / 2)
    scrolled_s, cpu_scrolled = time.monotonic() - began, sum(shows.cpu_times()[:2])
    page_mib, browser_mib = memory(me, shows)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    first, last = probe.samples
    return {
        "density": density,
        "events_s": round(told / took, 1),
        **in_figures("", still),
        **in_figures("scrolling_", scrolling),
        "heap_mib": round(metrics["JSHeapUsedSize"] / 2**20, 1),
        "page_mib": round(page_mib),
        "browser_mib": round(browser_mib),
        "nodes": round(metrics["Nodes"]),
        "page_cores": round((cpu_after - cpu) / took, 2),
        "scrolling_page_cores": round((cpu_scrolled - cpu_after) / scrolled_s, 2),
        "server_cores": round((last.cpu_s - first.cpu_s) / (last.at_s - first.at_s), 2),
        "load_1min": round(psutil.getloadavg()[0], 1),
        "frames": still,
    }


def run(calls: int, rate: float, seconds: float, pictures: Path | None) -> list[dict[str, Any]]:
    length = 120 + len(DENSITIES) * (seconds * 1.7 + 15)
    plan = Plan(calls=calls, events_per_call_s=2.0, alerts_s=rate, seconds=length)
    with server(program=("benchmarks.appended",)) as rig, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        me = psutil.Process()
        page = browser.new_page(viewport={"width": 1366, "height": 768}, locale="zh-CN")
        page.goto("about:blank")
        page.wait_for_timeout(SETTLE_S * 1000)
        blank_page, blank_browser = (round(mib) for mib in memory(me, page_process(me, page)))
        page.add_init_script(f"({COUNT})()")
        page.goto(f"{rig.address}/floor")
        page.get_by_test_id("login-username").fill(rig.account.username)
        page.get_by_test_id("login-password").fill(rig.account.password)
        page.get_by_test_id("login-submit").click()
        page.locator("[data-testid=connection-state][data-state=online]").wait_for(timeout=30_000)
        begin(rig.folder, plan)
        page.wait_for_function(
            "n => Number(document.querySelector('[data-testid=figure-live]')?.textContent) >= n",
            arg=calls,
            timeout=60_000,
        )
        page.wait_for_timeout(SETTLE_S * 1000)
        shows = page_process(me, page)
        rows = []
        for density in DENSITIES:
            figures = measure(rig, page, density, seconds, me, shows)
            blank = {"blank_page_mib": blank_page, "blank_browser_mib": blank_browser}
            rows.append({"calls": calls, **figures, **blank})
            if pictures is not None:
                page.screenshot(path=str(pictures.with_suffix(f".{calls}.{density}.png")))
        browser.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[500])
    parser.add_argument("--rate", type=float, default=1.0, help="alerts a second, of all calls together")
    parser.add_argument("--seconds", type=float, default=30.0, help="at rest, for each density")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    console = Console()
    rows: list[dict[str, Any]] = []
    frames: list[list[float]] = []
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
    for calls in given.calls:
        rows += run(calls, given.rate, given.seconds, given.json)
        console.print(_table(rows))
    frames = [row.pop("frames") for row in rows]
    if given.json:
        names = [f"{row['calls']} {row['density']}" for row in rows]
        plots.frames(names, frames, given.json.with_suffix(".png"))
        worst = min(rows, key=lambda row: row["fps"])
        summary = {
            "calls": max(given.calls),
            "fps": worst["fps"],
            "scrolling_fps": min(row["scrolling_fps"] for row in rows),
            "frame_p95_ms": max(row["frame_p95_ms"] for row in rows),
            "scrolling_p95_ms": max(row["scrolling_p95_ms"] for row in rows),
            "heap_mib": max(row["heap_mib"] for row in rows),
            "page_mib": max(row["page_mib"] for row in rows),
            "browser_mib": max(row["browser_mib"] for row in rows),
            "blank_browser_mib": rows[0]["blank_browser_mib"],
        }
        given.json.write_text(json.dumps({"summary": summary, "machine": machine(), "runs": rows}, indent=1))


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="the floor in Chromium")
    table.add_column("")
    for row in rows:
        table.add_column(f"{row['calls']} {row['density']}", justify="right")
    for name in COLUMNS[2:]:
        table.add_row(name, *(str(row[name]) for row in rows))
    return table


if __name__ == "__main__":
    main()
