"""WhisperLive, from the package index, in a virtual environment and a process of its own.

Only what its server imports with the faster-whisper backend is installed: whisper-live without its declared
dependencies, then faster-whisper (the version it pins), websockets, FastAPI, uvicorn, python-multipart
and requests (faster-whisper 1.2.0 imports it without saying so).
Left out, because this backend never calls it: torchaudio, openai-whisper, librosa, numba, scipy, PyAudio,
kaldialign, soundfile, websocket-client (clients, other backends, REST extras), OpenVINO and optimum (another
backend), cuBLAS and cuDNN (no GPU). torch itself it imports, but asks only ``torch.cuda.is_available()``
here (its own torch VAD belongs to the TensorRT backend): the index offers the CUDA build alone, gigabytes
for one answer, so a module of that name answers "no". No line of WhisperLive itself is changed.

Its server runs with batches across clients (``batch_enabled``), its own VAD, one model for all; its
admission limits are lifted, so that it takes the calls that it is measured on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import websockets

from app.errors import DutingError
from benchmarks.played import Audio, Read
from streams.events import SAMPLE_RATE, Channel

VERSION = "0.10.0"
NEEDED = ("faster-whisper==1.2.0", "websockets", "fastapi", "uvicorn", "python-multipart", "requests")
NO_TORCH = """\"\"\"Stands in for torch: WhisperLive's faster-whisper backend asks it only for a GPU.\"\"\"


class cuda:
    @staticmethod
    def is_available():
        return False
"""
SERVE = """
import sys
from whisper_live.server import TranscriptionServer
port, model, clients = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
TranscriptionServer().run(
    "127.0.0.1", port, backend="faster_whisper", faster_whisper_custom_model_path=model, single_model=True,
    max_clients=clients, max_connection_time=36000, batch_enabled=True,
    batch_max_queue_wait_s=1e6, batch_max_admissions_per_s=1e6,
)
"""
CHUNK_S = 0.1
"""Its own client sends 256 ms at a time."""
TAIL_S = 5.0
"""A phrase that is not there so long after the call has ended is not seen."""
START_TIMEOUT_S = 60.0


class PeerFailed(DutingError):
    """The other engine could not be installed or started."""


def install(folder: Path) -> Path:
    """Its Python; made on the first call. Raises ``PeerFailed`` with the end of pip's output."""
    python = folder / "bin" / "python"
    done = folder / ".installed"
    installed = " ".join((VERSION, *NEEDED))
    if done.exists() and done.read_text() == installed:
        return python
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for wanted in (["--no-deps", f"whisper-live=={VERSION}"], list(NEEDED)):
        ran = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
        if ran.returncode:
            raise PeerFailed(f"pip install {' '.join(wanted)} failed:\n{ran.stderr[-800:]}")
    packages = next((folder / "lib").glob("python*")) / "site-packages"
    (packages / "torch.py").write_text(NO_TORCH)
    done.write_text(installed)
    return python


@contextlib.contextmanager
def server(python: Path, model: Path, clients: int, log: Path) -> Iterator[tuple[str, int]]:
    """Run its server on a free port; yields (address, process id), stops it at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(python), "-c", SERVE, str(port), str(model.absolute()), str(clients)],
            env=environment,
            cwd=log.parent,
            stdout=out,
            stderr=out,
        )
    try:
        _wait(process, port, log)
        yield f"ws://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise PeerFailed("WhisperLive's server did not start:\n" + log.read_text(errors="replace")[-1500:])


async def warm_up(address: str, model: Path, prompt: str | None) -> None:
    """Its first client loads the model: one second of quiet noise through a client of its own."""
    noise = np.random.default_rng(1).normal(0, 50, 2 * SAMPLE_RATE).astype(np.int16)
    await _client(address, model, prompt, "unknown", noise, "warm-up", asyncio.Barrier(1), [])


async def listen(
    address: str, model: Path, prompt: str | None, audio: Audio, call_id: str
) -> tuple[float, list[Read]]:
    """One call, a client for each channel, in real time: clock at media time 0, and what was read."""
    reads: list[Read] = []
    # Nobody speaks before both clients are ready.
    ready = asyncio.Barrier(len(audio.samples))
    started = await asyncio.gather(
        *(
            _client(address, model, prompt, channel, samples, f"{call_id}-{channel}", ready, reads)
            for channel, samples in audio.samples.items()
        )
    )
    return max(started), reads


async def _client(
    address: str,
    model: Path,
    prompt: str | None,
    channel: Channel,
    samples: np.ndarray,
    uid: str,
    ready: asyncio.Barrier,
    reads: list[Read],
) -> float:
    async with websockets.connect(address, max_queue=None, ping_interval=None) as ws:
        await ws.send(
            json.dumps(
                {
                    "uid": uid,
                    "language": "zh",
                    "task": "transcribe",
                    "model": str(model),
                    "use_vad": True,
                    "initial_prompt": prompt,
                    "audio_format": "int16",
                }
            )
        )
        async for text in ws:
            if json.loads(text).get("message") == "SERVER_READY":
                break
        receiving = asyncio.create_task(_receive(ws, channel, reads))
        await ready.wait()
        started = time.monotonic()
        try:
            step = round(CHUNK_S * SAMPLE_RATE)
            for position in range(0, len(samples), step):
                piece = samples[position : position + step]
                await asyncio.sleep(started + (position + len(piece)) / SAMPLE_RATE - time.monotonic())
                await ws.send(piece.astype("<i2").tobytes())
            await asyncio.sleep(TAIL_S)
            with contextlib.suppress(websockets.ConnectionClosed):
                await ws.send(b"END_OF_AUDIO")
        except websockets.ConnectionClosed:
            pass
        finally:
            receiving.cancel()
    return started


async def _receive(ws: websockets.ClientConnection, channel: Channel, reads: list[Read]) -> None:
    with contextlib.suppress(websockets.ConnectionClosed):
        async for text in ws:
            now = time.monotonic()
            for segment in json.loads(text).get("segments", []):
                reads.append(
                    Read(
                        now,
                        channel,
                        float(segment["start"]),
                        float(segment["end"]),
                        segment["text"],
                        bool(segment["completed"]),
                    )
                )


if __name__ == "__main__":
    print(install(Path(sys.argv[1])))
