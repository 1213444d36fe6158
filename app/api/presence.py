"""Who watches, and which processes of the service are there."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import Struct

from app.api import views
from app.api.people import Colleague
from app.api.problems import Problem
from app.api.vigil import PERSON, Watching
from app.cluster import ASR, DETECT, GATEWAY
from app.errors import LiveError
from app.live import Live
from app.rights import sees_person
from streams.gateway import WorkerState

router = APIRouter(tags=["presence"])


class Member(Struct, frozen=True, kw_only=True):
    """A process of a cluster, as it announces itself."""

    name: str
    kind: str
    calls: int
    lag: int
    """Messages that wait for it, or that it could not hand on yet."""
    step: int
    ready: bool


class Present(Struct, frozen=True, kw_only=True):
    """Somebody whose browser is connected."""

    username: str
    name: str
    role: str


class Presence(Struct, frozen=True, kw_only=True):
    people: list[Present]
    """Those of the teams that the asking person sees, by account."""
    members: list[Member]
    """Empty where one process does everything."""


@router.get("/api/presence")
async def presence(request: Request, person: Colleague) -> Response:
    """Who watches at this moment, over all gateways, and how gateways and workers do."""
    live: Live = request.app.state.live
    try:
        people = await live.present(PERSON)
        there = {kind: await live.present(kind) for kind in (GATEWAY, ASR, DETECT)}
    except LiveError:
        raise Problem("presence_unavailable") from None
    watching = [msgspec.json.decode(people[name], type=Watching) for name in sorted(people)]
    return views.answer(
        Presence(
            people=[
                Present(username=one.username, name=one.name, role=one.role)
                for one in watching
                if sees_person(person, one)
            ],
            members=[
                _member(kind, name, infos[name]) for kind, infos in there.items() for name in sorted(infos)
            ],
        )
    )


def _member(kind: str, name: str, info: bytes) -> Member:
    state = msgspec.json.decode(info, type=WorkerState)
    return Member(name=name, kind=kind, calls=state.calls, lag=state.lag, step=state.step, ready=state.ready)
