"""How loud a recording is from beginning to end, for the waveform of a page: measured once, then kept.

Decoding an hour takes seconds of processor time, so it is done in a process of its own, of low priority
(``python -m app.peaks``), and what comes of it is kept beside the recordings in ``.peaks``: a byte for each
channel and twentieth of a second. It stays true when a recording becomes Opus, which keeps the file's time.

At most ``AT_ONCE`` are measured at a time and ``WAITING`` more wait; beyond that one is told to come again.
What could not be measured is not tried again for ``AGAIN_S``, unless the file has changed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import av
import msgspec
import numpy as np
import structlog
from msgspec import Struct

from app.errors import DutingError
from app.settings import for_a_child

FOLDER: Final = ".peaks"
BIN_MS: Final = 50
BINS_AT_ONCE: Final = 100
AT_ONCE, WAITING = 2, 16
TIMEOUT_S: Final = 180.0
AGAIN_S: Final = 600.0
REMEMBERED: Final = 1000
"""Recordings that could not be measured."""
NICE: Final = 15

log = structlog.get_logger(__name__)


class Crowded(DutingError):
    """Too many wait for theirs."""

    retryable = True


class Peaks(Struct, frozen=True):
    """What ``measure`` found in the state that a file had."""

    mtime_ns: int
    bin_ms: float
    duration_ms: int
    channels: list[bytes]
    """Of each, a byte for every bin: its largest sample, 255 is full scale."""


_CODE = msgspec.msgpack.Decoder(Peaks)


# ── pure ──────────────────────────────────────────────────────────────────────────────────────────


def coarser(peaks: Peaks, points: int) -> Peaks:
    """At most ``points`` bins for each channel: of those that fall together the loudest counts."""
    bins = len(peaks.channels[0]) if peaks.channels else 0
    step = -(-bins // points)
    if step <= 1:
        return peaks
    channels = []
    for channel in peaks.channels:
        padded = np.zeros(-(-bins // step) * step, np.uint8)
        padded[:bins] = np.frombuffer(channel, np.uint8)
        channels.append(padded.reshape(-1, step).max(axis=1).tobytes())
    return Peaks(peaks.mtime_ns, peaks.bin_ms * step, peaks.duration_ms, channels)


# ── measuring ─────────────────────────────────────────────────────────────────────────────────────


def measure(path: Path) -> Peaks:
    """Decode a recording. Raises ``av.FFmpegError`` or ``IndexError`` where it cannot be read."""
    mtime_ns = path.stat().st_mtime_ns
    with av.open(f"file:{path}") as container:
        stream = container.streams.audio[0]
        size = stream.rate * BIN_MS // 1000
        pieces: list[np.ndarray] = []
        held = samples = 0
        found: list[np.ndarray] = []
        for frame in container.decode(stream):
            planes = _planes(frame)
            pieces.append(planes)
            held += planes.shape[1]
            samples += planes.shape[1]
            if held >= BINS_AT_ONCE * size:
                together = np.concatenate(pieces, axis=1)
                whole = held // size * size
                found.append(_loudest(together[:, :whole], size))
                pieces, held = [together[:, whole:]], held - whole
        if held:
            padded = np.zeros((stream.channels, -(-held // size) * size), pieces[-1].dtype)
            padded[:, :held] = np.concatenate(pieces, axis=1)
            found.append(_loudest(padded, size))
        together = np.concatenate(found, axis=1) if found else np.zeros((stream.channels, 0), np.uint8)
        duration_ms = samples * 1000 // stream.rate
    return Peaks(mtime_ns, float(BIN_MS), duration_ms, [channel.tobytes() for channel in together])


def _planes(frame: av.AudioFrame) -> np.ndarray:
    """Shape (channels, samples): floats to 1 as Opus comes out, integers as mu-law does."""
    samples: np.ndarray = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T


def _loudest(samples: np.ndarray, size: int) -> np.ndarray:
    """Shape (channels, bins), of bytes."""
    binned = samples.reshape(samples.shape[0], -1, size)
    loud = np.maximum(binned.max(axis=2).astype(float), -binned.min(axis=2).astype(float))
    full = 1.0 if samples.dtype.kind == "f" else 2.0 ** (8 * samples.dtype.itemsize - 1)
    bounded: np.ndarray = np.clip(loud * 256 / full, 0, 255)
    return bounded.astype(np.uint8)


def kept_at(path: Path) -> Path:
    """Where the peaks of a recording are kept."""
    return path.parent / FOLDER / f"{path.stem}.peaks"


def kept(path: Path) -> Peaks | None:
    """Those of a recording as it is now, if they were measured."""
    try:
        peaks = _CODE.decode(kept_at(path).read_bytes())
        return peaks if peaks.mtime_ns == path.stat().st_mtime_ns else None
    except (OSError, msgspec.MsgspecError):
        return None


def _changed_ns(path: Path) -> int:
    """When a file was changed; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def keep(path: Path) -> None:
    """Measure a recording and keep what was found."""
    target = kept_at(path)
    target.parent.mkdir(exist_ok=True, mode=0o700)
    peaks = measure(path)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.msgpack.encode(peaks))
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


# ── the server's side ─────────────────────────────────────────────────────────────────────────────


class Measuring:
    """For one event loop: gives peaks, and has them measured where there are none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._room = asyncio.Semaphore(AT_ONCE)
        self._running: dict[Path, asyncio.Task[None]] = {}
        self._failed: OrderedDict[Path, tuple[int, float]] = OrderedDict()
        """With the file's time of change, and until when it is not tried again."""

    async def peaks(self, path: Path, wait_s: float) -> Peaks | None:
        """``None``: they are being measured, ask again. Raises ``Crowded``, or ``Unreadable``."""
        found = await asyncio.to_thread(kept, path)
        if found is not None:
            return found
        changed_ns = await asyncio.to_thread(_changed_ns, path)
        task = self._running.get(path)
        if task is None:
            failed_ns, until_s = self._failed.get(path, (0, 0.0))
            if failed_ns == changed_ns and self._clock() < until_s:
                raise Unreadable("the recording could not be read, and has not changed since")
            if len(self._running) >= AT_ONCE + WAITING:
                raise Crowded("too many recordings are being measured")
            task = self._running[path] = asyncio.create_task(self._measure(path, changed_ns), name="peaks")
            task.add_done_callback(lambda _: self._running.pop(path, None))
        done, _ = await asyncio.wait([task], timeout=wait_s)
        if not done:
            return None
        found = await asyncio.to_thread(kept, path)
        if found is None:
            raise Unreadable("the recording cannot be read")
        return found

    async def aclose(self) -> None:
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _measure(self, path: Path, changed_ns: int) -> None:
        async with self._room:
            try:
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "app.peaks", str(path)),
                    stdin=DEVNULL,
                    stdout=DEVNULL,
                    stderr=DEVNULL,
                    env=for_a_child(),
                    start_new_session=True,
                )
            except OSError as error:
                log.error("peaks.not_started", error=error.strerror)
                return
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    code = await child.wait()
                if code:
                    log.warning("peaks.failed", file=path.name, code=code)
            except TimeoutError:
                log.warning("peaks.too_slow", file=path.name)
            finally:
                if child.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        child.kill()
            if await asyncio.to_thread(kept, path) is None:
                self._failed[path] = (changed_ns, self._clock() + AGAIN_S)
                self._failed.move_to_end(path)
                if len(self._failed) > REMEMBERED:
                    self._failed.popitem(last=False)


class Unreadable(DutingError):
    """There is a recording, and nothing can be made of it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    keep(parser.parse_args().file)


if __name__ == "__main__":
    main()
