"""The web application: every route, and what guards them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute

from app.api import (
    accounts,
    alerts,
    appeals,
    auditing,
    calls,
    desk,
    events,
    evidence,
    floor,
    listen,
    presence,
    problems,
    recordings,
    rule_details,
    rule_drafts,
    rule_history,
    rule_trials,
    rules,
    session,
    single,
    static,
    supervising,
    telephony,
    tokens,
    whispers,
)
from app.api import health as machines
from app.api.attempts import Attempts
from app.api.described import describe
from app.api.guard import Guard
from app.api.people import Readings, may_listen
from app.api.vigil import Vigil
from app.ears import Listening
from app.figures import FloorFigures
from app.live import Live, LocalLive
from app.oidc import Oidc
from app.outlet import Outlet
from app.peaks import Measuring
from app.rulebook import RuleBook
from app.sealing import Keyring
from app.settings import Settings
from app.store import Store
from app.takeover import Takeovers
from app.telephony import Switchboard
from app.workbench import Workbench
from dashboard.feed import HEARTBEAT_S, Feed
from streams.events import Health

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def application(
    settings: Settings,
    store: Store,
    outlet: Outlet,
    book: RuleBook,
    *,
    routes: Sequence[BaseRoute | APIRouter] = (),
    health: Callable[[], Health] | None = None,
    ready: Callable[[], str | None] = lambda: None,
    live: Live | None = None,
    rooms: listen.Rooms | None = None,
    switchboard: Switchboard | None = None,
    bench: Workbench | None = None,
    takeovers: Takeovers | None = None,
    measuring: Measuring | None = None,
    lifespan: Lifespan | None = None,
    pages: Path = static.FOLDER,
    heartbeat_s: float = HEARTBEAT_S,
) -> FastAPI:
    """Put the routes together.

    ``routes`` are further ones (telephony), each with its own way of letting people in; ``health`` tells how
    the service does at this moment, ``ready`` what keeps it from taking calls; ``live`` is the state that
    several gateways share (in process if ``None``; its owner closes it); ``switchboard`` brings what
    telephony systems tell to its calls (there are none if ``None``); ``rooms`` are where people listen to
    running calls; ``bench`` (where rules are worked on), ``takeovers`` and ``measuring`` have work of their
    own that their owner ends; ``lifespan`` starts and stops what the routes need; ``pages`` is the folder of
    the built dashboard.
    """
    # The usual pages about an API load their scripts from elsewhere; the description itself is enough.
    app = FastAPI(
        title="Duting 督听",
        version=_version(),
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.store = store
    app.state.outlet = outlet
    app.state.rules = book
    app.state.health = health if health is not None else lambda: outlet.health
    app.state.ready = ready
    app.state.live = live if live is not None else LocalLive()
    app.state.switchboard = switchboard
    app.state.door = session.Door(Attempts(app.state.live))
    app.state.oidc = Oidc(settings) if settings.oidc_issuer is not None else None
    app.state.readings = Readings()
    app.state.bench = bench if bench is not None else Workbench(store)
    app.state.figures = FloorFigures(store)
    app.state.rooms = rooms if rooms is not None else listen.Rooms(Listening())
    app.state.keyring = Keyring.of(settings.pii_keys)
    app.state.takeovers = takeovers if takeovers is not None else Takeovers(settings, outlet.append)
    app.state.measuring = measuring if measuring is not None else Measuring()
    app.state.exports = evidence.Exports()
    app.state.vigil = Vigil(store, app.state.live)
    app.state.feed = Feed(outlet, may_listen, heartbeat_s=heartbeat_s)

    problems.install(app)
    app.add_middleware(Guard, frames=settings.frame_origins)
    for part in (
        session,
        single,
        floor,
        calls,
        alerts,
        appeals,
        desk,
        whispers,
        recordings,
        listen,
        supervising,
        evidence,
        rules,
        rule_drafts,
        rule_history,
        rule_trials,
        rule_details,  # last: it takes every name that no other knows
        events,
        telephony,
        presence,
        accounts,
        tokens,
        auditing,
        machines,
    ):
        app.include_router(part.router)
    for route in routes:
        if isinstance(route, APIRouter):
            app.include_router(route)
        else:
            app.router.routes.append(route)
    app.router.default = static.Pages(pages)
    describe(app)
    return app


def _version() -> str:
    try:
        return version("duting")
    except PackageNotFoundError:
        return "0"
