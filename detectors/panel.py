"""All detectors of one call behind one ``Detector``."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from detectors.base import Detector
from detectors.emotion import EmotionDetector
from detectors.rules.engine import RuleDetector
from detectors.rules.model import Pack
from detectors.telephony import CARDS, TelephonyDetector
from streams.events import CallEnded, CallEvent, CallInfo, CallUpdated, Emotion, Finding, RuleCard


class Panel:
    """Hands every event to every detector, in a fixed order, and merges when they want to be woken.

    What ``emotion`` finds is an event for the rules, told before the utterance that it was found in: a rule
    about both meets the feeling with which the words were said. ``telephony`` marks what the telephony tells.
    """

    def __init__(
        self,
        call: CallInfo,
        pack: Pack,
        emotion: EmotionDetector | None = None,
        telephony: TelephonyDetector | None = None,
    ) -> None:
        self.call = call
        self.pack = pack
        self._rules = RuleDetector(call, pack)
        self._emotion = emotion
        self._telephony = telephony
        around = (one for one in (emotion, telephony) if one is not None)
        self._detectors: Sequence[Detector] = (*around, self._rules)
        self._ended = False
        self._due: int | None = None
        self._due_known = False
        """Whether ``_due`` is what ``wake_at`` says: it is asked for many times between two events."""

    def on_event(self, event: CallEvent | Emotion) -> list[Finding]:
        """What the event makes the detectors say. Final transcripts may still come after ``CallEnded``."""
        self._due_known = False
        if isinstance(event, CallUpdated):
            self.call = event.call
        found: list[Finding] = []
        if self._emotion is not None and not isinstance(event, Emotion):
            for felt in self._emotion.on_event(event):
                found.append(felt)
                if isinstance(felt, Emotion):
                    found += self._rules.on_event(felt)
        if self._telephony is not None and not isinstance(event, Emotion):
            found += self._telephony.on_event(event)
        found += self._rules.on_event(event)
        if isinstance(event, CallEnded):
            self._ended = True
        return found

    @property
    def ended(self) -> bool:
        """Whether the call's end was told; final transcripts may still come."""
        return self._ended

    def wake_at(self) -> int | None:
        if self._ended:
            return None
        if not self._due_known:
            times = [wake for d in self._detectors if (wake := d.wake_at()) is not None]
            self._due, self._due_known = min(times, default=None), True
        return self._due

    def on_wake(self, now_ms: int) -> list[Finding]:
        if self._ended:
            return []
        self._due_known = False
        return [d for detector in self._detectors for d in detector.on_wake(now_ms)]

    def card(self, rule_id: str) -> RuleCard:
        """What raising needs to know of a rule, as it stood when the call began."""
        return CARDS[rule_id] if rule_id in CARDS else self.pack.card(rule_id)

    def suspects(self, utterance_id: str) -> bool:
        """Whether the next reading of an utterance in progress may settle what its last one holds."""
        return self._rules.suspects(utterance_id)

    def snapshot(self) -> bytes:
        states = [d.snapshot() for d in self._detectors]
        return msgspec.msgpack.encode((self.call, self._ended, states, self.pack.version))

    def restore(self, snapshot: bytes) -> None:
        """Raises ``ValueError`` when the snapshot comes from other rules, or another set of detectors."""
        call, ended, states, version = msgspec.msgpack.decode(
            snapshot, type=tuple[CallInfo, bool, list[bytes], str]
        )
        if version != self.pack.version:
            raise ValueError(f"expected a snapshot under rules {self.pack.version}, came one under {version}")
        if len(states) != len(self._detectors):
            raise ValueError(f"expected a snapshot of {len(self._detectors)} detectors, came {len(states)}")
        self.call, self._ended, self._due_known = call, ended, False
        for detector, state in zip(self._detectors, states, strict=True):
            detector.restore(state)
