"""What a detector is: state of one call, fed with that call's events, woken at media times it names."""

from __future__ import annotations

from typing import Protocol

from streams.events import CallEvent, Finding


class Detector(Protocol):
    """Watches one call. Pure: no clock, no input or output; time comes as an argument.

    The contract, kept by ``detectors.panel.Panel``:

    * ``on_event`` is called with the call's events in the order of the stream. Speech edges come in
      order of media time; a ``Transcript`` comes later than the edges around it, because the model
      takes time, and final transcripts of the two channels may come in either order.
    * After every call, ``wake_at()`` tells the media time at which the detector wants ``on_wake``;
      ``None`` means never. ``on_wake(now_ms)`` may be late but never early; ``now_ms`` never goes back.
    * ``snapshot()`` holds everything: ``restore(snapshot())`` on a fresh detector built from the same
      rules changes nothing about what follows.
    """

    def on_event(self, event: CallEvent) -> list[Finding]: ...

    def wake_at(self) -> int | None: ...

    def on_wake(self, now_ms: int) -> list[Finding]: ...

    def snapshot(self) -> bytes: ...

    def restore(self, snapshot: bytes) -> None: ...
