"""Whether the service runs, and how it does, for machines."""

from __future__ import annotations

import hmac
import ipaddress

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.api.people import address_of, logged_in
from app.api.problems import Problem
from app.rights import may
from app.settings import Settings
from app.store import Store

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz(request: Request) -> Response:
    """Answers only when the store does. Open: it tells nothing about anybody."""
    store: Store = request.app.state.store
    version = request.app.state.rules.pack.version
    return JSONResponse({"status": "ok", "calls": store.calls.count_live(), "rules": version})


@router.get("/readyz")
def readyz(request: Request) -> Response:
    """Whether calls may be sent here: 200, or 503 with what is missing. Open, like ``/healthz``."""
    missing = request.app.state.ready()
    if missing is not None:
        return JSONResponse({"status": "not ready", "missing": missing}, status_code=503)
    return JSONResponse({"status": "ready"})


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Prometheus: for this machine itself, for whoever has the metrics token, and for administrators."""
    trusted = _is_this_machine(request) or _has_token(request)
    if not trusted and not may(logged_in(request), "metrics.read"):
        raise Problem("role_not_allowed")
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _has_token(request: Request) -> bool:
    settings: Settings = request.app.state.settings
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return (
        settings.metrics_token is not None
        and scheme.lower() == "bearer"
        and hmac.compare_digest(token.encode(), settings.metrics_token.get_secret_value().encode())
    )


def _is_this_machine(request: Request) -> bool:
    """A proxy on this machine speaks for others; it says so with a header."""
    if any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via")):
        return False
    try:
        return ipaddress.ip_address(address_of(request)).is_loopback
    except ValueError:
        return False
