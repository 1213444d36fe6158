"""The rules in force. They change while the service runs; a call keeps those it began with.

The files are looked at every few seconds. What has changed is read once it has stood still from one look
to the next (an editor may be in the middle of writing), compiled in a thread, and used whole or not at
all: with an error in it, the rules in force stay and everybody is told why.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter as Count
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple
from weakref import WeakSet

import structlog
from msgspec import Struct
from prometheus_client import Counter

from app.errors import PackRefused, StoreError
from app.store.times import now, written
from detectors.emotion import EmotionDetector, Head
from detectors.panel import Panel
from detectors.rules import DEFAULT_PACK, Pack, PackError, Problem
from detectors.rules.loader import pack_files, parse_packs, read_packs
from detectors.telephony import TelephonyDetector
from streams.events import CallInfo

log = structlog.get_logger(__name__)

reloads_total = Counter("duting_rules_reloads_total", "Times that rules were read again", ["outcome"])

FILES: Final = "(files)"
"""In place of an account: nobody asked, the files had changed."""
PROBLEMS_LOGGED: Final = 20

Outcome = Literal["loaded", "unchanged", "refused"]
Record = Callable[[str, str, str | None, str | None], None]
"""Writes into the audit: account, action, subject, address. May raise ``StoreError``."""


class Refused(Struct, frozen=True, kw_only=True):
    """Rules with errors, which are not in force."""

    at: str
    by: str
    digest: str
    problems: tuple[Problem, ...]


class Read(NamedTuple):
    """The files as they were found; compiled unless they are what is in force already."""

    digest: str
    pack: Pack | None
    problems: tuple[Problem, ...]


class RuleBook:
    """Holds the pack for new calls; for one event loop.

    ``record``, ``on_loaded`` (told when other rules are in force) and ``head`` (a learned judge of voices)
    are set by whoever puts the service together.
    """

    def __init__(
        self, pack: Pack, paths: Sequence[Path] = (), *, clock: Callable[[], datetime] = now
    ) -> None:
        self.pack = pack
        """What new calls begin with."""
        self.refused: Refused | None = None
        """The last that was refused, until the files are in order again."""
        self.loaded_at = written(clock())
        self.record: Record | None = None
        self.head: Head | None = None
        self.on_loaded: Callable[[], Awaitable[object]] | None = None
        self._paths = tuple(paths)
        self._clock = clock
        self._panels: WeakSet[Panel] = WeakSet()
        self._turn = asyncio.Lock()
        self._digest = ""
        self._stamps: object = None
        """What the files looked like when they were read last."""
        self._seen: object = None
        """What they looked like at the last look."""

    @classmethod
    def open(cls, path: Path | None) -> RuleBook:
        """The rules in a file or folder, the built-in ones if there is none given.

        Raises ``PackRefused`` with every error: at the start there is nothing to fall back on.
        """
        paths = [path or DEFAULT_PACK]
        stamps = _stamps(paths)
        read = _read(paths, "")
        if read.pack is None:
            raise PackRefused(str(PackError(read.problems)))
        book = cls(read.pack, paths)
        book._digest, book._stamps = read.digest, stamps
        return book

    # ── calls ─────────────────────────────────────────────────────────────────────────────────────

    def panel(self, call: CallInfo) -> Panel:
        """The detectors of a new call, under the rules in force now."""
        panel = Panel(call, self.pack, EmotionDetector(call, self.head), TelephonyDetector(call))
        self._panels.add(panel)
        return panel

    def in_use(self) -> dict[str, int]:
        """Calls in progress, by the version of the rules that they began with."""
        return dict(Count(panel.pack.version for panel in self._panels if not panel.ended))

    # ── files ─────────────────────────────────────────────────────────────────────────────────────

    async def watch(self, every_s: float) -> None:
        """Look at the files again and again, until cancelled; 0: never."""
        while every_s > 0:
            await asyncio.sleep(every_s)
            try:
                await self.look()
            except Exception:  # whatever it is: the rules in force stay, and the next look may do better
                log.exception("rules.look_failed")

    async def look(self) -> Outcome | None:
        """Read the files if they have changed and stand still; ``None`` if there was nothing to read."""
        stamps = await asyncio.to_thread(_stamps, self._paths)
        settled, self._seen = stamps == self._seen, stamps
        if stamps == self._stamps or not settled:
            return None
        return await self.reload(FILES)

    async def reload(self, by: str, address: str | None = None) -> Outcome:
        """Read the files now, and put them in force if they are in order.

        ``by`` is the account that asks, from ``address``; both go into the audit.
        """
        async with self._turn:
            stamps = await asyncio.to_thread(_stamps, self._paths)
            # Compiled in a thread: the calls in progress are heard meanwhile.
            read = await asyncio.to_thread(_read, self._paths, self._digest)
            self._stamps = stamps
            outcome = self._take(read, by)
        reloads_total.labels(outcome).inc()
        if by != FILES or outcome != "unchanged":
            await self._write_down(by, outcome, address)
        if outcome == "loaded" and self.on_loaded is not None:
            try:
                await self.on_loaded()
            except StoreError as error:
                log.error("rules.not_told", error=str(error))
        return outcome

    def _take(self, read: Read, by: str) -> Outcome:
        if read.problems:
            known = self.refused is not None and self.refused.digest == read.digest
            self.refused = Refused(
                at=written(self._clock()), by=by, digest=read.digest, problems=read.problems
            )
            if not known:
                log.error(
                    "rules.refused",
                    running=self.pack.version,
                    count=len(read.problems),
                    problems=[str(problem) for problem in read.problems[:PROBLEMS_LOGGED]],
                )
            return "refused"
        self.refused = None
        if read.pack is None:
            return "unchanged"
        before = self.pack.version
        self.pack, self._digest, self.loaded_at = read.pack, read.digest, written(self._clock())
        log.info("rules.loaded", version=read.pack.version, before=before, rules=len(read.pack.rules))
        return "loaded"

    async def _write_down(self, by: str, outcome: Outcome, address: str | None) -> None:
        if self.record is None:
            return
        subject = self.refused.digest if outcome == "refused" and self.refused else self.pack.version
        try:
            await asyncio.to_thread(self.record, by, f"rules.{outcome}", subject, address)
        except StoreError as error:
            log.error("rules.not_audited", by=by, outcome=outcome, error=str(error))


def _stamps(paths: Sequence[Path]) -> object:
    """What tells that files have changed without reading them."""
    try:
        files = pack_files(paths)
    except (OSError, PackError):
        return ("unreadable",)
    return tuple((str(file), _stamp(file)) for file in files)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(paths: Sequence[Path], in_force: str) -> Read:
    sources, problems = read_packs(paths)
    content = "\x1f".join((*(source.text for source in sources), *(str(problem) for problem in problems)))
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    if digest == in_force:
        return Read(digest, None, ())
    try:
        pack = parse_packs(sources, problems)
        pack.index  # noqa: B018 - made now, in this thread, not when the first call asks for it
        return Read(digest, pack, ())
    except PackError as error:
        return Read(digest, None, error.problems)
