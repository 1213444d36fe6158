"""The plots of the latency benchmarks, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measured import Delay, Sample, Stay

PERCENTILES = (("p50_s", "#2a7f62"), ("p95_s", "#b3261e"), ("p99_s", "#b08900"))


def ramp(rows: Sequence[dict[str, object]], limit_s: float, path: Path) -> None:
    """Latency and the server's CPU over calls at once."""
    pyplot = _pyplot()
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 6), sharex=True, height_ratios=(2, 1))
    calls = [row["calls"] for row in rows]
    for key, colour in PERCENTILES:
        above.plot(calls, [row[key] for row in rows], "o-", color=colour, label=key[:-2])
    above.plot(calls, [row["final_p95_s"] for row in rows], "o:", color="#555555", label="finals p95")
    above.axhline(limit_s, color="black", linewidth=0.8, linestyle="--")
    above.set_ylabel("phrase end → alert, s")
    above.set_ylim(bottom=0)
    above.legend()
    below.plot(calls, [row["server_cores"] for row in rows], "o-", color="#1f4e79", label="server")
    below.plot(calls, [row["load_cores"] for row in rows], "o-", color="#999999", label="load")
    below.set_ylabel("cores busy")
    below.set_xlabel("two-channel calls at once")
    below.set_ylim(bottom=0)
    below.legend()
    _save(figure, path)


def timeline(
    alerts: Sequence[Delay],
    finals: Sequence[Delay],
    samples: Sequence[Sample],
    steps: Sequence[Stay],
    begun_s: float,
    path: Path,
) -> None:
    """Latency, memory and queues over the time of one run."""
    pyplot = _pyplot()
    figure, (delay, memory, queue) = pyplot.subplots(3, 1, figsize=(9, 8), sharex=True)
    for delays, style, name in ((finals, "#bbbbbb", "final"), (alerts, "#b3261e", "alert")):
        delay.plot(
            [d.at_s - begun_s for d in delays],
            [d.seconds for d in delays],
            ".",
            color=style,
            markersize=3 if name == "final" else 6,
            label=name,
        )
    delay.set_ylabel("end of speech → socket, s")
    delay.legend()
    times = [s.at_s - begun_s for s in samples]
    memory.plot(times, [s.rss_mib for s in samples], color="#1f4e79")
    memory.set_ylabel("server, MiB")
    memory.set_ylim(bottom=0)
    for name in sorted({name for s in samples for name in s.gauges if name.startswith(("jobs_", "appends"))}):
        queue.plot(times, [s.gauges.get(name) for s in samples], label=name, linewidth=0.8)
    queue.set_ylabel("waiting")
    queue.set_xlabel("seconds of the run")
    queue.legend(ncols=3, fontsize="small")
    for stay in steps:
        if stay.step:
            end = stay.left_s if stay.left_s is not None else max(times, default=stay.entered_s)
            delay.axvspan(stay.entered_s, end, color="#b08900", alpha=0.08 * stay.step)
    _save(figure, path)


def peers(rows: Sequence[dict[str, object]], path: Path) -> None:
    """Latency and share of phrases seen, by engine, over calls at once."""
    pyplot = _pyplot()
    figure, (delay, seen) = pyplot.subplots(1, 2, figsize=(10, 4))
    engines = list(dict.fromkeys(str(row["engine"]) for row in rows))
    for engine, colour in zip(engines, ("#2a7f62", "#b3261e", "#b08900", "#1f4e79"), strict=False):
        own = [row for row in rows if row["engine"] == engine]
        calls = [row["calls"] for row in own]
        delay.plot(calls, [row["p95_s"] for row in own], "o-", color=colour, label=f"{engine} p95")
        delay.plot(calls, [row["p50_s"] for row in own], "o:", color=colour, label=f"{engine} p50")
        seen.plot(calls, [row["seen"] for row in own], "o-", color=colour, label=engine)
    delay.set_ylabel("phrase end → rule fires, s")
    delay.set_ylim(bottom=0)
    seen.set_ylabel("phrases seen")
    seen.set_ylim(0, 1.05)
    for axes in (delay, seen):
        axes.set_xlabel("two-channel calls at once")
        axes.legend(fontsize="small")
    _save(figure, path)


def deliveries(
    sockets: Sequence[int], delays: Sequence[Sequence[Sequence[float]]], rate: float, path: Path
) -> None:
    """How long alerts took to a few of the sockets, over the run and by share."""
    pyplot = _pyplot()
    figure, (over, share) = pyplot.subplots(1, 2, figsize=(11, 4))
    for count, some, colour in zip(
        sockets, delays, ("#1f4e79", "#b3261e", "#2a7f62", "#b08900"), strict=False
    ):
        for one in some:
            over.plot(
                [place / rate for place in range(len(one))], [d * 1000 for d in one], ".", color=colour, ms=1
            )
        every = sorted(d * 1000 for one in some for d in one)
        share.plot(
            every, [(place + 1) / len(every) for place in range(len(every))], color=colour, label=str(count)
        )
    over.set_xlabel("seconds of the run")
    over.set_ylabel("outlet → socket, ms")
    over.set_ylim(bottom=0)
    share.set_xlabel("outlet → socket, ms")
    share.set_ylabel("share of deliveries")
    share.set_xlim(left=0)
    share.legend(title="sockets")
    _save(figure, path)


def frames(names: Sequence[str], frames: Sequence[Sequence[float]], path: Path) -> None:
    """How long the pictures of a page took, by share."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, some in zip(names, frames, strict=True):
        every = sorted(some)
        axes.plot(every, [(place + 1) / len(every) for place in range(len(every))], label=name)
    axes.axvline(1000 / 30, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlabel("from one picture to the next, ms (dashed: 30 a second)")
    axes.set_ylabel("share of pictures")
    axes.set_xlim(0, 120)
    axes.legend()
    _save(figure, path)


def _pyplot():  # type: ignore[no-untyped-def]
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    figure.tight_layout()
    figure.savefig(path, dpi=110)
