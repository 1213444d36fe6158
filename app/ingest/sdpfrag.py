"""Trickled ICE candidates: ``application/trickle-ice-sdpfrag`` (RFC 8840). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.errors import IngestError

MOST_BYTES = 16 * 1024
MOST_LINES = 200
_CANDIDATE = re.compile(
    r"candidate:\S{1,64} \d{1,3} \S{1,8} \d{1,12} \S{1,128} \d{1,5} typ \S{1,8}( \S{1,64} \S{1,128}){0,12}"
)


@dataclass(frozen=True, slots=True)
class Fragment:
    ufrag: str | None
    """Of the ICE session that it belongs to; ``None`` where it does not say."""
    candidates: tuple[tuple[str, str | None], ...]
    """Each with the ``mid`` of its media, without ``candidate:``."""
    ended: bool
    """No more will come."""


def fragment(text: str) -> Fragment:
    """Read one; raises ``IngestError`` on what cannot be one."""
    if len(text) > MOST_BYTES:
        raise IngestError(f"expected a fragment of at most {MOST_BYTES} bytes, got {len(text)}")
    lines = text.replace("\r\n", "\n").split("\n")
    if len(lines) > MOST_LINES:
        raise IngestError(f"expected at most {MOST_LINES} lines, got {len(lines)}")
    ufrag, mid, ended = None, None, False
    found: list[tuple[str, str | None]] = []
    for line in lines:
        if line.startswith("a=ice-ufrag:"):
            ufrag = line.partition(":")[2]
        elif line.startswith("a=mid:"):
            mid = line.partition(":")[2]
        elif line.startswith("a=end-of-candidates"):
            ended = True
        elif line.startswith("a=candidate:"):
            if not _CANDIDATE.fullmatch(line[2:]):
                raise IngestError("expected candidates as RFC 8839 writes them")
            found.append((line[2:].partition(":")[2], mid))
        elif line and not re.match(r"[a-z]=", line):
            raise IngestError("expected lines of SDP such as 'a=candidate:…'")
    return Fragment(ufrag, tuple(found), ended)


def trickling(sdp: str) -> str:
    """An offer as one to which candidates may still be added: without those whose address is a name, and
    without its word that there are no others.

    Browsers hide their addresses behind names (``….local``) that could only be found by multicast. Such a
    peer finds us instead, and that shows its address: only it must not be given up before.
    """
    return "".join(
        line
        for line in sdp.splitlines(keepends=True)
        if not line.startswith("a=end-of-candidates")
        and not (line.startswith("a=candidate:") and is_name(line.partition(":")[2]))
    )


def is_name(candidate: str) -> bool:
    parts = candidate.split()
    return len(parts) > 4 and not re.fullmatch(r"[0-9a-fA-F.:]+", parts[4])
