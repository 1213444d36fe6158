"""What a process and its child say to each other: MessagePack behind four bytes of length, little-endian."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from typing import BinaryIO

import msgspec

LONGEST = 256 * 2**20
"""Bytes of one message; more is no message of ours."""
_PIPE_BYTES = 2**20
_F_SETPIPE_SZ = 1031
_ENCODER = msgspec.msgpack.Encoder()


def framed(message: object) -> bytearray:
    out = bytearray(4)
    _ENCODER.encode_into(message, out, 4)
    out[:4] = (len(out) - 4).to_bytes(4, "little")
    return out


def taken(got: bytearray) -> bytes | None:
    """The first message of what has come, which is removed; ``None`` until it is whole.

    Raises ``ValueError`` when what came is none.
    """
    size = _size(got[:4]) if len(got) >= 4 else 0
    if len(got) < 4 or len(got) < 4 + size:
        return None
    message = bytes(memoryview(got)[4 : 4 + size])
    del got[: 4 + size]
    return message


async def next_message(reader: asyncio.StreamReader) -> bytes | None:
    """The next message; ``None`` at the end, also where it comes in the middle of one."""
    try:
        return await reader.readexactly(_size(await reader.readexactly(4)))
    except asyncio.IncompleteReadError:
        return None


def read_message(file: BinaryIO) -> bytes | None:
    """As ``next_message``, for a process that does nothing else."""
    head = file.read(4)
    if len(head) < 4:
        return None
    size = _size(head)
    body = file.read(size)
    return body if len(body) == size else None


def widen(descriptor: int) -> None:
    """Let a pipe hold more, where the system can; elsewhere 64 KiB do as well."""
    with contextlib.suppress(OSError, TypeError, ValueError):
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_BYTES)


def _size(head: bytes | bytearray) -> int:
    size = int.from_bytes(head, "little")
    if size > LONGEST:
        raise ValueError(f"expected a message of at most {LONGEST} bytes, got {size}")
    return size
