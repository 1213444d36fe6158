"""A call as it is heard: its channels' listeners, how far they are, when it came in. No clock of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable

from streams.events import AudioFrame, CallInfo, Channel, Gap, Hold, Trouble
from streams.listen import Endpointing, Heard, Listener
from streams.music import Holds
from streams.quality import CallQuality
from streams.vad import Probabilities, Vad, together


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

    ``take`` for everything that comes in, ``hear_together`` for what is to be heard of it; both say what
    follows, nothing is sent anywhere from here.
    """

    ALIVE_MS = 2_000
    """A channel that lags this far behind the other one has stopped: it no longer holds back timers."""

    def __init__(
        self, info: CallInfo, vad: Callable[[], Vad], endpointing: Endpointing | None = None
    ) -> None:
        self.info = info
        self.listeners = {
            channel: Listener(info.call_id, channel, vad(), endpointing) for channel in info.channels
        }
        self.arrivals = {channel: Arrivals() for channel in info.channels}
        self._holds = Holds(info.call_id, info.channels)
        self._quality = CallQuality(info.call_id, info.channels)
        self.gap_ms = 0
        self.last_arrival_s: float | None = None

    @property
    def media_ms(self) -> int:
        """How far the call was heard: the furthest channel."""
        return max(listener.media_ms for listener in self.listeners.values())

    @property
    def watermark_ms(self) -> int:
        """Media time up to which every living channel was heard: timers are served up to here."""
        front = self.media_ms
        return min(
            (m.media_ms for m in self.listeners.values() if front - m.media_ms <= self.ALIVE_MS),
            default=front,
        )

    def take(self, item: AudioFrame | Gap, arrived_s: float) -> None:
        """Take the next piece of a channel; ``hear_together`` then hears it.

        ``arrived_s``: clock at which its last sample came in. Raises ``KeyError`` when the call has no such
        channel.
        """
        if isinstance(item, Gap):
            self.gap_ms += item.duration_ms
            return
        self.last_arrival_s = arrived_s
        self.arrivals[item.channel].note(item.media_ms + item.duration_ms, arrived_s)
        self.listeners[item.channel].offer(item)

    def judged(self, listener: Listener, probabilities: Probabilities) -> list[Heard | Hold | Trouble]:
        """Take what the judge says of ``listener``'s windows; return what was heard."""
        heard = (listener.channel, listener.windows(), probabilities, listener.position)
        holds = self._holds.heard(*heard)
        for hold in holds:
            self._quality.hold(hold)
        return [*holds, *self._quality.heard(*heard), *listener.judged(probabilities)]

    def told(self, hold: Hold) -> None:
        """The telephony tells of holds itself: music tells nothing any more."""
        self._holds.telephony_told()
        self._quality.hold(hold)

    @property
    def is_held(self) -> bool:
        return self._quality.is_held

    def entered(self, channel: Channel, media_ms: int) -> float | None:
        """When the sample at ``media_ms`` was in the server; by the later channel if this is none."""
        if channel in self.arrivals:
            return self.arrivals[channel].entered(media_ms)
        known = [e for a in self.arrivals.values() if (e := a.entered(media_ms)) is not None]
        return max(known, default=None)

    def finish(self) -> list[Heard]:
        """No more audio will come: cut what is being said on every channel."""
        return [heard for listener in self.listeners.values() for heard in listener.finish()]


def hear_together(calls: Iterable[HeardCall]) -> list[tuple[HeardCall, list[Heard | Hold | Trouble]]]:
    """Hear what ``calls`` have taken: one run of the judge for all their channels.

    Returns every call that had something to hear, with its speech edges, utterances, holds and troubles,
    those of each channel in order.
    """
    asked = [
        (call, listener, windows)
        for call in calls
        for listener in call.listeners.values()
        if len(windows := listener.windows())
    ]
    judged = together([(listener.vad, windows) for _, listener, windows in asked])
    out: dict[int, tuple[HeardCall, list[Heard | Hold | Trouble]]] = {}
    for (call, listener, _), probabilities in zip(asked, judged, strict=True):
        heard = call.judged(listener, probabilities)
        out.setdefault(id(call), (call, []))[1].extend(heard)
    return list(out.values())
