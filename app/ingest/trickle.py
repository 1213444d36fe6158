"""ICE candidates that a peer brings after its offer: PATCH of WHIP (RFC 9725, 4.3) and of WHEP."""

from __future__ import annotations

import contextlib
import secrets
from typing import Final

from aiortc import RTCPeerConnection
from aiortc.sdp import SessionDescription, candidate_from_sdp

from app.errors import DutingError, IngestError
from app.ingest.sdpfrag import fragment, is_name

FRAGMENT: Final = "application/trickle-ice-sdpfrag"
MOST_CANDIDATES: Final = 50
"""That one peer may bring."""
_NO_RESTART = "ICE cannot be restarted: begin another session, the call goes on"


class TrickleRefused(DutingError):
    """``status``: of the HTTP answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Trickle:
    """Of one connection. Its offer had these ``media``; ``etag`` names its ICE session."""

    def __init__(self, connection: RTCPeerConnection, offer: SessionDescription) -> None:
        self._connection = connection
        ice = offer.media[0].ice
        self._ufrag = None if ice is None else ice.usernameFragment
        self._count = 0
        self.etag = f'"{secrets.token_urlsafe(9)}"'

    async def take(self, match: str | None, text: str) -> None:
        """A fragment has come, with this ``If-Match``. Raises ``TrickleRefused``.

        aiortc cannot restart ICE: what asks for that is refused, and the session stays as it is.
        """
        if match is None:
            raise TrickleRefused(428, "expected If-Match with the session's ETag")
        if match == "*":
            raise TrickleRefused(422, _NO_RESTART)
        if match != self.etag:
            raise TrickleRefused(412, "the ETag is not that of this session")
        try:
            read = fragment(text)
        except IngestError as error:
            raise TrickleRefused(400, str(error)) from None
        if read.ufrag is not None and self._ufrag is not None and read.ufrag != self._ufrag:
            raise TrickleRefused(422, _NO_RESTART)
        self._count += len(read.candidates)
        if self._count > MOST_CANDIDATES:
            raise TrickleRefused(400, f"expected at most {MOST_CANDIDATES} candidates")
        for line, mid in read.candidates:
            if is_name(line):
                continue  # it finds us
            try:
                candidate = candidate_from_sdp(line)
            except ValueError:  # a related port that is no number
                raise TrickleRefused(400, "expected candidates as RFC 8839 writes them") from None
            candidate.sdpMid, candidate.sdpMLineIndex = mid, 0
            with contextlib.suppress(Exception):  # one that is of no use, such as TCP
                await self._connection.addIceCandidate(candidate)
