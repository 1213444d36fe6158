"""``python -m benchmarks.loss --seeds N --json OUT``: what loss and jitter on the way cost in phrases found.

Every scripted call is coded as a softphone does (Opus, 32 kbit/s, packets of 20 ms), loses packets or has
them held up, goes through the receiving side of WHIP (order, concealment) and is read by the real model and
rules, as fast as that goes. The network is a seeded chance: the same packets are lost in every run.

``recall``: of the scripted turns that a rule should find, those with its alert within the turn. A turn for
which a cooldown keeps its rule silent has none in every row. ``cost_points``: against the row without loss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from app import logs
from app import settings as settings_
from app.build import Service, build
from app.demo import truth
from app.ingest.opus import OpusDecoder
from app.ingest.packets import RATE, InOrder
from app.ingest.voice import Voice
from app.models import RichProgress
from app.phones.call import sides
from app.phones.whip import Network
from benchmarks.machine import machine
from streams.audio import Samples
from streams.events import Alert, AudioFrame, CallInfo, Channel, Gap, Published

PACKET = RATE // 50
BIT_RATE = 32_000
TAKE_S = 0.06
AT_ONCE = 4
NETWORKS = {
    "no loss": Network(),
    "1 % lost": Network(loss=0.01),
    "5 % lost": Network(loss=0.05),
    "up to 100 ms late": Network(jitter_s=0.1),
}


@dataclass(frozen=True)
class Arrived:
    at_s: float
    number: int
    payload: bytes


def coded(samples: Samples) -> list[bytes]:
    """Opus packets of 20 ms; ``samples``: int16 at ``RATE``."""
    codec = av.CodecContext.create("libopus", "w")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate, codec.layout, codec.format = RATE, "mono", "s16"
    codec.bit_rate, codec.time_base = BIT_RATE, Fraction(1, RATE)
    codec.options = {"application": "voip", "frame_duration": "20"}
    out: list[bytes] = []
    for at in range(0, len(samples) - PACKET + 1, PACKET):
        frame = av.AudioFrame.from_ndarray(samples[at : at + PACKET].reshape(1, -1), "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
        out += [bytes(packet) for packet in codec.encode(frame)]
    return out + [bytes(packet) for packet in codec.encode(None)]


def through(network: Network, packets: Sequence[bytes], chance: random.Random) -> list[Arrived]:
    """What comes out of the network, as it comes."""
    sent = [
        Arrived(number * 0.02 + chance.uniform(0, network.jitter_s), number, payload)
        for number, payload in enumerate(packets)
        if chance.random() >= network.loss
    ]
    return sorted(sent, key=lambda one: one.at_s)


def heard(call_id: str, arrived: dict[Channel, list[Arrived]]) -> Iterator[AudioFrame | Gap]:
    """What WHIP's receiving side makes of it, both channels in turn."""
    order = {channel: InOrder() for channel in arrived}
    voices = {channel: Voice(call_id, channel, OpusDecoder()) for channel in arrived}
    places = dict.fromkeys(arrived, 0)
    now_s = 0.0
    while any(places[channel] < len(packets) for channel, packets in arrived.items()):
        now_s += TAKE_S
        for channel, packets in arrived.items():
            while places[channel] < len(packets) and packets[places[channel]].at_s <= now_s:
                one = packets[places[channel]]
                places[channel] += 1
                for ready in order[channel].put(
                    1, one.number & 0xFFFF, one.number * PACKET & 0xFFFF_FFFF, one.payload
                ):
                    voices[channel].put(ready)
            yield from voices[channel].take()
    for channel, voice in voices.items():
        for ready in order[channel].flush():
            voice.put(ready)
        yield from voice.finish()


async def read(service: Service, call_id: str, audio: Iterator[AudioFrame | Gap]) -> None:
    runner = service.runner
    runner.open(CallInfo(call_id=call_id, protocol="replay"), paced=False)
    for item in audio:
        runner.hear(item)
        await runner.ready()
    await runner.close(call_id, "hangup")


def found(call: truth.ScriptedCall, alerts: Sequence[Alert]) -> tuple[int, int]:
    """Scripted turns with their alert, and how many there are; rules that count for recall."""
    wanted = [want for want in call.expected if want.rule.startswith(truth.SCORED)]
    return sum(any(truth.lies_in(alert, want) for alert in alerts) for want in wanted), len(wanted)


async def measure(
    calls: Sequence[truth.ScriptedCall], seeds: int, console: Console
) -> list[dict[str, object]]:
    alerts: dict[str, list[Alert]] = {}

    def note(event: Published) -> None:
        if event.type == "alert.raised" and isinstance(event.alert, Alert):
            alerts.setdefault(event.call_id or "", []).append(event.alert)

    packets = {call.name: {c: coded(s) for c, s in sides(call.audio, RATE).items()} for call in calls}
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="duting-loss-") as folder:
        settings = settings_.load(data_dir=Path(folder), keep_audio=False).model_copy(
            update={"database_url": None, "redis_url": None, "kafka_url": None, "audiosocket_port": None}
        )
        service = await asyncio.to_thread(build, settings, RichProgress(), None, note)
        async with service.running():
            room = asyncio.Semaphore(AT_ONCE)

            async def one(label: str, network: Network, seed: int, call: truth.ScriptedCall) -> str:
                call_id = f"{call.name}~{label}~{seed}".replace(" ", "_").replace("%", "pc")
                async with room:
                    arrived: dict[Channel, list[Arrived]] = {
                        channel: through(network, sent, random.Random(f"{seed}:{call.name}:{channel}"))
                        for channel, sent in packets[call.name].items()
                    }
                    await read(service, call_id, heard(call_id, arrived))
                return call_id

            for label, network in NETWORKS.items():
                runs = range(1 if network == Network() else seeds)
                began = time.monotonic()
                shares = []
                for seed in runs:
                    ids = await asyncio.gather(*(one(label, network, seed, call) for call in calls))
                    await service.runner.flush()
                    pairs = [found(c, alerts.get(i, [])) for c, i in zip(calls, ids, strict=True)]
                    shares.append(sum(hit for hit, _ in pairs) / sum(all_ for _, all_ in pairs))
                recall = float(np.mean(shares))
                clean = float(rows[0]["recall"]) if rows else recall  # type: ignore[arg-type]
                rows.append(
                    {
                        "network": label,
                        "runs": len(shares),
                        "phrases": sum(all_ for _, all_ in pairs),
                        "recall": round(recall, 4),
                        "lowest": round(min(shares), 4),
                        "cost_points": round(100 * (clean - recall), 2),
                        "seconds": round(time.monotonic() - began, 1),
                    }
                )
                console.print(json.dumps(rows[-1], ensure_ascii=False), highlight=False)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls-dir", type=Path, default=truth.CALLS)
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    logs.configure("warning", as_json=False)
    console = Console()
    rows = asyncio.run(measure(truth.load(given.calls_dir), given.seeds, console))
    table = Table(title="phrases found over WHIP")
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "network" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        summary = {row["network"]: row["cost_points"] for row in rows}
        given.json.write_text(
            json.dumps({"summary": summary, "machine": machine(), "runs": rows}, ensure_ascii=False, indent=1)
        )


if __name__ == "__main__":
    main()
