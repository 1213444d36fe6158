"""The runner with fakes for everything outside it; the real parts are in tests/test_end_to_end.py."""

import asyncio

import numpy as np
import pytest
from msgspec.structs import replace

from streams.batching import Kind
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
    Voice,
    Word,
)
from streams.judge import LocalJudge
from streams.local import CallRefused, LocalRunner
from streams.sealing import Sealed
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

    def suspects(self, utterance_id):
        return False

    def card(self, rule_id):
        return RuleCard(id=rule_id, version="1", name={"zh": "词", "en": "word"}, severity="critical")

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
        "prompt": lambda call: "银行",
        "redact": lambda text: text.replace("6222", "****"),
        "emit": outlet.append,
        "audio": None,
        "most_calls": 10,
        "judge": LocalJudge(LoudnessVad),
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


async def test_what_was_masked_is_sealed_beside_its_final_and_nowhere_else():
    outlet = Outlet()
    run = runner(
        outlet, script=lambda request: "卡号6222", seal=lambda utterance, text: f"{utterance}!{text}"
    )
    await run.start()
    await whole_call(run, np.concatenate([silence(500), tone(1500), silence(800)]), paced=True)
    await run.stop()
    [final] = [t for t in outlet.of(Transcript) if t.final]
    [sealed] = outlet.of(Sealed)
    assert final.text == "卡号****"
    assert sealed.box == f"{final.utterance_id}!卡号6222"
    assert outlet.events.index(sealed) == outlet.events.index(final) + 1
    assert not any("6222" in str(event) for event in outlet.events if event is not sealed)


async def test_the_detector_hears_how_an_utterance_sounds_before_it_reads_what_it_says():
    outlet, detector = Outlet(), Words()
    run = runner(outlet, detector=detector)
    await run.start()
    spoken = np.concatenate([tone(1500, hertz=180), silence(800)])
    await whole_call(run, np.concatenate([spoken, spoken]))
    await run.stop()
    told = [e for e in detector.seen if isinstance(e, Voice | Transcript)]
    assert [type(e) for e in told] == [Voice, Voice, Transcript, Transcript] or [type(e) for e in told] == [
        Voice,
        Transcript,
    ] * 2
    voices, texts = [e for e in told if isinstance(e, Voice)], [e for e in told if isinstance(e, Transcript)]
    assert [v.utterance_id for v in voices] == [t.utterance_id for t in texts]
    assert all(v.pitch_hz == pytest.approx(180, rel=0.02) for v in voices)
    assert not outlet.of(Voice), "what follows from it is told, not the measure itself"


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
    assert [frames for frames, _ in transcriber.batches] == [250, 750]
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


def spoken_by(character_ms):
    """A transcriber whose words are all said in the first part of the clip."""

    class Early(ScriptedTranscriber):
        def locate(self, request, text):
            return tuple(
                Word(text=c, start_ms=n * character_ms, end_ms=(n + 1) * character_ms)
                for n, c in enumerate(text)
            )

    return Early(lambda request: "我们保本保息")


class Phrases(Words):
    """A detector that says where in the text its word stands."""

    def _found(self, rule, start, end, text, role):
        at = text.index(self._word)
        found = super()._found(rule, start, end, text, role)
        return replace(found, evidence=replace(found.evidence, spans=((at, at + len(self._word)),)))


async def test_an_alert_moves_to_where_its_words_were_said():
    outlet = Outlet()
    run = runner(outlet, transcriber=spoken_by(100), detector=Phrases())
    await run.start()
    await whole_call(run, np.concatenate([silence(1000), tone(3000), silence(800)]))
    await run.stop()
    first, second = outlet.of(Alert)
    assert first.id == second.id
    [final] = [t for t in outlet.of(Transcript) if t.final]
    assert (second.media_start_ms, second.media_end_ms) == (final.start_ms + 200, final.start_ms + 400)
    assert [m.media_start_ms for m in outlet.of(Marker)][-1] == final.start_ms + 200
    assert isinstance(outlet.events[-1], CallEnded), "the call ends after its last correction"


async def test_words_that_cannot_be_found_leave_the_alert_where_it_was():
    class Broken(ScriptedTranscriber):
        def locate(self, request, text):
            raise MemoryError

    outlet = Outlet()
    run = runner(outlet, transcriber=Broken(lambda request: "我们保本保息"), detector=Phrases())
    await run.start()
    await whole_call(run, np.concatenate([silence(1000), tone(3000), silence(800)]))
    await run.stop()
    assert len(outlet.of(Alert)) == 1


async def test_a_call_for_which_the_model_has_no_time_is_refused_and_a_replay_is_not():
    run = runner(Outlet())
    await run.start()
    run._recogniser.headroom.call_cost = 5.0
    with pytest.raises(CallRefused, match=r"at its limit.*try again") as refused:
        run.open(CallInfo(call_id="c"), paced=True)
    assert refused.value.retryable
    run.open(CallInfo(call_id="c"), paced=False)
    await run.stop()


def counted(run):
    """The partials that the runner asks the model for; how many it reads is a matter of its speed."""
    asked, submit = [], run._recogniser.submit

    def note(utterance, *rest, **more):
        asked.extend([] if utterance.final else [utterance])
        submit(utterance, *rest, **more)

    run._recogniser.submit = note
    return asked


async def test_a_busy_model_reads_fewer_partials_and_all_finals():
    async def partials(busy):
        outlet = Outlet()
        run = runner(outlet)
        asked = counted(run)
        await run.start()
        run._recogniser.headroom.busy = lambda now_s: busy
        run.open(CallInfo(call_id="c"), paced=True)
        for frame in play("c", "agent", np.concatenate([tone(7000), silence(800)])):
            run.hear(frame)
            await asyncio.sleep(0)
        await run.close("c", "hangup")
        await run.flush()
        await run.stop()
        assert [t for t in outlet.of(Transcript) if t.final]
        return len(asked)

    counts = [await partials(busy) for busy in (0.0, 0.7, 1.0)]
    assert counts[0] > counts[1] > counts[2] == 0


async def test_what_a_partial_may_hold_is_read_again_before_its_turn():
    class Doubtful(Words):
        def suspects(self, utterance_id):
            return True

    async def partials(detector):
        outlet = Outlet()
        run = runner(outlet, detector=detector)
        await run.start()
        asked = counted(run)
        run._recogniser.headroom.busy = lambda now_s: 0.8
        run.open(CallInfo(call_id="c"), paced=True)
        for frame in play("c", "agent", np.concatenate([tone(7000), silence(800)])):
            run.hear(frame)
            await asyncio.sleep(0)
        await run.close("c", "hangup")
        await run.stop()
        return len(asked)

    assert await partials(Doubtful()) > await partials(Words()) > 0


async def test_the_final_of_what_a_partial_suspected_goes_first():
    class Eager(Words):
        def on_event(self, event):
            return super().on_event(replace(event, final=True)) if isinstance(event, Transcript) else []

    outlet, kinds = Outlet(), []
    run = runner(outlet, detector=Eager("保本"), script=lambda request: "我们这里都是保本保息的产品")
    await run.start()
    submit = run._recogniser._scheduler.submit
    run._recogniser._scheduler.submit = lambda job: kinds.append(job.kind) or submit(job)
    run.open(CallInfo(call_id="c"), paced=True)
    for frame in play("c", "agent", tone(4000)):
        run.hear(frame)
        await asyncio.sleep(0.0005)
    await run.close("c", "hangup")
    await run.stop()
    assert Kind.PARTIAL in kinds
    assert Kind.SUSPICIOUS in kinds


async def heard_live(run, *pieces):
    run.open(CallInfo(call_id="c"), paced=True)
    for frame in play("c", "agent", np.concatenate(pieces)):
        run.hear(frame)
        await asyncio.sleep(0.001)
    await run.close("c", "hangup")
    await run.flush()
    await run.stop()


async def test_what_was_read_at_the_breath_is_the_final_and_is_not_read_again():
    outlet, transcriber = Outlet(), ScriptedTranscriber(lambda request: f"{len(request.pcm)}")
    run = runner(outlet, transcriber=transcriber)
    await run.start()
    await heard_live(run, silence(500), tone(500), silence(1500))
    [final] = [t for t in outlet.of(Transcript) if t.final]
    assert len(transcriber.batches) == 1
    assert [t.text for t in outlet.of(Transcript)] == [final.text] * 2


async def spoken_with_a_breath(busy):
    """Two stretches with a breath between; returns (clips that were read, the final's text)."""
    outlet, clips = Outlet(), []
    run = runner(outlet, script=lambda request: clips.append(len(request.pcm)) or f"{len(request.pcm)}字")
    await run.start()
    run._recogniser.headroom.busy = lambda now_s: 1.0 if busy else 0.0
    await heard_live(run, silence(500), tone(700), silence(300), tone(700), silence(1500))
    [final] = [t for t in outlet.of(Transcript) if t.final]
    return clips, final.text


async def test_a_speaker_who_goes_on_after_the_breath_is_read_as_a_whole_where_there_is_time():
    clips, text = await spoken_with_a_breath(busy=False)
    assert text == f"{max(clips)}字"


async def test_a_busy_model_puts_the_final_together_from_what_it_read_at_the_breaths():
    clips, text = await spoken_with_a_breath(busy=True)
    assert text == "，".join(f"{length}字" for length in clips)
    assert len(clips) == 2


async def test_a_doubtful_reading_at_the_breath_gets_its_second_reading_when_it_becomes_the_final():
    outlet = Outlet()
    transcriber = ScriptedTranscriber(lambda request: "不清楚", log_probability=-0.9)
    run = runner(outlet, transcriber=transcriber)
    await run.start()
    await heard_live(run, silence(500), tone(500), silence(1500))
    assert [t.text for t in outlet.of(Transcript) if t.final] == ["不清楚"]
    assert [frames for frames, _ in transcriber.batches] == [250, 750]


async def test_in_a_replay_the_detector_hears_no_further_than_the_words_have_come():
    outlet, detector = Outlet(), Words()
    transcriber = ScriptedTranscriber(lambda request: "好", seconds=0.05)
    run = runner(outlet, transcriber=transcriber, detector=detector)
    await run.start()
    piece = np.concatenate([tone(1000), silence(1500)])
    await whole_call(run, np.concatenate([piece] * 8))
    await run.stop()
    cut: dict[str, int] = {}
    latest = 0
    for event in detector.seen:
        if isinstance(event, Voice):
            cut[event.utterance_id] = event.end_ms
        elif isinstance(event, Transcript):
            del cut[event.utterance_id]
        latest = max(latest, event.media_ms)
        if cut and not isinstance(event, Transcript):
            assert latest - min(cut.values()) < 4000
    assert not cut
    assert len([e for e in detector.seen if isinstance(e, Transcript)]) == 8


async def test_what_a_gap_lets_the_detector_say_is_told():
    class Gaps(Words):
        def on_event(self, event):
            if isinstance(event, Gap):
                return [self._found("dynamics.gap", event.media_ms, event.media_ms, "", "agent")]
            return []

    outlet = Outlet()
    run = runner(outlet, detector=Gaps())
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    run.hear(Gap(call_id="c", channel="agent", media_ms=0, duration_ms=500, reason="missing"))
    await run.close("c", "hangup")
    await run.stop()
    assert [alert.rule_id for alert in outlet.of(Alert)] == ["dynamics.gap"]


async def test_who_hung_up_is_told_where_the_telephony_knows():
    outlet, detector = Outlet(), Words()
    run = runner(outlet, detector=detector)
    await run.start()
    run.open(CallInfo(call_id="c"), paced=True)
    await run.close("c", "hangup", by="customer")
    await run.stop()
    assert detector.seen[-1].by == "customer"
    (ended,) = outlet.of(CallEnded)
    assert ended.by == "customer"


@pytest.mark.parametrize("paced", [True, False])
async def test_a_word_that_only_the_prompt_has_reaches_no_detector(paced):
    outlet, detector = Outlet(), Words("国家担保")
    run = runner(
        outlet,
        lambda request: "国家担保" if request.prompt.text else "可以的",
        detector=detector,
        prompt=lambda call: "以下是银行客服的普通话通话。保本保息、国家担保",
    )
    await run.start()
    await whole_call(run, np.concatenate([silence(500), tone(800), silence(800)]), paced=paced)
    await run.stop()
    assert [t.text for t in outlet.of(Transcript) if t.final] == ["可以的"]
    assert not [e for e in detector.seen if isinstance(e, Transcript) and "国家担保" in e.text]
    assert not outlet.of(Alert)
