"""Every kind of telephone, in one list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.phones import asterisk, audiohook, audiosocket, jambonz, twilio, whip
from app.phones.call import Clock, PhoneCall, Played

Play = Callable[[str, PhoneCall, Clock], Awaitable[Played]]


@dataclass(frozen=True)
class Kind:
    scheme: str
    """Of the address it is given: ``ws``, ``http`` or ``tcp``."""
    play: Play
    about: str
    """What it behaves as, for people."""


KINDS: dict[str, Kind] = {
    "twilio": Kind("ws", twilio.play, "Twilio Media Streams: one WebSocket, both tracks as JSON"),
    "audiohook": Kind("ws", audiohook.play, "Genesys AudioHook: one WebSocket, both channels interleaved"),
    "audiosocket": Kind(
        "http", audiosocket.play, "Asterisk's AudioSocket: two TCP connections, booked first"
    ),
    "asterisk": Kind("ws", asterisk.play, "Asterisk's chan_websocket: two WebSockets, mu-law"),
    "jambonz": Kind("ws", jambonz.play, "jambonz listen: one WebSocket, stereo"),
    "whip": Kind("http", whip.play, "a browser or softphone over WHIP: two sessions of WebRTC, Opus"),
    "fork": Kind("ws", jambonz.play_forks, "FreeSWITCH mod_audio_fork: two WebSockets, one on each leg"),
}
