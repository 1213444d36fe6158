"""The OpenAPI description is kept: whatever is sent by it or against it, the server answers as it says.

A few inputs for each route here; for more of them, ``HYPOTHESIS_PROFILE=long`` (README, tests).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.api.application import application
from app.api.people import COOKIE
from app.ingest.assembly import Assembly
from app.live import LocalLive
from app.outlet import LocalOutlet
from app.rulebook import RuleBook
from app.settings import Settings
from app.store import Store
from app.telephony import Switchboard
from tests.app.ingest.runner import Runner
from tests.app.ingest.test_assembly import Phone, opened
from tests.app.store_support import (
    EVENTS_KEPT,
    PACK,
    PASSWORD,
    alert,
    marker,
    open_store,
    said,
    sqlite,
    started,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
FEW = settings(max_examples=8, deadline=None, derandomize=True, database=None)
PROFILE = settings.get_current_profile_name()
TOKEN = "the ingest token"
KNOWN = {"call_id": "c1", "alert_id": "a1", "username": "agent", "name": "t1"}
"""What there is, so that not every question ends with "there is no such"."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_store(sqlite(tmp_path_factory.mktemp("described")))
    for role in ("administrator", "agent", "supervisor"):
        opened.users.ensure(role, PASSWORD, role.title(), role, ("*",) if role == "administrator" else None)
    yield opened
    opened.close()


@pytest.fixture
def web(store: Store, tmp_path: Path) -> FastAPI:
    """The application; schemathesis starts it and ends it with each test."""
    outlet = LocalOutlet(store, events_kept=EVENTS_KEPT)

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        await outlet.start()
        await outlet.append([started(agent="agent"), said(), marker(), *(alert(n) for n in range(1, 9))])
        yield
        await outlet.stop()

    runner, live = Runner(), LocalLive()
    assembly = Assembly(runner, clock=runner.clock)
    assembly.join(opened(call_id="c1"), Phone(runner))

    async def state(call_id: str) -> str | None:
        return store.calls.state(call_id)

    return application(
        Settings(data_dir=tmp_path, ingest_token=TOKEN, _env_file=None),  # type: ignore[call-arg]
        store,
        outlet,
        RuleBook(PACK),
        live=live,
        switchboard=Switchboard(assembly, live, state),
        lifespan=running,
    )


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def _as_text(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def described() -> Any:
    """The routes as they describe themselves; that needs neither a store nor anything that runs."""
    nothing: Any = None
    outlet: Any = SimpleNamespace(append=None)
    app = application(Settings(_env_file=None), nothing, outlet, RuleBook(PACK))  # type: ignore[call-arg]
    schema = schemathesis.openapi.from_dict(app.openapi())
    # Who asks is let in; that others are not is shown in test_doors.py.
    schema.config.generation.update(with_security_parameters=False)
    return schema


api = described()


def answers(operation: Any) -> Any:
    """The test of one route: no input makes the server fail, or answer otherwise than described."""

    @api.include(method=operation.method.upper(), path=operation.path).parametrize()
    @settings(FEW if PROFILE == "duting" else settings(), suppress_health_check=list(HealthCheck))
    def test(case: Any, web: FastAPI, store: Store) -> None:
        token = store.sessions.open("administrator", timedelta(minutes=5))
        if zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode()) % 4:
            for name in set(case.path_parameters or ()) & set(KNOWN):
                case.path_parameters[name] = KNOWN[name]
        shown: dict[str, Any] = {"cookies": {COOKIE: token}, "headers": {"X-Duting": "1"}}
        if case.path == "/api/calls/{call_id}/events":
            shown = {"headers": {"Authorization": f"Bearer {TOKEN}"}}
        response = case.call(base_url="http://testserver", app=web, **shown)
        case.validate_response(response, checks=CHECKS)

    return test


# One by one, each with a name of its own: of several with one name only one would run beside others.
for found in api.get_all_operations():
    route = found.ok()
    words = re.sub(r"\W+", "_", f"{route.method} {route.path}".lower()).strip("_")
    globals()[f"test_{words}_answers_as_described"] = answers(route)
