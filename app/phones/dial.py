"""``duting phone``: one call from a recording to a server, with what went wrong in words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import websockets

from app.phones.call import PhoneCall, PhoneFailed, Played
from app.phones.kinds import KINDS


def address_for(kind: str, address: str) -> str:
    """``address`` (``http://host:port``, ``host:port``, …) with the scheme of this kind of telephone.

    Of ``https`` and ``wss`` the encryption stays.
    """
    scheme, _, rest = address.rpartition("://")
    secure = scheme in ("https", "wss")
    wanted = KINDS[kind].scheme
    host = urlsplit(f"//{rest}")
    try:
        port = host.port
    except ValueError:
        port = None
    if not host.hostname or port is None:
        raise PhoneFailed(f"expected an address with a port, such as http://127.0.0.1:8420, got {address!r}")
    return f"{wanted}{'s' if secure and wanted != 'tcp' else ''}://{host.netloc}"


async def dial(
    kind: str,
    address: str,
    call: PhoneCall,
    *,
    seconds: float,
    advance: Callable[[float], None],
    clock: Callable[[], float] = time.monotonic,
) -> Played:
    """Place one call; ``advance`` is told how far it is, in seconds. Raises ``PhoneFailed``."""
    url = address_for(kind, address)

    async def progress() -> None:
        began = clock()
        while True:
            await asyncio.sleep(0.2)
            advance(min(seconds, clock() - began))

    showing = asyncio.create_task(progress())
    try:
        played = await KINDS[kind].play(url, call, clock)
        advance(seconds)
        return played
    except websockets.ConnectionClosed as closed:
        told = closed.rcvd
        what = f"code {told.code}: {told.reason}" if told is not None else "without a word"
        raise PhoneFailed(f"the server ended the call, {what}") from None
    except websockets.InvalidStatus as status:
        raise PhoneFailed(f"the server refused the connection: HTTP {status.response.status_code}") from None
    except (OSError, TimeoutError, websockets.InvalidHandshake) as error:
        raise PhoneFailed(f"no server answers at {url}: {error}; is `duting serve` running there?") from None
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing
