"""The chain of the audit: every entry's hash covers its content and the hash before it. Pure.

Whoever changes, removes or inserts an entry changes all hashes after it. That the newest entries were removed
shows only against a hash that was kept elsewhere: ``duting audit verify`` prints the last one, and with
``--expect`` says whether one that was written down is still in the chain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

BEGINNING: Final = "0" * 64
"""What stands in the place of a hash before the first entry."""


class Entry(NamedTuple):
    """What is hashed of an entry, in this order."""

    at: str
    username: str
    action: str
    subject: str | None
    address: str | None
    detail: str | None


def chained(previous: str, entry: Entry) -> str:
    """SHA-256, hexadecimal, of the previous hash, a line feed, and the entry as a JSON list in UTF-8."""
    return hashlib.sha256(previous.encode() + b"\n" + msgspec.json.encode(list(entry))).hexdigest()


class Verdict(NamedTuple):
    entries: int
    """Looked at; all of them, unless one is wrong."""
    head: str
    """Hash of the last one that is in order."""
    broken: int | None
    """Id of the first entry that is not what was written there; ``None``: the chain is whole."""
    expected: bool
    """Whether the hash that was asked for is in the chain; also where none was asked for."""


def verify(rows: Iterable[tuple[int, Entry, str]], expect: str | None = None) -> Verdict:
    """Follow the chain; ``rows`` are id, content and hash of all entries, oldest first."""
    head, entries, found = BEGINNING, 0, expect is None or expect == BEGINNING
    for audit_id, entry, kept in rows:
        entries += 1
        if chained(head, entry) != kept:
            return Verdict(entries, head, audit_id, found)
        head = kept
        found = found or kept == expect
    return Verdict(entries, head, None, found)
