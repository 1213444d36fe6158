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
        raised: dict[str, str] = {}
        if ids:
            found = session.execute(select(AlertRow.alert_id, AlertRow.at).where(AlertRow.alert_id.in_(ids)))
            raised = {alert_id: at for alert_id, at in found}
    return head, [
        Decided(alert.id, raised[alert.id], at, alert.state) for at, alert in changed if alert.id in raised
    ]


def waited(store: Store, attribute: str, since: str, most: int) -> list[str]:
    """That attribute of the calls that have it: those begun since then, of the ``most`` last ones."""
    with store.reading() as session:
        last = select(CallRow.started_at, CallRow.info).order_by(CallRow.cursor.desc()).limit(most).subquery()
        rows = session.execute(
            select(last.c.info).where(last.c.started_at >= since, last.c.info.contains(f'"{attribute}"'))
        ).all()
    told = (msgspec.json.decode(info, type=CallInfo).attributes.get(attribute) for (info,) in rows)
    return [each for each in told if each is not None]
