"""The life of an alert as people lead it: each step by compare and set, so that of two people one has it.

What is possible from where is said in ``streams.alert_life``, who may do it in ``app.api.alert_rights``. Each
step is one event of the log, one line of the alert's history and one entry of the audit: all in one
transaction, so that there is no step of which the audit knows nothing.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from msgspec import Struct
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from app.api import views
from app.api.alert_rights import assignable, may
from app.api.people import (
    Overseer,
    Supervisor,
    address_of,
    check_sight,
    in_sight,
    record_reading,
)
from app.api.problems import Problem
from app.outlet import Outlet
from app.rights import sees, sees_person, sight_of
from app.store import Person, Store
from detectors.privacy import redact
from streams import alert_life, events
from streams.events import AlertAction, AlertState, Decided, Taken

router = APIRouter(tags=["alerts"])

STEPS_SHOWN = 500
MOST_AT_ONCE = 200

AlertId = Annotated[str, Field(max_length=512)]


class Ownership(BaseModel, extra="forbid"):
    owner: Literal["me"] | None
    """``None`` lets it go."""
    expected: str | None = Field(max_length=64)
    """Account that has it as far as the asking page knows."""


class Seen(BaseModel, extra="forbid"):
    """The alert as the asking page shows it."""

    state: AlertState
    owner: str | None = Field(max_length=64)


class Wish(BaseModel, extra="forbid"):
    seen: Seen | None = None
    """If given, nothing happens unless the alert is still so."""
    also: list[AlertId] = Field(default=[], max_length=MOST_AT_ONCE)
    """Further alerts of the same call, seen as one card with it: those that can go this step do."""


class Judgement(Wish, extra="forbid"):
    reason: str | None = None


class Assignment(Wish, extra="forbid"):
    to: str = Field(max_length=64)


class Comment(BaseModel, extra="forbid"):
    text: str


@router.get("/api/alerts")
def alerts(
    request: Request,
    person: Overseer,
    appeal: Literal["open", "accepted", "rejected"] | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
) -> Response:
    """Alerts of calls in sight, last raised first; ``appeal=open``: those whose agent waits for an answer.

    ``next`` of an answer is ``before`` of the page that follows.
    """
    store: Store = request.app.state.store
    page = store.alerts.page(appeal, limit, None if before is None else int(before), sight_of(person))
    return views.answer(
        views.AlertPage(
            alerts=[views.alert_view(*found) for found in page.alerts],
            next=None if page.next is None else str(page.next),
        )
    )


@router.post("/api/alerts/{alert_id}/owner")
async def set_owner(alert_id: str, wish: Ownership, request: Request, person: Supervisor) -> Response:
    """Take an alert, or let it go. Answers with the alert as it is now; asking twice is as asking once.

    Only when its owner is the ``expected`` one; else the answer is 409 and names the present ``owner``.
    A supervisor can let go of what is his own, an administrator of anything. It is written down.
    """
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    alert = await alert_of(store, alert_id, person)
    owner = person.username if wish.owner == "me" else None
    theirs = owner is None and wish.expected not in (None, person.username)
    if theirs and person.role != "administrator":
        raise Problem("not_yours")
    told = await outlet.append(
        [
            Taken(
                call_id=alert.call_id,
                alert_id=alert.id,
                media_ms=alert.media_ms,
                owner=owner,
                expected=wish.expected,
                by=person.username,
                address=address_of(request),
            )
        ]
    )
    alert = await alert_of(store, alert_id, person)
    if not told and alert.owner != owner:
        raise Problem("owner_changed", owner=alert.owner)
    return views.answer(alert)


@router.post("/api/alerts/{alert_id}/acknowledge")
async def acknowledge(alert_id: str, wish: Wish, request: Request, person: Overseer) -> Response:
    """Somebody looks after it from now on. Of several who ask at once one gets it, the others 409."""
    return await go(request, person, alert_id, "acknowledge", wish)


@router.post("/api/alerts/{alert_id}/resolve")
async def resolve(alert_id: str, wish: Judgement, request: Request, person: Overseer) -> Response:
    """It was right, and what was to be done is done."""
    return await go(request, person, alert_id, "resolve", wish, text=_reason(wish.reason))


@router.post("/api/alerts/{alert_id}/false-alarm")
async def false_alarm(alert_id: str, wish: Judgement, request: Request, person: Overseer) -> Response:
    """It was wrong: it counts against its rule."""
    return await go(request, person, alert_id, "false_alarm", wish, text=_reason(wish.reason))


@router.post("/api/alerts/{alert_id}/reopen")
async def reopen(alert_id: str, wish: Judgement, request: Request, person: Overseer) -> Response:
    """It was judged too early; it waits for somebody again."""
    return await go(request, person, alert_id, "reopen", wish, text=_reason(wish.reason))


@router.post("/api/alerts/{alert_id}/assign")
async def assign(alert_id: str, wish: Assignment, request: Request, person: Overseer) -> Response:
    """Somebody else is to look after it. It waits for them, and escalates if they do not answer."""
    store: Store = request.app.state.store
    place = await check_sight(request, person, (await alert_of(store, alert_id, person)).call_id)
    people = assignable(await run_in_threadpool(store.users.able))
    if wish.to not in {each.username for each in people if sees(each, place)}:
        raise Problem("unknown_person")
    return await go(request, person, alert_id, "assign", wish, owner=wish.to)


@router.post("/api/alerts/{alert_id}/comment")
async def comment(alert_id: str, wish: Comment, request: Request, person: Overseer) -> Response:
    """Text, kept as it is but for private numbers, which are masked as in transcripts."""
    text = kept(wish.text)
    if not text:
        raise Problem("comment_empty")
    return await go(request, person, alert_id, "comment", Wish(), text=text)


class Assignee(Struct, frozen=True, kw_only=True):
    username: str
    name: str
    role: str


class Assignees(Struct, frozen=True, kw_only=True):
    people: list[Assignee]


@router.get("/api/alerts/assignees")
def assignees(request: Request, person: Supervisor) -> Response:
    """Whom an alert may be given to: colleagues who look after alerts; they also have to see its call."""
    store: Store = request.app.state.store
    return views.answer(
        Assignees(
            people=[
                Assignee(username=each.username, name=each.name, role=each.role)
                for each in assignable(store.users.able())
                if sees_person(person, each)
            ]
        )
    )


@router.get("/api/alerts/{alert_id}/history")
def history(alert_id: str, request: Request, person: Overseer) -> Response:
    """The alert, and what became of it, oldest first. Who reads it is written down."""
    store: Store = request.app.state.store
    found = store.calls.alert(alert_id)
    if found is None:
        raise Problem("unknown_alert")
    in_sight(person, found[1], "unknown_alert")
    record_reading(request, person, "alert.history", alert_id)
    return views.answer(
        views.AlertHistory(
            alert=views.alert_view(*found), changes=store.alerts.history(alert_id, STEPS_SHOWN)
        )
    )


async def alert_of(store: Store, alert_id: str, person: Person) -> views.AlertView:
    """The alert, if the person sees its call; else there is no such alert."""
    found = await run_in_threadpool(store.calls.alert, alert_id)
    if found is None:
        raise Problem("unknown_alert")
    in_sight(person, found[1], "unknown_alert")
    return views.alert_view(*found)


def kept(text: str) -> str:
    """A text as it is kept. Raises ``comment_too_long``."""
    text = text.strip()
    if len(text) > alert_life.COMMENT_LENGTH:
        raise Problem("comment_too_long", limit=str(alert_life.COMMENT_LENGTH), came=str(len(text)))
    return redact(text)


def _reason(text: str | None) -> str | None:
    return kept(text or "") or None


async def go(
    request: Request,
    person: Person,
    alert_id: str,
    action: AlertAction,
    wish: Wish,
    *,
    owner: str | None = None,
    text: str | None = None,
) -> Response:
    """One step. Answers with the alert as it is then; asking twice is as asking once."""
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    alert = await alert_of(store, alert_id, person)
    live = await run_in_threadpool(store.calls.state, alert.call_id) == "live"
    if not may(person, action, live=live):
        raise Problem("role_not_allowed" if person.role != "inspector" or not live else "after_the_call")
    others = [] if not wish.also else await run_in_threadpool(store.alerts.of_call, wish.also, alert.call_id)
    others = [other for other in others if other.id != alert.id and _possible(other, action)]

    def decided(one: events.Alert, seen: Seen | None) -> Decided:
        return Decided(
            id=secrets.token_hex(12),
            call_id=one.call_id,
            alert_id=one.id,
            media_ms=one.media_ms,
            action=action,
            by=person.username,
            owner=owner,
            text=text,
            seen=None if seen is None else events.Seen(state=seen.state, owner=seen.owner),
            address=address_of(request),
        )

    told = await outlet.append([decided(alert, wish.seen), *(decided(other, None) for other in others)])
    changed = [event.alert.id for event in told if isinstance(event.alert, events.Alert)]
    now = await alert_of(store, alert_id, person)
    if alert.id not in changed:
        last = await run_in_threadpool(store.alerts.last_step, alert_id)
        mine = last is not None and (last.action, last.by) == (action, person.username)
        if not (mine and (owner is None or now.owner == owner)):
            expected = alert_life.FROM[action] if wish.seen is None else (wish.seen.state,)
            raise Problem(
                "alert_changed",
                expected=" | ".join(expected),
                came=now.state,
                owner=now.owner,
                by=None if last is None else last.by,
                at=None if last is None else last.at,
            )
    return views.answer(now)


def _possible(alert: events.Alert, action: AlertAction) -> bool:
    return alert.state in alert_life.FROM[action]
