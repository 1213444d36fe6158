"""Is a reading of the model to be believed? Pure checks against hallucination and repetition loops.

Thresholds are those of Whisper's own decoder where it has one (``compression_ratio_threshold`` 2.4,
``no_speech_threshold`` 0.6, ``logprob_threshold`` −1.0; openai/whisper, transcribe.py); the rest was
measured on Mandarin at telephone bandwidth.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from streams.sounding import alike

PHANTOMS = (
    # What the model was taught to hear at the end of subtitled videos: nobody says these on a bank's line.
    "明镜与点点",
    "明镜需要您的支持",
    "字幕由",
    "字幕by",
    "字幕志愿者",
    "字幕制作",
    "中文字幕",
    "请不吝点赞",
    "点赞订阅",
    "订阅转发",
    "打赏支持",
    "amara.org",
    "优优独播剧场",
    "谢谢观看",
    "感谢观看",
    "下期再见",
    "下次再见拜拜",
    "词曲",
    "作曲",
    "编曲",
    "李宗盛",
)
PIECE = 3
"""Characters in a row that a text has of the prompt: fewer are in both by chance."""
_WORDLESS = re.compile(r"[\W_]+")
_BETWEEN_WORDS = re.compile(r"[、。，,]")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model made of one utterance."""

    text: str
    tokens: int
    log_probability: float
    """Mean over the tokens."""
    no_speech: float
    """Probability of ``<|nospeech|>``, 0 to 1."""
    seconds: float
    """Of the utterance."""

    @property
    def compression(self) -> float:
        """Bytes of the text over bytes of its zlib compression: above 2 it repeats itself."""
        raw = self.text.encode()
        return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def wordless(text: str) -> str:
    """Letters and digits only, lower case."""
    return _WORDLESS.sub("", text).lower()


def suspicious(reading: Reading) -> str | None:
    """Why the short window's reading deserves a second one with a larger window; ``None`` if it does not.

    A clip in a short window falls into a repetition loop about ten times as often as in a full one; these
    three signs find nearly all of those.
    """
    if reading.log_probability < -0.8:
        return "log_probability"
    if reading.compression > 1.8:
        return "compression"
    if reading.seconds > 0 and reading.tokens / reading.seconds > 9.0:
        return "rate"
    return None


def rejected(reading: Reading, prompt: str) -> str | None:
    """Why nobody may see this reading; ``None`` when it may be believed."""
    said = wordless(reading.text)
    if not said:
        return "empty"
    if any(phantom in said for phantom in map(wordless, PHANTOMS)):
        return "phantom"
    if reading.no_speech > 0.6 and reading.log_probability < -0.7:
        return "no_speech"
    if reading.log_probability < -1.0:
        return "log_probability"
    if reading.compression > 2.4:
        return "compression"
    if reading.seconds > 0 and len(said) / reading.seconds > 12:
        return "rate"
    told = wordless(prompt)
    if echoes(said, told) or (reading.log_probability < -0.5 and patched(said, told)):
        return "prompt"
    return None


def echoes(said: str, prompt: str) -> bool:
    """Whether the text is the prompt read back: a run of it that no caller would say by chance.

    One phrase of the prompt may well be what was said; two that also stand next to each other in the
    prompt may not.
    """
    return len(said) >= 12 and said in prompt


def patched(said: str, prompt: str) -> bool:
    """Whether the text is put together from pieces of the prompt: what a model does that hears no words.

    At least two pieces of three characters and more, and three quarters of the text.
    """
    pieces = list(_pieces(said, prompt))
    covered = sum(map(len, pieces))
    return len(said) >= 8 and len(pieces) >= 2 and covered >= 0.75 * len(said)


def recited(reading: Reading, prompt: str) -> tuple[str, ...]:
    """What the reading has of the prompt's words.

    Of a clip that tells it little (one short word, a faint or noisy one, a soft beginning) the model copies a
    word of the prompt, the last above all, and writes what it did hear behind it; its own probability does
    not tell, nor how much of the text it is. Words that were really said are also told by a reading without
    the prompt (``decided``).
    """
    said = wordless(reading.text)
    return tuple(_pieces(said, "\n".join(map(wordless, _BETWEEN_WORDS.split(prompt)))))


def decided(told: Reading, untold: Reading, prompt: str) -> Reading:
    """Of a reading that is ``recited`` and one of the same clip without the prompt, the one to go by.

    Where both sound alike the prompt has done what it is for: its words are spelled as the rules expect them.
    """
    heard = wordless(untold.text)
    return told if all(alike(piece, heard) for piece in recited(told, prompt)) else untold


def _pieces(said: str, prompt: str) -> Iterator[str]:
    """The longest runs of ``said`` that stand in ``prompt``, from left to right, ``PIECE`` and longer."""
    at = 0
    while at < len(said):
        length = 0
        while at + length < len(said) and said[at : at + length + 1] in prompt:
            length += 1
        if length >= PIECE:
            yield said[at : at + length]
        at += max(1, length)


def without_loops(text: str) -> str:
    """Shorten what repeats more than twice in a row to one occurrence: ``好的好的好的好的`` → ``好的``.

    Numbers are left alone: a card number may well hold 6666.
    """
    return re.sub(r"((?:(?!\d).){1,12}?)\1{3,}", r"\1", text)
