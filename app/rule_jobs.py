"""What is done with rule packs beside the calls: a process of its own, which may be ended at any time.

``app.workbench`` is the server's side. Down the standard input come jobs, up the standard output go answers:
MessagePack behind four bytes of length, little-endian. A job is a draft that somebody has just written; what
it costs nobody knows, so it runs here, at a low priority, with bounded memory, and not beside the calls. The
process ends when its input does, also when the server was killed.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import resource
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Struct

from app import backtest
from app.piped import framed, read_message
from app.store import Store
from detectors.backtest import Hit, RuleDiff, compare, judged, replay
from detectors.dialogues import run_tests
from detectors.rehearsal import Fired, Nearly, rehearse
from detectors.rules import Pack, PackError, Problem
from detectors.rules.loader import Source, parse_packs
from detectors.rules.model import TestTurn
from streams.events import CallInfo

MEMORY: Final = 3 << 30
"""Bytes that the process may take; then its job fails, and nothing else."""
NICE: Final = 10
NICE_TRIAL: Final = 19
MOST_PLACES: Final = 50
"""Places of each kind and rule that a trial names; it counts all of them."""
MOST_DIFF_LINES: Final = 20_000
CONTEXT_LINES: Final = 3


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────


class Check(Struct, tag=0, array_like=True):
    """Compile all packs together; run the dialogues of one."""

    sources: tuple[Source, ...]
    file: str
    """Which of them."""


class Rehearse(Struct, tag=1, array_like=True):
    sources: tuple[Source, ...]
    turns: tuple[TestTurn, ...]
    call: CallInfo
    whole: bool


class Compare(Struct, tag=2, array_like=True):
    before: str
    after: str


class Try(Struct, tag=3, array_like=True):
    """Run a draft and what is in force over the same stored calls."""

    database: str
    file: str
    sources: tuple[Source, ...]
    """With the draft."""
    in_force: tuple[Source, ...]
    call_ids: tuple[str, ...]


Job = Check | Rehearse | Compare | Try

# ── answers ───────────────────────────────────────────────────────────────────────────────────────


class Failed(Struct, frozen=True, tag=0):
    """A dialogue of the pack."""

    rule_id: str
    name: str
    line: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


class Wrong(Struct, frozen=True, tag=1):
    """The packs have errors."""

    problems: tuple[Problem, ...]


class Checked(Struct, frozen=True, tag=2):
    pack_id: str
    version: str
    rules: int
    scripts: int
    dialogues: int
    failed: tuple[Failed, ...]


class Rehearsed(Struct, frozen=True, tag=3):
    version: str
    fired: tuple[Fired, ...]
    nearly: tuple[Nearly, ...]
    names: dict[str, dict[str, str]]
    """Of the rules that are named."""
    severities: dict[str, str]


class Line(Struct, frozen=True):
    kind: str
    """``same``, ``added``, ``removed``; ``gap``: lines that are the same are left out."""
    before: int | None
    after: int | None
    text: str


class Compared(Struct, frozen=True, tag=4):
    added: int
    removed: int
    lines: tuple[Line, ...]


class Progress(Struct, frozen=True, tag=5):
    done: int


class RuleTried(Struct, frozen=True, kw_only=True):
    rule_id: str
    name: dict[str, str]
    same: int
    new: int
    gone: int
    false_alarms_gone: int
    """Of ``gone``: what people had found to be a false alarm."""
    false_alarms_kept: int
    confirmed_gone: int
    limited: tuple[str, ...]
    new_at: tuple[Hit, ...]
    gone_at: tuple[Hit, ...]


class Tried(Struct, frozen=True, tag=6, kw_only=True):
    version: str
    in_force: str
    calls: int
    seconds: float
    rules: tuple[RuleTried, ...]
    """Those that found anything; in the order of the pack."""


class Broke(Struct, frozen=True, tag=7):
    """The job failed in a way that nobody foresaw."""

    error: str


Answer = Wrong | Checked | Rehearsed | Compared | Progress | Tried | Broke
JOBS: Final = msgspec.msgpack.Decoder(Job)
ANSWERS: Final = msgspec.msgpack.Decoder(Answer)


# ── the work ──────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=2)
def compiled(sources: tuple[Source, ...]) -> Pack:
    """Raises ``PackError``."""
    return parse_packs(sources)


def done(job: Job, tell: Callable[[Answer], None]) -> Answer:
    """What comes of a job; ``tell`` is told how far a long one is."""
    try:
        match job:
            case Check():
                return _check(job)
            case Rehearse():
                return _rehearse(job)
            case Compare():
                return _compare(job.before, job.after)
            case Try():
                return _try(job, tell)
    except PackError as error:
        return Wrong(error.problems)


def _check(job: Check) -> Checked:
    pack = compiled(job.sources)
    part = next(part for part in pack.parts if part.file == job.file)
    rules = [rule for rule in pack.rules if rule.version == part.version]
    scripts = [one for one in pack.scripts if any(node.rule.version == part.version for node in one.nodes)]
    # By itself: a dialogue says all that fires, and knows no rules of other packs.
    alone = compiled(tuple(source for source in job.sources if source.file == job.file))
    results = run_tests(alone)
    return Checked(
        part.id,
        part.version,
        len(rules),
        len(scripts),
        len(results),
        tuple(
            Failed(one.rule_id, one.name, one.line, one.missing, one.unexpected)
            for one in results
            if not one.passed
        ),
    )


def _rehearse(job: Rehearse) -> Rehearsed:
    pack = compiled(job.sources)
    found = rehearse(pack, job.turns, job.call, whole=job.whole)
    named = {one.rule_id for one in found.fired} | {one.rule_id for one in found.nearly}
    rules = {rule.id: rule for rule in pack.raising if rule.id in named}
    return Rehearsed(
        pack.version,
        found.fired,
        found.nearly,
        {rule_id: dict(rule.name) for rule_id, rule in rules.items()},
        {rule_id: rule.severity for rule_id, rule in rules.items()},
    )


def _compare(before: str, after: str) -> Compared:
    one, other = before.splitlines(), after.splitlines()
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=len(one) > MOST_DIFF_LINES)
    lines: list[Line] = []
    added = removed = 0
    groups = list(matcher.get_grouped_opcodes(CONTEXT_LINES))
    for number, group in enumerate(groups):
        if number or (group and (group[0][1] or group[0][3])):
            lines.append(Line("gap", None, None, ""))
        for kind, a, b, c, d in group:
            if kind == "equal":
                lines += [Line("same", a + n + 1, c + n + 1, one[a + n]) for n in range(b - a)]
                continue
            removed += b - a
            added += d - c
            lines += [Line("removed", n + 1, None, one[n]) for n in range(a, b)]
            lines += [Line("added", None, n + 1, other[n]) for n in range(c, d)]
    return Compared(added, removed, tuple(lines[:MOST_DIFF_LINES]))


def _try(job: Try, tell: Callable[[Answer], None]) -> Tried:
    draft, in_force = compiled(job.sources), compiled(job.in_force)
    part = next(part for part in draft.parts if part.file == job.file)
    store = Store.open(job.database)
    try:
        then: list[Hit] = []
        now: list[Hit] = []
        seconds, calls = 0.0, 0
        for count, call_id in enumerate(job.call_ids, 1):
            stored = backtest.stored_call(store, call_id)
            if stored is not None:
                calls += 1
                seconds += stored.media_ms / 1000
                # Both on what the store holds: a difference is then one of the rules, and nothing else.
                then += judged(replay(in_force, stored), list(backtest.found_then(store, call_id)))
                now += replay(draft, stored)
            tell(Progress(count))
    finally:
        store.close()
    names = {rule.id: dict(rule.name) for pack in (in_force, draft) for rule in pack.raising}
    return Tried(
        version=part.version,
        in_force=in_force.version,
        calls=calls,
        seconds=round(seconds, 1),
        rules=tuple(
            _tried(diff, names.get(diff.rule_id, {}))
            for diff in compare(draft, then, now)
            if diff.same or diff.new or diff.gone
        ),
    )


def _tried(diff: RuleDiff, name: dict[str, str]) -> RuleTried:
    def count(hits: Sequence[Hit], state: str) -> int:
        return sum(1 for hit in hits if hit.state == state)

    return RuleTried(
        rule_id=diff.rule_id,
        name=name,
        same=len(diff.same),
        new=len(diff.new),
        gone=len(diff.gone),
        false_alarms_gone=count(diff.gone, "false_alarm"),
        false_alarms_kept=count(diff.same, "false_alarm"),
        confirmed_gone=count(diff.gone, "resolved"),
        limited=diff.limited,
        new_at=diff.new[:MOST_PLACES],
        gone_at=diff.gone[:MOST_PLACES],
    )


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.nice(NICE_TRIAL if "--trial" in sys.argv else NICE)

    # Whatever else prints goes to standard error: the pipe holds answers alone.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def tell(answer: Answer) -> None:
        out.write(framed(answer))
        out.flush()

    # A server that is gone reads nothing more: that ends a long job too.
    with contextlib.suppress(BrokenPipeError):
        while (message := read_message(sys.stdin.buffer)) is not None:
            try:
                answer = done(JOBS.decode(message), tell)
            except BrokenPipeError:
                raise
            except Exception as error:
                # The kind alone: what it says may hold words of calls.
                answer = Broke(type(error).__name__)
            tell(answer)


if __name__ == "__main__":
    main()
