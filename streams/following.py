"""All calls that one detection worker follows: signals and readings in, what people are told out. Pure.

What comes in may come twice, after a crash or a move of partitions, and the readings of a call come by
another topic than its signals. So every call knows the number of its last signal, takes a reading only when
the signals before it are taken, and takes each final once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace
from prometheus_client import Counter

from streams import wire
from streams.events import (
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    CallUpdated,
    Channel,
    Finding,
    Hint,
    Inward,
    Marker,
    OutletEvent,
    Transcript,
    Voice,
)
from streams.followed import CallDetector, FollowedCall
from streams.gateway import Message
from streams.sealing import Seal
from streams.telling import Teller

COPIES = Counter("duting_copies", "Messages that had been taken before", ["topic"])
GIVEN_UP = Counter("duting_finals_given_up", "Finals whose words never came")
LOST_STATE = Counter("duting_calls_restarted", "Calls whose detectors began anew after a move", ["reason"])

_TOPICS: dict[type, wire.Topic[Any]] = {Marker: wire.MARKERS, Hint: wire.HINTS}
"""All others go to ``wire.ALERTS``."""


class _Kept(Struct, kw_only=True):
    """What is kept of a call beside what ``FollowedCall`` keeps itself."""

    source: str
    """The gateway that hears it now."""
    paced: bool
    past: list[str] = field(default_factory=list)
    """Gateways that heard it before: what they still say is over."""
    seq: int = -1
    """Of the last signal taken of ``source``."""
    resumed_ms: int = 0
    """How far it was heard when ``source`` took it over: a telephone may say what came before once more."""
    heard_ms: int = 0
    woken_ms: int = 0
    at: float = 0.0
    """Wall clock at which it had been heard up to there."""
    early: list[wire.Read] = field(default_factory=list)
    """Readings whose signals have not come."""
    ways: dict[str, wire.Read] = field(default_factory=dict)
    """Finals on their way from the model to people, by utterance: also those whose words are looked for."""
    ended: CallEnded | None = None
    """Its end was signalled, and words are still owed."""
    ending_at: float = 0.0


def _is_due(read: wire.Read, kept: _Kept) -> bool:
    """Whether the signals before it are taken; one of a gateway that is not known yet has to wait too."""
    return read.source in kept.past or (read.source == kept.source and read.seq <= kept.seq)


class _Call:
    def __init__(self, followed: FollowedCall, kept: _Kept, touched: float) -> None:
        self.followed, self.kept = followed, kept
        self.touched = touched
        """Wall clock at which a signal of it was taken here last."""
        self.blocked: dict[str, float] = {}
        """Finals that others wait for, and since when."""

    def entered(self, channel: Channel, media_ms: int) -> float | None:
        """Wall clock at which a moment was in the gateway, by the pace of the last signal."""
        return self.kept.at - (self.kept.heard_ms - media_ms) / 1000 if self.kept.at else None


class Following:
    """The calls of one worker. ``signal``, ``read``, ``found`` and ``tick`` as things come; ``take`` what
    follows from them.

    Args:
        detector: makes a call's detector from its metadata.
        redact: masks personal data, keeping lengths.
        wall: seconds since 1970.
        seal: closes what was masked into a box that is kept; ``None``: it is kept nowhere.
        restore: what was kept of a call (``snapshot``) by whoever followed it before; ``None`` if nothing.
    """

    MOST_EARLY = 5_000
    """Readings of calls that are not known yet; beyond it no more are to be handed in (``is_crowded``)."""
    EARLY_S = 120.0
    """So long a reading waits for its call; then it is one that came once more after the call's end."""
    HEARD_LATELY_S = 20.0
    """Nobody but its gateway ends a call that was heard of so lately."""
    OVER_KEPT = 10_000
    """Calls that have ended are remembered, so that what comes late does not open them again."""
    SILENT_S = 35.0
    """A call at the pace of speech of which nothing at all is heard for so long goes on by the clock: its
    timers are served although no message arrives. A gateway tells all the time how far it is, also while no
    audio comes; so less than that is a gateway or a broker that failed, over which the call comes back with
    what was said meanwhile (``app.cluster`` waits 30 s for it)."""
    SAME_MS = 150
    """An utterance heard twice does not end at quite the same sample."""
    DRAIN_S = 3_600.0
    """A call whose words do not come is ended without them: as long as the broker keeps its speech."""
    BLOCKED_S = 30.0
    """A final that does not come, while those behind it are there, is given up."""

    def __init__(
        self,
        *,
        detector: Callable[[CallInfo], CallDetector],
        redact: Callable[[str], str],
        wall: Callable[[], float],
        restore: Callable[[str], bytes | None],
        seal: Seal | None = None,
    ) -> None:
        self._detector, self._wall, self._restore = detector, wall, restore
        self._calls: dict[str, _Call] = {}
        self._early: dict[str, list[tuple[float, wire.Read]]] = {}
        """By call that is not known yet: readings, with the wall clock at which they came."""
        self._over: OrderedDict[str, None] = OrderedDict()
        self._out: list[Message] = []
        self._teller = Teller(redact, self._post, wall, seal)

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._calls

    def awaits(self, call_id: str) -> bool:
        """Whether readings of a call are held of which no signal has come: nothing else keeps them."""
        return call_id in self._early

    @property
    def is_crowded(self) -> bool:
        """Readings have run ahead of signals so far that no more should be handed in."""
        return sum(map(len, self._early.values())) >= self.MOST_EARLY

    def take(self) -> list[Message]:
        """What is to be sent, in order, since the last time."""
        out, self._out = self._out, []
        return out

    # ── in ────────────────────────────────────────────────────────────────────────────────────────

    def signal(self, signal: wire.Signal) -> None:
        call = self._call(signal.call_id)
        if call is None:
            if not isinstance(signal.event, CallStarted):
                # Its beginning is not kept any more, or the call is over.
                COPIES.labels("signals").inc()
                return
            call = self._begin(signal.event.call, signal)
        elif not self._is_new(call, signal):
            COPIES.labels("signals").inc()
            return
        kept = call.kept
        kept.seq, call.touched = signal.seq, self._wall()
        if signal.heard_ms >= kept.heard_ms:
            kept.heard_ms, kept.at = signal.heard_ms, signal.at
        self._wake(call, signal.woken_ms)
        if not self._is_repeated(call, signal.event):
            self._notice(call, signal)
        self._take_early(call)
        self._check_end(call)

    def _is_new(self, call: _Call, signal: wire.Signal) -> bool:
        kept = call.kept
        if signal.source == kept.source:
            return signal.seq > kept.seq
        if signal.source in kept.past:
            return False
        if signal.source.endswith(wire.SWEEP) and (
            kept.ended is not None or signal.at - kept.at < self.HEARD_LATELY_S
        ):
            return False
        kept.past = [*kept.past[-7:], kept.source]
        kept.source, kept.seq, kept.resumed_ms = signal.source, -1, kept.heard_ms
        kept.ended = None
        return True

    def _is_repeated(self, call: _Call, event: CallEvent | None) -> bool:
        """Whether it was heard before, over the gateway that had the call then."""
        kept = call.kept
        if not kept.past or event is None or isinstance(event, CallStarted | CallUpdated | CallEnded):
            return False
        if isinstance(event, Voice):
            # What was being said when the call moved was not cut, and is taken.
            return event.end_ms <= call.followed.cut_ms(event.channel) + self.SAME_MS
        return event.media_ms < kept.resumed_ms

    def _begin(self, info: CallInfo, signal: wire.Signal) -> _Call:
        self._over.pop(info.call_id, None)
        followed = FollowedCall(info, self._detector(info), signal.paced)
        kept = _Kept(source=signal.source, paced=signal.paced, at=signal.at)
        call = _Call(followed, kept, self._wall())
        self._calls[info.call_id] = call
        self._post([CallStarted(call=info)])
        self._tell(call, followed.begin())
        call.kept.early += [read for _, read in self._early.pop(info.call_id, [])]
        return call

    def _notice(self, call: _Call, signal: wire.Signal) -> None:
        event, followed = signal.event, call.followed
        match event:
            case None:
                pass
            case CallStarted():
                # Another gateway goes on with it, or this is the first signal, which has begun it already.
                # It began when it began.
                info = replace(event.call, started_at=followed.info.started_at)
                if info != followed.info:
                    updated = CallUpdated(call=info, media_ms=call.kept.heard_ms)
                    self._post([updated])
                    self._tell(call, followed.noticed(updated, call.kept.heard_ms))
            case CallEnded():
                call.kept.ended, call.kept.ending_at = event, self._wall()
            case Voice():
                self._tell(call, followed.cut(event, signal.heard_ms))
            case _:
                if not isinstance(event, Inward):
                    self._post([event])
                self._tell(call, followed.noticed(event, signal.heard_ms))

    def _wake(self, call: _Call, media_ms: int) -> None:
        call.kept.woken_ms = max(call.kept.woken_ms, media_ms)
        self._tell(call, call.followed.wake(media_ms))

    def read(self, read: wire.Read) -> None:
        call = self._call(read.call_id)
        if call is None:
            if read.call_id in self._over:
                COPIES.labels("transcripts").inc()
                return
            self._early.setdefault(read.call_id, []).append((self._wall(), read))
            return
        call.kept.early.append(read)
        self._take_early(call)
        self._check_end(call)

    def _take_early(self, call: _Call) -> None:
        kept = call.kept
        ready = [r for r in kept.early if _is_due(r, kept)]
        if ready:
            kept.early = [r for r in kept.early if r.source == kept.source and r.seq > kept.seq]
        for read in ready:
            (self._final if read.transcript.final else self._partial)(call, read)

    def _partial(self, call: _Call, read: wire.Read) -> None:
        findings = call.followed.partial(read.transcript, read.read)
        if findings is not None:
            self._teller.transcript(read.transcript)
            self._tell(call, findings, read)

    def _final(self, call: _Call, read: wire.Read) -> None:
        utterance_id = read.transcript.utterance_id
        if not call.followed.owes(utterance_id):
            COPIES.labels("transcripts").inc()
            return
        call.kept.ways[utterance_id] = read
        for ready, findings in call.followed.transcribed(read.transcript):
            self._teller.transcript(ready)
            way = call.kept.ways[ready.utterance_id]
            self._tell(call, findings, way)
            if call.followed.search(ready, findings):
                search = wire.Search(
                    call_id=read.call_id,
                    utterance_id=ready.utterance_id,
                    text=ready.text,
                    offset=way.offset,
                )
                self._out.append(Message(wire.SPEECH, search))
            else:
                del call.kept.ways[ready.utterance_id]

    def found(self, found: wire.Found) -> None:
        call = self._call(found.call_id)
        if call is None:
            return
        way = call.kept.ways.pop(found.utterance_id, None)
        for detection in call.followed.located(found.utterance_id, found.words):
            self._teller.again(call.followed, call.entered, detection, way)
        self._check_end(call)

    def tick(self, caught_up: bool = True) -> None:
        """Serve timers of calls of which nothing comes, give up words that do not come.

        ``caught_up``: all that there is was handed in. Else what does not come may only be waiting.
        """
        now = self._wall()
        for call in list(self._calls.values()):
            self._unblock(call, now)
            kept = call.kept
            since = max(kept.at, call.touched)
            if kept.ended is not None:
                self._check_end(call, patient=now - kept.ending_at < self.DRAIN_S)
            elif caught_up and kept.paced and now - since > self.SILENT_S:
                self._wake(call, kept.woken_ms + round((now - since - self.SILENT_S) * 1000))
        if caught_up:
            for call_id in [c for c, early in self._early.items() if now - early[0][0] > self.EARLY_S]:
                COPIES.labels("transcripts").inc(len(self._early.pop(call_id)))

    def _unblock(self, call: _Call, now: float) -> None:
        """A final that was lost must not keep those behind it from people."""
        blocking = call.followed.blocking()
        call.blocked = {name: call.blocked.get(name, now) for name in blocking}
        for name, since in call.blocked.items():
            if now - since > self.BLOCKED_S:
                self._give_up(call, name)

    def _give_up(self, call: _Call, utterance_id: str) -> None:
        GIVEN_UP.inc()
        call_id, role, start_ms = utterance_id.rsplit(":", 2)
        transcript = Transcript(
            call_id=call_id,
            utterance_id=utterance_id,
            role=role,  # type: ignore[arg-type]
            start_ms=int(start_ms),
            end_ms=int(start_ms),
            text="",
            final=True,
            rejected="never_read",
        )
        kept = call.kept
        self._final(call, wire.Read(transcript=transcript, source=kept.source, seq=kept.seq, offset=-1))

    def _check_end(self, call: _Call, patient: bool = True) -> None:
        kept, followed = call.kept, call.followed
        if kept.ended is None or (patient and (followed.owed or kept.early)):
            return
        for utterance_id in followed.waiting():
            self._give_up(call, utterance_id)
        self._tell(call, followed.end(kept.ended, kept.woken_ms))
        self._post([kept.ended])
        self.forget(kept.ended.call_id)
        self._over[kept.ended.call_id] = None
        if len(self._over) > self.OVER_KEPT:
            self._over.popitem(last=False)

    # ── out ───────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, call: _Call, findings: list[Finding], read: wire.Read | None = None) -> None:
        self._teller.tell(call.followed, call.entered, findings, read)

    def _post(self, events: Any) -> None:
        event: OutletEvent
        for event in events:
            self._out.append(Message(_TOPICS.get(type(event), wire.ALERTS), event))

    # ── kept and taken up again ───────────────────────────────────────────────────────────────────

    def _call(self, call_id: str) -> _Call | None:
        call = self._calls.get(call_id)
        if call is None and call_id not in self._over and (snapshot := self._restore(call_id)) is not None:
            call = self._calls[call_id] = self._restored(snapshot)
        return call

    def _restored(self, snapshot: bytes) -> _Call:
        info_, kept_, followed_ = msgspec.msgpack.decode(snapshot, type=tuple[bytes, bytes, bytes])
        info = msgspec.msgpack.decode(info_, type=CallInfo)
        try:
            kept = msgspec.msgpack.decode(kept_, type=_Kept)
        except (ValueError, msgspec.MsgspecError):
            LOST_STATE.labels("release").inc()
            kept = _Kept(source="", paced=True)
        followed = FollowedCall(info, self._detector(info), kept.paced)
        try:
            followed.restore(followed_)
        except (ValueError, msgspec.MsgspecError):
            # Written under other rules, or by another release: the call goes on with detectors that know
            # nothing of before; what is owed of it is kept. What they say of its start was said then.
            LOST_STATE.labels("rules").inc()
            followed.renew(self._detector(followed.info))
        return _Call(followed, kept, self._wall())

    def snapshot(self, call_id: str) -> bytes | None:
        """All that is known of a call, for whoever follows it next; ``None`` when it is over."""
        call = self._calls.get(call_id)
        if call is None:
            return None
        encode = msgspec.msgpack.encode
        return encode((encode(call.followed.info), encode(call.kept), call.followed.snapshot()))

    def forget(self, call_id: str) -> None:
        """It is over, or somebody else follows it from now on."""
        self._calls.pop(call_id, None)

    def forget_all(self) -> None:
        """Partitions move: what comes next is taken up from what was kept."""
        self._calls.clear()
        self._early.clear()
