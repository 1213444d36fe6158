"""A call as it is heard: its channels' listeners, how far they are, when it came in. No clock of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from streams.events import AudioFrame, CallInfo, Channel, Gap, Hold, Trouble
from streams.judge import Answer, Question
from streams.listen import Endpointing, Heard, Listener


class Arrivals:
    """When each moment of a channel's media time entered the server; covers the last ``KEPT`` entries.

    One entry per ``STEP_MS`` of media: a minute of audio, enough for any utterance and its way through
    the model.
    """

    STEP_MS = 60
    KEPT = 1_000

    def __init__(self) -> None:
        self._media: deque[int] = deque(maxlen=self.KEPT)
        self._clock: deque[float] = deque(maxlen=self.KEPT)

    def note(self, media_ms: int, now_s: float) -> None:
        if not self._media or media_ms - self._media[-1] >= self.STEP_MS:
            self._media.append(media_ms)
            self._clock.append(now_s)

    def entered(self, media_ms: int) -> float | None:
        """Clock at which the sample at ``media_ms`` was in the server; ``None`` if not known."""
        if not self._media:
            return None
        index = min(bisect_left(self._media, media_ms), len(self._media) - 1)
        return self._clock[index]


class HeardCall:
    """The state of one call's hearing between its first frame and its end.

    ``take`` for everything that comes in, ``ask`` for what the judge has to be asked about it, ``answered``
    for what follows from the answers. Nothing is sent anywhere from here.
    """

    ALIVE_MS = 2_000
    """A channel that lags this far behind the other one has stopped: it no longer holds back timers."""

    def __init__(self, info: CallInfo, endpointing: Endpointing | None = None) -> None:
        self.info = info
        self.listeners = {channel: Listener(info.call_id, channel, endpointing) for channel in info.channels}
        self.arrivals = {channel: Arrivals() for channel in info.channels}
        self.gap_ms = 0
        self.last_arrival_s: float | None = None
        self.is_held = False
        """Whether the call is on hold, by what was told and heard so far."""
        self._heard_ms = dict.fromkeys(info.channels, 0)
        """How far each channel was heard; what is with the judge is not."""
        self._asked: list[tuple[Listener, bool, int]] | None = None
        """Of each channel: whether something of it is with the judge, how far it will then be heard."""

    @property
    def media_ms(self) -> int:
        """How far the call was heard: the furthest channel."""
        return max(self._heard_ms.values())

    @property
    def watermark_ms(self) -> int:
        """Media time up to which every living channel was heard: timers are served up to here."""
        front = self.media_ms
        return min((ms for ms in self._heard_ms.values() if front - ms <= self.ALIVE_MS), default=front)

    def take(self, item: AudioFrame | Gap, arrived_s: float) -> None:
        """Take the next piece of a channel; ``ask`` then says what there is to be heard.

        ``arrived_s``: clock at which its last sample came in. Raises ``KeyError`` when the call has no such
        channel.
        """
        if isinstance(item, Gap):
            self.gap_ms += item.duration_ms
            return
        self.last_arrival_s = arrived_s
        self.arrivals[item.channel].note(item.media_ms + item.duration_ms, arrived_s)
        self.listeners[item.channel].offer(item)

    @property
    def is_asking(self) -> bool:
        """Whether the judge was asked, and has not answered."""
        return self._asked is not None

    def ask(self) -> list[Question]:
        """What the judge is to be asked now, a question a channel; nothing while it is being asked."""
        if self._asked is not None:
            return []
        self._asked, questions = [], []
        for channel, listener in self.listeners.items():
            windows = listener.windows()
            self._asked.append((listener, len(windows) > 0, listener.asked_ms))
            if len(windows):
                questions.append(Question(self.info.call_id, channel, listener.position, windows))
        if not questions:
            self.answered([])
        return questions

    def answered(self, answers: Sequence[Answer]) -> list[Heard | Hold | Trouble]:
        """Take what the judge answers to each of the questions, in their order; return what was heard.

        ``ask`` again: more may have been taken meanwhile, and what is behind a hole is a question of its own.
        """
        asked, self._asked = self._asked or [], None
        given, out = iter(answers), list[Heard | Hold | Trouble]()
        for listener, is_asked, upto_ms in asked:
            if is_asked:
                answer = next(given)
                for item in answer.found:
                    if isinstance(item, Hold):
                        self.is_held = item.held
                out += answer.found
                out += listener.judged(answer.probabilities)
            self._heard_ms[listener.channel] = upto_ms
        return out

    def unanswered(self) -> None:
        """The judge failed: what it was asked about is asked again."""
        self._asked = None

    def told(self, hold: Hold) -> None:
        """The telephony tells of holds."""
        self.is_held = hold.held

    def entered(self, channel: Channel, media_ms: int) -> float | None:
        """When the sample at ``media_ms`` was in the server; by the later channel if this is none."""
        if channel in self.arrivals:
            return self.arrivals[channel].entered(media_ms)
        known = [e for a in self.arrivals.values() if (e := a.entered(media_ms)) is not None]
        return max(known, default=None)

    def finish(self) -> list[Heard]:
        """No more audio will come: cut what is being said on every channel."""
        return [heard for listener in self.listeners.values() for heard in listener.finish()]
