"""What detectors find, on its way out: alerts with their latency, progress, emotions. One per runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec.structs import replace
from prometheus_client import Counter

from streams.events import Channel, Detection, Finding, Latency, OutletEvent, Transcript
from streams.followed import FollowedCall
from streams.raising import raised
from streams.sealing import Seal, Sealed

DETECTIONS = Counter("duting_detections", "What rules found", ["rule"])

Entered = Callable[[Channel, int], float | None]
"""When the sample of a channel at a media time was in the server; ``None`` if that is not known."""


class Way(Protocol):
    """A transcript's way through the model. ``cut_s`` and ``done_s`` are clocks."""

    @property
    def cut_s(self) -> float: ...

    @property
    def asr_s(self) -> float: ...

    @property
    def done_s(self) -> float: ...


class Teller:
    """Turns findings into what leaves the core.

    Args:
        redact: masks personal data, keeping lengths.
        post: takes what is to be stored and published; never waits.
        seal: closes what was masked into a box that is kept; ``None``: it is kept nowhere.
    """

    def __init__(
        self,
        redact: Callable[[str], str],
        post: Callable[[Sequence[OutletEvent]], None],
        clock: Callable[[], float],
        seal: Seal | None = None,
    ) -> None:
        self._redact, self._post, self._clock, self._seal = redact, post, clock, seal

    def transcript(self, transcript: Transcript) -> None:
        text = self._redact(transcript.text)
        events: list[OutletEvent] = [replace(transcript, text=text)]
        if self._seal is not None and transcript.final and text != transcript.text:
            events.append(
                Sealed(
                    call_id=transcript.call_id,
                    utterance_id=transcript.utterance_id,
                    media_ms=transcript.media_ms,
                    box=self._seal(transcript.utterance_id, transcript.text),
                )
            )
        self._post(events)

    def tell(
        self, call: FollowedCall, entered: Entered, findings: Sequence[Finding], way: Way | None = None
    ) -> None:
        """``way``: of the transcript that they come of, if they come of one."""
        for finding in findings:
            if isinstance(finding, Detection):
                DETECTIONS.labels(finding.rule_id).inc()
                self.again(call, entered, finding, way)
            else:
                self._post([finding])

    def again(self, call: FollowedCall, entered: Entered, detection: Detection, way: Way | None) -> None:
        """A detection, maybe the same with better times: it is not counted a second time."""
        latency = self._latency(entered, detection, way)
        self._post(raised(detection, call.detector.card(detection.rule_id), latency, self._redact))

    def _latency(self, entered: Entered, detection: Detection, way: Way | None) -> Latency:
        now = self._clock()
        at = entered(detection.role, detection.media_end_ms)
        since = now if at is None else at

        def ms(seconds: float) -> float:
            return round(max(0.0, seconds) * 1000, 1)

        if way is None:
            return Latency(vad=ms(now - since), queue=0.0, asr=0.0, rules=0.0)
        return Latency(
            vad=ms(way.cut_s - since),
            queue=ms(way.done_s - way.cut_s - way.asr_s),
            asr=ms(way.asr_s),
            rules=ms(now - way.done_s),
        )
