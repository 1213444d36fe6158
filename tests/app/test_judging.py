"""The process that judges: it says what the judge here says, and its death costs no word."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from app import judging
from app.demo import truth
from app.judging import Asked, Closed, JudgingProcess, Opened, Told, judge
from app.media import open_recording
from app.piped import framed, read_message
from streams.events import AudioFrame, CallInfo, Hold, Transcript
from streams.judge import Answer, LocalJudge, Question
from streams.silero import WINDOW
from streams.testing import LoudnessVad, music, tone
from tests.streams.test_judge import question
from tests.streams.test_local import Outlet, runner

CHANNELS = ("agent", "customer")


@asynccontextmanager
async def judging_process() -> AsyncIterator[JudgingProcess]:
    process = JudgingProcess("error")
    process.start()
    try:
        await until(lambda: process.is_ready)
        yield process
    finally:
        await process.aclose()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - what it waits for happens in a child
            await asyncio.sleep(0.02)


def child_of(process: JudgingProcess) -> int:
    assert process._child is not None
    return process._child.pid


def spoken() -> list[AudioFrame]:
    """The first seconds of a demo call."""
    call = truth.load(truth.CALLS)[0]
    return [f for f in open_recording(call.audio).frames("c") if f.media_ms < 12_000]


def questions(frames: list[AudioFrame]) -> list[Question]:
    pcm = np.concatenate([np.frombuffer(f.pcm, "<i2") for f in frames if f.channel == "agent"])
    whole = pcm[: len(pcm) // WINDOW * WINDOW].reshape(-1, WINDOW)
    return [Question("c", "agent", at * WINDOW, whole[at : at + 7]) for at in range(0, len(whole), 7)]


async def asked(judge: JudgingProcess, one: Question) -> Answer:
    got: list[Answer] = []
    judge.judge([one], got.extend)
    await until(lambda: got)
    return got[0]


async def test_it_says_what_the_judge_here_says() -> None:
    here = LocalJudge()
    here.open("c", CHANNELS)
    async with judging_process() as process:
        process.open("c", CHANNELS)
        for one in questions(spoken()):
            answer, [expected] = await asked(process, one), here.answers([one])
            assert np.allclose(answer.probabilities, expected.probabilities, atol=1e-4)
            assert list(answer.found) == list(expected.found)


async def test_music_is_found_and_the_telephony_knows_better() -> None:
    async with judging_process() as process:
        for told in (False, True):
            process.open("c", CHANNELS)
            if told:
                process.told(Hold(call_id="c", media_ms=0, held=False, source="telephony"))
            answer = await asked(process, question(music(7_000)))
            assert [type(found) for found in answer.found] == ([] if told else [Hold])
            process.close("c")


async def heard(kill: Callable[[JudgingProcess, int], None]) -> list[tuple[str, int, int]]:
    """The finals of a call; ``kill`` is called before each of its frames."""
    outlet = Outlet()
    async with judging_process() as process:
        run = runner(outlet, judge=process)
        await run.start()
        run.open(CallInfo(call_id="c"), paced=False)
        for number, frame in enumerate(spoken()):
            kill(process, number)
            run.hear(frame)
            if number % 20 == 0:
                await asyncio.sleep(0)
        await run.close("c", "hangup")
        await run.stop()
    return [(t.role, t.start_ms, t.end_ms) for t in outlet.of(Transcript) if t.final]


async def test_a_call_whose_judge_is_killed_loses_no_word() -> None:
    undisturbed = await heard(lambda process, number: None)
    assert len(undisturbed) >= 2

    def kill(process: JudgingProcess, number: int) -> None:
        if number == 300:
            os.kill(child_of(process), signal.SIGKILL)

    disturbed = await heard(kill)
    # The judge here begins anew: an edge may lie a few windows elsewhere.
    assert [role for role, *_ in disturbed] == [role for role, *_ in undisturbed]
    for (_, start, end), (_, start_, end_) in zip(disturbed, undisturbed, strict=True):
        assert abs(start - start_) <= 200
        assert abs(end - end_) <= 200


async def test_after_its_death_calls_go_on_here_and_new_ones_have_the_next_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "AGAIN_S", 0.05)
    async with judging_process() as process:
        process.open("old", CHANNELS)
        first = child_of(process)
        os.kill(first, signal.SIGKILL)
        answer = await asked(process, question(tone(640), "old"))
        assert len(answer.probabilities) == 20
        await until(lambda: process.is_ready)
        assert child_of(process) != first
        process.open("new", CHANNELS)
        got: list[Answer] = []
        process.judge(
            [
                question(tone(640), "old", 10_240),
                question(tone(320), "new"),
                question(tone(96), "old", 0, "customer"),
            ],
            got.extend,
        )
        await until(lambda: got)
        assert [len(answer.probabilities) for answer in got] == [20, 10, 3]


@pytest.mark.parametrize("waits", [True, False])
async def test_a_child_that_hangs_is_ended_and_its_questions_are_answered_here(
    waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "ANSWER_TIMEOUT_S", 0.2)
    async with judging_process() as process:
        process.open("c", CHANNELS)
        child = child_of(process)
        os.kill(child, signal.SIGSTOP)
        got: list[Answer] = []
        process.judge([question(tone(640))], got.extend)
        if waits:
            process.wait(lambda: not got)
        await until(lambda: got)
        assert len(got[0].probabilities) == 20
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


async def test_a_server_with_thousands_of_connections_can_wait_for_an_answer() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2048), hard), hard))
    many = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        async with judging_process() as process:
            assert process._out.fileno() > 1023
            process.open("c", CHANNELS)
            got: list[Answer] = []
            process.judge([question(tone(640))], got.extend)
            process.wait(lambda: not got)
            assert len(got[0].probabilities) == 20
            assert process.is_ready
    finally:
        for one in many:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_question_that_kills_every_judge_is_answered_with_silence() -> None:
    async with judging_process() as process:
        process.open("c", CHANNELS)
        answer = await asked(process, Question("c", "unknown", 0, np.zeros((3, WINDOW), np.int16)))
        assert answer.probabilities.tolist() == [0, 0, 0]


async def test_calls_that_begin_before_it_is_ready_are_judged_here() -> None:
    process = JudgingProcess("error")
    process.start()
    try:
        process.open("c", CHANNELS)
        got: list[Answer] = []
        process.judge([question(tone(640))], got.extend)
        assert len(got) == 1
        process.told(Hold(call_id="c", media_ms=0, held=True, source="telephony"))
        process.close("c")
    finally:
        await process.aclose()


async def test_where_no_child_can_be_started_all_is_judged_here() -> None:
    process = JudgingProcess("error")
    process._command = ["/nowhere/python"]
    process.start()
    process.open("c", CHANNELS)
    got: list[Answer] = []
    process.judge([question(tone(640))], got.extend)
    assert len(got) == 1
    await process.aclose()


def test_the_child_ends_when_its_server_is_gone() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "app.judging"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    child.stdin.write(b"\x10\x00\x00\x00half a mess")
    child.stdin.close()
    assert child.wait(30) == 0


def test_orders_are_carried_out_as_they_are_written() -> None:
    pcm = tone(64).tobytes()
    orders: list[object] = [
        Opened("c", CHANNELS),
        Told(Hold(call_id="c", media_ms=0, held=False, source="telephony")),
        Asked(7, [("c", "agent", 0, pcm[: WINDOW * 4])]),
        Closed("c"),
    ]
    told = io.BytesIO()
    judge(io.BytesIO(b"".join(framed(order) for order in orders)), told, LocalJudge(LoudnessVad))
    told.seek(0)
    messages = []
    while (message := read_message(told)) is not None:
        messages.append(judging._ANSWERS.decode(message))
    [ready, answered] = messages
    assert isinstance(ready, judging.Ready)
    assert (answered.ticket, [len(p) for p, _ in answered.answers]) == (7, [8])
