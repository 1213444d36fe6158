"""How the speakers of a call feel: two witnesses, voice and words, joined for every final utterance.

The voice is judged against the speaker's own first seconds (``baseline``): a raised one is higher, louder,
brighter, livelier, faster and talks over the other side; a lowered one softer, lower, slower, with pauses.
By itself it is believed for two thirds only: it cannot tell delight from anger. The words are judged by
a lexicon (``feelings``). Where both say something, each makes the other more certain.

A learned ``Head`` may take the place of the voice's rule: the same numbers in, probabilities out.
``benchmarks.emotion_train`` makes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, get_args

import msgspec
from msgspec import Struct, field

from detectors.baseline import SOUNDS, Baseline, sounds
from detectors.feelings import FEELINGS, UNPLEASANT, Words, words
from streams.events import (
    CallEvent,
    CallInfo,
    Channel,
    Emotion,
    Feeling,
    Finding,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Voice,
)

FEATURES: Final = (*SOUNDS, *(f"words_{feeling}" for feeling in FEELINGS))
"""What a head is given, in this order: z-scores of the sounds, −4 to 4; what the words say, 0 to 10."""

CALM: Final = 2.0
"""Below this level nobody is called anything but calm."""
_TREND_MS: Final = 30_000
_KEPT_MS: Final = 90_000
_VOICES_KEPT: Final = 64
_FADE_MS: Final = 20_000
"""A feeling halves in this time while its speaker says nothing that tells of any."""
_SHORT_MS, _SHORT_TEXT = 1_000, 2
"""An utterance as short as either, without a word of feeling, tells nothing: 嗯, 对, 好."""
_STEADY_MS: Final = 1_200
"""The sounds of a shorter utterance count for less."""
_RAISED_VOICE: Final = 3.0
_BELIEVED: Final = 0.65
"""How far the voice alone is believed."""

_RAISED: Final = {
    "level": 0.15,
    "peak": 0.1,
    "pitch": 0.35,
    "timbre_0": -0.2,
    "spread": 0.1,
    "rate": 0.1,
    "overlap": 0.1,
}
"""Not by loudness alone: many lines level it out. They cannot level out that a raised voice is brighter."""
_LOWERED: Final = {"level": -0.25, "pitch": -0.3, "spread": -0.1, "rate": -0.15, "paused": 0.2}
_UNUSUAL: Final = 0.7
"""What a calm speaker's utterances reach now and then."""
_RAISED_SCALE, _LOWERED_SCALE = 3.5, 2.5
_LOWEST_MOST: Final = 5.0
"""A subdued voice alone says no more than this: he may be reading out a number."""


class Head(Protocol):
    """A learned judge of the voice; ``app.head.OnnxHead`` loads one."""

    def probabilities(self, features: Sequence[float]) -> Mapping[Feeling, float]:
        """``features``: as ``FEATURES``. Returns the probability of each feeling, in sum 1."""
        ...


class _Felt(Struct, array_like=True, frozen=True):
    end_ms: int
    feeling: Feeling
    level: float


class _Speaker(Struct, array_like=True):
    baseline: Baseline = field(default_factory=Baseline)
    felt: list[_Felt] = field(default_factory=list)
    """The last minute and a half."""
    spoke: list[tuple[int, int | None]] = field(default_factory=list)
    """Stretches of speech, the last one perhaps not ended."""


class _State(Struct, array_like=True):
    speakers: dict[Channel, _Speaker] = field(default_factory=lambda: {c: _Speaker() for c in _CHANNELS})
    voices: dict[str, Voice] = field(default_factory=dict)
    """By utterance, until its transcript comes."""


_CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)


class EmotionDetector:
    """Tells one ``Emotion`` per final utterance; keeps the contract of ``detectors.base.Detector``.

    On a mixed mono recording (``unknown``) two people speak with one voice: there the words alone count.
    """

    def __init__(self, call: CallInfo, head: Head | None = None) -> None:
        self._call_id = call.call_id
        self._head = head
        self._state = _State()

    def on_event(self, event: CallEvent) -> list[Finding]:
        match event:
            case SpeechStarted():
                self._state.speakers[event.channel].spoke.append((event.media_ms, None))
            case SpeechStopped():
                self._stopped(event.channel, event.media_ms)
            case Voice():
                self._state.voices[event.utterance_id] = event
                while len(self._state.voices) > _VOICES_KEPT:
                    del self._state.voices[next(iter(self._state.voices))]
            case Transcript(final=True):
                return [self._felt(event, self._state.voices.pop(event.utterance_id, None))]
            case _:
                pass
        return []

    def wake_at(self) -> int | None:
        return None

    def on_wake(self, now_ms: int) -> list[Finding]:
        return []

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self._state)

    def restore(self, snapshot: bytes) -> None:
        self._state = msgspec.msgpack.decode(snapshot, type=_State)

    # ── one utterance ─────────────────────────────────────────────────────────────────────────────

    def _felt(self, transcript: Transcript, voice: Voice | None) -> Emotion:
        speaker = self._state.speakers[transcript.role]
        said = words(transcript.text, transcript.role)
        scores = self._scores(speaker, transcript, voice)
        heard = None if scores is None else self._heard(scores, said, transcript.end_ms - transcript.start_ms)
        feeling, level = _joined(said, heard)
        if not said.level and _is_short(transcript):
            feeling, level = _carried(speaker, transcript.end_ms, feeling, level)
        if level < CALM:
            feeling = "calm"
        level = round(level, 1)
        speaker.felt.append(_Felt(transcript.end_ms, feeling, level))
        speaker.felt = [f for f in speaker.felt if transcript.end_ms - f.end_ms <= _KEPT_MS]
        return Emotion(
            call_id=self._call_id,
            role=transcript.role,
            utterance_id=transcript.utterance_id,
            media_start_ms=transcript.start_ms,
            media_end_ms=transcript.end_ms,
            feeling=feeling,
            level=level,
            trend=_trend(speaker.felt, transcript.end_ms),
            voice=None if heard is None else round(heard[1], 1),
            words=round(said.level, 1),
        )

    def _scores(self, speaker: _Speaker, transcript: Transcript, voice: Voice | None) -> list[float] | None:
        """The voice against its baseline, which then learns it. What has no text may be no voice at all."""
        if voice is None or transcript.role == "unknown" or not transcript.text:
            return None
        heard = sounds(voice, transcript, self._overlap(transcript))
        scores = speaker.baseline.compare(heard)
        speaker.baseline.learn(heard, transcript.end_ms - transcript.start_ms)
        return scores

    def _heard(self, scores: Sequence[float], said: Words, length_ms: int) -> tuple[Feeling, float]:
        certain = min(1.0, max(0.0, length_ms / _STEADY_MS))
        scores = [score * certain for score in scores]
        if self._head is None:
            return by_rule(scores)
        probabilities = self._head.probabilities(features(scores, said))
        feeling = max(FEELINGS, key=lambda f: probabilities.get(f, 0.0))
        return feeling, min(10.0, max(0.0, 10 * (1 - probabilities.get("calm", 0.0))))

    # ── who speaks over whom ──────────────────────────────────────────────────────────────────────

    def _stopped(self, channel: Channel, media_ms: int) -> None:
        spoke = self._state.speakers[channel].spoke
        if spoke and spoke[-1][1] is None:
            spoke[-1] = (spoke[-1][0], media_ms)
        del spoke[: sum(1 for _, end in spoke if end is not None and media_ms - end > _KEPT_MS)]

    def _overlap(self, transcript: Transcript) -> float:
        """Share of an utterance in which the other side speaks too."""
        length = transcript.end_ms - transcript.start_ms
        if length <= 0:
            return 0.0
        other: Channel = "customer" if transcript.role == "agent" else "agent"
        both = 0
        for start, end in self._state.speakers[other].spoke:
            until = transcript.end_ms if end is None else min(end, transcript.end_ms)
            both += max(0, until - max(start, transcript.start_ms))
        return min(1.0, both / length)


def features(scores: Sequence[float], said: Words) -> list[float]:
    """What a head is given, as ``FEATURES``."""
    return [*scores, *(said.scores[feeling] for feeling in FEELINGS)]


def by_rule(scores: Sequence[float]) -> tuple[Feeling, float]:
    """What a voice says by itself: feeling and level. ``scores``: as ``SOUNDS``."""
    score = dict(zip(SOUNDS, scores, strict=True))
    raised = sum(weight * score[name] for name, weight in _RAISED.items())
    lowered = sum(weight * score[name] for name, weight in _LOWERED.items())
    up = min(10.0, max(0.0, _RAISED_SCALE * (raised - _UNUSUAL)))
    down = min(_LOWEST_MOST, max(0.0, _LOWERED_SCALE * (lowered - _UNUSUAL)))
    if down > up:
        return "sad", down
    effort = max((score["level"] + score["peak"]) / 2, -score["timbre_0"])
    if effort < score["pitch"] / 2:
        return "anxious", up
    return ("angry" if up >= 6 else "displeased"), up


def _joined(said: Words, heard: tuple[Feeling, float] | None) -> tuple[Feeling, float]:
    if heard is None:
        return said.feeling, said.level
    feeling, level = heard
    both = 10 * (1 - (1 - said.level / 10) * (1 - _BELIEVED * level / 10))
    polite = said.feeling == "pleased" and said.level < level and feeling in UNPLEASANT
    if said.level >= CALM and not polite:
        # Displeased words in a raised voice are angry ones.
        is_angry = said.feeling == "displeased" and level >= _RAISED_VOICE and both >= 7
        return ("angry" if is_angry else said.feeling), both
    if polite:
        both = _BELIEVED * level
    return feeling, both


def _is_short(transcript: Transcript) -> bool:
    characters = sum(character.isalnum() for character in transcript.text)
    return characters <= _SHORT_TEXT or transcript.end_ms - transcript.start_ms < _SHORT_MS


def _carried(speaker: _Speaker, now_ms: int, feeling: Feeling, level: float) -> tuple[Feeling, float]:
    """Between two outbursts a 嗯 is no calm: what was felt before fades."""
    if not speaker.felt:
        return feeling, level
    before = speaker.felt[-1]
    faded = before.level * 0.5 ** (max(0, now_ms - before.end_ms) / _FADE_MS)
    return (before.feeling, faded) if faded > level else (feeling, level)


def _trend(felt: Sequence[_Felt], now_ms: int) -> float:
    """Mean unpleasant level of the last 30 s less that of the 30 s before; 0 where either is not known."""

    def mean(since_ms: int, until_ms: int) -> float | None:
        levels = [
            f.level if f.feeling in UNPLEASANT else 0.0 for f in felt if since_ms < f.end_ms <= until_ms
        ]
        return sum(levels) / len(levels) if levels else None

    late = mean(now_ms - _TREND_MS, now_ms)
    early = mean(now_ms - 2 * _TREND_MS, now_ms - _TREND_MS)
    return 0.0 if late is None or early is None else round(late - early, 2)
