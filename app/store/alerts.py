"""What became of alerts: their history, those whose time is over, and how often a rule was right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from msgspec import Struct
from sqlalchemy import func, select

from app.rights import Sight
from app.store.calls import within
from app.store.tables import AlertChangeRow, AlertRow, CallRow
from streams import alert_life
from streams.events import Alert, AlertChange

if TYPE_CHECKING:
    from app.store.database import Store


class Precision(Struct, kw_only=True):
    """How often a rule was right, over all of its versions, as people judged it."""

    rule_id: str
    name: dict[str, str]
    """By language; of its last alert."""
    severity: str
    raised: int = 0
    """Not counting what was withdrawn."""
    resolved: int = 0
    false_alarms: int = 0
    precision: float | None = None
    """``resolved`` of those judged, 0 to 1; ``None`` while none is."""


class AlertPage(NamedTuple):
    alerts: Sequence[tuple[AlertRow, CallRow]]
    """Each with the call in which it was raised."""
    next: int | None
    """``before`` of the page that follows."""


class Alerts:
    def __init__(self, store: Store) -> None:
        self._store = store

    def page(
        self,
        appeal: Literal["open", "accepted", "rejected"] | None,
        limit: int,
        before: int | None,
        sight: Sight,
    ) -> AlertPage:
        """Alerts of calls in sight, last raised first; ``appeal``: those of which the appeal stands so.

        An open one is one that can be answered: what the rules have withdrawn meanwhile is not among them.
        """
        query = (
            select(AlertRow, CallRow)
            .join(CallRow, CallRow.call_id == AlertRow.call_id)
            .where(within(sight))
            .order_by(AlertRow.cursor.desc())
            .limit(limit + 1)
        )
        if appeal is not None:
            query = query.where(AlertRow.appeal == appeal)
        if appeal == "open":
            query = query.where(AlertRow.state.in_(alert_life.FROM["accept_appeal"]))
        if before is not None:
            query = query.where(AlertRow.cursor < before)
        with self._store.reading() as session:
            found = [(alert, call) for alert, call in session.execute(query)]
        more, found = len(found) > limit, found[:limit]
        return AlertPage(found, found[-1][0].cursor if more else None)

    def history(self, alert_id: str, limit: int) -> list[AlertChange]:
        """What became of an alert, oldest first; of more than ``limit`` steps the newest."""
        rows = (
            select(AlertChangeRow.body)
            .where(AlertChangeRow.alert_id == alert_id)
            .order_by(AlertChangeRow.cursor.desc())
            .limit(limit)
        )
        with self._store.reading() as session:
            bodies = session.scalars(rows).all()
        return [msgspec.json.decode(body, type=AlertChange) for body in reversed(bodies)]

    def last_step(self, alert_id: str) -> AlertChange | None:
        """The last change of its state or its owner; a comment is none."""
        row = (
            select(AlertChangeRow.body)
            .where(AlertChangeRow.alert_id == alert_id, AlertChangeRow.action != "comment")
            .order_by(AlertChangeRow.cursor.desc())
            .limit(1)
        )
        with self._store.reading() as session:
            body = session.scalar(row)
        return None if body is None else msgspec.json.decode(body, type=AlertChange)

    def appeals(self, call_id: str) -> list[tuple[str, AlertChange]]:
        """Appeals against a call's alerts and their answers, oldest first, each with its alert's id."""
        rows = (
            select(AlertChangeRow.alert_id, AlertChangeRow.body)
            .join(AlertRow, AlertRow.alert_id == AlertChangeRow.alert_id)
            .where(
                AlertRow.call_id == call_id,
                AlertChangeRow.action.in_(("appeal", "accept_appeal", "reject_appeal")),
            )
            .order_by(AlertChangeRow.cursor)
        )
        with self._store.reading() as session:
            found = session.execute(rows).all()
        return [(alert_id, msgspec.json.decode(body, type=AlertChange)) for alert_id, body in found]

    def of_call(self, alert_ids: list[str], call_id: str) -> list[Alert]:
        """Those of these alerts that are there and belong to the call."""
        rows = select(AlertRow.body).where(AlertRow.alert_id.in_(alert_ids), AlertRow.call_id == call_id)
        with self._store.reading() as session:
            return [msgspec.json.decode(body, type=Alert) for body in session.scalars(rows)]

    def due(self, at: str, limit: int) -> list[Alert]:
        """Alerts whose time was over at that moment (as ``times.written`` writes), longest waiting first."""
        rows = (
            select(AlertRow.body)
            .where(AlertRow.escalates_at <= at)
            .order_by(AlertRow.escalates_at, AlertRow.alert_id)
            .limit(limit)
        )
        with self._store.reading() as session:
            return [msgspec.json.decode(body, type=Alert) for body in session.scalars(rows)]

    def precision(self) -> list[Precision]:
        """By rule; of every rule that raised an alert, also one that is no more."""
        counts = select(AlertRow.rule_id, AlertRow.state, func.count()).group_by(
            AlertRow.rule_id, AlertRow.state
        )
        latest = select(func.max(AlertRow.cursor)).group_by(AlertRow.rule_id)
        named = select(AlertRow.body).where(AlertRow.cursor.in_(latest))
        with self._store.reading() as session:
            found = {
                alert.rule_id: Precision(rule_id=alert.rule_id, name=alert.name, severity=alert.severity)
                for alert in (msgspec.json.decode(body, type=Alert) for body in session.scalars(named))
            }
            for rule_id, state, count in session.execute(counts):
                if state != "withdrawn":
                    found[rule_id].raised += count
                if state == "resolved":
                    found[rule_id].resolved += count
                elif state == "false_alarm":
                    found[rule_id].false_alarms += count
        for one in found.values():
            judged = one.resolved + one.false_alarms
            one.precision = one.resolved / judged if judged else None
        return [found[rule_id] for rule_id in sorted(found)]
