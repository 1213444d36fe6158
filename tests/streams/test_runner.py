"""The hearing of all calls: what one of them does must not reach the others."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from streams.events import CallInfo, Transcript
from streams.judge import LocalJudge
from streams.testing import LoudnessVad, play, silence, tone
from tests.streams.test_local import Outlet, runner


class Line:
    """A source that gives its frames one a round, or breaks."""

    rate, arrived_s, is_connected = 16_000, 0.0, True

    def __init__(self, frames=(), broken=False):
        self._frames, self._broken = list(frames), broken

    def take(self):
        if self._broken:
            raise RuntimeError("this source is broken")
        return [self._frames.pop(0)] if self._frames else []


async def test_a_source_that_breaks_costs_no_other_call_its_sound():
    outlet = Outlet()
    run = runner(outlet)
    await run.start()
    frames = [*play("well", "agent", tone(1_500)), *play("well", "agent", silence(900), start_ms=1_500)]
    run.open(CallInfo(call_id="broken"), paced=True, source=Line(broken=True))
    run.open(CallInfo(call_id="well"), paced=True, source=Line(frames))
    for _ in frames:
        run.listen()
    await run.close("well", "hangup")
    await run.stop()
    assert [event.call_id for event in outlet.of(Transcript) if event.final] == ["well"]


class Late:
    """A judge that answers when it is told to."""

    def __init__(self):
        self.local, self.waiting, self.failing = LocalJudge(LoudnessVad), [], False
        self.open, self.close, self.told = self.local.open, self.local.close, self.local.told

    def judge(self, questions, then):
        if self.failing:
            raise RuntimeError("this judge is broken")
        self.waiting.append((questions, then))

    def answer(self):
        waiting, self.waiting = self.waiting, []
        for questions, then in waiting:
            then(self.local.answers(questions))

    def wait(self, asking):
        while asking():
            self.answer()


async def test_a_call_is_closed_when_what_was_said_last_is_judged():
    outlet, judge = Outlet(), Late()
    run = runner(outlet, judge=judge)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    for frame in play("c", "agent", tone(1_500)):
        run.hear(frame)
    assert len(judge.waiting) == 1  # the rest is asked when the first is answered
    closing = asyncio.create_task(run.close("c", "hangup"))
    await asyncio.sleep(0)
    assert not closing.done()
    while not closing.done():
        judge.answer()
        await asyncio.sleep(0)
    await run.stop()
    assert [e.end_ms for e in outlet.of(Transcript) if e.final] == [1_500 // 32 * 32]


async def test_nothing_is_taken_of_a_call_that_is_being_judged_unless_it_is_wanted_at_once():
    outlet, judge = Outlet(), Late()
    run = runner(outlet, judge=judge)
    line = Line(play("c", "agent", tone(1_000)))
    run.open(CallInfo(call_id="c"), paced=True, source=line)
    run.take("c")
    run.take("c")
    [call] = run._calls.values()
    assert not run._is_free(call)
    run.listen("c")
    assert run._is_free(call)
    assert call.heard.media_ms == 60
    await run.close("c", "hangup")


async def test_what_a_judge_that_fails_was_asked_is_not_lost():
    outlet, judge = Outlet(), Late()
    run = runner(outlet, judge=judge)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    frames = [*play("c", "agent", tone(1_500)), *play("c", "agent", silence(900), start_ms=1_500)]
    for number, frame in enumerate(frames):
        judge.failing = 10 < number < 60
        with suppress(RuntimeError):
            run.hear(frame)
        judge.answer()
    await run.close("c", "hangup")
    await run.stop()
    assert [e.start_ms < 100 and e.end_ms > 1_400 for e in outlet.of(Transcript) if e.final] == [True]
