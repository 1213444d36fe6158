"""Logging in by way of an identity provider (OpenID Connect), where one is set."""

from __future__ import annotations

import hmac
import re
import secrets
from datetime import timedelta
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from app.api.people import address_of
from app.api.problems import Problem
from app.api.session import set_session
from app.oidc import NoRole, Oidc, OidcError
from app.settings import Settings
from app.store import AccountError, Store

log = structlog.get_logger(__name__)

router = APIRouter(tags=["session"])

PENDING: Final = "duting_oidc"
PATH: Final = "/api/session/oidc"
PENDING_S: Final = 600
_OURS: Final = re.compile(r"/(?![/\\])[\x21-\x7e]{0,500}")


@router.get("/api/session/ways")
def ways(request: Request) -> Response:
    """How one can log in here: always by password; by which provider, if there is one."""
    settings: Settings = request.app.state.settings
    return JSONResponse({"oidc": None if request.app.state.oidc is None else settings.oidc_label})


@router.get(PATH)
async def begin(request: Request, next: Annotated[str, Query(max_length=512)] = "/") -> Response:
    """Send the browser to the identity provider."""
    oidc = _oidc(request)
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    try:
        address = await oidc.address(state, nonce, verifier)
    except OidcError as error:
        return _failed("oidc_unavailable", error)
    after = next if _OURS.fullmatch(next) else "/"
    response = RedirectResponse(address, 302)
    # Lax, not strict: the browser comes back from another site with it. It opens nothing by itself.
    response.set_cookie(
        PENDING,
        " ".join((state, nonce, verifier, after)),
        max_age=PENDING_S,
        path=PATH,
        httponly=True,
        samesite="lax",
        secure=request.app.state.settings.secure_cookies,
    )
    return response


@router.get(f"{PATH}/callback")
async def back(
    request: Request,
    state: Annotated[str, Query(max_length=512)] = "",
    code: Annotated[str, Query(max_length=4096)] = "",
) -> Response:
    """The browser comes back: who it is, is asked of the provider; the account is made at the first time."""
    oidc = _oidc(request)
    store: Store = request.app.state.store
    settings: Settings = request.app.state.settings
    kept = request.cookies.get(PENDING, "").split(" ", 3)
    if len(kept) != 4 or not code or not hmac.compare_digest(kept[0].encode(), state.encode()):
        return _failed("oidc_refused", None)
    _, nonce, verifier, after = kept
    address = address_of(request)
    try:
        found = await oidc.identity(code, nonce, verifier)
        person = await run_in_threadpool(store.users.welcome, *found)
    except NoRole as error:
        return _failed("oidc_no_role", error)
    except (OidcError, AccountError) as error:
        return _failed("oidc_refused", error)
    lifetime = timedelta(hours=settings.session_hours)
    token = await run_in_threadpool(store.sessions.open, person.username, lifetime, address)
    detail = f"{person.role} {' '.join(person.teams)}".strip()
    await run_in_threadpool(
        store.audit.record, person.username, "session.opened", None, address, f"oidc {detail}"
    )
    response = RedirectResponse(after if _OURS.fullmatch(after) else "/", 302)
    set_session(response, token, settings)
    response.delete_cookie(PENDING, path=PATH)
    return response


def _oidc(request: Request) -> Oidc:
    oidc: Oidc | None = request.app.state.oidc
    if oidc is None:
        raise Problem("not_found")
    return oidc


def _failed(code: str, error: Exception | None) -> Response:
    """A person is there, who is to see a page and not JSON."""
    log.warning("oidc.failed", code=code, error=str(error) if isinstance(error, OidcError) else None)
    response = RedirectResponse(f"/login?failed={code}", 302)
    response.delete_cookie(PENDING, path=PATH)
    return response
