"""``duting rules backtest``: a pack over the calls in the store, compared with what was found in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from app.errors import SettingsError
from app.store import Store
from app.store.times import now, written
from detectors.backtest import Hit, RuleDiff, StoredCall, compare, replay
from detectors.rules import Pack
from streams.events import CallInfo, Channel, Emotion, Transcript, Word
from streams.runner import EndReason

_AGO: Final = re.compile(r"(\d{1,5})([dh])")


class Report(Struct, frozen=True, kw_only=True):
    """What a pack would have found, beside what was found. Holds no words of anybody."""

    pack: str
    version: str
    since: str | None
    calls: int
    seconds: float
    """Length of the calls together."""
    versions: list[str]
    """Of the rules under which the calls ran, as far as they found anything."""
    rules: list[RuleDiff]


def since(text: str, moment: datetime | None = None) -> str:
    """A day (``2026-03-01``), a moment (RFC 3339), or so long ago (``7d``, ``24h``), as the store writes it.

    Raises ``SettingsError``. A day or a moment without a zone is one of this machine's own.
    """
    match = _AGO.fullmatch(text)
    if match is not None:
        number = int(match.group(1))
        ago = timedelta(days=number) if match.group(2) == "d" else timedelta(hours=number)
        return written((moment or now()) - ago)
    try:
        return written(datetime.fromisoformat(text).astimezone())
    except (ValueError, OverflowError):
        raise SettingsError(
            f"--since expects a day (2026-03-01), a moment (2026-03-01T08:00:00+08:00) or so long ago "
            f"(7d, 24h), came {text!r}"
        ) from None


def backtest(
    store: Store,
    pack: Pack,
    call_ids: Sequence[str],
    on_progress: Callable[[int], None] = lambda _done: None,
    since: str | None = None,
) -> Report:
    """Run the pack over these calls; ``on_progress`` is told how many are done. Unknown ids are left out."""
    then: list[Hit] = []
    found: list[Hit] = []
    seconds = 0.0
    calls = 0
    for done, call_id in enumerate(call_ids, 1):
        stored = stored_call(store, call_id)
        if stored is not None:
            calls += 1
            seconds += stored.media_ms / 1000
            then += found_then(store, call_id)
            found += replay(pack, stored)
        on_progress(done)
    return Report(
        pack=pack.id,
        version=pack.version,
        since=since,
        calls=calls,
        seconds=seconds,
        versions=sorted({hit.rule_version for hit in then if hit.rule_version is not None}),
        rules=compare(pack, then, found),
    )


_REASONS: Final[dict[str, EndReason]] = {
    "disconnected": "disconnected",
    "interrupted": "interrupted",
    "error": "error",
}


def stored_call(store: Store, call_id: str) -> StoredCall | None:
    """What is left of a call; ``None``: there is no such call."""
    file = store.calls.file(call_id)
    if file is None:
        return None
    return StoredCall(
        call=msgspec.json.decode(file.call.info, type=CallInfo),
        media_ms=file.call.media_ms,
        reason=_REASONS.get(file.call.reason or "", "hangup"),
        finals=tuple(
            Transcript(
                call_id=call_id,
                utterance_id=row.utterance_id,
                role=msgspec.convert(row.role, Channel),
                start_ms=row.start_ms,
                end_ms=row.end_ms,
                text=row.text,
                final=True,
                confidence=row.confidence,
                rejected=row.rejected,
                words=msgspec.json.decode(row.words, type=tuple[Word, ...]),
            )
            for row in file.utterances
        ),
        emotions=tuple(msgspec.json.decode(row.body, type=Emotion) for row in file.emotions),
    )


def found_then(store: Store, call_id: str) -> Iterator[Hit]:
    """What was found in it while it ran, and what people made of it."""
    for known in store.rules.found_in(call_id):
        yield Hit(
            call_id=call_id,
            rule_id=known.rule_id,
            start_ms=known.start_ms,
            end_ms=known.end_ms,
            utterance_id=known.utterance_id,
            rule_version=known.rule_version,
            state=known.state,
            shadow=known.shadow,
        )


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs; ``hits`` by rule with call and media time."""
    return {
        "pack": report.pack,
        "version": report.version,
        "since": report.since,
        "calls": report.calls,
        "seconds": round(report.seconds, 1),
        "versions": report.versions,
        "rules": [
            {
                "rule_id": diff.rule_id,
                "same": len(diff.same),
                "new": len(diff.new),
                "gone": len(diff.gone),
                "false_alarms_kept": false_alarms(diff.same),
                "false_alarms_gone": false_alarms(diff.gone),
                "limited": list(diff.limited),
                "hits": {
                    "same": [_place(hit) for hit in diff.same],
                    "new": [_place(hit) for hit in diff.new],
                    "gone": [_place(hit) for hit in diff.gone],
                },
            }
            for diff in report.rules
        ],
    }


def false_alarms(hits: Sequence[Hit]) -> int:
    return sum(1 for hit in hits if hit.state == "false_alarm")


def _place(hit: Hit) -> dict[str, Any]:
    return {
        key: value
        for key, value in structs.asdict(hit).items()
        if key not in ("rule_id", "utterance_id") and value is not None
    }
