"""The recogniser around a scripted model; the real one is in test_transcribe.py and test_end_to_end.py."""

import asyncio
import threading

import numpy as np
import pytest

from app.build import rules
from app.demo.truth import CALLS, load
from app.media import open_recording
from streams.batching import Kind
from streams.bias import bias
from streams.events import SAMPLE_RATE, CallInfo, Utterance
from streams.recognise import Recogniser
from streams.testing import ScriptedTranscriber
from streams.transcribe import Request


def utterance(end_ms, final, endpoint=None, start_ms=0, call_id="c"):
    return Utterance(
        call_id=call_id,
        channel="agent",
        start_ms=start_ms,
        end_ms=end_ms,
        pcm=bytes(32 * (end_ms + 128 - start_ms)),
        final=final,
        endpoint=endpoint or ("pause" if final else "breath"),
    )


class Heard:
    """A recogniser, and what it answered."""

    def __init__(self, script=lambda request: f"{request.seconds:.1f}", busy=0.0, prompt="银行", **changes):
        self.asked, self.finals, self.partials = [], [], []

        def asked(request):
            self.asked.append(round(request.seconds, 1))
            return script(request)

        self.transcriber = ScriptedTranscriber(asked, **changes)
        self.recogniser = Recogniser(
            self.transcriber, self.finals.append, self.partials.append, on_step=lambda: None
        )
        self.recogniser.headroom.busy = lambda now_s: busy
        self.prompt = self.recogniser.prompt(prompt)

    async def submit(self, item, settle=True, live=True):
        self.recogniser.submit(item, self.prompt, live=live)
        while settle and (self.recogniser._running or len(self.recogniser._scheduler)):
            await asyncio.sleep(0)
            await asyncio.gather(*self.recogniser._running)
        await asyncio.sleep(0)


async def until(reached):
    for _ in range(1_000_000):
        if reached():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


async def test_an_utterance_without_a_breath_is_read_once_when_it_ends():
    heard = Heard()
    await heard.submit(utterance(2000, final=True))
    assert heard.asked == [2.1]
    assert [r.transcript.text for r in heard.finals] == ["2.1"]


async def test_what_was_read_at_the_breath_is_the_final():
    heard = Heard()
    await heard.submit(utterance(2000, final=False))
    await heard.submit(utterance(2000, final=True))
    assert heard.asked == [2.1]
    assert [r.transcript.text for r in heard.finals] == ["2.1"]


async def test_a_final_waits_for_the_reading_of_its_breath_that_is_under_way():
    heard = Heard()
    await heard.submit(utterance(2000, final=False), settle=False)
    await heard.submit(utterance(2000, final=True))
    assert heard.asked == [2.1]
    assert len(heard.finals) == 1
    assert not heard.partials, "the final says it already"


async def test_with_time_each_breath_is_read_from_the_beginning():
    heard = Heard()
    await heard.submit(utterance(2000, final=False))
    await heard.submit(utterance(4000, final=False))
    await heard.submit(utterance(4000, final=True))
    assert heard.asked == [2.1, 4.1]
    assert heard.finals[0].transcript.text == "4.1"


async def test_without_time_only_what_is_new_is_read_and_the_final_is_put_together():
    heard = Heard(busy=1.0)
    await heard.submit(utterance(2000, final=False))
    await heard.submit(utterance(4000, final=False))
    await heard.submit(utterance(6000, final=True))
    assert heard.asked == [2.1, 2.1, 2.1]
    assert heard.finals[0].transcript.text == "2.1，2.1，2.1"
    assert [p.transcript.text for p in heard.partials] == ["2.1", "2.1，2.1"]


async def test_a_part_that_a_guard_refuses_makes_the_whole_utterance_be_read():
    heard = Heard(script=lambda r: "请不吝点赞订阅" if r.seconds < 3 else "好的没有问题", busy=1.0)
    await heard.submit(utterance(2000, final=False))
    await heard.submit(utterance(4000, final=True))
    assert heard.finals[0].transcript.text == "好的没有问题"


async def test_a_model_that_fails_still_gives_every_final():
    def broken(request):
        raise MemoryError

    heard = Heard(script=broken, busy=1.0)
    await heard.submit(utterance(2000, final=False))
    await heard.submit(utterance(2000, final=True))
    await heard.submit(utterance(9000, final=True, start_ms=5000))
    assert [r.transcript.rejected for r in heard.finals] == ["model_failed"] * 2


async def test_a_breath_that_is_still_waiting_gives_way_to_its_final():
    heard = Heard(workers=1)
    await heard.submit(utterance(1000, final=True, call_id="other"), settle=False)
    await heard.submit(utterance(2000, final=False), settle=False)
    await heard.submit(utterance(2000, final=True))
    assert heard.asked == [1.1, 2.1]
    assert len(heard.finals) == 2


async def test_what_was_read_is_forgotten_with_the_call():
    heard = Heard()
    await heard.submit(utterance(2000, final=False))
    heard.recogniser.forget("c")
    assert not heard.recogniser._parts


async def test_prompts_that_nobody_uses_any_more_go():
    heard = Heard()
    for number in range(Recogniser.PROMPTS + 50):
        heard.recogniser.prompt(str(number))
    assert len(heard.recogniser._prompts) <= Recogniser.PROMPTS


async def test_nothing_is_left_behind_when_all_is_answered():
    heard = Heard(busy=1.0)
    for end in (2000, 4000):
        await heard.submit(utterance(end, final=False))
    await heard.submit(utterance(4000, final=True))
    assert not heard.recogniser._ending
    assert not heard.recogniser._parts
    assert all(heard.recogniser._scheduler.waiting(kind) == 0 for kind in Kind)


async def test_a_part_that_a_guard_refused_is_no_evidence_behind_the_next_one():
    heard = Heard(script=lambda r: "请不吝点赞订阅" if r.seconds < 3 else "好的没有问题", busy=1.0)
    await heard.submit(utterance(2000, final=False))
    await heard.submit(utterance(6000, final=False))
    assert [(p.transcript.text, p.read) for p in heard.partials] == [("好的没有问题", 6)]


async def test_a_detector_that_fails_on_one_final_does_not_keep_the_others_from_theirs():
    heard = Heard()
    told = heard.recogniser._on_final

    def fails_once(recognised):
        heard.recogniser._on_final = told
        raise ValueError("quotes the text")

    heard.recogniser._on_final = fails_once
    await heard.submit(utterance(2000, final=False))
    await heard.submit(utterance(2000, final=True))
    await heard.submit(utterance(9000, final=True, start_ms=5000))
    assert [r.utterance.end_ms for r in heard.finals] == [9000]


async def test_word_times_that_fail_to_be_told_do_not_stop_the_model():
    heard = Heard()

    def fails(words):
        raise ValueError

    item = utterance(2000, final=True)
    heard.recogniser.locate(item, heard.prompt, "好的", fails)
    await heard.submit(item)
    assert len(heard.finals) == 1


# ── words of the prompt ───────────────────────────────────────────────────────────────────────────

PROMPT = "以下是银行客服的普通话通话。保本保息、国家担保"


def copies(untold="可以的", told="国家担保"):
    """A model that hears little: told words, it writes one of them; untold, what it takes the sound for."""
    return Heard(lambda request: told if request.prompt.text else untold, prompt=PROMPT)


async def test_a_word_of_the_prompt_is_read_again_without_it_and_that_decides():
    heard = copies()
    await heard.submit(utterance(800, final=True))
    assert [(r.transcript.text, r.transcript.rejected) for r in heard.finals] == [("可以的", None)]
    assert heard.transcriber.batches == [(250, 1), (750, 1)], "the second time in a larger window"


async def test_where_both_readings_sound_alike_the_prompts_word_stays():
    heard = copies(untold="锅家单薄")
    await heard.submit(utterance(800, final=True))
    assert [r.transcript.text for r in heard.finals] == ["国家担保"]


async def test_a_word_of_the_prompt_before_others_is_read_again_too():
    # "可以的，我现在就帮您…" of a demo call: the soft beginning was read as the prompt's last word.
    heard = copies(told="国家担保我现在就帮您提交申请", untold="可以到我现在就帮您提交申请")
    await heard.submit(utterance(3000, final=True))
    assert [r.transcript.text for r in heard.finals] == ["可以到我现在就帮您提交申请"]
    heard = copies(told="我们这个产品是国家担保的您放心", untold="我们这个产品是果家单保的您放心")
    await heard.submit(utterance(3000, final=True))
    assert [r.transcript.text for r in heard.finals] == ["我们这个产品是国家担保的您放心"]


async def test_a_recording_that_is_replayed_is_read_again_too():
    heard = copies()
    await heard.submit(utterance(800, final=True), live=False)
    assert [r.transcript.text for r in heard.finals] == ["可以的"]


async def test_nothing_is_said_where_the_second_reading_has_nothing_or_fails():
    heard = copies(untold="")
    await heard.submit(utterance(800, final=True))

    def fails(request):
        if not request.prompt.text:
            raise MemoryError
        return "国家担保"

    broken = Heard(fails, prompt=PROMPT)
    await broken.submit(utterance(800, final=True))
    told = [(r.transcript.text, r.transcript.rejected) for r in (*heard.finals, *broken.finals)]
    assert told == [("", "empty"), ("", "model_failed")]


async def test_a_machine_that_has_no_time_for_retries_still_reads_these_again():
    heard = copies()
    heard.recogniser.degradation.step = 3
    await heard.submit(utterance(800, final=True))
    assert [r.transcript.text for r in heard.finals] == ["可以的"]


async def test_a_partial_of_the_prompts_words_is_told_when_it_was_read_again():
    heard = copies()
    await heard.submit(utterance(800, final=False, endpoint="partial"))
    assert [p.transcript.text for p in heard.partials] == ["可以的"]
    assert heard.transcriber.batches == [(250, 1), (250, 1)], "it goes on: no larger window for it"


async def test_a_partial_that_is_read_again_gives_way_to_a_longer_one_that_was_told_meanwhile():
    gate = threading.Event()

    def script(request):
        if request.seconds > 1:
            return "可以的没有问题"
        return "国家担保" if request.prompt.text or not gate.wait(60) else "可以的"

    heard = Heard(script, prompt=PROMPT)
    await heard.submit(utterance(800, final=False, endpoint="partial"), settle=False)
    await until(lambda: len(heard.asked) == 2)
    await heard.submit(utterance(1500, final=False, endpoint="partial"), settle=False)
    await until(lambda: heard.partials)
    gate.set()
    await asyncio.gather(*heard.recogniser._running)
    assert [p.transcript.text for p in heard.partials] == ["可以的没有问题"]


async def test_what_was_read_at_a_breath_is_told_when_it_was_read_again():
    heard = copies()
    await heard.submit(utterance(800, final=False))
    assert [p.transcript.text for p in heard.partials] == ["可以的"]
    await heard.submit(utterance(800, final=True))
    assert [r.transcript.text for r in heard.finals] == ["可以的"]
    assert len(heard.asked) == 2, "the final is what was decided at the breath"


async def test_a_final_waits_until_its_breath_was_read_again():
    heard = copies()
    await heard.submit(utterance(800, final=False), settle=False)
    await asyncio.gather(*heard.recogniser._running)
    await heard.submit(utterance(800, final=True))
    assert [r.transcript.text for r in heard.finals] == ["可以的"]
    assert not heard.partials
    assert not heard.recogniser._ending


async def test_read_part_by_part_only_the_part_that_is_in_doubt_is_read_again():
    def script(request):
        if request.seconds > 3:
            return "我现在就帮您提交申请"
        return "国家担保" if request.prompt.text else "可以的"

    heard = Heard(script, busy=1.0, prompt=PROMPT)
    await heard.submit(utterance(800, final=False))
    await heard.submit(utterance(6000, final=True))
    assert [r.transcript.text for r in heard.finals] == ["可以的，我现在就帮您提交申请"]
    assert heard.asked == [0.9, 0.9, 5.3]


async def test_second_readings_of_several_calls_share_a_batch():
    heard = Heard(lambda request: "国家担保" if request.prompt.text else "可以的", prompt=PROMPT, workers=1)
    for number in range(4):
        await heard.submit(utterance(800, final=True, call_id=str(number)), settle=False)
    await heard.submit(utterance(800, final=True, call_id="last"))
    assert len(heard.finals) == 5
    assert {r.transcript.text for r in heard.finals} == {"可以的"}
    assert max(size for frames, size in heard.transcriber.batches if frames == 750) > 1


def beginnings():
    """The first half second of each turn of the demo calls: clips that hold next to nothing."""
    for call in load(CALLS):
        frames = list(open_recording(call.audio).frames("c"))
        for role in ("agent", "customer"):
            samples = np.concatenate([np.frombuffer(f.pcm, "<i2") for f in frames if f.channel == role])
            for turn in call.turns:
                if turn.role == role and turn.text:
                    at = round(turn.start * SAMPLE_RATE)
                    yield samples[max(0, at - SAMPLE_RATE // 10) : at + SAMPLE_RATE // 2].tobytes()


@pytest.mark.model
async def test_no_word_of_the_prompt_is_heard_in_what_is_too_short_to_hold_it(whisper):
    words = rules(None).hot_words()
    text = bias(CallInfo(call_id="c"), words)
    finals, copied = [], 0
    recogniser = Recogniser(whisper, finals.append, lambda _: None, on_step=lambda: None)
    prompt = recogniser.prompt(text)
    clips = list(beginnings())[::3]
    for at in range(0, len(clips), 4):
        readings = whisper.transcribe([Request(pcm, prompt) for pcm in clips[at : at + 4]], 250)
        copied += sum(any(word in reading.text for word in words) for reading in readings)
    assert copied, "else this test tests nothing: make the clips shorter"
    for number, pcm in enumerate(clips):
        item = Utterance(
            call_id=str(number),
            channel="agent",
            start_ms=0,
            end_ms=len(pcm) // 32,
            pcm=pcm,
            final=True,
            endpoint="pause",
        )
        recogniser.submit(item, prompt, live=False)
    while len(finals) < len(clips):
        await asyncio.gather(*recogniser._running)
        await asyncio.sleep(0)
    recogniser.close()
    found = [r.transcript.text for r in finals if any(word in r.transcript.text for word in words)]
    assert found == []
