"""Genesys AudioHook, protocol version 2: a pure parser of the server's side, and its route.

The wire: https://developer.genesys.cloud/devapps/audiohook/protocol-reference. Text frames are JSON, binary
frames samples, channels interleaved: ``external`` is the customer, ``internal`` the agent.

    client                                server
    open (seq 1, what media there is)  →  opened (one of them), or disconnect
    binary …                              event: what the agent may say next, as it comes
    ping                               →  pong
    paused, resumed, discarded, update    (nothing)
    close                              →  closed, and the end

Every message counts: the client's ``seq`` grows by one, its ``serverseq`` is the last of ours that it has
seen, so never ahead of what was sent. ``position`` is how much audio the client has sent, its media time.
Whatever is wrong is answered with ``disconnect`` and why.

Audio that was discarded is a ``Gap``. While the client is paused the call is on hold and no audio comes; its
position stands still then, and the call goes on by the clock.
"""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from fastapi import APIRouter
from starlette.websockets import WebSocket

from app.errors import IngestError
from app.ingest.peer import Changed, Closed, Opened, Parser, Probe, Reply, Said, Told, call_info, masked
from app.ingest.session import Lines
from app.ingest.signature import Nonces, authentic
from streams.audio import MULAW, S16LE, ChannelAudio, Codec
from streams.events import AudioFrame, Channel, Gap, Hint

MOST_BYTES = 64 * 1024
"""Of a text message."""
LONGEST_S = 5
"""Of audio in one message; Genesys sends 20 to 1,600 ms."""
LONGEST_DISCARD_MS = ChannelAudio.LONGEST_JUMP_MS - 1_000
"""Between two pieces of audio. What was discarded before and was too short for a gap comes on top."""
NOBODY = "00000000-0000-0000-0000-000000000000"
"""The conversation of a connection that only tries whether somebody is there."""
_CHANNELS: dict[str, Channel] = {"external": "customer", "internal": "agent"}
_CODECS: dict[str, Codec] = {"PCMU": MULAW, "L16": S16LE}
_POSITION = re.compile(r"PT(?:(\d{1,4})H)?(?:(\d{1,6})M)?(?:(\d{1,8})(?:\.(\d{1,9}))?S)?")


class _Message(msgspec.Struct):
    version: str
    id: str
    type: str
    seq: int
    serverseq: int
    position: str
    parameters: dict[str, Any] = {}


class _Media(msgspec.Struct):
    type: str
    format: str
    channels: tuple[str, ...]
    rate: int


class _Participant(msgspec.Struct):
    id: str = ""
    ani: str = ""
    aniName: str = ""
    dnis: str = ""


class _Open(msgspec.Struct):
    organizationId: str
    conversationId: str
    media: list[_Media]
    participant: _Participant = msgspec.field(default_factory=_Participant)
    language: str | None = None
    customConfig: Any = None
    inputVariables: Any = None


_DECODER = msgspec.json.Decoder(_Message)


def milliseconds(position: str) -> int:
    """Of an ISO 8601 duration such as ``PT1.2S``; raises ``IngestError``."""
    found = _POSITION.fullmatch(position)
    if found is None or position == "PT":
        raise IngestError(f"expected a position such as 'PT1.2S', got {position[:40]!r}")
    hours, minutes, seconds, part = found.groups()
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return whole * 1000 + int((part or "0").ljust(3, "0")[:3])


class AudioHookStream(Parser):
    """One session, from ``open`` to ``close``. ``session_id``: of the request's header."""

    name = "audiohook"

    def __init__(self, session_id: str | None = None) -> None:
        self._session_id = session_id
        self._id = ""
        self._seq = self._clientseq = 0
        self._media: _Media | None = None
        self._audio: tuple[ChannelAudio, ...] = ()
        self._codec = MULAW
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._pieces = self._samples = 0
        """Read so far: pieces of audio, and samples of each channel."""
        self._discarded_ms = 0
        self._since_audio_ms = 0
        """Of it, what was discarded since the newest audio."""
        self._ended = False

    # ── in ────────────────────────────────────────────────────────────────────────────────────────

    def text(self, data: str | bytes) -> Sequence[Said]:
        if self._ended:
            return ()
        if len(data) > MOST_BYTES:
            raise IngestError(f"expected a message of at most {MOST_BYTES} bytes, got {len(data)}", 1009)
        try:
            message = _DECODER.decode(data)
        except msgspec.ValidationError as error:
            raise IngestError(f"not an AudioHook message: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise IngestError(f"expected JSON, got something else: {error}", 1007) from None
        self._check(message)
        match message.type:
            case "open":
                return self._open(message)
            case _ if not self._id:
                raise IngestError(f"expected 'open' first, got {message.type[:40]!r}")
            case "ping":
                return (self._reply("pong", {}),)
            case "close":
                self._ended = True
                return (self._reply("closed", {}), Closed())
            case "paused":
                return (Told("held"),)
            case "resumed":
                return (Told("resumed"),)
            case "discarded":
                return self._discarded(message)
            case "update":
                return self._changed(message.parameters)
            case "error":
                raise IngestError("the client reports an error; its own log says which", 1011)
            case _:
                # A kind that came after this was written; the numbers of its fields have been counted.
                return ()

    def _check(self, message: _Message) -> None:
        if message.version != "2":
            raise IngestError(f"expected AudioHook version '2', got {message.version[:20]!r}")
        if message.seq != self._clientseq + 1:
            raise IngestError(f"expected seq {self._clientseq + 1}, got {message.seq}")
        if not 0 <= message.serverseq <= self._seq:
            raise IngestError(f"expected serverseq from 0 to {self._seq}, got {message.serverseq}")
        milliseconds(message.position)
        if self._id and message.id != self._id:
            raise IngestError("expected the id of 'open' in every message, got another one")
        if self._session_id is not None and message.id != self._session_id:
            raise IngestError("expected the id of the header Audiohook-Session-Id, got another one")
        self._clientseq = message.seq

    def _open(self, message: _Message) -> Sequence[Said]:
        if self._id:
            raise IngestError("expected one 'open' per session, got a second one")
        try:
            offer = msgspec.convert(message.parameters, _Open)
        except msgspec.ValidationError as error:
            raise IngestError(f"not AudioHook's parameters of 'open': {error}") from None
        self._id = message.id
        if offer.conversationId == NOBODY:
            return (self._reply("opened", {"media": [], "startPaused": False}), Probe())
        media = self._chosen(offer.media)
        channels = tuple(_CHANNELS[channel] for channel in media.channels)
        given: dict[str, object] = {"organization": offer.organizationId, "session": message.id}
        if offer.participant.ani:
            given["customer"] = masked(offer.participant.ani)
        if offer.participant.id:
            given["participant"] = offer.participant.id
        if offer.language:
            given["language"] = offer.language
        for more in (offer.customConfig, offer.inputVariables):
            given |= _config(more)
        call = call_info(offer.conversationId, self.name, given)
        self._media, self._codec, self.rate = media, _CODECS[media.format], media.rate
        self._audio = tuple(
            ChannelAudio(call.call_id, channel, media.rate, self._codec) for channel in channels
        )
        opened = self._reply("opened", {"media": [msgspec.to_builtins(media)], "startPaused": False})
        return (opened, Opened(call, channels, media.rate, stamped=False))

    @staticmethod
    def _chosen(offered: Sequence[_Media]) -> _Media:
        """Both channels before one; mu-law before 16-bit samples: half as much comes over the wire."""
        fit = [
            media
            for media in offered
            if media.type == "audio"
            and media.format in _CODECS
            and media.rate == 8_000
            and 0 < len(media.channels) <= 2
            and set(media.channels) <= _CHANNELS.keys()
            and len(set(media.channels)) == len(media.channels)
        ]
        if not fit:
            raise IngestError(
                "expected among the media audio of PCMU or L16 at 8000 Hz with the channels external and "
                f"internal or one of them, got {len(offered)} other offer(s)",
                1003,
            )
        return min(fit, key=lambda media: (-len(media.channels), media.format != "PCMU"))

    def _discarded(self, message: _Message) -> Sequence[Said]:
        given = message.parameters
        if self._media is None:
            return ()
        start, length = given.get("start"), given.get("discarded")
        if not isinstance(start, str) or not isinstance(length, str):
            raise IngestError("expected 'start' and 'discarded' in 'discarded', as durations")
        milliseconds(start)
        length_ms = milliseconds(length)
        self._part()
        if self._since_audio_ms + length_ms > LONGEST_DISCARD_MS:
            raise IngestError(f"expected at most {LONGEST_DISCARD_MS // 1000} s discarded at once")
        # What comes next is stamped so much later: that makes the gap.
        self._discarded_ms += length_ms
        self._since_audio_ms += length_ms
        return ()

    def _changed(self, given: dict[str, Any]) -> Sequence[Said]:
        fields: dict[str, object] = {}
        if isinstance(language := given.get("language"), str):
            fields["language"] = language
        for name in ("customConfig", "inputVariables"):
            fields |= _config(given.get(name))
        return (Changed({name: str(value) for name, value in fields.items()}),) if fields else ()

    def binary(self, data: bytes) -> Sequence[Said]:
        if self._ended:
            return ()
        if self._media is None:
            raise IngestError("expected 'open' before audio: the call is not known yet")
        frame = self._codec.width * len(self._audio)
        if not data or len(data) % frame:
            raise IngestError(f"expected whole samples of {frame} bytes, got {len(data)} bytes", 1003)
        if len(data) > LONGEST_S * self.rate * frame:
            raise IngestError(f"expected at most {LONGEST_S} s of audio at once", 1009)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        return ()

    # ── audio ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def ready_ms(self) -> int:
        frame = self._codec.width * max(1, len(self._audio))
        return self._waiting_bytes // frame * 1000 // self.rate

    def take(self) -> list[AudioFrame | Gap]:
        self._part()
        return [item for audio in self._audio for item in audio.take()]

    def finish(self) -> list[AudioFrame | Gap]:
        self._part()
        return [item for audio in self._audio for item in audio.flush()]

    def _part(self) -> None:
        """Give each channel its samples of what waits."""
        if not self._waiting:
            return
        samples = np.frombuffer(b"".join(self._waiting), f"V{self._codec.width}")
        self._waiting, self._waiting_bytes = [], 0
        media_ms = self._samples * 1000 // self.rate + self._discarded_ms
        for index, audio in enumerate(self._audio):
            audio.put(self._pieces, media_ms, samples[index :: len(self._audio)].tobytes())
        self._pieces += 1
        self._since_audio_ms = 0
        self._samples += len(samples) // len(self._audio)

    # ── out ───────────────────────────────────────────────────────────────────────────────────────

    def hint(self, hint: Hint) -> str | None:
        """What the agent may say next, as a suggestion of the Agent Assist: a question and its answer.

        The entity is that of Genesys's reference implementation: ids are UUIDs, the answer is HTML, and
        a confidence has to be given; a rule has none, so it is 1.
        """
        if not self._id or self._ended:
            return None
        text = hint.text.get("zh") or next(iter(hint.text.values()), "")
        known_as = str(uuid.uuid5(uuid.NAMESPACE_OID, hint.id))
        suggestion = {
            "type": "faq",
            "id": known_as,
            "confidence": 1.0,
            "position": f"PT{hint.media_ms / 1000:.3f}S",
            "question": hint.rule_id,
            "answer": html.escape(text),
        }
        entity = {"type": "agentassist", "data": {"id": known_as, "suggestions": [suggestion]}}
        return self._reply("event", {"entities": [entity]}).data  # type: ignore[return-value]

    def refusal(self, message: str, code: int) -> str | None:
        if self._ended or not self._id:
            return None
        self._ended = True
        reason = {1000: "completed", 4401: "unauthorized"}.get(code, "error")
        return self._reply("disconnect", {"reason": reason, "info": message}).data  # type: ignore[return-value]

    def _reply(self, kind: str, parameters: dict[str, Any]) -> Reply:
        self._seq += 1
        message = {
            "version": "2",
            "id": self._id,
            "type": kind,
            "seq": self._seq,
            "clientseq": self._clientseq,
            "parameters": parameters,
        }
        return Reply(msgspec.json.encode(message).decode())


def _config(given: Any) -> dict[str, object]:
    """Metadata from the custom configuration: an object, or one as JSON text; all else is passed over."""
    if isinstance(given, str) and given:
        try:
            given = msgspec.json.decode(given)
        except (msgspec.DecodeError, RecursionError):
            return {"config": given}
    if not isinstance(given, dict):
        return {}
    return {str(name): value for name, value in given.items() if isinstance(value, str | int | float)}


def route(lines: Lines) -> APIRouter:
    """``/ingest/audiohook``. ``X-API-KEY`` is the ingest token; with ``DUTING_AUDIOHOOK_SECRET`` the request
    has to be signed as well. Whoever is not let in is told so at the handshake (HTTP 403)."""
    router = APIRouter()
    nonces = Nonces()

    @router.websocket("/ingest/audiohook")
    async def audiohook(socket: WebSocket) -> None:
        secret = lines.settings.audiohook_secret
        key = socket.headers.get("x-api-key", "")
        if not authentic(socket, key, lines.token, secret, nonces, lines.keys):
            await socket.close(4401)
            return
        parser = AudioHookStream(socket.headers.get("audiohook-session-id"))
        await lines.serve(socket, parser)

    return router
