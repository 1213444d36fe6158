"""Signed requests, as AudioHook signs them: HMAC-SHA256 over the request's target, host and headers.

The rules are those of HTTP Message Signatures (draft 6, as the AudioHook reference names it; now RFC 9421):
https://developer.genesys.cloud/devapps/audiohook/security. Pure but for ``authentic``, which reads the clock.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Mapping

import structlog
from pydantic import SecretStr
from starlette.websockets import WebSocket

from app.ingest.keys import Keys

log = structlog.get_logger(__name__)

SIGNED = (
    "@request-target",
    "@authority",
    "audiohook-organization-id",
    "audiohook-session-id",
    "audiohook-correlation-id",
    "x-api-key",
)
"""What a signature has to cover, in any order."""
OLDEST_S, AHEAD_S = 10, 3
"""Age of a signature, and how far the peer's clock may be ahead of ours."""
SHORTEST_NONCE = 22
LONGEST_HEADER = 4_096

_INPUT = re.compile(
    r"([a-z][a-z0-9_-]{0,20})=(\((?P<names>[^()]{0,600})\)(?P<parameters>(?:;[^;]{1,400}){1,8}))"
)
_PARAMETER = re.compile(r';(keyid|nonce|alg|created|expires)=(?:"([^"]{0,256})"|(\d{1,12}))')


class Nonces:
    """Nonces that were used lately, so that a request is good once.

    At most ``MOST``; beyond it the oldest is forgotten, which by then is too old to be used again unless some
    thousand requests a second come.
    """

    MOST = 50_000

    def __init__(self) -> None:
        self._used: OrderedDict[str, float] = OrderedDict()

    def use(self, nonce: str, now_s: float) -> bool:
        """Whether it is new."""
        while self._used and next(iter(self._used.values())) < now_s - 2 * (OLDEST_S + AHEAD_S):
            self._used.popitem(last=False)
        if nonce in self._used:
            return False
        self._used[nonce] = now_s
        if len(self._used) > self.MOST:
            self._used.popitem(last=False)
        return True


def sign(parameters: str, names: tuple[str, ...], values: Mapping[str, str], secret: bytes) -> str:
    """The signature, base64. ``parameters``: what stands in ``Signature-Input`` behind ``sig1=``."""
    lines = [f'"{name}": {values[name]}' for name in names]
    base = "\n".join([*lines, f'"@signature-params": {parameters}'])
    return base64.b64encode(hmac.new(secret, base.encode(), hashlib.sha256).digest()).decode()


def refusal(
    values: Mapping[str, str], given: str, signature: str, secret: bytes, now_s: float, nonces: Nonces
) -> str | None:
    """What is wrong with a request's signature; ``None``: it is good, and its nonce is used up.

    Args:
        values: of the headers, by lower-case name, with ``@request-target`` and ``@authority``.
        given, signature: the headers ``Signature-Input`` and ``Signature``.
        now_s: seconds since 1970.
    """
    if not given or not signature:
        return "not signed"
    if len(given) > LONGEST_HEADER or len(signature) > LONGEST_HEADER:
        return "headers too long"
    read = _INPUT.fullmatch(given.strip())
    if read is None:
        return "Signature-Input cannot be read"
    names = tuple(name.strip('"') for name in read["names"].split())
    if len(set(names)) != len(names) or not set(SIGNED) <= set(names) or not set(names) <= values.keys():
        return "not all that has to be is signed"
    found = {name: text or number for name, text, number in _PARAMETER.findall(read["parameters"])}
    if found.get("alg", "hmac-sha256") != "hmac-sha256":
        return "another algorithm"
    if not found.get("created", "").isdecimal() or not found.get("expires", "0").isdecimal():
        return "no time"
    created = int(found["created"])
    if (
        not -AHEAD_S <= now_s - created <= OLDEST_S
        or int(found.get("expires", created + 1)) + AHEAD_S < now_s
    ):
        return "too old, or of a clock that is ahead"
    if found.get("keyid") != values["x-api-key"]:
        return "another key"
    if len(found.get("nonce", "")) < SHORTEST_NONCE:
        return "nonce too short"
    expected = sign(read[2], names, values, secret)
    label, _, coded = signature.strip().partition("=:")
    if label != read[1] or not hmac.compare_digest(coded.removesuffix(":").encode(), expected.encode()):
        return "wrong signature"
    # Last: a stranger must not be able to use up nonces.
    return None if nonces.use(found["nonce"], now_s) else "used before"


def authentic(
    socket: WebSocket, key: str, token: str, secret: SecretStr | None, nonces: Nonces, keys: Keys | None
) -> bool:
    """Whether a request comes from who knows the token, or a key, and the secret where one is set."""
    if not hmac.compare_digest(key.encode(), token.encode()) and not (keys and keys.fit(key)):
        log.warning("audiohook.refused", reason="key")
        return False
    if secret is None:
        return True
    # Not of `socket.url`, which raises where the query is no UTF-8.
    query = socket.scope["query_string"].decode("latin-1")
    target = f"{socket.scope['path']}?{query}" if query else socket.scope["path"]
    values = {name: value for name, value in socket.headers.items()}
    values |= {"@request-target": target, "@authority": socket.headers.get("host", "")}
    wrong = refusal(
        values,
        socket.headers.get("signature-input", ""),
        socket.headers.get("signature", ""),
        decoded(secret.get_secret_value()),
        time.time(),
        nonces,
    )
    if wrong is not None:
        log.warning("audiohook.refused", reason=wrong)
    return wrong is None


def decoded(secret: str) -> bytes:
    """A client secret, which Genesys shows as base64."""
    try:
        return base64.b64decode(secret, validate=True)
    except binascii.Error:
        return secret.encode()
