"""What detectors find, on its way out: alerts with their latency, progress, emotions. One per runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace
from prometheus_client import Counter

from streams.call import LiveCall
from streams.events import Detection, Finding, Latency, OutletEvent, Transcript
from streams.raising import raised
from streams.work import Recognised

DETECTIONS = Counter("duting_detections", "What rules found", ["rule"])


class Teller:
    """Turns findings into what leaves the core.

    Args:
        redact: masks personal data, keeping lengths.
        post: takes what is to be stored and published; never waits.
    """

    def __init__(
        self,
        redact: Callable[[str], str],
        post: Callable[[Sequence[OutletEvent]], None],
        clock: Callable[[], float],
    ) -> None:
        self._redact, self._post, self._clock = redact, post, clock

    def transcript(self, transcript: Transcript) -> None:
        self._post([replace(transcript, text=self._redact(transcript.text))])

    def tell(self, live: LiveCall, findings: Sequence[Finding], recognised: Recognised | None = None) -> None:
        """``recognised``: the transcript that they come of, if they come of one."""
        for finding in findings:
            if isinstance(finding, Detection):
                DETECTIONS.labels(finding.rule_id).inc()
                latency = self._latency(live, finding, recognised)
                self._post(raised(finding, live.detector.card(finding.rule_id), latency, self._redact))
            else:
                self._post([finding])

    def again(self, live: LiveCall, detection: Detection, recognised: Recognised) -> None:
        """The same detection with better times: it is not counted a second time."""
        latency = self._latency(live, detection, recognised)
        self._post(raised(detection, live.detector.card(detection.rule_id), latency, self._redact))

    def _latency(self, live: LiveCall, detection: Detection, recognised: Recognised | None) -> Latency:
        now = self._clock()
        entered = live.entered(detection.role, detection.media_end_ms)
        since = now if entered is None else entered

        def ms(seconds: float) -> float:
            return round(max(0.0, seconds) * 1000, 1)

        if recognised is None:
            return Latency(vad=ms(now - since), queue=0.0, asr=0.0, rules=0.0)
        waited = recognised.done_s - recognised.cut_s - recognised.asr_s
        return Latency(
            vad=ms(recognised.cut_s - since),
            queue=ms(waited),
            asr=ms(recognised.asr_s),
            rules=ms(now - recognised.done_s),
        )
