"""What every request passes before its route: size, origin; and what every answer carries."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import answer
from dashboard.feed import NOT_ALLOWED

BODY_LIMIT = 64 * 1024
"""Bytes. The longest thing a person sends is a password, but for"""
DRAFT_BODY_LIMIT = 2 * 1024 * 1024
"""a rule pack, which may have a quarter of that (``app.drafts.LONGEST_TEXT``); in JSON it takes more."""
DRAFTS = "/api/rules/drafts"

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Element Plus positions its pop-ups with style attributes
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

DESK = "/desk"

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware. Guards ``/api/``; puts the security headers on everything over HTTP."""

    def __init__(self, app: ASGIApp, frames: Sequence[str] = ()) -> None:
        """``frames``: origins whose pages may show the agent's desk, and nothing else, in a frame."""
        self._app = app
        self._desk_headers = dict(SECURITY_HEADERS)
        if frames:
            self._desk_headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY.replace(
                "frame-ancestors 'none'", f"frame-ancestors 'self' {' '.join(frames)}"
            )
            # It knows no list of origins; where both stand, browsers go by frame-ancestors.
            del self._desk_headers["X-Frame-Options"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        api = path.startswith("/api/")
        security = self._desk_headers if path == DESK else SECURITY_HEADERS
        if scope["type"] == "websocket" and api and not _may_connect(Headers(scope=scope)):
            # Any web page can open a socket here with this browser's cookies; it gets no handshake.
            await send({"type": "websocket.close", "code": NOT_ALLOWED})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in security.items():
                    headers.setdefault(name, value)
                if api:
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if not api:
            await self._app(scope, receive, send_guarded)
            return
        headers = Headers(scope=scope)
        if scope["method"] not in SAFE_METHODS and not (_comes_from_here(headers) or _is_machine(headers)):
            await answer("bad_origin")(scope, receive, send_guarded)
            return
        length = headers.get("content-length", "0")
        limit = DRAFT_BODY_LIMIT if scope["path"].startswith(DRAFTS) else BODY_LIMIT
        if not length.isdecimal() or int(length) > limit:
            await answer("too_large")(scope, receive, send_guarded)
            return
        if scope["method"] in SAFE_METHODS:
            await self._app(scope, receive, send_guarded)
            return
        body = await _whole(receive, limit)
        if body is None:  # sent in chunks, without saying how many
            await answer("too_large")(scope, receive, send_guarded)
            return
        await self._app(scope, _again(body, receive), send_guarded)


async def _whole(receive: Receive, limit: int) -> bytes | None:
    """The body; ``None`` when it is too large, or when the peer left."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if message["type"] != "http.request" or len(body) > limit:
            return None
        if not message.get("more_body", False):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was read, then goes on as before."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _is_machine(headers: Headers) -> bool:
    """A machine shows a token, and carries no session that somebody else could ride on.

    No other site makes a browser send this header: it would have to ask first, and nothing here says yes.
    """
    return "cookie" not in headers and headers.get("authorization", "").lower().startswith("bearer ")


def _comes_from_here(headers: Headers) -> bool:
    """A browser names the page's origin with every unsafe request; a program shows that it means it.

    Browsers also say how page and server are related: by that a page of the same host over plain HTTP is
    known, too, and one of another port or another name below the same domain.
    """
    origin = headers.get("origin")
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    return headers.get("x-duting") == "1" if origin is None else _is_ours(origin, headers)


def _may_connect(headers: Headers) -> bool:
    """A browser names the page's origin with every socket; a program, which has none, may name nothing."""
    origin = headers.get("origin")
    return origin is None or (
        headers.get("sec-fetch-site", "same-origin") == "same-origin" and _is_ours(origin, headers)
    )


def _is_ours(origin: str, headers: Headers) -> bool:
    host = headers.get("host", "")
    try:
        return host != "" and urlsplit(origin).netloc.casefold() == host.casefold()
    except ValueError:  # a bracket without its other
        return False
