"""What a recognition worker answers, and when a message is done."""

import asyncio

import pytest

from streams import wire
from streams.events import Utterance
from streams.reading import Reader
from streams.testing import ScriptedTranscriber, tone


def speech(start_ms=0, final=True, ms=1_000, call_id="c", **more):
    utterance = Utterance(
        call_id=call_id,
        channel="agent",
        start_ms=start_ms,
        end_ms=start_ms + ms,
        pcm=tone(ms).astype("<i2").tobytes(),
        final=final,
        endpoint="pause" if final else "breath",
    )
    return wire.speech(utterance, source="g", seq=7, cut_at=1.0, **more)


class Rig:
    def __init__(self, transcriber=None, kept=()):
        self.answers, self.done, self.fetched = [], [], []
        self._kept = dict(kept)
        self.now = 0.0
        self.reader = Reader(
            transcriber or ScriptedTranscriber(lambda request: "您好"),
            self._post,
            self._fetch,
            on_step=lambda: None,
            clock=lambda: self.now,
            wall=lambda: 2.0,
        )

    def _post(self, message, done):
        self.answers.append(message.value)
        done()

    async def _fetch(self, call_id, offset):
        self.fetched.append((call_id, offset))
        return self._kept.get(offset)

    def take(self, message, offset=0):
        self.reader.speech(message, offset, lambda: self.done.append(offset))

    async def until(self, count):
        for _ in range(100_000):
            if len(self.answers) >= count:
                return
            await asyncio.sleep(0)
        raise AssertionError("it never came")


async def test_a_final_is_answered_once_and_done_when_its_answer_is_kept():
    rig = Rig()
    rig.take(speech(), 5)
    assert rig.done == []
    await rig.until(1)
    [read] = rig.answers
    assert (read.transcript.text, read.source, read.seq, read.offset) == ("您好", "g", 7, 5)
    assert (read.cut_s, read.done_s) == (1.0, 2.0)
    assert rig.done == [5]
    assert rig.reader.in_model == 0


async def test_a_message_that_comes_again_is_not_read_again():
    transcriber = ScriptedTranscriber(lambda request: "您好")
    rig = Rig(transcriber)
    rig.take(speech(), 5)
    rig.take(speech(), 5)
    await rig.until(1)
    rig.take(speech(), 5)
    assert rig.done == [5, 5, 5]
    assert len(transcriber.batches) == 1
    assert rig.answers == [rig.answers[0]] * 2, "while it was in the model, and from what is remembered"


async def test_a_beginning_is_done_at_once():
    rig = Rig()
    rig.take(speech(final=False), 3)
    assert rig.done == [3]
    await rig.until(1)
    assert not rig.answers[0].transcript.final


def beginning(ms, skipped_ms=0, start_ms=0):
    utterance = Utterance(
        call_id="c",
        channel="agent",
        start_ms=start_ms,
        end_ms=start_ms + ms,
        pcm=tone(ms).astype("<i2").tobytes(),
        final=False,
        endpoint="breath",
    )
    return wire.speech(utterance, 16 * skipped_ms, source="g", seq=7, cut_at=1.0)


async def test_a_beginning_is_put_behind_what_came_of_it_before():
    lengths = []
    rig = Rig(ScriptedTranscriber(lambda request: lengths.append(len(request.pcm)) or "您好"))
    rig.take(beginning(800), 1)
    await rig.until(1)
    rig.take(beginning(1_900, skipped_ms=800), 2)
    await rig.until(2)
    assert lengths == [2 * 16 * 800, 2 * 16 * 1_900]
    assert rig.done == [1, 2]
    rig.take(speech(ms=2_500), 3)
    await rig.until(3)
    assert not rig.reader._beginnings


@pytest.mark.parametrize("before", [None, beginning(500), beginning(900, start_ms=70)])
async def test_a_beginning_whose_beginning_went_elsewhere_is_left_to_its_final(before):
    rig = Rig()
    if before is not None:
        rig.take(before, 1)
        await rig.until(1)
    rig.take(beginning(1_900, skipped_ms=800), 2)
    assert rig.done[-1] == 2
    rig.take(speech(ms=2_500), 3)
    await rig.until(1 if before is None else 2)
    assert rig.answers[-1].transcript.final


async def test_broken_audio_says_so():
    rig = Rig()
    broken = wire.Speech(
        call_id="c",
        channel="agent",
        start_ms=0,
        end_ms=10,
        final=True,
        endpoint="pause",
        packed=b"nonsense",
        source="g",
        seq=0,
    )
    with pytest.raises(wire.WireError):
        rig.take(broken)


def search(utterance_id="c:agent:0", offset=5):
    return wire.Search(call_id="c", utterance_id=utterance_id, text="您好", offset=offset)


async def test_words_are_looked_for_in_what_was_read_lately():
    rig = Rig()
    rig.take(speech(), 5)
    await rig.until(1)
    done = []
    await rig.reader.search(search(), lambda: done.append(1))
    await rig.until(2)
    assert [word.text for word in rig.answers[1].words] == ["您", "好"]
    assert done == [1]
    assert rig.fetched == []


async def test_who_has_not_read_it_fetches_the_audio_again():
    rig = Rig(kept={5: speech()})
    await rig.reader.search(search(), lambda: None)
    await rig.until(1)
    assert rig.fetched == [("c", 5)]
    assert len(rig.answers[0].words) == 2


@pytest.mark.parametrize("kept", [{}, {5: speech(start_ms=700)}], ids=["gone", "another one"])
async def test_audio_that_is_not_kept_any_more_gives_no_words(kept):
    rig = Rig(kept=kept)
    await rig.reader.search(search(), lambda: None)
    assert [found.words for found in rig.answers] == [()]


async def test_what_was_read_lately_is_bounded():
    rig = Rig()
    rig.reader.HELD_BYTES = 100_000
    rig.reader.ANSWERED = 3
    for number in range(8):
        rig.take(speech(start_ms=2_000 * number), number)
    await rig.until(8)
    assert len(rig.reader._held) == 3
    assert rig.reader._held_bytes <= 100_000
    assert len(rig.reader._answered) == 3


async def test_an_utterance_that_is_never_finished_is_forgotten():
    rig = Rig()
    rig.take(speech(final=False))
    await rig.until(1)
    rig.now += Reader.IDLE_S + 1
    rig.reader.tick()
    assert not rig.reader._partials
    assert not rig.reader._last


async def test_it_says_how_many_calls_it_holds():
    state = Rig(ScriptedTranscriber(lambda request: "", speech_cost=0.1)).reader.state()
    assert state.room == 17, "two workers, of which 85 % may go to finals"
    assert state.step == 0
    assert state.pace_ms is not None


async def test_a_word_that_only_the_prompt_has_is_not_answered():
    rig = Rig(ScriptedTranscriber(lambda request: "国家担保" if request.prompt.text else "可以的"))
    rig.take(speech(prompt="以下是银行客服的普通话通话。保本保息、国家担保"))
    await rig.until(1)
    assert [read.transcript.text for read in rig.answers] == ["可以的"]
    assert rig.done == [0]
