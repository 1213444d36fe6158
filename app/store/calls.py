"""Calls and what happened in them, for reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, false, func, or_, select, true
from sqlalchemy.orm import Session

from app.rights import Sight
from app.store.log import head_of
from app.store.tables import AlertRow, CallRow, EmotionRow, MarkerRow, ProgressRow, UtteranceRow
from app.store.texts import clean
from app.store.times import written
from streams.events import CallEnded, Emotion, Place, Progress, Severity

if TYPE_CHECKING:
    from app.store.database import Store

Counts = dict[str, int]
"""By severity: alerts that neither a later transcript nor a person has taken back."""

TAKEN_BACK = ("withdrawn", "false_alarm")
OPEN = ("open", "escalated")
"""States in which nobody has taken an alert in hand."""
EMOTIONS_WITHIN_MS = 180_000
"""Of a call's last part, for its card on the floor."""

ALERTS_OF_ONE_CALL = 60
"""On the floor: one call that raises a thousand alerts must not push those of the others away."""
ALERTS_LOOKED_AT = 5000
"""The newest of all calls, out of which the floor's are taken."""


class Floor(NamedTuple):
    """All live calls at one moment of the log."""

    cursor: int
    calls: Sequence[CallRow]
    counts: dict[str, Counts]
    """By ``call_id``."""
    open: dict[str, Counts]
    """By ``call_id``: only what nobody has taken in hand."""
    alerts: Sequence[tuple[AlertRow, CallRow]]
    all_open: Counts
    """Of all calls since that time, also beyond ``alerts``."""
    emotions: dict[str, list[Emotion]]
    """By ``call_id``: of its last minutes, in order."""
    progress: dict[str, list[Progress]]
    """By ``call_id``: one of each script, the last changed last."""


class Wanted(NamedTuple):
    """Which calls somebody looks for; ``None``: whichever."""

    state: Literal["live", "ended"] | None = None
    agent: str | None = None
    queue: str | None = None
    severity: Severity | None = None
    """With an alert of it that nobody has taken back."""
    since: datetime | None = None
    until: datetime | None = None
    """Begun from ``since`` on and before ``until``."""


class CallFile(NamedTuple):
    """Everything about one call at one moment of the log."""

    cursor: int
    call: CallRow
    counts: Counts
    utterances: Sequence[UtteranceRow]
    alerts: Sequence[AlertRow]
    markers: Sequence[MarkerRow]
    emotions: Sequence[EmotionRow]
    progress: Sequence[ProgressRow]


class Places(NamedTuple):
    """Whose the live calls are, at one moment of the log."""

    cursor: int
    places: dict[str, Place]
    """By ``call_id``."""


class Page(NamedTuple):
    calls: Sequence[CallRow]
    counts: dict[str, Counts]
    next: int | None
    """``before`` of the page that follows."""


class Calls:
    def __init__(self, store: Store) -> None:
        self._store = store

    def floor(self, alerts_since: str, alerts_limit: int, sight: Sight) -> Floor:
        """Live calls in sight, longest running first, and the alerts of those in sight, newest first.

        Of one call at most ``ALERTS_OF_ONE_CALL``.

        Cursor and rows are of one snapshot: a subscription from that cursor continues exactly here.
        """
        with self._store.reading() as session:
            cursor = head_of(session)
            live = select(CallRow).where(CallRow.state == "live", within(sight)).order_by(CallRow.cursor)
            calls = session.scalars(live).all()
            newest = (
                select(AlertRow.alert_id, AlertRow.call_id, AlertRow.cursor)
                .join(CallRow, CallRow.call_id == AlertRow.call_id)
                .where(AlertRow.at >= alerts_since, within(sight))
                .order_by(AlertRow.cursor.desc())
                .limit(ALERTS_LOOKED_AT)
                .subquery()
            )
            of_its_call = func.row_number().over(
                partition_by=newest.c.call_id, order_by=newest.c.cursor.desc()
            )
            recent = select(newest.c.alert_id, of_its_call.label("place")).subquery()
            alerts = session.execute(
                select(AlertRow, CallRow)
                .join(CallRow, CallRow.call_id == AlertRow.call_id)
                .join(recent, recent.c.alert_id == AlertRow.alert_id)
                .where(recent.c.place <= ALERTS_OF_ONE_CALL)
                .order_by(AlertRow.cursor.desc())
                .limit(alerts_limit)
            ).all()
            ids = [call.call_id for call in calls]
            all_open = session.execute(
                select(AlertRow.severity, func.count())
                .join(CallRow, CallRow.call_id == AlertRow.call_id)
                .where(AlertRow.at >= alerts_since, AlertRow.state.in_(OPEN), within(sight))
                .group_by(AlertRow.severity)
            ).all()
            return Floor(
                cursor,
                calls,
                _counts(session, ids),
                _counts(session, ids, AlertRow.state.in_(OPEN)),
                [(alert, call) for alert, call in alerts],
                {severity: count for severity, count in all_open},
                _emotions(session, sight),
                _progress(session, sight),
            )

    def page(self, wanted: Wanted, limit: int, before: int | None, sight: Sight) -> Page:
        """Those of the wanted calls that are in sight, last begun first."""
        query = select(CallRow).where(within(sight), *_wanted(wanted))
        query = query.order_by(CallRow.cursor.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(CallRow.cursor < before)
        with self._store.reading() as session:
            calls = session.scalars(query).all()
            more, calls = len(calls) > limit, calls[:limit]
            counts = _counts(session, [call.call_id for call in calls])
        return Page(calls, counts, calls[-1].cursor if more else None)

    def file(self, call_id: str) -> CallFile | None:
        """One call, what happened in order of media time, its alerts in order of raising."""
        with self._store.reading() as session:
            call = session.get(CallRow, call_id)
            if call is None:
                return None
            return CallFile(
                head_of(session),
                call,
                _counts(session, [call_id]).get(call_id, {}),
                session.scalars(
                    select(UtteranceRow)
                    .where(UtteranceRow.call_id == call_id)
                    .order_by(UtteranceRow.start_ms, UtteranceRow.cursor)
                ).all(),
                session.scalars(
                    select(AlertRow).where(AlertRow.call_id == call_id).order_by(AlertRow.cursor)
                ).all(),
                session.scalars(
                    select(MarkerRow)
                    .where(MarkerRow.call_id == call_id)
                    .order_by(MarkerRow.media_start_ms, MarkerRow.cursor)
                ).all(),
                session.scalars(
                    select(EmotionRow)
                    .where(EmotionRow.call_id == call_id)
                    .order_by(EmotionRow.media_start_ms, EmotionRow.cursor)
                ).all(),
                session.scalars(
                    select(ProgressRow).where(ProgressRow.call_id == call_id).order_by(ProgressRow.cursor)
                ).all(),
            )

    def alert(self, alert_id: str) -> tuple[AlertRow, CallRow] | None:
        """One alert and the call in which it was raised."""
        with self._store.reading() as session:
            row = session.get(AlertRow, alert_id)
            return None if row is None else (row, session.get_one(CallRow, row.call_id))

    def row(self, call_id: str) -> CallRow | None:
        with self._store.reading() as session:
            return session.get(CallRow, call_id)

    def known(self, call_id: str) -> bool:
        with self._store.reading() as session:
            return session.get(CallRow, call_id) is not None

    def place(self, call_id: str) -> Place | None:
        """Whose call it is; ``None`` if there is no such call."""
        with self._store.reading() as session:
            row = session.execute(
                select(CallRow.agent, CallRow.team).where(CallRow.call_id == call_id)
            ).first()
        return None if row is None else Place(agent=row.agent, team=row.team)

    def places(self) -> Places:
        """Whose the live calls are."""
        with self._store.reading() as session:
            rows = session.execute(
                select(CallRow.call_id, CallRow.agent, CallRow.team).where(CallRow.state == "live")
            )
            return Places(
                head_of(session), {row.call_id: Place(agent=row.agent, team=row.team) for row in rows}
            )

    def began(self, call_id: str) -> tuple[str, int] | None:
        """When a call began that is live, and the latest media time known of it; ``None`` if it is not."""
        with self._store.reading() as session:
            row = session.execute(
                select(CallRow.started_at, CallRow.media_ms).where(
                    CallRow.call_id == call_id, CallRow.state == "live"
                )
            ).first()
        return None if row is None else (row[0], row[1])

    def state(self, call_id: str) -> str | None:
        """``live`` or ``ended``; ``None`` if there is no such call."""
        with self._store.reading() as session:
            return session.scalar(select(CallRow.state).where(CallRow.call_id == call_id))

    def ended(self, call_id: str) -> CallEnded | None:
        """How a call ended; ``None`` if it has not."""
        with self._store.reading() as session:
            row = session.get(CallRow, call_id)
            if row is None or row.state != "ended":
                return None
            return msgspec.convert(
                {
                    "type": "CallEnded",
                    "call_id": call_id,
                    "media_ms": row.media_ms,
                    "reason": row.reason,
                    "by": row.ended_by,
                },
                CallEnded,
            )

    def live(self) -> list[tuple[str, int]]:
        """Ids of live calls, each with the latest media time known of it."""
        with self._store.reading() as session:
            rows = session.execute(
                select(CallRow.call_id, CallRow.media_ms).where(CallRow.state == "live")
            ).all()
        return [(call_id, media_ms) for call_id, media_ms in rows]

    def seen(self, call_ids: Sequence[str], sight: Sight) -> set[str]:
        """Those of the calls that are in sight."""
        found: set[str] = set()
        with self._store.reading() as session:
            for some in _batches(call_ids):
                found |= set(
                    session.scalars(select(CallRow.call_id).where(CallRow.call_id.in_(some), within(sight)))
                )
        return found

    def said(self, utterance_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """By utterance: on which channel, and what, as it is stored."""
        found: dict[str, tuple[str, str]] = {}
        with self._store.reading() as session:
            for some in _batches(utterance_ids):
                rows = select(UtteranceRow.utterance_id, UtteranceRow.role, UtteranceRow.text)
                for utterance_id, role, text in session.execute(
                    rows.where(UtteranceRow.utterance_id.in_(some))
                ):
                    found[utterance_id] = role, text
        return found

    def count_live(self) -> int:
        with self._store.reading() as session:
            return session.scalar(select(func.count()).where(CallRow.state == "live")) or 0


def _batches(ids: Sequence[str], size: int = 500) -> Iterator[Sequence[str]]:
    """A statement takes only so many parameters."""
    return (ids[at : at + size] for at in range(0, len(ids), size))


def _wanted(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    if wanted.state is not None:
        yield CallRow.state == wanted.state
    if wanted.agent is not None:
        yield CallRow.agent == clean(wanted.agent)
    if wanted.queue is not None:
        yield CallRow.queue == clean(wanted.queue)
    if wanted.severity is not None:
        raised = select(AlertRow.alert_id).where(
            AlertRow.call_id == CallRow.call_id,
            AlertRow.severity == wanted.severity,
            AlertRow.state.not_in(TAKEN_BACK),
        )
        yield raised.exists()
    if wanted.since is not None:
        yield CallRow.started_at >= written(wanted.since)
    if wanted.until is not None:
        yield CallRow.started_at < written(wanted.until)


def within(sight: Sight) -> ColumnElement[bool]:
    """As ``Sight.sees``, in the database."""
    if sight.everything:
        return true()
    ways: list[ColumnElement[bool]] = []
    if sight.teams:
        ways.append(CallRow.team.in_(sight.teams))
    if sight.agent is not None:
        ways.append(CallRow.agent == sight.agent)
    return or_(*ways) if ways else false()


def _emotions(session: Session, sight: Sight) -> dict[str, list[Emotion]]:
    """Of live calls; columns instead of rows, as there are thousands."""
    rows = session.execute(
        select(EmotionRow.call_id, EmotionRow.body)
        .join(CallRow, CallRow.call_id == EmotionRow.call_id)
        .where(
            CallRow.state == "live",
            EmotionRow.media_start_ms >= CallRow.media_ms - EMOTIONS_WITHIN_MS,
            within(sight),
        )
        .order_by(EmotionRow.call_id, EmotionRow.media_start_ms)
    )
    found: dict[str, list[Emotion]] = {}
    for call_id, body in rows:
        found.setdefault(call_id, []).append(_EMOTION.decode(body))
    return found


def _progress(session: Session, sight: Sight) -> dict[str, list[Progress]]:
    rows = session.execute(
        select(ProgressRow.call_id, ProgressRow.body)
        .join(CallRow, CallRow.call_id == ProgressRow.call_id)
        .where(CallRow.state == "live", within(sight))
        .order_by(ProgressRow.cursor)
    )
    found: dict[str, list[Progress]] = {}
    for call_id, body in rows:
        found.setdefault(call_id, []).append(_PROGRESS.decode(body))
    return found


_EMOTION = msgspec.json.Decoder(Emotion)
_PROGRESS = msgspec.json.Decoder(Progress)


def _counts(
    session: Session,
    call_ids: list[str],
    which: ColumnElement[bool] = AlertRow.state.not_in(TAKEN_BACK),  # noqa: B008 - never changed
) -> dict[str, Counts]:
    counts: dict[str, Counts] = {}
    if not call_ids:
        return counts
    rows = session.execute(
        select(AlertRow.call_id, AlertRow.severity, func.count())
        .where(AlertRow.call_id.in_(call_ids), which)
        .group_by(AlertRow.call_id, AlertRow.severity)
    )
    for call_id, severity, count in rows:
        counts.setdefault(call_id, {})[severity] = count
    return counts
