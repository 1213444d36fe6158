"""``python -m benchmarks.listening --calls N --seconds S --json OUT``: what a call costs without the model.

The scripted calls of DIR as Twilio messages, N of them in step, as fast as they go, through the real classes:
one stage after the other, each with the work of those before it left out. A figure is CPU time per second
of call: 1 % means that one core could do it for a hundred two-channel calls and nothing else.

===========  ==============================================================================================
frames       the WebSocket's bytes → messages (``app.ingest.sockets``)
parse        messages → payloads in order (``TwilioStream``)
decode       mu-law at 8 kHz → samples at 16 kHz, a round at a time (``ChannelAudio.take``)
judge        the voice detector, all channels of a round in one run (``vad.together``)
endpoint     its answers → utterances (``Listener.judged``)
record       frames → mu-law in WAV, worker threads included (``Recorders``)
===========  ==============================================================================================

System calls, the runner's timers and the store are not in it: ``benchmarks.latency`` measures whole servers.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import struct
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from uvicorn import Config
from uvicorn.server import ServerState

from app.demo import truth
from app.ingest.sockets import IngestSockets
from app.ingest.twilio import TwilioStream
from app.phones.twilio import CHUNK, RATE, tracks
from app.recorder import Recorders
from benchmarks.machine import machine
from streams import silero
from streams.audio import encode_mulaw
from streams.events import AudioFrame, CallInfo, Utterance
from streams.listen import Listener
from streams.local import LocalRunner
from streams.vad import SileroVad, together

STAGES = ("frames", "parse", "decode", "judge", "endpoint", "record")


def wire(message: dict[str, Any]) -> bytes:
    """A message as a client's WebSocket frame (RFC 6455, 5.2), masked with zeros."""
    text = json.dumps(message).encode()
    length = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + struct.pack(">H", len(text))
    return b"\x81" + length + bytes(4) + text


def stretch(audio: Sequence[dict[str, np.ndarray]], first: int, seconds: float) -> dict[str, bytes]:
    """Mu-law of ``seconds`` of calls back to back, from call ``first`` on, by track."""
    need, out = int(seconds * RATE), {"inbound": b"", "outbound": b""}
    while len(out["inbound"]) < need:
        for track, samples in audio[first % len(audio)].items():
            out[track] += encode_mulaw(samples)
        first += 1
    return {track: coded[:need] for track, coded in out.items()}


def messages(call_id: str, coded: dict[str, bytes]) -> Iterator[bytes]:
    """The frames of a call, ``start`` first, then one a channel every 20 ms."""
    yield wire({"event": "start", "start": {"callSid": call_id, "tracks": sorted(coded)}})
    for number, at in enumerate(range(0, len(coded["inbound"]), CHUNK)):
        for track, payload in coded.items():
            media = {"track": track, "chunk": str(number + 1), "timestamp": str(at * 1000 // RATE)}
            media["payload"] = base64.b64encode(payload[at : at + CHUNK]).decode()
            yield wire({"event": "media", "sequenceNumber": str(number), "media": media})


async def application(scope: object, receive: object, send: object) -> None:
    """Never run: the benchmark takes the messages where the socket hands them out."""


def configured() -> Config:
    """What uvicorn gives each of its connections."""
    config = Config(application, ws_per_message_deflate=False, log_config=None)
    config.load()
    return config


def socket(config: Config, take: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """What the event loop calls with the bytes of one connection whose messages go to ``take``."""
    protocol = IngestSockets(config, ServerState(), {}, SimpleNamespace())  # type: ignore[arg-type]
    protocol._begin(take, take)
    return protocol.data_received


class Clock:
    """CPU time of this process by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.spent[name] += time.process_time() - began


def listen(calls: Sequence[dict[str, bytes]], clock: Clock) -> tuple[list[list[AudioFrame]], float, int]:
    """All calls in rounds; returns the frames of each round, seconds of speech cut, and utterances."""
    arrived: list[list[bytes]] = [[] for _ in calls]
    config = configured()
    sockets = [socket(config, own.append) for own in arrived]
    streams = [TwilioStream() for _ in calls]
    wires = [list(messages(f"call-{n}", coded)) for n, coded in enumerate(calls)]
    listeners: dict[tuple[str, str], Listener] = {}
    vads: dict[tuple[str, str], SileroVad] = defaultdict(SileroVad)
    rounds: list[list[AudioFrame]] = []
    speech, utterances, at = 0.0, 0, 0
    while at < len(wires[0]):
        # 64 ms are three or four chunks of each channel.
        upto = 1 + round((len(rounds) + 1) * LocalRunner.LISTEN_S / 0.02) * 2
        with clock.stage("frames"):
            for take, own in zip(sockets, wires, strict=True):
                for pair in range(at, min(upto, len(own)), 2):
                    take(b"".join(own[pair : min(pair + 2, upto)]))
        at = upto
        with clock.stage("parse"):
            for stream, own_messages in zip(streams, arrived, strict=True):
                for message in own_messages:
                    stream.text(message)
                own_messages.clear()
        with clock.stage("decode"):
            frames = [item for stream in streams for item in stream.take() if isinstance(item, AudioFrame)]
        rounds.append(frames)
        with clock.stage("endpoint"):
            asked = []
            for frame in frames:
                key = (frame.call_id, frame.channel)
                if key not in listeners:
                    listeners[key] = Listener(*key)  # type: ignore[arg-type]
                listeners[key].offer(frame)
                if len(windows := listeners[key].windows()):
                    asked.append((listeners[key], vads[key], windows))
        with clock.stage("judge"):
            judged = together([(vad, windows) for _, vad, windows in asked])
        with clock.stage("endpoint"):
            for (listener, *_), probabilities in zip(asked, judged, strict=True):
                for heard in listener.judged(probabilities):
                    if isinstance(heard, Utterance) and heard.final:
                        speech += (heard.end_ms - heard.start_ms) / 1000
                        utterances += 1
    return rounds, speech, utterances


async def record(rounds: Sequence[Sequence[AudioFrame]], calls: int, clock: Clock) -> None:
    """The same frames into recordings, the workers in step with the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        recorders = Recorders(Path(folder))
        with clock.stage("record"):
            for call in range(calls):
                recorders.start(CallInfo(call_id=f"call-{call}"), RATE)
            for frames in rounds:
                for frame in frames:
                    recorders.frame(frame)
                await recorders.settled()
            await recorders.aclose()


def measure(audio: Sequence[dict[str, np.ndarray]], calls: int, seconds: float) -> dict[str, Any]:
    """One run with ``calls`` calls."""
    clock = Clock()
    coded = [stretch(audio, number, seconds) for number in range(calls)]
    rounds, speech, utterances = listen(coded, clock)
    asyncio.run(record(rounds, calls, clock))
    total = calls * seconds
    percent = {name: round(100 * clock.spent[name] / total, 3) for name in STAGES}
    return {
        "calls": calls,
        "seconds": seconds,
        "cpu_percent": percent,
        "total_percent": round(sum(percent.values()), 3),
        "speech_per_second": round(speech / total, 2),
        "utterances": utterances,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--calls", type=int, nargs="+", default=[1, 8, 24, 150])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--calls-dir", type=Path, default=truth.CALLS)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    silero.network()
    scripted = [call for call in truth.load(given.calls_dir) if {t.role for t in call.turns} != {"unknown"}]
    audio = [tracks(call.audio) for call in scripted]
    console = Console()
    table = Table("calls", *STAGES, "together", "speech s/s", title="CPU per two-channel call, % of a core")
    runs = []
    for calls in given.calls:
        run = measure(audio, calls, given.seconds)
        runs.append(run)
        cells = [f"{run['cpu_percent'][name]:.2f}" for name in STAGES]
        table.add_row(str(calls), *cells, f"{run['total_percent']:.2f}", f"{run['speech_per_second']:.2f}")
    console.print(table)
    last = runs[-1]
    summary = {key: last[key] for key in ("calls", "total_percent", "cpu_percent", "speech_per_second")}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"summary": summary, "machine": machine(), "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
