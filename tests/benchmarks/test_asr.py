from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.asr import figures, measure_speech, noise_figures, prompt_text
from benchmarks.engine import Listened, Watched, both_sides, listen
from benchmarks.speech import Clip
from streams.events import Transcript
from streams.testing import ScriptedTranscriber, tone


def clips(folder: Path, *texts: str) -> list[Clip]:
    out = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.wav"
        # Each of another length: the scripted transcriber tells them apart by it.
        milliseconds = 1_000 + 500 * number
        with wave.open(str(path), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(16_000)
            sound.writeframes(tone(milliseconds).astype("<i2").tobytes())
        out.append(Clip(path, milliseconds / 1000, "asr", text))
    return out


def reader(script: Callable[[float], str]) -> Watched:
    return Watched(ScriptedTranscriber(lambda request: script(round(2 * request.seconds) / 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize("offer", ["batches", "live"])
def test_every_clip_gets_its_own_answer(tmp_path: Path, offer: str) -> None:
    spoken = clips(tmp_path, "保本保息", "稳赚不赔", "验证码")
    read = {1.0: "保本保锡", 1.5: "稳赚不赔", 2.0: "验证码"}
    lines, summary = measure_speech(spoken, reader(read.__getitem__), "", offer, full=True)  # type: ignore[arg-type]
    assert [line.answer.transcript.text for line in lines] == ["保本保锡", "稳赚不赔", "验证码"]
    assert summary["cer"] == pytest.approx(1 / 11, abs=1e-4)
    assert (summary["cer_full"], summary["points_lost"]) == (summary["cer"], 0.0)
    assert (summary["loops"], summary["retries"]) == (0, 0)


def test_a_loop_that_a_guard_refused_is_counted_as_a_loop(tmp_path: Path) -> None:
    spoken = clips(tmp_path, "今天的新闻到这里")
    lines, _ = measure_speech(spoken, reader(lambda _: "新闻的新闻" * 20), "", "batches", full=False)
    assert lines[0].answer.transcript.text == ""
    assert figures(lines)["loops"] == 1
    assert figures(lines)["retries"] == 1


def test_nothing_measured_is_no_rate() -> None:
    assert figures([])["cer"] is None


def test_noise_is_counted_once_though_both_channels_hear_it() -> None:
    shown = Transcript(
        call_id="n", utterance_id="n:agent:0", role="agent", start_ms=0, end_ms=900, text="嗯，好", final=True
    )
    listened = Listened("n", 60.0, finals=[shown, shown])
    assert noise_figures([listened])["noise_characters_per_minute"] == 2.0


def test_silence_on_both_channels_gives_no_utterance(tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(32_000))
    silence = Clip(path, 1.0, "noise", None)
    calls = [("silence", 1.0, both_sides(silence))]
    listened, _ = listen(calls, reader(lambda _: "没有"), paced=False, at_once=1)
    assert (listened[0].finals, listened[0].alerts) == ([], [])


def test_the_prompts_grow_from_none_to_the_packs() -> None:
    assert prompt_text("none") == ""
    assert prompt_text("pack").startswith(prompt_text("default"))
