"""Recordings of ended calls, from mu-law to Opus: a quarter of the room, coded when nobody wants the machine.

Coding Opus takes thirty times the work of mu-law, and while calls run that work is wanted for hearing them
(``python -m benchmarks.capacity``). So ``app.recorder`` writes mu-law, and this makes Opus of it a quarter of
an hour after the call's end, in a process of the lowest priority: under full load it waits, and the files
take four times the room for so long.

A new file gets its name once it is whole and on disk, and only then the old one goes: whatever is killed,
there is always one whole recording. What is still to do stands on disk too (``app.recorder.UNFINISHED``),
and the locks there say which calls run; so any number of servers may share a folder.

``TranscodingProcess`` is the server's side; ``python -m app.transcoding`` the other, which ends when its
standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import fcntl
import math
import os
import select
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import structlog
from prometheus_client import Counter

from app import logs
from app.recorder import LASTING, UNFINISHED
from app.settings import for_a_child

BIT_RATE = 32_000
"""Bits per second of both channels."""
AFTER_S = 900.0
"""From a call's end, while whoever handles its alerts listens to it."""
FIRST_S = 60.0
"""From the server's start to the child's: what begins with the server has the machine to itself."""
ROUND_S = 10.0
"""How often it is looked for files."""
AGAIN_S = 60.0
"""From a child's end to the next one's start, and after a disk that took nothing."""
STOP_TIMEOUT_S = 5.0
_AUTOGROUP = Path("/proc/self/autogroup")

_log = structlog.get_logger(__name__)
RESTARTS = Counter("duting_transcoding_restarts", "Times that the process which transcodes had died")

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors that every further file would end in."""

Stop = Callable[[], bool]


class Interrupted(Exception):
    """It is to stop in the middle of a file, which stays as it was."""


# ── one file ──────────────────────────────────────────────────────────────────────────────────────


def transcode(source: Path, target: Path, stop: Stop = lambda: False) -> None:
    """Code ``source`` as Opus into ``target``, at its own rate and with its own channels.

    Raises ``av.FFmpegError`` where it cannot be read, ``OSError`` where the disk takes nothing, and
    ``Interrupted`` once ``stop`` says so.
    """
    with av.open(f"file:{source}") as before, av.open(f"file:{target}", "w", format="ogg") as after:
        given = before.streams.audio[0]
        stream = after.add_stream("libopus", rate=given.rate, layout=given.layout.name)
        stream.bit_rate = BIT_RATE * given.channels // 2
        # `voip` keeps the two sides apart (-100 dB; `audio` lets -30 dB through).
        stream.codec_context.options = {"application": "voip", "compression_level": "5"}
        written = 0
        for frame in before.decode(given):
            if stop():
                raise Interrupted
            # From the first sample on without a hole, whatever the container says.
            frame.pts, frame.time_base = written, Fraction(1, given.rate)
            written += frame.samples
            after.mux(stream.encode(frame))
        if written:
            after.mux(stream.encode(None))


def replace(path: Path, stop: Stop = lambda: False) -> Path:
    """Put Opus in the place of a recording; raises as ``transcode`` does, and leaves it then.

    Raises ``FileNotFoundError`` where somebody has removed it, also while it was transcoded, and
    ``FileExistsError`` where there is another recording of the new name.
    """
    was, lasting = path.stat(), path.with_suffix(LASTING)
    if lasting.exists():
        # Somebody was killed between the new one's name and the old one's end: it has the old one's time.
        if lasting.stat().st_mtime_ns != was.st_mtime_ns:
            raise FileExistsError(errno.EEXIST, "another recording has that name", str(lasting))
        path.unlink()
        return lasting
    handle, name = tempfile.mkstemp(prefix=f"{path.stem}.", suffix=".part", dir=path.parent / UNFINISHED)
    os.close(handle)
    part = Path(name)
    try:
        transcode(path, part, stop)
        # Lists and what looks after old files go by the time of the call.
        os.utime(part, ns=(was.st_atime_ns, was.st_mtime_ns))
        _sync(part)
        if path.stat().st_ino != was.st_ino:
            raise FileNotFoundError(errno.ENOENT, "removed while it was transcoded", str(path))
        part.replace(lasting)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    return lasting


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ── all files ─────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def claimed(mark: Path) -> Iterator[bool]:
    """Whether nobody else has this file: neither a call that runs nor another server."""
    try:
        handle = os.open(mark, os.O_WRONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def work(folder: Path, now_s: float, after_s: float, stop: Stop = lambda: False) -> int:
    """Transcode what ended ``after_s`` ago or earlier, the oldest first; returns how many it were.

    A recording that cannot be read stays as it is, and is not tried again; one at which something else goes
    wrong stays, too, and is tried again the next time. Raises ``OSError`` where the disk takes nothing more:
    what is left is left for the next time.
    """
    done = 0
    for mark in _marks(folder):
        path = folder / mark.name
        if stop():
            break
        if _age_s(path, now_s) < after_s:
            continue
        with claimed(mark) as ours:
            # Once more: a call without sound for so long may have gone on meanwhile.
            if not ours or _age_s(path, now_s) < after_s:
                continue
            try:
                replace(path, stop)
                done += 1
            except FileNotFoundError:
                pass  # somebody has removed the recording
            except Interrupted:
                break
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise
                _log.error("transcoding.failed", file=mark.name, error=type(error).__name__)
                continue
            except (av.FFmpegError, IndexError, ValueError) as error:
                _log.error("transcoding.unreadable", file=mark.name, error=type(error).__name__)
            mark.unlink(missing_ok=True)
    return done


def _age_s(path: Path, now_s: float) -> float:
    """Since something was written to it; infinite where it is not there any more."""
    try:
        return now_s - path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _marks(folder: Path) -> list[Path]:
    """What is to do, the oldest first; pieces that somebody left who was killed are removed."""
    marks: list[tuple[float, Path]] = []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder / UNFINISHED):
            try:
                changed = entry.stat().st_mtime
            except FileNotFoundError:
                continue
            if not entry.name.endswith(".part"):
                marks.append((changed, Path(entry.path)))
            elif time.time() - changed > _ABANDONED_S:
                Path(entry.path).unlink(missing_ok=True)
    return [path for _, path in sorted(marks)]


_ABANDONED_S: Final = 6 * 3600.0
"""Age of a piece that nobody works on: no recording takes so long."""


# ── the server's side ─────────────────────────────────────────────────────────────────────────────


class TranscodingProcess:
    """Keeps a child that transcodes the recordings below ``folder``. For one event loop."""

    def __init__(
        self,
        folder: Path,
        after_s: float = AFTER_S,
        log_level: str = "info",
        log_json: bool = False,
        first_s: float = FIRST_S,
    ) -> None:
        self._first_s = first_s
        self._command = [sys.executable, "-m", "app.transcoding", "--folder", str(folder.absolute())]
        self._command += ["--after-s", str(after_s), "--log-level", log_level]
        self._command += ["--log-json"] if log_json else []
        self.child: Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start the child in a while; from then on there is one, whatever becomes of it."""
        self._keeping = asyncio.create_task(self._keep(), name="transcoding")

    async def aclose(self) -> None:
        """End the child. What it was about stays as it was, for the next time."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        child, self.child = self.child, None
        if child is None or child.stdin is None:
            return
        child.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await child.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _keep(self) -> None:
        await asyncio.sleep(self._first_s)
        while True:
            try:
                # A terminal's Ctrl-C is for the server, which then ends it in good order.
                self.child = await asyncio.create_subprocess_exec(
                    *self._command, stdin=PIPE, stdout=DEVNULL, env=for_a_child(), start_new_session=True
                )
                code = await self.child.wait()
                RESTARTS.inc()
                _log.error("transcoding.died", code=code)
            except OSError as error:
                _log.error("transcoding.not_started", error=error.strerror)
            await asyncio.sleep(AGAIN_S)


# ── the child's side ──────────────────────────────────────────────────────────────────────────────


def _last() -> None:
    """Come behind everything else on this machine, where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(19)
        _AUTOGROUP.write_text("19")
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _told_to_stop(wait_s: float = 0.0) -> bool:
    """Whether standard input has ended; nothing else ever comes there."""
    poll = select.poll()
    poll.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    return bool(poll.poll(wait_s * 1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--after-s", type=float, default=AFTER_S)
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-json", action="store_true")
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _last()
    logs.configure(given.log_level, given.log_json)
    wait_s = 0.0
    while not _told_to_stop(wait_s):
        wait_s = ROUND_S
        try:
            if done := work(given.folder, time.time(), given.after_s, _told_to_stop):
                _log.info("transcoding.done", recordings=done)
        except OSError as error:
            _log.error("transcoding.disk", error=error.strerror)
            wait_s = AGAIN_S


if __name__ == "__main__":
    main()
