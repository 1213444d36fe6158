"""What is attacked: the parsers of the telephones' protocols, as a connection has them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import msgspec
from hypothesis import strategies as st

from app.errors import IngestError
from app.ingest.audiohook import AudioHookStream
from app.ingest.audiosocket import ERROR, HANGUP, HEADER, IDENTITY, KEY, AudioSocketStream, Messages, message
from app.ingest.chan_websocket import MediaWebSocket
from app.ingest.connection import Connection
from app.ingest.jambonz import AudioFork, JambonzListen
from app.ingest.peer import MOST_MS, Changed, Closed, Opened, Parser, Probe, Reply, Told, changed
from app.ingest.twilio import TwilioStream
from streams.assembly import Placement, Timeline
from streams.events import AudioFrame, CallInfo, Gap, Hint
from tests.app.ingest import (
    test_audiohook,
    test_audiosocket,
    test_chan_websocket,
    test_jambonz,
    test_twilio,
)

MEBIBYTE = 1 << 20


class Text(bytes):
    """The UTF-8 of a text message, or what should be: so it comes from ``app.ingest.sockets``."""


Message = str | bytes
"""Text (``Text`` too), or binary."""


class Attacked:
    """One parser, and a peer of it that knows how to behave.

    Args:
        endless: it is never to end: what would end it in good order is left out, and after an error it goes
            on. No connection does that; its memory is then seen over a long life.
    """

    own: ClassVar[tuple[type[Exception], ...]] = (IngestError,)
    """What it may raise."""
    is_stream: ClassVar[bool] = False
    """Bytes come in, no messages: there is no text among them."""
    has_beginning: ClassVar[bool] = False
    """What comes first decides what may follow."""
    most_held: ClassVar[int] = MEBIBYTE
    """Bytes that it may hold at any time."""

    def __init__(self, random: Random, endless: bool = False) -> None:
        self.endless = endless
        self.over = False
        """It takes no more."""

    @property
    def state(self) -> object:
        """Whose memory is looked at."""
        raise NotImplementedError

    def next(self, random: Random) -> Message:
        """What a well-behaved peer would send now."""
        raise NotImplementedError

    def made(self, item: Any) -> Message:
        """A message of what ``valid`` of the target draws."""
        return item if isinstance(item, str | bytes) else json.dumps(item)

    def take(self, data: Message) -> None:
        """A message comes in. Raises ``own``."""
        raise NotImplementedError

    def round(self, random: Random) -> None:
        """The runner comes round, which it does ten times a second."""

    def leave(self) -> None:
        """The connection is over."""


@dataclass(frozen=True)
class Target:
    kind: Callable[..., Attacked]
    valid: st.SearchStrategy[Any]
    """Messages of the protocol's own tests."""


# ── telephones ────────────────────────────────────────────────────────────────────────────────────


class Phone(Attacked):
    """A parser with what a connection and its call do with what it says."""

    has_beginning = True
    SAID = (Opened, Closed, Changed, Told, Reply, Probe)
    ends: ClassVar[tuple[bytes, ...]] = ()
    """What is in messages that end the connection in good order."""

    def __init__(self, random: Random, endless: bool = False) -> None:
        super().__init__(random, endless)
        self.parser = self.begin(random)
        self.call: CallInfo | None = None
        self.placement: Placement | None = None
        self.clock_s = 1_000.0

    def begin(self, random: Random) -> Parser:
        raise NotImplementedError

    @property
    def state(self) -> object:
        return self.parser, self.placement, self.call

    def take(self, data: Message) -> None:
        told = data if isinstance(data, bytes) else data.encode()
        if self.endless and (not told or any(end in told for end in self.ends)):
            return
        said = self.parser.text(data) if isinstance(data, str | Text) else self.parser.binary(data)
        for one in said:
            assert isinstance(one, self.SAID), one
            match one:
                case Opened():
                    assert self.call is None
                    self.call = one.call
                    self.placement = Placement(
                        Timeline(one.call.call_id, one.call.channels), one.channels, one.stamped
                    )
                    msgspec.json.encode(one.call)
                case Changed():
                    msgspec.json.encode(one.fields)
                    if self.call is not None:
                        self.call = changed(self.call, one.fields)
                case Told():
                    assert one.to is None or one.to.encode() is not None
                case Closed():
                    self.over = True
        if not said and self.parser.ready_ms > Connection.MOST_READY_MS:
            self._hear()

    def round(self, random: Random) -> None:
        self.clock_s += random.choice((0.0, 0.02, 0.1, 0.1, 0.1, 5.0))
        self._hear()
        if (hinted := self.parser.hint(_HINT)) is not None:
            assert len(hinted) < 1_000
        assert self.parser.late_chunks >= 0

    def _hear(self) -> None:
        self._place(self.parser.take())

    def _place(self, items: list[AudioFrame | Gap]) -> None:
        for item in items:
            assert isinstance(item, AudioFrame | Gap), item
            assert item.media_ms >= 0
            assert item.duration_ms >= 0
        if self.placement is not None:
            self.placement.place(items, self.clock_s)
        else:
            assert not items

    def leave(self) -> None:
        told = self.parser.refusal("督" * 50, 1008)
        assert told is None or len(told) < 1_000
        self._place(self.parser.finish())
        assert isinstance(self.parser.gone(None), Closed)


_HINT = Hint(id="h", call_id="c", rule_id="r", text={"zh": "请核实 <身份>"}, media_ms=1_000)


class Twilio(Phone):
    ends = (b"stop",)

    def begin(self, random: Random) -> TwilioStream:
        self._payload = base64.b64encode(random.randbytes(160)).decode()
        return TwilioStream()

    def next(self, random: Random) -> Message:
        audio = self.parser._audio  # type: ignore[attr-defined]
        if not audio:
            return json.dumps(test_twilio.start())
        channel = random.choice([*audio])
        known, track = audio[channel], "inbound" if channel == "customer" else "outbound"
        if random.random() < 0.02:
            return json.dumps({"event": "dtmf", "dtmf": {"track": f"{track}_track", "digit": "1"}})
        chunk = (known._next or 0) + random.choice((0, 0, 0, 0, 0, 1, 2, 9, -1))
        stamp = known._wire_ms() if known._origin_ms is not None else 0
        # No further than it has come: a week is soon over.
        stamp += random.choice((0, 0, 0, 0, 20, -20, 70 if random.random() < 0.1 else 0))
        if stamp > MOST_MS - 3_600_000 or chunk > 1 << 62:
            self.over = True
            return json.dumps(test_twilio.CONNECTED)
        return (
            f'{{"event":"media","media":{{"track":"{track}","chunk":"{chunk}","timestamp":"{stamp}",'
            f'"payload":"{self._payload}"}}}}'
        )


class AudioHook(Phone):
    ends = (b"close",)

    def begin(self, random: Random) -> AudioHookStream:
        return AudioHookStream("s1" if random.random() < 0.3 else None)

    def next(self, random: Random) -> Message:
        if self.call is None:
            opening = test_audiohook.Client()
            kept: list[str] = []
            opening.stream.text = lambda data: kept.append(data) or ()  # type: ignore[method-assign,assignment,return-value,func-returns-value]
            opening.seq = self.parser._clientseq  # type: ignore[attr-defined]
            opening.open()
            return kept[0]
        if random.random() < 0.6:
            return random.randbytes(random.choice((320, 320, 3_200, 2)))
        kind = random.choice(("ping", "ping", "paused", "resumed", "discarded", "update", "later"))
        parameters: dict[str, Any] = {}
        if kind == "discarded":
            parameters = {"start": "PT1S", "discarded": random.choice(("PT0.5S", "PT1S", "PT9M", "PT10M"))}
        elif kind == "update":
            parameters = {"language": "zh-CN", "customConfig": {"queue": random.choice("abc")}}
        return self.made((kind, parameters))

    def made(self, item: Any) -> Message:
        if not isinstance(item, tuple):
            return super().made(item)
        kind, parameters = item
        body = {
            "version": "2",
            "id": self.parser._id or "s1",  # type: ignore[attr-defined]
            "type": kind,
            "seq": self.parser._clientseq + 1,  # type: ignore[attr-defined]
            "serverseq": 0,
            "position": "PT1S",
            "parameters": parameters or {},
        }
        return json.dumps(body)


class AudioSocket(Phone):
    """Chunks of its bytes come in."""

    is_stream = True

    def begin(self, random: Random) -> AudioSocketStream:
        self._messages = Messages()
        self._kind = random.choice((0x10, 0x12, 0x15, 0x18))
        return AudioSocketStream(test_audiosocket.find)

    @property
    def state(self) -> object:
        return self._messages, super().state

    def next(self, random: Random) -> Message:
        if rest := self._messages._rest:
            # It has been announced a message that is longer than what came: the rest of it, or all that comes
            # would be swallowed.
            missing = HEADER + int.from_bytes(rest[1:HEADER].ljust(2, b"\x00"), "big") - len(rest)
            # A minute of audio takes long to hear: mostly the peer gives up.
            self.over = missing > 2_000 and not self.endless and random.random() < 0.9
            return bytes(max(1, missing))
        if self.call is None:
            return test_audiosocket.HELLO
        if random.random() < 0.1:
            return message(KEY, b"1")
        return message(self._kind, random.randbytes(random.choice((320, 640, 641, 0, 1))))

    def take(self, data: Message) -> None:
        assert isinstance(data, bytes)
        wrong: IngestError | None = None
        for one in self._messages.receive(data):
            if self.over:
                return
            if self.endless and (one[0] in (HANGUP, ERROR) or (one[0] == IDENTITY and self.call is not None)):
                continue
            try:
                super().take(one)
            except IngestError as error:
                if not self.endless:
                    raise
                wrong = error
        if wrong is not None:
            raise wrong


class ChanWebSocket(Phone):
    def begin(self, random: Random) -> MediaWebSocket:
        given = random.choice(
            (
                test_chan_websocket.GIVEN,
                {**test_chan_websocket.GIVEN, "channel": "mixed"},
                {"channel": "agent"},
            )
        )
        return MediaWebSocket(given)

    def next(self, random: Random) -> Message:
        if self.call is None:
            form = random.choice(("ulaw", "alaw", "slin", "slin16", "slin44"))
            if random.random() < 0.5:
                return test_chan_websocket.start(form)
            return test_chan_websocket.start_json(form, DUTING_CALL_ID="c9", DUTING_AGENT="8001")
        if random.random() < 0.1:
            return random.choice(("DTMF_END digit:1", "STATUS queue_length:4", '{"event": "MEDIA_XON"}'))
        return random.randbytes(random.choice((160, 160, 320, 2, 0)))


class Jambonz(Phone):
    ends = (b"hangup",)

    def begin(self, random: Random) -> Parser:
        return JambonzListen(random.choice(({}, {"side": "agent", "queue": "理财"}, {"call_id": "c7"})))

    def next(self, random: Random) -> Message:
        if self.call is None:
            mix = random.choice(("stereo", "mono", "mixed"))
            return test_jambonz.metadata(mixType=mix, sampleRate=random.choice((8_000, 16_000, 44_100)))
        if random.random() < 0.15:
            told = random.choice(
                (
                    {"event": "dtmf"},
                    {"event": "hold"},
                    {"event": "transfer", "to": "8002"},
                    {"queue": "a", "b": 1},
                )
            )
            return json.dumps(told)
        return random.randbytes(random.choice((320, 320, 640, 4)))


class Fork(Jambonz):
    def begin(self, random: Random) -> Parser:
        given = random.choice(
            ({**test_jambonz.MONO}, {"mix": "stereo", "side": "agent", "rate": "16000"}, {})
        )
        return AudioFork({"call_id": "c", **given})


PHONES = {
    "twilio": Target(Twilio, test_twilio.messages),
    "audiohook": Target(AudioHook, test_audiohook.steps),
    "audiosocket": Target(AudioSocket, test_audiosocket.talk | test_audiosocket.wire),
    "asterisk": Target(ChanWebSocket, test_chan_websocket.texts | st.binary(max_size=400)),
    "jambonz": Target(Jambonz, test_jambonz.texts | st.binary(max_size=200)),
    "fork": Target(Fork, test_jambonz.texts | st.binary(max_size=200)),
}
"""By the names that the parsers have."""
