"""The process that records: as good as the recorder itself, and no loss of a call's sound when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from app import recording
from app.piped import framed
from app.recorder import find
from app.recording import Begin, Piece, RecordingProcess
from streams.events import CallInfo
from tests.app.test_recorder import decode, dropped, failed, files, frames, loud_spans, tone

CALL = CallInfo(call_id="call")


@asynccontextmanager
async def recording_process(folder: Path) -> AsyncIterator[RecordingProcess]:
    process = RecordingProcess(folder, "error")
    await process.open()
    try:
        yield process
    finally:
        await process.aclose()


def child_of(process: RecordingProcess) -> asyncio.subprocess.Process:
    assert process._child is not None
    return process._child


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what it waits for happens in a child
            await asyncio.sleep(0.02)


async def test_a_call_is_recorded_and_its_file_is_whole_when_close_returns(tmp_path: Path) -> None:
    async with recording_process(tmp_path) as process:
        process.start(CALL, 16_000)
        for frame in frames("call", "agent", tone(1500), 500):
            process.frame(frame)
        await process.close("call", 3000)
        path = find(tmp_path, "call")
        assert path is not None
        left, right = decode(path)
    assert abs(len(left) / 16 - 3000) <= 20
    assert loud_spans(left) == (pytest.approx(500, abs=30), pytest.approx(2000, abs=30))
    assert np.abs(right[16 * 800 :]).max() < 0.001


async def test_two_calls_one_after_the_other_with_one_id_are_two_files(tmp_path: Path) -> None:
    async with recording_process(tmp_path) as process:
        for _ in range(2):
            process.start(CALL)
            for frame in frames("call", "customer", tone(400)):
                process.frame(frame)
            await process.close("call", 400)
    assert len(files(tmp_path)) == 2


async def test_closing_many_calls_at_once_closes_each(tmp_path: Path) -> None:
    names = [f"call-{number}" for number in range(20)]
    async with recording_process(tmp_path) as process:
        for name in names:
            process.start(CallInfo(call_id=name))
            for frame in frames(name, "agent", tone(300)):
                process.frame(frame)
        await asyncio.gather(*(process.close(name, 300) for name in names))
        assert process._closing == {}
        assert all(find(tmp_path, name) is not None for name in names)


async def test_frames_of_a_call_that_was_not_started_or_is_over_are_ignored(tmp_path: Path) -> None:
    async with recording_process(tmp_path) as process:
        for frame in frames("stray", "agent", tone(300)):
            process.frame(frame)
        await process.close("stray", 300)
    assert files(tmp_path) == []


async def test_a_child_that_dies_is_started_again_and_the_call_goes_on_in_a_second_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "AGAIN_S", 0.0)
    async with recording_process(tmp_path) as process:
        process.start(CALL)
        for frame in frames("call", "agent", tone(1500)):
            process.frame(frame)
        await until(lambda: list(tmp_path.iterdir()) and files(tmp_path)[0].stat().st_size > 1500)
        first = child_of(process)
        first.kill()
        await until(lambda: process._child not in (None, first))
        for frame in frames("call", "agent", tone(500), 2000):
            process.frame(frame)
        await process.close("call", 2500)
    before, after = (decode(path)[0] for path in files(tmp_path))
    assert len(before) / 16 > 300  # but for what waited in the dead process
    assert loud_spans(after) == (pytest.approx(2000, abs=30), pytest.approx(2500, abs=30))


async def test_a_call_that_ends_while_there_is_no_child_ends(tmp_path: Path) -> None:
    async with recording_process(tmp_path) as process:
        process.start(CALL)
        child_of(process).kill()
        await until(lambda: process._child is None)
        async with asyncio.timeout(5):
            await process.close("call", 100)


async def test_a_call_that_is_being_closed_when_the_child_dies_ends(tmp_path: Path) -> None:
    async with recording_process(tmp_path) as process:
        process.start(CALL)
        os.kill(child_of(process).pid, signal.SIGSTOP)
        closing = asyncio.create_task(process.close("call", 100))
        await asyncio.sleep(0)
        child_of(process).kill()
        async with asyncio.timeout(5):
            await closing


async def test_a_child_that_takes_nothing_costs_audio_not_memory_and_not_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MOST_UNSENT", 100_000)
    monkeypatch.setattr(recording, "CLOSE_TIMEOUT_S", 0.1)
    before = dropped("overflow")
    async with recording_process(tmp_path) as process:
        os.kill(child_of(process).pid, signal.SIGSTOP)
        process.start(CALL)
        for frame in frames("call", "agent", tone(20_000)):
            process.frame(frame)
        assert process._unsent <= 100_000 + 640
        await process.close("call", 20_000)
        os.kill(child_of(process).pid, signal.SIGCONT)
    assert dropped("overflow") - before >= 15_000


async def test_what_cannot_be_recorded_is_counted_by_the_server(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    before = failed()
    async with recording_process(tmp_path / "file") as process:
        process.start(CALL)
        for frame in frames("call", "agent", tone(500)):
            process.frame(frame)
        await process.close("call", 500)
    assert failed() - before == 1


async def test_a_child_that_talks_nonsense_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "AGAIN_S", 0.0)
    process = RecordingProcess(tmp_path, "error")
    right = process._command
    process._command = [sys.executable, "-c", "print('x' * 100, flush=True); import time; time.sleep(60)"]
    await process.open()
    process._command = right
    try:
        first = child_of(process)
        await until(lambda: process._child not in (None, first))
        assert first.returncode == -signal.SIGKILL
    finally:
        await process.aclose()


def test_when_the_server_is_killed_the_files_are_closed_with_all_that_was_handed_over(tmp_path: Path) -> None:
    orders = [Begin(CALL, 16_000), *(Piece(frame) for frame in frames("call", "agent", tone(1000)))]
    child = subprocess.run(
        [sys.executable, "-m", "app.recording", "--folder", str(tmp_path)],
        input=framed(orders) + framed(orders)[:1000],  # it was killed in the middle of a message
        capture_output=True,
        timeout=30,
    )
    assert child.returncode == 0, child.stderr
    [path] = files(tmp_path)
    assert len(decode(path)[0]) / 16 == pytest.approx(1000, abs=20)


def test_the_child_outlives_what_ends_a_group_of_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.recording", "--folder", str(tmp_path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    # An answer says that it is past its beginning.
    child.stdin.write(framed([Begin(CALL, 16_000), recording.Over(7, "call", 0)]))
    child.stdin.flush()
    assert child.stdout.read(4)
    for number in (signal.SIGINT, signal.SIGTERM):
        child.send_signal(number)
    assert child.poll() is None
    child.stdin.close()
    assert child.wait(30) == 0
