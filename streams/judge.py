"""Judges what channels sound like: speech or not, music on hold, what is wrong with it. Pure, media time.

It is most of the work of hearing a call, and needs nothing of it but its samples: so it may be done elsewhere
(``app.judging``: in a process of its own). What an answer means for utterances is up to ``streams.listen``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from streams.audio import Samples
from streams.events import Channel, Hold, Trouble
from streams.music import Holds
from streams.quality import CallQuality
from streams.vad import Probabilities, SileroVad, Vad, together


class Question(NamedTuple):
    """What does this sound like? The windows of a channel follow those of its question before, or a hole."""

    call_id: str
    channel: Channel
    first: int
    """Sample index of the first window's first sample."""
    windows: Samples
    """int16, shape (n, WINDOW), n > 0."""


class Answer(NamedTuple):
    probabilities: Probabilities
    """Of speech, one a window: float32, shape (n,)."""
    found: Sequence[Hold | Trouble]
    """What begins or ends, in order."""


class Judge(Protocol):
    """Judges the calls of one runner. None of these blocks, except ``wait``."""

    def open(self, call_id: str, channels: Sequence[Channel]) -> None:
        """A call begins."""

    def close(self, call_id: str) -> None:
        """Nothing more will be asked about a call. Unknown ids are ignored."""

    def told(self, hold: Hold) -> None:
        """The telephony tells of holds itself: what is played tells nothing any more."""

    def judge(self, questions: Sequence[Question], then: Callable[[Sequence[Answer]], None]) -> None:
        """Answer, at once or later: ``then`` gets one answer a question, in their order.

        A channel is asked about once in ``questions``, and not again before the answer. Raises ``KeyError``
        when a call is not open, or has no such channel.
        """

    def wait(self, asking: Callable[[], bool]) -> None:
        """Block until ``asking`` is false: until answers that are wanted at once have come."""


class _Call:
    """What the judge knows of a call."""

    def __init__(self, call_id: str, channels: Sequence[Channel], vad: Callable[[], Vad]) -> None:
        self.vads = {channel: vad() for channel in channels}
        self.holds = Holds(call_id, channels)
        self.quality = CallQuality(call_id, channels)

    def found(self, question: Question, probabilities: Probabilities) -> list[Hold | Trouble]:
        heard = (question.channel, question.windows, probabilities, question.first)
        holds = self.holds.heard(*heard)
        for hold in holds:
            self.quality.hold(hold)
        return [*holds, *self.quality.heard(*heard)]


class LocalJudge:
    """Judges here and at once: one run of the network for all questions."""

    def __init__(self, vad: Callable[[], Vad] = SileroVad) -> None:
        self._vad = vad
        self._calls: dict[str, _Call] = {}

    def open(self, call_id: str, channels: Sequence[Channel]) -> None:
        self._calls[call_id] = _Call(call_id, channels, self._vad)

    def close(self, call_id: str) -> None:
        self._calls.pop(call_id, None)

    def told(self, hold: Hold) -> None:
        if (call := self._calls.get(hold.call_id)) is not None:
            call.holds.telephony_told()
            call.quality.hold(hold)

    def judge(self, questions: Sequence[Question], then: Callable[[Sequence[Answer]], None]) -> None:
        then(self.answers(questions))

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """See ``Judge.judge``."""
        calls = [self._calls[question.call_id] for question in questions]
        judged = together(
            [(call.vads[q.channel], q.windows) for call, q in zip(calls, questions, strict=True)]
        )
        return [
            Answer(probabilities, call.found(question, probabilities))
            for call, question, probabilities in zip(calls, questions, judged, strict=True)
        ]

    def wait(self, asking: Callable[[], bool]) -> None:
        """There is nothing to wait for."""
