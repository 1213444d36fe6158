import shutil

import numpy as np
import pytest

from app.demo.truth import load
from app.media import open_recording
from streams.events import SAMPLE_RATE
from streams.guards import decided, recited, rejected, wordless
from streams.testing import silence
from streams.transcribe import (
    FULL_WINDOW,
    Request,
    WhisperTranscriber,
    retry_window_for,
    window_for,
)


def test_a_clip_goes_into_the_smallest_window_that_holds_it_and_a_margin():
    assert window_for(0.01) == 250
    assert window_for(1.86) == 250
    assert window_for(1.87) == 375
    assert window_for(14.3) == 1500
    assert window_for(14.4) == FULL_WINDOW


def test_a_doubted_reading_gets_a_window_that_is_mostly_silence():
    assert retry_window_for(250) == 750
    assert retry_window_for(500) == 1000
    assert retry_window_for(1000) == FULL_WINDOW


def clip(recording, role, start, end):
    frames = [f for f in open_recording(recording).frames("c") if f.channel == role]
    samples = np.concatenate([np.frombuffer(f.pcm, "<i2") for f in frames])
    return samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)].tobytes()


@pytest.fixture(scope="module")
def turns(short_call):
    [call] = [c for c in load(short_call.parent) if c.name == "short"]
    return call.turns


@pytest.mark.model
def test_whisper_writes_down_what_was_said(whisper, short_call, turns):
    from rapidfuzz.distance import Levenshtein

    prompt = whisper.prompt("以下是银行客服的普通话通话。")
    errors = length = 0
    for turn in turns:
        request = Request(clip(short_call, turn.role, turn.start - 0.2, turn.end + 0.2), prompt)
        [reading] = whisper.transcribe([request], window_for(request.seconds))
        errors += Levenshtein.distance(wordless(turn.text), wordless(reading.text))
        length += len(wordless(turn.text))
    assert errors / length < 0.4


@pytest.mark.model
def test_a_batch_reads_as_its_clips_do_one_by_one(whisper, short_call, turns):
    prompt = whisper.prompt("")
    requests = [
        Request(clip(short_call, t.role, t.start, min(t.end, t.start + 4)), prompt) for t in turns[:3]
    ]
    together = whisper.transcribe(requests, 500)
    alone = [whisper.transcribe([request], 500)[0] for request in requests]
    assert [r.text for r in together] == [r.text for r in alone]


@pytest.mark.model
def test_the_cut_down_vocabulary_reads_what_the_whole_one_reads(whisper, model_folder, short_call, turns):
    from rapidfuzz.distance import Levenshtein

    whole = WhisperTranscriber(model_folder, workers=1, threads=1, whole_vocabulary=True)
    text = "以下是银行客服的普通话通话。"
    apart = length = 0
    for turn in turns:
        pcm = clip(short_call, turn.role, turn.start - 0.2, turn.end + 0.2)
        [slim], [full] = (
            engine.transcribe([Request(pcm, engine.prompt(text))], 1500) for engine in (whisper, whole)
        )
        apart += Levenshtein.distance(wordless(slim.text), wordless(full.text))
        length += len(wordless(full.text))
    # Rounding of int8 moves a character here and there.
    assert apart / length < 0.1


@pytest.mark.model
@pytest.mark.parametrize(
    "pcm",
    [
        b"",
        b"\x01\x00",
        silence(1000).tobytes(),
        np.random.default_rng(1).normal(0, 40, 32000).astype("<i2").tobytes(),
    ],
    ids=["nothing", "one sample", "silence", "hiss"],
)
def test_what_holds_no_speech_gives_no_text_that_is_believed(whisper, pcm):
    prompt = whisper.prompt("以下是银行客服的普通话通话。")
    [reading] = whisper.transcribe([Request(pcm, prompt)], 250)
    if recited(reading, prompt.text):
        # On some processors it copies the prompt; then it is read again without.
        [untold] = whisper.transcribe([Request(pcm, whisper.prompt(""))], 250)
        reading = decided(reading, untold, prompt.text)
    assert rejected(reading, prompt.text) is not None or len(reading.text) <= 4


@pytest.mark.model
def test_a_prompt_that_is_too_long_is_cut(whisper):
    assert len(whisper.prompt("保本保息" * 500).tokens) == whisper.MOST_PROMPT_TOKENS


@pytest.mark.model
def test_words_are_found_where_they_are_said(whisper, short_call, turns):
    """Against the time at which the script's own phrase was spoken."""
    for turn in (t for t in turns if t.spans):
        start = turn.start - 0.2
        request = Request(clip(short_call, turn.role, start, turn.end + 0.2), whisper.prompt(""))
        words = whisper.locate(request, turn.text)
        assert "".join(word.text for word in words) == turn.text
        times = [word.start_ms for word in words]
        assert times == sorted(times)
        for span in turn.spans:
            inside = [w for w in words if span.start <= start + (w.start_ms + w.end_ms) / 2000 <= span.end]
            assert abs(start + inside[-1].end_ms / 1000 - span.end) < 0.35


def test_a_token_of_several_characters_shares_its_time_and_a_broken_one_waits_for_its_rest():
    from streams.transcribe import _characters

    raw = "保".encode()
    words = list(_characters([raw[:2], raw[2:], "本息".encode()], [0, 100, 300, 500]))
    assert [(w.text, w.start_ms, w.end_ms) for w in words] == [
        ("保", 0, 300),
        ("本", 300, 400),
        ("息", 400, 500),
    ]


@pytest.mark.model
def test_prompts_come_in_few_lengths_and_keep_their_beginning(whisper):
    lengths = {
        len(whisper.prompt("以下是银行客服的普通话通话。" + "保本保息、" * n).tokens) for n in range(40)
    }
    assert lengths <= {16, 32, 48, 64}
    assert whisper.prompt("银行客服通话" * 40).text.startswith("银行客服通话")
    assert whisper.prompt("  ").tokens == ()


@pytest.mark.model
def test_a_model_in_memory_does_not_need_its_folder_any_more(model_folder, tmp_path, short_call, turns):
    copy = tmp_path / "base"
    shutil.copytree(model_folder, copy)
    engine = WhisperTranscriber(copy, workers=1, threads=1)
    shutil.rmtree(copy)
    turn = turns[0]
    pcm = clip(short_call, turn.role, turn.start, turn.end)
    [reading] = engine.transcribe([Request(pcm, engine.prompt("银行"))], 500)
    assert "银行" in reading.text
    assert engine.locate(Request(pcm, engine.prompt("")), reading.text)


def test_a_prompt_that_is_too_long_loses_whole_words(whisper):
    words = [
        "稳盈三号",
        "王晓燕",
        "12378",
        "保本保息",
        "收益翻倍",
        "国家担保",
        "私下转账",
        "验证码",
        "贷款买理财",
    ]
    prompt = whisper.prompt(f"以下是银行客服的普通话通话。{'、'.join(words)}。")
    assert len(prompt.tokens) == whisper.MOST_PROMPT_TOKENS
    assert not prompt.text.endswith("。")
    assert prompt.text.split("、")[-1] in words
