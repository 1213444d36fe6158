"""``python -m benchmarks.floor --calls N --seconds S --json OUT``: the floor in a real browser.

The real server process; N live calls with two events a call and second (who speaks, partial and final texts,
emotion, script), calls that end and begin, ``--rate`` alerts a second: all handed to the real outlet in the
server, as by the runner, and told over the real socket. Chromium shows a supervisor ``/floor``, 1366 × 768.
Frames are those of ``requestAnimationFrame`` over S seconds, at rest and while it is scrolled. ``heap_mib``
is the page's JavaScript heap, ``page_mib`` the memory of its process alone (USS), ``browser_mib`` that of all
of Chromium's processes (PSS: shared pages are counted once).
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
    "calls", "density", "events_s", "fps", "scrolling_fps", "frame_p95_ms", "frame_max_ms", "long_frames",
    "heap_mib", "page_mib", "browser_mib", "nodes", "page_cores", "server_cores",
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
SCROLL = """
seconds => {
  const wall = document.querySelector('[data-testid=wall]');
  const from = performance.now();
  let way = 1;
  const next = now => {
    const before = wall.scrollTop;
    wall.scrollTop += 24 * way;
    if (wall.scrollTop === before) way = -way;
    if (now - from < seconds * 1000) requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
}
"""
COUNT = """
() => {
  const real = WebSocket;
  window.__events = 0;
  window.WebSocket = class extends real {
    constructor(...given) { super(...given); this.addEventListener('message', () => (window.__events += 1)); }
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


def memory(root: psutil.Process) -> tuple[float, float, float]:
    """MiB of the largest page process (USS), of all of the browser (PSS), and CPU seconds of the former."""
    page = whole = cpu = 0.0
    for process in processes(root):
        try:
            full = process.memory_full_info()
            if "--type=renderer" in process.cmdline() and full.uss > page:
                page = full.uss
                cpu = sum(process.cpu_times()[:2])
            whole += full.pss
        except psutil.Error:
            continue
    return page / 2**20, whole / 2**20, cpu


def measure(rig: Rig, page: Page, density: str, seconds: float, me: psutil.Process) -> dict[str, Any]:
    page.get_by_test_id(f"density-{density}").click()
    page.mouse.move(5, 5)
    page.wait_for_timeout(2000)
    probe = ServerProbe(rig.pid, rig.address)
    probe.take()
    _, _, cpu = memory(me)
    events, began = page.evaluate("window.__events"), time.monotonic()
    still = page.evaluate(FRAMES, seconds)
    took = time.monotonic() - began
    told = page.evaluate("window.__events") - events
    page_mib, browser_mib, cpu_after = memory(me)
    probe.take()
    page.evaluate(SCROLL, seconds / 3)
    scrolling = page.evaluate(FRAMES, seconds / 3)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    ordered = sorted(still)
    first, last = probe.samples
    return {
        "density": density,
        "events_s": round(told / took, 1),
        "fps": round(1000 * len(still) / sum(still), 1),
        "scrolling_fps": round(1000 * len(scrolling) / sum(scrolling), 1),
        "frame_p95_ms": round(ordered[int(len(ordered) * 0.95)], 1),
        "frame_max_ms": round(ordered[-1], 1),
        "long_frames": sum(frame > 100 for frame in still),
        "heap_mib": round(metrics["JSHeapUsedSize"] / 2**20, 1),
        "page_mib": round(page_mib),
        "browser_mib": round(browser_mib),
        "nodes": round(metrics["Nodes"]),
        "page_cores": round((cpu_after - cpu) / took, 2),
        "server_cores": round((last.cpu_s - first.cpu_s) / (last.at_s - first.at_s), 2),
        "frames": still,
    }


def run(calls: int, rate: float, seconds: float, pictures: Path | None) -> list[dict[str, Any]]:
    length = 120 + len(DENSITIES) * (seconds * 1.5 + 10)
    plan = Plan(calls=calls, events_per_call_s=2.0, alerts_s=rate, seconds=length)
    with server(program=("benchmarks.appended",)) as rig, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        me = psutil.Process()
        page = browser.new_page(viewport={"width": 1366, "height": 768}, locale="zh-CN")
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
        rows = []
        for density in DENSITIES:
            rows.append({"calls": calls, **measure(rig, page, density, seconds, me)})
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
            "heap_mib": max(row["heap_mib"] for row in rows),
            "page_mib": max(row["page_mib"] for row in rows),
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
