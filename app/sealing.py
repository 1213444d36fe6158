"""What redaction has masked, kept so that only the holders of a key read it: AES-256-GCM, a box a text.

A box is URL-safe base64 of: a version byte (1), eight bytes that name the key, the nonce (12 bytes, random),
and what was encrypted with its tag. The utterance's id is authenticated with it, so that a box moved to
another utterance does not open. With random nonces a key is good for 2**32 boxes (NIST SP 800-38D, 8.3):
a bank of 10,000 calls a day needs centuries for that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from streams.sealing import Seal

VERSION: Final = b"\x01"
KEY_BYTES: Final = 32
_NAME, _NONCE = 8, 12


class Locked(Exception):
    """None of the keys opens this box: its key was taken away, or it is not what was written."""


class Keyring:
    """The first key seals; all of them open, so that boxes of before a rotation can still be read."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """``keys``: 32 bytes each."""
        self._keys = {_name(key): AESGCM(key) for key in reversed(keys)}
        self._first = _name(keys[0]) if keys else None

    @classmethod
    def of(cls, keys: SecretStr | None) -> Keyring:
        """``keys`` as ``DUTING_PII_KEYS`` has them; ``ValueError`` says what is wrong, without a key."""
        return cls([] if keys is None else [_key(key) for key in keys.get_secret_value().split(",")])

    def __bool__(self) -> bool:
        return self._first is not None

    @property
    def sealer(self) -> Seal | None:
        """``None`` without a key: then nothing is kept."""
        return self.seal if self else None

    def seal(self, utterance_id: str, text: str) -> str:
        assert self._first is not None
        nonce = secrets.token_bytes(_NONCE)
        # Half of a surrogate pair, which a model may write, has no UTF-8.
        closed = self._keys[self._first].encrypt(nonce, text.encode(errors="replace"), _about(utterance_id))
        return base64.urlsafe_b64encode(VERSION + self._first + nonce + closed).decode()

    def open(self, utterance_id: str, box: str) -> str:
        """Raises ``Locked``."""
        try:
            raw = base64.urlsafe_b64decode(box)
            name, nonce, closed = raw[1 : 1 + _NAME], raw[1 + _NAME :][:_NONCE], raw[1 + _NAME + _NONCE :]
            if raw[:1] != VERSION:
                raise Locked
            return self._keys[name].decrypt(nonce, closed, _about(utterance_id)).decode()
        except (KeyError, InvalidTag, ValueError, binascii.Error):
            raise Locked from None


def _key(text: str) -> bytes:
    plain = text.strip().replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"DUTING_PII_KEYS: expected {KEY_BYTES} bytes in base64 for each key (openssl rand -base64 32), "
            "several behind commas"
        )
    return key


def _name(key: bytes) -> bytes:
    return hashlib.sha256(b"duting key\x1f" + key).digest()[:_NAME]


def _about(utterance_id: str) -> bytes:
    return b"duting utterance\x1f" + utterance_id.encode(errors="replace")
