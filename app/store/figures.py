"""What the floor's head line needs of the past, for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from sqlalchemy import select

from app.store.log import head_of
from app.store.tables import AlertRow, CallRow, EventRow
from streams.events import AlertState, CallInfo

if TYPE_CHECKING:
    from app.store.database import Store


class Decided(NamedTuple):
    alert_id: str
    raised_at: str
    at: str
    """When its state became this one."""
    state: AlertState
    agent: str | None
    team: str | None
    """Whose call it is."""


class Waited(NamedTuple):
    told: str
    agent: str | None
    team: str | None


class _Alert(msgspec.Struct):
    id: str
    state: AlertState = "open"


class _Changed(msgspec.Struct):
    alert: _Alert


_CHANGED = msgspec.json.Decoder(_Changed)


def decided(store: Store, after: int, most: int) -> tuple[int, list[Decided]]:
    """Changes of alerts in the log after a cursor, in order, and the log's head.

    Looks at the last ``most`` events only: what is older was seen before, or nobody looked for so long.
    """
    with store.reading() as session:
        head = head_of(session)
        rows = session.execute(
            select(EventRow.at, EventRow.body)
            .where(EventRow.cursor > max(after, head - most), EventRow.type == "alert.updated")
            .order_by(EventRow.cursor)
        ).all()
        changed = [(at, _CHANGED.decode(body).alert) for at, body in rows]
        ids = {alert.id for _, alert in changed}
        raised: dict[str, tuple[str, str | None, str | None]] = {}
        if ids:
            found = session.execute(
                select(AlertRow.alert_id, AlertRow.at, CallRow.agent, CallRow.team)
                .join(CallRow, CallRow.call_id == AlertRow.call_id)
                .where(AlertRow.alert_id.in_(ids))
            )
            raised = {alert_id: (at, agent, team) for alert_id, at, agent, team in found}
    out = []
    for at, alert in changed:
        if alert.id in raised:
            raised_at, agent, team = raised[alert.id]
            out.append(Decided(alert.id, raised_at, at, alert.state, agent, team))
    return head, out


def waited(store: Store, attribute: str, since: str, most: int) -> list[Waited]:
    """That attribute of the calls that have it: those begun since then, of the ``most`` last ones."""
    with store.reading() as session:
        last = (
            select(CallRow.started_at, CallRow.info, CallRow.agent, CallRow.team)
            .order_by(CallRow.cursor.desc())
            .limit(most)
            .subquery()
        )
        rows = session.execute(
            select(last.c.info, last.c.agent, last.c.team).where(
                last.c.started_at >= since, last.c.info.contains(f'"{attribute}"')
            )
        ).all()
    told = (
        (msgspec.json.decode(info, type=CallInfo).attributes.get(attribute), agent, team)
        for info, agent, team in rows
    )
    return [Waited(each, agent, team) for each, agent, team in told if each is not None]
