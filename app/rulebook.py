"""The rules in force. They change while the service runs; a call keeps those it began with.

They come from files, and from what was published in the store (``app.store.publications``): a published pack
takes the place of the file whose pack has the same id, and stands beside the others. Every process that runs
rules reads both.

Both are looked at every few seconds. A file that has changed is read once it has stood still from one look
to the next (an editor may be in the middle of writing); a publication is whole when it is there. All are
compiled in a thread, and used whole or not at all: with an error in it, the rules in force stay and everybody
is told why.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter as Count
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol
from weakref import WeakSet

import structlog
from msgspec import Struct
from prometheus_client import Counter

from app.errors import PackRefused, StoreError
from app.store.audit import AuditAction
from app.store.publications import Publication
from app.store.times import now, written
from detectors.emotion import EmotionDetector, Head
from detectors.panel import Panel
from detectors.rules import DEFAULT_PACK, Pack, PackError, Problem
from detectors.rules.loader import Source, pack_files, parse_packs, read_packs
from detectors.rules.outline import pack_id
from detectors.telephony import TelephonyDetector
from streams.events import CallInfo

log = structlog.get_logger(__name__)

reloads_total = Counter("duting_rules_reloads_total", "Times that rules were read again", ["outcome"])

FILES: Final = "(files)"
"""In place of an account: nobody asked, the files or what is published had changed."""
PROBLEMS_LOGGED: Final = 20
PUBLISHED_S: Final = 2.0
"""Between two looks at what is published, where files are never looked at."""

Outcome = Literal["loaded", "unchanged", "refused"]
Record = Callable[[str, AuditAction, str | None, str | None], None]
"""Writes into the audit: account, action, subject, address. May raise ``StoreError``."""


class Refused(Struct, frozen=True, kw_only=True):
    """Rules with errors, which are not in force."""

    at: str
    by: str
    digest: str
    problems: tuple[Problem, ...]


class Published(Protocol):
    """What was published; ``app.store.publications.Publications`` is it. May raise ``StoreError``."""

    def head(self) -> int:
        """Another number once something else is published."""
        ...

    def in_force(self) -> tuple[int, list[Publication]]:
        """``head``, and of every pack its last publication."""
        ...


class Sources(NamedTuple):
    """The texts of the rules, and where they come from."""

    texts: tuple[Source, ...] = ()
    published: tuple[Publication, ...] = ()
    replaced: tuple[Source, ...] = ()
    """Files in whose place a published pack stands."""
    problems: tuple[Problem, ...] = ()
    """What could not be read."""
    head: int = 0
    """The last publication."""

    @property
    def digest(self) -> str:
        """Of texts and names: the same text published again is another source, named after that."""
        parts = (*(part for source in self.texts for part in source), *map(str, self.problems))
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]

    def file_of(self, wanted: str) -> Source | None:
        """The file in which a pack of this id stands, be it in force or replaced."""
        published = {shown(publication) for publication in self.published}
        files = [source for source in self.texts if source.file not in published]
        return next((one for one in (*files, *self.replaced) if pack_id(one.text) == wanted), None)

    def of(self, wanted: str) -> Source | None:
        """What is in force under this id."""
        return next((source for source in self.texts if pack_id(source.text) == wanted), None)

    def instead(self, wanted: str, text: str) -> tuple[Source, ...]:
        """All of them, with another text in the place of one pack, or beside them."""
        new = Source(f"{wanted}.yaml", text)
        old = self.of(wanted)
        return (*(new if source is old else source for source in self.texts), *(() if old else (new,)))


class Read(NamedTuple):
    """The sources as they were found; compiled unless they are what is in force already."""

    sources: Sources
    pack: Pack | None
    problems: tuple[Problem, ...]


def shown(publication: Publication) -> str:
    """What problems call it, and the page of the rules, in the place of a file's name."""
    return f"{publication.pack_id}#{publication.id}"


class RuleBook:
    """Holds the pack for new calls; for one event loop.

    ``record``, ``on_loaded`` (told when other rules are in force) and ``head`` (a learned judge of voices)
    are set by whoever puts the service together.
    """

    def __init__(
        self,
        pack: Pack,
        paths: Sequence[Path] = (),
        *,
        sources: Sources | None = None,
        published: Published | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self.pack = pack
        """What new calls begin with."""
        self.sources = sources or Sources()
        """What it was made of."""
        self.refused: Refused | None = None
        """The last that was refused, until the files are in order again."""
        self.loaded_at = written(clock())
        self.record: Record | None = None
        self.head: Head | None = None
        self.on_loaded: Callable[[], Awaitable[object]] | None = None
        self._paths = tuple(paths)
        self._published = published
        self._clock = clock
        self._panels: WeakSet[Panel] = WeakSet()
        self._turn = asyncio.Lock()
        self._digest = ""
        self._stamps: object = None
        """What the files looked like when they were read last."""
        self._seen: object = None
        """What they looked like at the last look."""
        self._asked_head = self.sources.head
        """The last publication when it was read last."""

    @classmethod
    def open(cls, path: Path | None, published: Published | None = None) -> RuleBook:
        """The rules in a file or folder, the built-in ones if there is none given, and what was published.

        Raises ``PackRefused`` with every error: at the start there is nothing to fall back on. Raises
        ``StoreError`` where it cannot be asked what was published.
        """
        paths = [path or DEFAULT_PACK]
        stamps = _stamps(paths)
        read = _read(paths, published, "")
        if read.pack is None:
            told = str(PackError(read.problems))
            if read.sources.published:
                told += "\nWhat has a # in its name was published: duting rules unpublish PACK undoes that"
            raise PackRefused(told)
        book = cls(read.pack, paths, sources=read.sources, published=published)
        book._digest, book._stamps = read.sources.digest, stamps
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
        """Look at files and publications again and again, until cancelled; 0: at publications alone."""
        while True:
            await asyncio.sleep(every_s or PUBLISHED_S)
            try:
                await (self.look() if every_s else self.look(files=False))
            except Exception:  # whatever it is: the rules in force stay, and the next look may do better
                log.exception("rules.look_failed")

    async def look(self, *, files: bool = True) -> Outcome | None:
        """Read what has changed, files once they stand still; ``None`` if nothing has."""
        stamps = await asyncio.to_thread(_stamps, self._paths)
        settled, self._seen = stamps == self._seen, stamps
        changed = files and settled and stamps != self._stamps
        if not changed and not await asyncio.to_thread(self._is_published):
            return None
        return await self.reload(FILES)

    async def current(self) -> Sources:
        """The files and what is published, as they are at this moment; not yet compiled. May raise
        ``StoreError``."""
        return await asyncio.to_thread(_sources, self._paths, self._published)

    async def reload(self, by: str, address: str | None = None) -> Outcome:
        """Read everything now, and put it in force if it is in order.

        ``by`` is the account that asks, from ``address``; both go into the audit. Raises ``StoreError`` where
        it cannot be asked what was published: the rules in force stay.
        """
        async with self._turn:
            stamps = await asyncio.to_thread(_stamps, self._paths)
            # Compiled in a thread: the calls in progress are heard meanwhile.
            read = await asyncio.to_thread(_read, self._paths, self._published, self._digest)
            self._stamps, self._asked_head = stamps, read.sources.head
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

    def _is_published(self) -> bool:
        """Whether something was published since it was asked last."""
        if self._published is None:
            return False
        try:
            return self._published.head() != self._asked_head
        except StoreError as error:  # the rules in force stay; the next look asks again
            log.warning("rules.not_asked", error=str(error))
            return False

    def _take(self, read: Read, by: str) -> Outcome:
        if read.problems:
            known = self.refused is not None and self.refused.digest == read.sources.digest
            self.refused = Refused(
                at=written(self._clock()), by=by, digest=read.sources.digest, problems=read.problems
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
        self.sources = read.sources
        if read.pack is None:
            return "unchanged"
        before = self.pack.version
        self.pack, self._digest = read.pack, read.sources.digest
        self.loaded_at = written(self._clock())
        log.info("rules.loaded", version=read.pack.version, before=before, rules=len(read.pack.rules))
        return "loaded"

    async def _write_down(self, by: str, outcome: Outcome, address: str | None) -> None:
        if self.record is None:
            return
        action: AuditAction = "rules.refused" if outcome == "refused" else "rules.loaded"
        if outcome == "unchanged":
            action = "rules.unchanged"
        subject = self.refused.digest if outcome == "refused" and self.refused else self.pack.version
        try:
            await asyncio.to_thread(self.record, by, action, subject, address)
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


def _sources(paths: Sequence[Path], published: Published | None) -> Sources:
    files, problems = read_packs(paths) if paths else ([], [])
    if published is None:
        return Sources(tuple(files), problems=tuple(problems))
    head, packs = published.in_force()
    if not packs:
        return Sources(tuple(files), problems=tuple(problems), head=head)
    waiting = {publication.pack_id: publication for publication in packs}
    texts: list[Source] = []
    replaced: list[Source] = []
    for file in files:
        publication = waiting.pop(pack_id(file.text) or "", None)
        if publication is None:
            texts.append(file)
        else:
            replaced.append(file)
            texts.append(Source(shown(publication), publication.text))
    texts += [Source(shown(publication), publication.text) for publication in waiting.values()]
    return Sources(tuple(texts), tuple(packs), tuple(replaced), tuple(problems), head)


def _read(paths: Sequence[Path], published: Published | None, in_force: str) -> Read:
    sources = _sources(paths, published)
    if sources.digest == in_force:
        return Read(sources, None, ())
    try:
        pack = parse_packs(sources.texts, sources.problems)
        pack.index  # noqa: B018 - made now, in this thread, not when the first call asks for it
        return Read(sources, pack, ())
    except PackError as error:
        return Read(sources, None, error.problems)
