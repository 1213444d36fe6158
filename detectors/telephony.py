"""What the telephony tells, as marks on the call's timeline: holds, transfers, keys. It needs no rule.

* ``call.hold``: from when the customer was put on hold until he was taken back; a point while it lasts. Also
  where nobody said so, but music was heard.
* ``call.transfer``: at the moment; to whom is in what was found, not on the mark.
* ``call.key``: keys that follow each other within ``APART_MS`` are one mark. Which ones is known to nobody.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from streams.events import (
    CallEnded,
    CallEvent,
    CallInfo,
    Channel,
    Detection,
    Evidence,
    Finding,
    Hold,
    KeyPressed,
    RuleCard,
    Transfer,
)

APART_MS: Final = 2_000
MOST_MARKS: Final = 200
"""Of one call: a telephone that plays tones all day must not flood anybody."""


def _card(name: str, zh: str, en: str) -> RuleCard:
    return RuleCard(
        id=f"call.{name}", version="1", name={"zh": zh, "en": en}, severity="info", actions=("marker",)
    )


CARDS: Final = {
    card.id: card
    for card in (
        _card("hold", "保持", "On hold"),
        _card("transfer", "转接", "Transfer"),
        _card("key", "按键", "Keys pressed"),
    )
}


class _Keys(Struct, array_like=True, frozen=True):
    channel: Channel
    first_ms: int
    last_ms: int


class _State(Struct, array_like=True):
    held_ms: int | None = None
    """When the present hold began."""
    keys: tuple[_Keys, ...] = ()
    """That others may follow, one entry a channel."""
    marks: int = 0


class TelephonyDetector:
    """Keeps the contract of ``detectors.base.Detector``."""

    def __init__(self, call: CallInfo) -> None:
        self._call_id = call.call_id
        self._state = _State()

    def on_event(self, event: CallEvent) -> list[Finding]:
        match event:
            case Hold(held=True) if self._state.held_ms is None:
                self._state.held_ms = event.media_ms
                return self._mark("call.hold", event.media_ms, event.media_ms, new=True)
            case Hold(held=False):
                return self._taken_back(event.media_ms)
            case Transfer():
                return self._mark("call.transfer", event.media_ms, event.media_ms, event.to or "", new=True)
            case KeyPressed():
                return self._pressed(event)
            case CallEnded():
                return [*self._taken_back(event.media_ms), *self._settled(None)]
            case _:
                return []

    def wake_at(self) -> int | None:
        return min((keys.last_ms + APART_MS for keys in self._state.keys), default=None)

    def on_wake(self, now_ms: int) -> list[Finding]:
        return self._settled(now_ms)

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self._state)

    def restore(self, snapshot: bytes) -> None:
        self._state = msgspec.msgpack.decode(snapshot, type=_State)

    def _taken_back(self, media_ms: int) -> list[Finding]:
        held_ms, self._state.held_ms = self._state.held_ms, None
        return [] if held_ms is None else self._mark("call.hold", held_ms, max(held_ms, media_ms))

    def _pressed(self, event: KeyPressed) -> list[Finding]:
        out = self._settled(event.media_ms)
        known = next((keys for keys in self._state.keys if keys.channel == event.channel), None)
        if known is None:
            keys = _Keys(event.channel, event.media_ms, event.media_ms)
            self._state.keys = (*self._state.keys, keys)
            return out + self._mark("call.key", event.media_ms, event.media_ms, role=event.channel, new=True)
        longer = replace(known, last_ms=max(known.last_ms, event.media_ms))
        self._state.keys = tuple(longer if keys is known else keys for keys in self._state.keys)
        return out

    def _settled(self, now_ms: int | None) -> list[Finding]:
        """Keys that no other follows: where there were several, the mark reaches to the last."""
        over = [k for k in self._state.keys if now_ms is None or now_ms >= k.last_ms + APART_MS]
        self._state.keys = tuple(keys for keys in self._state.keys if keys not in over)
        return [
            mark
            for keys in over
            if keys.last_ms > keys.first_ms
            for mark in self._mark("call.key", keys.first_ms, keys.last_ms, role=keys.channel)
        ]

    def _mark(
        self,
        rule_id: str,
        start_ms: int,
        end_ms: int,
        text: str = "",
        role: Channel = "unknown",
        new: bool = False,
    ) -> list[Finding]:
        """``new``: not the same mark once more, with its end."""
        if new:
            self._state.marks += 1
        if self._state.marks > MOST_MARKS:
            return []
        return [
            Detection(
                call_id=self._call_id,
                rule_id=rule_id,
                role=role,
                media_start_ms=start_ms,
                media_end_ms=end_ms,
                anchor_ms=start_ms,
                evidence=Evidence(text=text, how="signal"),
            )
        ]
