"""Recordings of ended calls become Opus: whole or not at all, and never while the call runs."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
from pathlib import Path

import av
import numpy as np
import pytest

from app import transcoding
from app.recorder import UNFINISHED, Recorders, find
from app.transcoding import TranscodingProcess, replace, transcode, work
from streams.events import CallInfo
from tests.app.test_recorder import decode, files, frames, in_order, loud_spans, tone

LONG_AFTER_S = 1e12


async def recorded(folder: Path, call_id: str = "call", seconds: int = 2, wire_rate: int = 16_000) -> Path:
    """One second of the agent, then the customer, with the call over."""
    recorders = Recorders(folder)
    recorders.start(CallInfo(call_id=call_id), wire_rate)
    quiet = np.zeros(16_000 * (seconds - 1), np.int16)
    agent = np.concatenate([tone(1000), quiet])
    customer = np.concatenate([quiet, tone(1000, 700)])
    for frame in in_order(frames(call_id, "agent", agent), frames(call_id, "customer", customer)):
        recorders.frame(frame)
    await recorders.close(call_id, seconds * 1000)
    await recorders.aclose()
    path = find(folder, call_id)
    assert path is not None
    return path


def now(path: Path) -> Path:
    """A recording as it is named once it is Opus."""
    return path.with_suffix(".ogg")


def marks(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / UNFINISHED).iterdir())


@pytest.mark.parametrize("wire_rate", [8_000, 16_000])
async def test_an_ended_call_becomes_opus_of_the_same_length(tmp_path: Path, wire_rate: int) -> None:
    path = await recorded(tmp_path, wire_rate=wire_rate)
    before, was = decode(path), path.stat()

    assert work(tmp_path, LONG_AFTER_S, 900) == 1

    lasting = now(path)
    assert files(tmp_path) == [lasting]
    assert find(tmp_path, "call") == lasting
    with av.open(str(lasting)) as container:
        assert container.streams.audio[0].codec_context.name in ("opus", "libopus")
    left, right = decode(lasting)
    assert abs(len(left) - before.shape[1]) <= 16 * 20
    assert loud_spans(left) == (pytest.approx(0, abs=30), pytest.approx(1000, abs=30))
    assert loud_spans(right) == (pytest.approx(1000, abs=30), pytest.approx(2000, abs=30))
    assert lasting.stat().st_mtime_ns == was.st_mtime_ns
    assert lasting.stat().st_mode == was.st_mode
    assert lasting.stat().st_size < was.st_size
    assert marks(tmp_path) == []


async def test_a_call_that_comes_again_is_another_recording_whatever_became_of_the_first(
    tmp_path: Path,
) -> None:
    first = await recorded(tmp_path)
    assert work(tmp_path, LONG_AFTER_S, 900) == 1
    second = await recorded(tmp_path, seconds=3)
    assert second.stem == f"{first.stem}.2"
    assert find(tmp_path, "call") == second
    assert work(tmp_path, LONG_AFTER_S, 900) == 1
    assert find(tmp_path, "call") == now(second)
    assert {path.name for path in files(tmp_path)} == {now(first).name, now(second).name}


async def test_a_mixed_call_stays_one_channel(tmp_path: Path) -> None:
    recorders = Recorders(tmp_path)
    recorders.start(CallInfo(call_id="mono", channels=("unknown",)))
    for frame in frames("mono", "unknown", tone(1000)):
        recorders.frame(frame)
    await recorders.close("mono", 1000)
    await recorders.aclose()
    assert work(tmp_path, LONG_AFTER_S, 0) == 1
    assert len(decode(files(tmp_path)[0])) == 1


async def test_a_call_that_ended_a_moment_ago_is_left_alone(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    assert work(tmp_path, path.stat().st_mtime + 899, 900) == 0
    assert files(tmp_path) == [path]
    assert marks(tmp_path) == [path.name]


async def test_a_call_that_runs_is_left_alone_however_long_it_was_silent(tmp_path: Path) -> None:
    recorders = Recorders(tmp_path)
    recorders.start(CallInfo(call_id="held", channels=("agent",)))
    for frame in frames("held", "agent", tone(1000)):
        recorders.frame(frame)
    await recorders.settled()

    assert work(tmp_path, LONG_AFTER_S, 900) == 0

    for frame in frames("held", "agent", tone(1000), at_ms=5000):
        recorders.frame(frame)
    await recorders.close("held", 6000)
    await recorders.aclose()
    [path] = files(tmp_path)
    assert loud_spans(decode(path)[0])[1] == pytest.approx(6000, abs=30)
    assert work(tmp_path, LONG_AFTER_S, 900) == 1


async def test_what_another_server_is_about_is_left_to_it(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    with (tmp_path / UNFINISHED / path.name).open("wb") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        assert work(tmp_path, LONG_AFTER_S, 900) == 0
    assert work(tmp_path, LONG_AFTER_S, 900) == 1


async def test_who_is_told_to_stop_in_the_middle_leaves_the_recording_as_it_was(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    was, asked = path.read_bytes(), iter([False, False, False, True])

    assert work(tmp_path, LONG_AFTER_S, 900, lambda: next(asked)) == 0

    assert path.read_bytes() == was
    assert marks(tmp_path) == [path.name]


async def test_a_full_disk_leaves_the_recording_as_it_was_and_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await recorded(tmp_path)
    was = path.read_bytes()

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(transcoding, "_sync", full)
        with pytest.raises(OSError, match="No space"):
            work(tmp_path, LONG_AFTER_S, 900)
    assert path.read_bytes() == was
    assert marks(tmp_path) == [path.name]
    assert work(tmp_path, LONG_AFTER_S, 900) == 1


async def test_what_cannot_be_read_stays_and_is_not_tried_again(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    path.write_bytes(os.urandom(2000))
    was = path.read_bytes()
    assert work(tmp_path, LONG_AFTER_S, 900) == 0
    assert path.read_bytes() == was
    assert files(tmp_path) == [path]
    assert marks(tmp_path) == []


async def test_a_recording_cut_off_by_a_crash_is_transcoded_as_far_as_it_goes(tmp_path: Path) -> None:
    path = await recorded(tmp_path, seconds=4)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    before = decode(path).shape[1]
    assert work(tmp_path, LONG_AFTER_S, 900) == 1
    assert abs(decode(now(path)).shape[1] - before) <= 16 * 20


async def test_after_a_crash_between_the_new_file_and_the_old_ones_end_only_the_new_one_is_left(
    tmp_path: Path,
) -> None:
    path = await recorded(tmp_path)
    old = path.read_bytes()
    ended = path.stat()
    was = replace(path).read_bytes()
    path.write_bytes(old)
    os.utime(path, ns=(ended.st_atime_ns, ended.st_mtime_ns))
    assert find(tmp_path, "call") == now(path)
    work(tmp_path, LONG_AFTER_S, 900)
    assert files(tmp_path) == [now(path)]
    assert now(path).read_bytes() == was
    assert marks(tmp_path) == []


async def test_after_a_crash_before_its_mark_goes_only_the_mark_goes(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    replace(path)
    was = now(path).read_bytes()
    assert work(tmp_path, LONG_AFTER_S, 900) == 0
    assert now(path).read_bytes() == was
    assert marks(tmp_path) == []


async def test_another_recording_of_the_new_name_costs_neither(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    other = now(path)
    other.write_bytes(b"another call")
    was = path.read_bytes()
    assert work(tmp_path, LONG_AFTER_S, 900) == 0
    assert (path.read_bytes(), other.read_bytes()) == (was, b"another call")


async def test_who_looks_for_a_recording_while_it_becomes_opus_finds_it(tmp_path: Path) -> None:
    first = await recorded(tmp_path)
    exists, swapped = Path.exists, iter([True])

    def at_the_last_moment(self: Path) -> bool:
        # It is not there yet, and is in the next moment, when the old one is not there any more.
        if self == now(first) and next(swapped, False):
            assert not exists(now(first))
            work(tmp_path, LONG_AFTER_S, 900)
            return False
        return exists(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "exists", at_the_last_moment)
        assert find(tmp_path, "call") == now(first)


async def test_a_recording_that_is_removed_while_it_is_transcoded_does_not_come_back(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    asked = iter([False, False, True])

    def stop() -> bool:
        if next(asked, False):
            path.unlink()
        return False

    assert work(tmp_path, LONG_AFTER_S, 900, stop) == 0
    assert files(tmp_path) == []
    assert marks(tmp_path) == []


async def test_one_that_cannot_be_opened_keeps_none_of_the_others_waiting(tmp_path: Path) -> None:
    bad, good = await recorded(tmp_path, "bad"), await recorded(tmp_path, "good")
    bad.unlink()
    bad.mkdir()
    os.utime(tmp_path / UNFINISHED / bad.name, (0, 0))
    assert work(tmp_path, LONG_AFTER_S, 900) == 1
    assert now(good).exists()
    assert marks(tmp_path) == [bad.name]


async def test_a_recording_that_somebody_removed_is_forgotten(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    path.unlink()
    assert work(tmp_path, LONG_AFTER_S, 900) == 0
    assert marks(tmp_path) == []


async def test_pieces_that_somebody_left_who_was_killed_are_removed_after_hours(tmp_path: Path) -> None:
    await recorded(tmp_path)
    old, new = tmp_path / UNFINISHED / "a.part", tmp_path / UNFINISHED / "b.part"
    for piece in (old, new):
        piece.write_bytes(b"OggS")
    os.utime(old, (0, 0))
    work(tmp_path, 0, 900)
    assert not old.exists()
    assert new.exists()


def test_a_folder_without_recordings_is_nothing_to_do(tmp_path: Path) -> None:
    assert work(tmp_path / "none", 0, 0) == 0


def test_a_recording_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        transcode(tmp_path / "none.wav", tmp_path / "none.part")


# ── the real process ──────────────────────────────────────────────────────────────────────────────


async def until_opus(path: Path) -> None:
    async with asyncio.timeout(30):
        while not now(path).exists() or path.exists():  # noqa: ASYNC110, ASYNC240 another process does it
            await asyncio.sleep(0.05)


async def test_the_process_transcodes_what_it_finds_and_ends_with_the_server(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    process = TranscodingProcess(tmp_path, after_s=0, log_level="error", first_s=0)
    await process.open()
    await until_opus(path)
    child = process.child
    assert child is not None
    await process.aclose()
    assert child.returncode is not None  # killed where the machine had no time for it to end


async def test_a_process_that_was_killed_leaves_a_whole_recording_and_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcoding, "AGAIN_S", 0.0)
    process = TranscodingProcess(tmp_path, after_s=0, log_level="error", first_s=0)
    await process.open()
    path = await recorded(tmp_path)
    await until_opus(path)
    first = process.child
    assert first is not None
    first.send_signal(signal.SIGKILL)
    await first.wait()
    path = await recorded(tmp_path, "another")
    assert decode(path).any()
    await until_opus(path)
    assert process.child is not first
    await process.aclose()
