import numpy as np
import pytest

from app.demo.truth import load
from app.media import open_recording
from streams.events import SAMPLE_RATE
from streams.guards import rejected, wordless
from streams.testing import silence
from streams.transcribe import (
    FULL_WINDOW,
    WINDOWS,
    Request,
    WhisperTranscriber,
    partial_window_for,
    window_for,
)


def test_a_clip_goes_into_the_smallest_window_that_holds_it_and_a_margin():
    assert window_for(0.01) == 250
    assert window_for(1.86) == 250
    assert window_for(1.87) == 500
    assert window_for(14.0) == 1500
    assert window_for(15.0) == FULL_WINDOW
    assert list(WINDOWS) == sorted(WINDOWS)


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
    assert rejected(reading, prompt.text) is not None or len(reading.text) <= 4


@pytest.mark.model
def test_a_prompt_that_is_too_long_is_cut(whisper):
    assert len(whisper.prompt("保本保息" * 500).tokens) == whisper.MOST_PROMPT_TOKENS


def test_a_partial_fits_its_window_more_closely():
    assert partial_window_for(1.8) == 250
    assert partial_window_for(2.6) == 375
    assert partial_window_for(40.0) == FULL_WINDOW


@pytest.mark.model
def test_a_prefix_is_gone_on_from_and_not_said_twice(whisper, short_call, turns):
    turn = turns[2]
    pcm = clip(short_call, turn.role, turn.start - 0.2, turn.end)
    prompt = whisper.prompt("以下是银行客服的普通话通话。")
    plain, led = (
        whisper.transcribe([Request(pcm, prompt, prefix)], 500)[0] for prefix in ("", "我推荐您买这")
    )
    assert led.text.startswith("我推荐您买这")
    assert led.text.count("推荐") == plain.text.count("推荐") == 1
    assert "收益" in led.text
