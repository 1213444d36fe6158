"""The runner with fakes for everything outside it; the real parts are in tests/test_end_to_end.py."""

import asyncio

import numpy as np
import pytest

from streams.events import (
    Alert,
    AudioFrame,
    CallEnded,
    CallInfo,
    CallStarted,
    Detection,
    Evidence,
    Gap,
    Marker,
    RuleCard,
    SpeechStopped,
    Transcript,
)
from streams.local import CallRefused, LocalRunner
from streams.testing import LoudnessVad, ScriptedTranscriber, play, silence, tone


class Words:
    """A detector that finds one word, and one timer."""

    def __init__(self, word="保本", wake=None):
        self._word, self._wake, self.seen = word, wake, []

    def on_event(self, event):
        self.seen.append(event)
        if isinstance(event, Transcript) and event.final and self._word in event.text:
            return [self._found("redline.word", event.start_ms, event.end_ms, event.text, event.role)]
        return []

    def wake_at(self):
        return self._wake

    def on_wake(self, now_ms):
        at, self._wake = self._wake, None
        return [self._found("dynamics.timer", at, at, "", "customer")]

    def _found(self, rule, start, end, text, role):
        return Detection(
            call_id="c",
            rule_id=rule,
            role=role,
            media_start_ms=start,
            media_end_ms=end,
            anchor_ms=start,
            evidence=Evidence(text=text, matched=(self._word,)),
        )


def card(rule_id):
    return RuleCard(id=rule_id, version="1", name={"zh": "词", "en": "word"}, severity="critical")


class Outlet:
    """Keeps what was emitted; fails the first ``failures`` times."""

    def __init__(self, failures=0):
        self.events, self.failures = [], failures

    async def append(self, events):
        if self.failures:
            self.failures -= 1
            raise OSError("disk full")
        self.events += events

    def of(self, kind):
        return [e for e in self.events if isinstance(e, kind)]


def runner(outlet, script=lambda request: "保本保息", detector=None, **changes):
    given = {
        "transcriber": ScriptedTranscriber(script),
        "detector": lambda call: detector or Words(),
        "card": card,
        "prompt": lambda call: "银行",
        "redact": lambda text: text.replace("6222", "****"),
        "emit": outlet.append,
        "audio": None,
        "most_calls": 10,
        "vad": LoudnessVad,
    }
    return LocalRunner(**{**given, **changes})


async def whole_call(run, samples, call_id="c", channel="agent", paced=False):
    run.open(CallInfo(call_id=call_id), paced=paced)
    for frame in play(call_id, channel, samples):
        run.hear(frame)
    await run.close(call_id, "hangup")
    await run.flush()


async def test_speech_becomes_a_final_an_alert_and_a_marker_and_the_call_ends_after_them():
    outlet = Outlet()
    run = runner(outlet)
    await run.start()
    await whole_call(run, np.concatenate([silence(500), tone(1500), silence(800)]))
    await run.stop()
    assert isinstance(outlet.events[0], CallStarted)
    [final] = [t for t in outlet.of(Transcript) if t.final]
    assert (final.text, final.role) == ("保本保息", "agent")
    [alert] = outlet.of(Alert)
    assert alert.rule_id == "redline.word"
    assert alert.latency_ms.asr is not None
    assert alert.latency_ms.total is None, "nobody has been told yet"
    assert [m.alert_id for m in outlet.of(Marker)] == [alert.id]
    assert isinstance(outlet.events[-1], CallEnded)
    assert outlet.events[-1].media_ms == pytest.approx(2800, abs=40)


async def test_finals_of_one_channel_leave_in_the_order_of_speech():
    outlet = Outlet()
    run = runner(outlet, script=lambda request: f"{request.seconds:.0f}")
    await run.start()
    await whole_call(
        run, np.concatenate([tone(4000), silence(900), tone(700), silence(900), tone(2000), silence(900)])
    )
    await run.stop()
    starts = [t.start_ms for t in outlet.of(Transcript) if t.final]
    assert starts == sorted(starts)
    assert len(starts) == 3


async def test_an_engine_that_fails_costs_the_text_but_not_the_final_nor_the_call():
    def broken(request):
        raise MemoryError

    outlet = Outlet()
    run = runner(outlet, script=broken)
    await run.start()
    await whole_call(run, np.concatenate([tone(1500), silence(800)]))
    await run.stop()
    [final] = [t for t in outlet.of(Transcript) if t.final]
    assert (final.text, final.rejected) == ("", "model_failed")
    assert outlet.of(CallEnded)


async def test_a_doubtful_reading_goes_again_with_a_larger_window_and_one_final_leaves():
    outlet = Outlet()
    transcriber = ScriptedTranscriber(lambda request: "不清楚", log_probability=-0.9)
    run = runner(outlet, transcriber=transcriber)
    await run.start()
    await whole_call(run, np.concatenate([tone(1500), silence(800)]))
    await run.stop()
    assert [frames for frames, _ in transcriber.batches] == [250, 1500]
    assert len([t for t in outlet.of(Transcript) if t.final]) == 1


async def test_an_outlet_that_fails_for_a_while_loses_nothing():
    outlet = Outlet(failures=2)
    run = runner(outlet)
    await run.start()
    await whole_call(run, np.concatenate([tone(1500), silence(800)]))
    await run.stop()
    assert isinstance(outlet.events[0], CallStarted)
    assert len(outlet.of(Alert)) == 1
    assert len(outlet.of(CallEnded)) == 1


async def test_personal_data_is_masked_before_it_leaves():
    outlet = Outlet()
    run = runner(outlet, script=lambda request: "卡号6222保本")
    await run.start()
    await whole_call(run, np.concatenate([tone(1500), silence(800)]))
    await run.stop()
    assert not any("6222" in str(event) for event in outlet.events)


async def test_a_timer_fires_by_media_time_while_frames_of_silence_come():
    outlet = Outlet()
    run = runner(outlet, detector=Words(wake=3000))
    await run.start()
    run.open(CallInfo(call_id="c"), paced=False)
    for agent, customer in zip(
        play("c", "agent", silence(4000)), play("c", "customer", silence(4000)), strict=True
    ):
        run.hear(agent)
        run.hear(customer)
    await run.close("c", "hangup")
    await run.stop()
    [alert] = outlet.of(Alert)
    assert (alert.rule_id, alert.media_end_ms) == ("dynamics.timer", 3000)


async def test_a_timer_fires_although_no_audio_comes_at_all():
    outlet, now = Outlet(), 100.0
    run = runner(outlet, detector=Words(wake=15_000), clock=lambda: now)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    run.hear(AudioFrame(call_id="c", channel="agent", media_ms=0, pcm=silence(20).tobytes()))
    now += 20.0
    while not outlet.of(Alert):
        await asyncio.wait_for(run.flush(), 5)
        run.serve_timers()
        await asyncio.sleep(0)
    await run.stop()
    assert outlet.of(Alert)[0].media_end_ms == 15_000


async def test_the_same_call_twice_is_refused_and_the_first_goes_on():
    outlet = Outlet()
    run = runner(outlet)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    with pytest.raises(CallRefused, match="in progress already") as refused:
        run.open(CallInfo(call_id="c"), paced=True)
    assert not refused.value.retryable
    await run.close("c", "hangup")
    await run.stop()
    assert len(outlet.of(CallStarted)) == len(outlet.of(CallEnded)) == 1


async def test_beyond_the_most_calls_a_new_one_may_try_again_later():
    run = runner(Outlet(), most_calls=1)
    await run.start()
    run.open(CallInfo(call_id="a"), paced=True)
    with pytest.raises(CallRefused, match="try again") as refused:
        run.open(CallInfo(call_id="b"), paced=True)
    assert refused.value.retryable
    await run.stop()


async def test_stopping_the_server_ends_calls_as_interrupted_and_keeps_what_was_said():
    outlet = Outlet()
    run = runner(outlet)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    for frame in play("c", "agent", tone(1500)):
        run.hear(frame)
    await run.stop()
    assert [e.reason for e in outlet.of(CallEnded)] == ["interrupted"]
    assert [t.text for t in outlet.of(Transcript) if t.final] == ["保本保息"]


async def test_a_gap_is_told_to_detector_and_outlet():
    outlet, detector = Outlet(), Words()
    run = runner(outlet, detector=detector)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    gap = Gap(call_id="c", channel="agent", media_ms=0, duration_ms=200, reason="missing")
    run.hear(gap)
    await run.stop()
    assert outlet.of(Gap) == [gap]
    assert gap in detector.seen


async def test_partials_are_shown_while_somebody_speaks_and_none_after_their_final():
    outlet = Outlet()
    run = runner(outlet)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    for frame in play("c", "agent", np.concatenate([tone(3000), silence(900)])):
        run.hear(frame)
        await run.ready()
    await run.close("c", "hangup")
    await run.stop()
    kinds = [t.final for t in outlet.of(Transcript)]
    assert kinds.count(True) == 1
    assert outlet.of(SpeechStopped)
