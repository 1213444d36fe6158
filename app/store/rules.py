"""What the rules found: counted by rule and version, and listed call by call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from sqlalchemy import func, select

from app.rights import EVERYTHING, Sight
from app.store.calls import within
from app.store.tables import AlertRow, CallRow, HintRow, MarkerRow, ShadowHitRow
from detectors.telephony import CARDS
from streams.events import Alert, AlertState, CallInfo, Hint, Marker, ShadowHit

if TYPE_CHECKING:
    from app.store.database import Store


class Tally(Struct, kw_only=True):
    """How often a rule fired under one version, and what people made of it."""

    rule_id: str
    version: str | None
    """``None``: markers from before the version was kept."""
    hits: int = 0
    """Not counting what was withdrawn."""
    confirmed: int = 0
    false_alarms: int = 0
    withdrawn: int = 0
    shadow: int = 0
    """While it was on trial."""


class Known(Struct, frozen=True, kw_only=True):
    """One hit as it stands in the store."""

    id: str
    rule_id: str
    rule_version: str | None
    start_ms: int
    end_ms: int
    utterance_id: str | None = None
    state: AlertState | None = None
    """Of an alert; of a mark, a hint or a shadow hit there is none."""
    shadow: bool = False


class Rules:
    def __init__(self, store: Store) -> None:
        self._store = store

    def tallies(self) -> list[Tally]:
        """By rule and version. A hit of a rule that raises no alerts is the marker that it left."""
        found: dict[tuple[str, str | None], Tally] = {}

        def tally(rule_id: str, version: str | None) -> Tally:
            return found.setdefault((rule_id, version), Tally(rule_id=rule_id, version=version))

        alerts = select(AlertRow.rule_id, AlertRow.rule_version, AlertRow.state, func.count()).group_by(
            AlertRow.rule_id, AlertRow.rule_version, AlertRow.state
        )
        markers = (
            select(MarkerRow.rule_id, MarkerRow.rule_version, func.count())
            # What the telephony tells is marked too, by no rule.
            .where(MarkerRow.alert_id.is_(None), MarkerRow.rule_id.is_not(None))
            .where(MarkerRow.rule_id.not_in(list(CARDS)))
            .group_by(MarkerRow.rule_id, MarkerRow.rule_version)
        )
        shadow = select(ShadowHitRow.rule_id, ShadowHitRow.rule_version, func.count()).group_by(
            ShadowHitRow.rule_id, ShadowHitRow.rule_version
        )
        with self._store.reading() as session:
            for rule_id, version, state, count in session.execute(alerts):
                one = tally(rule_id, version)
                if state == "withdrawn":
                    one.withdrawn += count
                    continue
                one.hits += count
                if state == "resolved":
                    one.confirmed += count
                elif state == "false_alarm":
                    one.false_alarms += count
            for marked_by, marked_as, count in session.execute(markers):
                tally(str(marked_by), marked_as).hits += count
            for rule_id, version, count in session.execute(shadow):
                tally(rule_id, version).shadow += count
        return sorted(found.values(), key=lambda t: (t.rule_id, t.version or ""))

    def last_hits(self) -> dict[str, str]:
        """By rule, when it was found last, also on trial. A rule that raises no alerts is known by its
        markers, and those by the begin of their call."""
        times = (
            select(AlertRow.rule_id, func.max(AlertRow.at))
            .where(AlertRow.state != "withdrawn")
            .group_by(AlertRow.rule_id),
            select(ShadowHitRow.rule_id, func.max(ShadowHitRow.at)).group_by(ShadowHitRow.rule_id),
            select(MarkerRow.rule_id, func.max(CallRow.started_at))
            .join(CallRow, CallRow.call_id == MarkerRow.call_id)
            .where(MarkerRow.alert_id.is_(None), MarkerRow.rule_id.is_not(None))
            .group_by(MarkerRow.rule_id),
        )
        last: dict[str, str] = {}
        with self._store.reading() as session:
            for query in times:
                for found, at in session.execute(query):
                    rule_id = str(found)  # none is null: the query says so
                    last[rule_id] = max(at, last.get(rule_id, ""))
        return last

    def alerts_of(self, rule_id: str, sight: Sight, limit: int) -> list[tuple[Alert, str, CallInfo]]:
        """Its last alerts in calls in sight, newest first, each with when it was raised and its call."""
        query = (
            select(AlertRow.body, AlertRow.at, CallRow.info)
            .join(CallRow, CallRow.call_id == AlertRow.call_id)
            .where(AlertRow.rule_id == rule_id, AlertRow.state != "withdrawn", within(sight))
            .order_by(AlertRow.cursor.desc())
            .limit(limit)
        )
        with self._store.reading() as session:
            return [
                (msgspec.json.decode(body, type=Alert), at, msgspec.json.decode(info, type=CallInfo))
                for body, at, info in session.execute(query)
            ]

    def shadow_hits(self, rule_id: str, since: str, limit: int) -> list[tuple[Known, str, str]]:
        """What a rule on trial found, newest first, each with its call and when."""
        query = (
            select(ShadowHitRow.body, ShadowHitRow.call_id, ShadowHitRow.at)
            .where(ShadowHitRow.rule_id == rule_id, ShadowHitRow.at >= since)
            .order_by(ShadowHitRow.at.desc())
            .limit(limit)
        )
        with self._store.reading() as session:
            rows = session.execute(query).all()
        return [(_tried(msgspec.json.decode(body, type=ShadowHit)), call, at) for body, call, at in rows]

    def live_hits(
        self, since: str, limit: int, rule_id: str | None = None, call_ids: Sequence[str] | None = None
    ) -> list[tuple[Known, str, str]]:
        """What rules in force found, newest first, each with its call and when; of one, in some calls."""
        query = (
            select(AlertRow.body, AlertRow.call_id, AlertRow.at)
            .where(AlertRow.at >= since, AlertRow.state != "withdrawn")
            .order_by(AlertRow.cursor.desc())
            .limit(limit)
        )
        if rule_id is not None:
            query = query.where(AlertRow.rule_id == rule_id)
        if call_ids is not None:
            query = query.where(AlertRow.call_id.in_(call_ids))
        with self._store.reading() as session:
            rows = session.execute(query).all()
        return [(_raised(msgspec.json.decode(body, type=Alert)), call, at) for body, call, at in rows]

    def found_in(self, call_id: str) -> list[Known]:
        """Every hit in a call, in order of media time; withdrawn alerts are none.

        A rule that raises no alerts is known by its markers, one that leaves no markers by its hints.
        """
        with self._store.reading() as session:
            alerts, markers, hints, shadow = (
                session.scalars(select(table.body).where(table.call_id == call_id)).all()
                for table in (AlertRow, MarkerRow, HintRow, ShadowHitRow)
            )
        raised = [msgspec.json.decode(body, type=Alert) for body in alerts]
        marked = [msgspec.json.decode(body, type=Marker) for body in markers]
        hinted = [msgspec.json.decode(body, type=Hint) for body in hints]
        tried = [msgspec.json.decode(body, type=ShadowHit) for body in shadow]
        seen = {alert.rule_id for alert in raised} | {marker.rule_id for marker in marked}
        known = [
            *(_raised(a) for a in raised if a.state != "withdrawn"),
            *(
                Known(
                    id=m.id,
                    rule_id=m.rule_id,
                    rule_version=m.rule_version,
                    start_ms=m.media_start_ms,
                    end_ms=m.media_end_ms,
                )
                for m in marked
                if m.alert_id is None and m.rule_id not in CARDS
            ),
            *(
                Known(id=h.id, rule_id=h.rule_id, rule_version=None, start_ms=h.media_ms, end_ms=h.media_ms)
                for h in hinted
                if h.rule_id not in seen
            ),
            *(_tried(s) for s in tried),
        ]
        return sorted(known, key=lambda hit: (hit.start_ms, hit.rule_id, hit.id))

    def calls_to_replay(self, since: str | None, limit: int | None, sight: Sight = EVERYTHING) -> list[str]:
        """Ids of ended calls in sight that began at ``since`` (as ``times.written`` writes) or later, newest
        first."""
        query = select(CallRow.call_id).where(CallRow.state == "ended", within(sight))
        query = query.order_by(CallRow.cursor.desc())
        if since is not None:
            query = query.where(CallRow.started_at >= since)
        with self._store.reading() as session:
            return list(session.scalars(query.limit(limit)))


def _raised(alert: Alert) -> Known:
    return Known(
        id=alert.id,
        rule_id=alert.rule_id,
        rule_version=alert.rule_version,
        start_ms=alert.media_start_ms,
        end_ms=alert.media_end_ms,
        utterance_id=alert.utterance_id,
        state=alert.state,
    )


def _tried(hit: ShadowHit) -> Known:
    return Known(
        id=hit.id,
        rule_id=hit.rule_id,
        rule_version=hit.rule_version,
        start_ms=hit.media_start_ms,
        end_ms=hit.media_end_ms,
        utterance_id=hit.utterance_id,
        shadow=True,
    )
