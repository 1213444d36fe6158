"""Recordings: a call's audio as stereo mu-law (G.711) in WAV, written while the call runs.

Agent left, customer right, one file per call, readable up to its last second whenever the process dies.
Both channels stand at their media time: what never came, came too late, or was dropped is silence.

Mu-law is what most telephones send, and costs a thirtieth of the work of Opus at four times the room: so
``app.transcoding`` makes an Opus file of it later, when the machine has time. Until then an empty file in
``UNFINISHED`` says that it has to, and its lock that the call still runs. (FLAC would be a little smaller,
but FFmpeg's encoder holds 7.5 MiB for each call; this holds 0.3.)

Frames are taken without waiting and encoded by a few worker threads; per call one after the other, in
order. What bounds each step, and so what a crash can cost:

============  =========  ==============================================================================
queue         10 s       per call; full when the disk or the machine cannot keep up. Overflow: the
                         oldest audio is dropped and counted, silence stands in its place
batch         400 ms     waits in the queue until so much has come (fewer wake-ups for many calls)
lag           400 ms     how long one channel waits for the other before it counts as silent; what comes
                         later than that is dropped and counted
============  =========  ==============================================================================

A file that cannot be written costs the recording, never the call: logged once, counted, and the call
goes on without.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path

import av
import numpy as np
import structlog
from prometheus_client import Counter

from streams.events import SAMPLE_RATE, AudioFrame, CallInfo, Channel

QUEUE_MS = 10_000
BATCH_MS = 400
LAG_MS = 400
MAX_JUMP_MS = 3_600_000
"""A frame further ahead than this is a broken clock, not a long silence; it is dropped."""

RUNNING, LASTING = ".wav", ".ogg"
"""How the names of recordings end: as they are written, and once they are Opus."""
UNFINISHED = ".unfinished"
"""Folder below that of the recordings: an empty file for each that is not Opus yet, of the same name."""
PER_MS = SAMPLE_RATE // 1000
SLACK = 2 * PER_MS
"""Samples by which a frame may miss the end of the one before it: media time is rounded to whole
milliseconds, and a click at every frame would be the price of believing it."""

_log = structlog.get_logger("duting.recorder")
FAILED = Counter("duting_recordings_failed", "Calls whose recording could not be written")
DROPPED = Counter("duting_recording_dropped_ms", "Milliseconds of audio missing in recordings", ["reason"])


# ── where the file lies ───────────────────────────────────────────────────────────────────────────


def file_stem(call_id: str) -> str:
    """A file name for any call id: a readable beginning, and a hash that tells all ids apart.

    Only ``A-Z a-z 0-9 _ -`` and one dot, at most 73 characters; no two alike, also on file systems
    that ignore case.
    """
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", call_id)[:40].lstrip("-")
    return f"{readable}.{hashlib.sha256(call_id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def find(folder: Path, call_id: str) -> Path | None:
    """The recording of a call, running or ended; the newest where a call id came twice."""
    found: Path | None = None
    for stem in _stems(folder, call_id):
        lasting, running = _forms(stem)
        # Opus once more: between two looks the one may have come and the other gone.
        there = next((path for path in (lasting, running, lasting) if path.exists()), None)
        if there is None:
            return found
        found = there
    raise AssertionError("the names never end")


def opened(folder: Path, call_id: str) -> BufferedReader | None:
    """The recording of a call, open: it stays what it is, whatever its name becomes. ``None``: there is none.

    Raises ``OSError`` where it cannot be read.
    """
    for _ in range(5):
        path = find(folder, call_id)
        if path is None:
            return None
        # Between the two it may have become Opus, under another name.
        with contextlib.suppress(FileNotFoundError):
            return path.open("rb")
    return None


def _stems(folder: Path, call_id: str) -> Iterator[Path]:
    stem = file_stem(call_id)
    yield folder / stem
    number = 2
    while True:
        yield folder / f"{stem}.{number}"
        number += 1


def _forms(stem: Path) -> tuple[Path, Path]:
    """Opus first: for a moment there are both, and the other one goes."""
    return stem.with_name(stem.name + LASTING), stem.with_name(stem.name + RUNNING)


# ── both channels on media time: pure ─────────────────────────────────────────────────────────────


class Mixer:
    """Puts frames of up to two channels at their media time and hands out what is complete.

    Left is the agent, right the customer, an ``unknown`` frame goes to both; a call whose only channel is
    ``unknown`` has one column. All positions are in samples since the call's first one.
    """

    def __init__(self, channels: Iterable[Channel]) -> None:
        self._expected = set(channels)
        self.columns = 1 if self._expected == {"unknown"} else 2
        self.position = 0
        """What has been handed out."""
        self._ends: dict[Channel, int] = {}
        self._newest = 0
        """Where the newest frame began."""
        self._samples = np.zeros((SAMPLE_RATE, self.columns), np.int16)

    def start_of(self, frame: AudioFrame) -> int:
        """Position of a frame's first sample: right behind the frame before it, or where it says."""
        start = frame.media_ms * PER_MS
        end = self._ends.get(frame.channel, 0)
        return end if abs(start - end) <= SLACK else start

    def put(self, frame: AudioFrame) -> int:
        """Place a frame; returns how many of its milliseconds were dropped because they came too late."""
        pcm = np.frombuffer(frame.pcm, "<i2", len(frame.pcm) // 2)
        start = self.start_of(frame)
        stop = start + len(pcm)
        late = min(max(0, self.position - start), len(pcm))
        if late < len(pcm):
            self._reserve(stop)
            at = slice(start + late - self.position, stop - self.position)
            if self.columns == 1 or frame.channel == "unknown":
                self._samples[at, :] = pcm[late:, None]
            else:
                self._samples[at, 0 if frame.channel == "agent" else 1] = pcm[late:]
        self._ends[frame.channel] = max(self._ends.get(frame.channel, 0), stop)
        self._newest = max(self._newest, start)
        return late // PER_MS

    def _reserve(self, stop: int) -> None:
        size = len(self._samples)
        needed = stop - self.position
        if needed > size:
            grown = np.zeros((max(needed, 2 * size), self.columns), np.int16)
            grown[:size] = self._samples
            self._samples = grown

    @property
    def ready(self) -> int:
        """Position up to which every channel is there, or was waited for long enough."""
        behind = min((self._ends.get(channel, 0) for channel in self._expected), default=0)
        return max(self.position, behind, self._newest - LAG_MS * PER_MS)

    @property
    def end(self) -> int:
        """End of the audio that came; 0 while none did."""
        return max(self._ends.values(), default=0)

    def take(self, until: int) -> np.ndarray:
        """Samples from ``position`` to ``until``, shape (samples, columns); silence where none came."""
        count = max(0, until - self.position)
        taken = np.zeros((count, self.columns), np.int16)
        held = min(count, len(self._samples))
        taken[:held] = self._samples[:held]
        self._samples[: len(self._samples) - held] = self._samples[held:].copy()
        self._samples[len(self._samples) - held :] = 0
        self.position += count
        return taken


# ── one call ──────────────────────────────────────────────────────────────────────────────────────


class _File:
    """The encoder and the file. Everything here runs in a worker thread."""

    def __init__(self, path: Path, columns: int, wire_rate: int) -> None:
        self.path = path
        # A telephone's samples are every second one of ours: half the room for the same sound.
        self._every = 2 if wire_rate * 2 == SAMPLE_RATE else 1
        self._rate = SAMPLE_RATE // self._every
        self._layout = "stereo" if columns == 2 else "mono"
        self._unfinished = _claim(path)
        # FFmpeg writes straight to the file: no buffer of ours that a crash could take along. How long it is
        # stands in its head only in the end; until then readers go on to the end of the file.
        self._container = av.open(f"file:{path}", "w", format="wav", options={"flush_packets": "1"})
        self._stream = self._container.add_stream("pcm_mulaw", rate=self._rate, layout=self._layout)
        self._written = 0

    def write(self, samples: np.ndarray) -> None:
        for at in range(0, len(samples), BATCH_MS * PER_MS):
            piece = np.ascontiguousarray(samples[at : at + BATCH_MS * PER_MS : self._every])
            frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format="s16", layout=self._layout)
            frame.sample_rate = self._rate
            frame.pts = self._written
            self._written += len(piece)
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        if self._written:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if not self._written:
            self.path.unlink(missing_ok=True)  # not one sample: there is nothing to listen to
        else:
            handle = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        self._release()

    def abandon(self) -> None:
        # It is closed as far as it can be; what went wrong has been logged.
        with contextlib.suppress(OSError, av.FFmpegError):
            self._container.close()
        self._release()

    def _release(self) -> None:
        if self._unfinished is not None:
            os.close(self._unfinished)
            self._unfinished = None


class _Recording:
    """A call's queue and what the workers make of it."""

    def __init__(self, call: CallInfo, folder: Path, wire_rate: int) -> None:
        self.call_id = call.call_id
        self._wire_rate = wire_rate
        self.lock = threading.Lock()
        self.queue: deque[AudioFrame] = deque()
        self.queued_ms = 0
        self.running = True
        """A worker has it, or will have it in a moment."""
        self.failed = False
        self.close_at: int | None = None
        """Media time of the call's end, once it is known."""
        self.closed: Future[None] = Future()
        self.closed.set_running_or_notify_cancel()  # who waits may be cancelled; the closing goes on
        self._folder = folder
        self._mixer = Mixer(call.channels)
        self._file: _File | None = None

    @property
    def batch_is_full(self) -> bool:
        """Whether a batch waits in the queue. Under the lock."""
        if not self.queue:
            return False
        span = self.queue[-1].media_ms + self.queue[-1].duration_ms - self.queue[0].media_ms
        return span >= BATCH_MS or self.queued_ms >= 2 * BATCH_MS

    def work(self) -> bool:
        """Write what has come; returns whether the recording is closed now. One worker at a time."""
        with self.lock:
            frames = list(self.queue)
            self.queue.clear()
            self.queued_ms = 0
            close_at = self.close_at
        try:
            self._write(frames, close_at)
        except (OSError, av.FFmpegError) as error:
            self._fail(error)
        return close_at is not None

    def _write(self, frames: list[AudioFrame], close_at: int | None) -> None:
        if self.failed:
            return
        if self._file is None:
            self._file = _File(_create(self._folder, self.call_id), self._mixer.columns, self._wire_rate)
        for frame in frames:
            start = self._mixer.start_of(frame)
            if start - max(self._mixer.position, self._mixer.end) > MAX_JUMP_MS * PER_MS:
                DROPPED.labels("jump").inc(frame.duration_ms)
                continue
            # Long before a frame nothing can come any more: so the mixer never holds more than the lag.
            self._write_until(start - LAG_MS * PER_MS)
            if late := self._mixer.put(frame):
                DROPPED.labels("late").inc(late)
        self._write_until(self._mixer.ready)
        if close_at is not None:
            end = self._mixer.end
            if end:
                self._write_until(max(end, min(close_at * PER_MS, end + MAX_JUMP_MS * PER_MS)))
            self._file.close()

    def _write_until(self, position: int) -> None:
        assert self._file is not None
        while self._mixer.position < position:
            self._file.write(self._mixer.take(min(position, self._mixer.position + SAMPLE_RATE)))

    def _fail(self, error: Exception) -> None:
        self.failed = True
        FAILED.inc()
        _log.error(
            "recording stopped: its file cannot be written; the call goes on without",
            call_id=self.call_id,
            folder=str(self._folder),
            error=f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}",
        )
        if self._file is not None:
            self._file.abandon()


def _create(folder: Path, call_id: str) -> Path:
    """An empty file that only the owner may read; an older recording of the same id stays as it is."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for stem in _stems(folder, call_id):
        lasting, running = _forms(stem)
        try:
            os.close(os.open(running, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            continue
        # Looked at now that nobody can transcode to it any more: one that was there, or has just come.
        if lasting.exists():
            running.unlink()
            continue
        return running
    raise AssertionError("the names never end")


def _claim(path: Path) -> int | None:
    """Say that a recording is not Opus yet, and that it runs while what is returned is open.

    ``None`` where the disk does not take that: the recording then stays as it is.
    """
    folder = path.parent / UNFINISHED
    try:
        folder.mkdir(exist_ok=True, mode=0o700)
        claim = os.open(folder / path.name, os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(claim, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        # A file system without locks: with the mark gone nobody takes it for one that is over.
        os.close(claim)
        (folder / path.name).unlink(missing_ok=True)
        return None
    return claim


# ── all calls ─────────────────────────────────────────────────────────────────────────────────────


class Recorders:
    """The recordings of all running calls, in files below ``folder``."""

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self._folder = folder.absolute()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="recorder")
        self._running: dict[str, _Recording] = {}

    def start(self, call: CallInfo, wire_rate: int = SAMPLE_RATE) -> None:
        """Begin a recording; one of the same id that still runs is ended first. Never blocks.

        ``wire_rate``: hertz at which the audio came before it was brought to ``SAMPLE_RATE``.
        """
        recording = _Recording(call, self._folder, wire_rate)
        before = self._running.get(call.call_id)
        self._running[call.call_id] = recording
        if before is None:
            self._pool.submit(self._run, recording)
        else:
            self._finish(before, 0)
            before.closed.add_done_callback(lambda _: self._pool.submit(self._run, recording))

    def frame(self, frame: AudioFrame) -> None:
        """Take a piece of audio. Never blocks; frames of calls that were not started are ignored."""
        recording = self._running.get(frame.call_id)
        if recording is None or recording.failed:
            return
        with recording.lock:
            recording.queue.append(frame)
            recording.queued_ms += frame.duration_ms
            while recording.queued_ms > QUEUE_MS and len(recording.queue) > 1:
                oldest = recording.queue.popleft()
                recording.queued_ms -= oldest.duration_ms
                DROPPED.labels("overflow").inc(oldest.duration_ms)
            full = recording.batch_is_full
        if full:
            self._schedule(recording)

    async def close(self, call_id: str, media_ms: int) -> None:
        """End a recording at ``media_ms`` (the call's length); returns when the file is complete.

        Silence fills up to there; audio beyond it is kept. Unknown ids are ignored.
        """
        recording = self._running.pop(call_id, None)
        if recording is not None:
            self._finish(recording, media_ms)
            await asyncio.wrap_future(recording.closed)

    def path(self, call_id: str) -> Path | None:
        """The file of a call, running or ended; ``None`` when there is none (yet)."""
        return find(self._folder, call_id)

    async def settled(self) -> None:
        """Returns when the workers have nothing left to do; less than a batch may still be queued."""
        while any(recording.running for recording in self._running.values()):
            await asyncio.wrap_future(self._pool.submit(lambda: None))

    async def aclose(self) -> None:
        """End all recordings where they are and stop the workers; further frames are ignored."""
        for call_id in list(self._running):
            await self.close(call_id, 0)
        self._pool.shutdown(wait=True)

    def _finish(self, recording: _Recording, media_ms: int) -> None:
        with recording.lock:
            recording.close_at = media_ms
        self._schedule(recording)

    def _schedule(self, recording: _Recording) -> None:
        with recording.lock:
            if recording.running:
                return
            recording.running = True
        self._pool.submit(self._run, recording)

    def _run(self, recording: _Recording) -> None:
        try:
            closed = recording.work()
        except Exception:
            _log.exception("recording stopped by a bug; the call goes on without", call_id=recording.call_id)
            recording.failed = True
            closed = recording.close_at is not None
        if closed:
            recording.closed.set_result(None)
            return
        with recording.lock:
            recording.running = recording.close_at is not None or recording.batch_is_full
            again = recording.running
        if again:
            self._pool.submit(self._run, recording)
