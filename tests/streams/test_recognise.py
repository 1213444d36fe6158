"""The recogniser around a scripted model; the real one is in test_transcribe.py and test_end_to_end.py."""

import asyncio

from streams.batching import Kind
from streams.events import Utterance
from streams.recognise import Recogniser
from streams.testing import ScriptedTranscriber


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

    def __init__(self, script=lambda request: f"{request.seconds:.1f}", busy=0.0, **changes):
        self.asked, self.finals, self.partials = [], [], []

        def asked(request):
            self.asked.append(round(request.seconds, 1))
            return script(request)

        self.transcriber = ScriptedTranscriber(asked, **changes)
        self.recogniser = Recogniser(
            self.transcriber, self.finals.append, self.partials.append, on_step=lambda: None
        )
        self.recogniser.headroom.busy = lambda now_s: busy
        self.prompt = self.recogniser.prompt("银行")

    async def submit(self, item, settle=True, live=True):
        self.recogniser.submit(item, self.prompt, live=live)
        while settle and (self.recogniser._running or len(self.recogniser._scheduler)):
            await asyncio.sleep(0)
            await asyncio.gather(*self.recogniser._running)
        await asyncio.sleep(0)


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
