"""API tokens, for administrators. A token is shown once, when it is made."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import Struct
from pydantic import BaseModel, Field

from app.api import views
from app.api.people import TokenKeeper, address_of
from app.api.problems import Problem
from app.rights import ALL, SCOPES
from app.store import Store
from app.store.tokens import MOST_DAYS, Token, TokenError
from app.store.users import AccountError

router = APIRouter(tags=["tokens"])


class NewToken(BaseModel, extra="forbid"):
    name: str = Field(min_length=1, max_length=64)
    scopes: list[Annotated[str, Field(json_schema_extra={"enum": list(SCOPES)})]] = Field(
        min_length=1, max_length=len(SCOPES)
    )
    teams: list[str] = Field(default=[ALL], max_length=50)
    """Whose calls it may read; all unless said."""
    days: int = Field(ge=1, le=MOST_DAYS)


class Tokens(Struct, frozen=True, kw_only=True):
    tokens: list[Token]
    scopes: list[str]
    """Those that there are."""


class MadeToken(Struct, frozen=True, kw_only=True):
    secret: str
    """The token itself. It cannot be read again."""
    token: Token


@router.get("/api/tokens")
def tokens(request: Request, _person: TokenKeeper) -> Response:
    """All that ever were, newest first."""
    store: Store = request.app.state.store
    return views.answer(Tokens(tokens=store.tokens.list(), scopes=list(SCOPES)))


@router.post("/api/tokens", status_code=201)
def add(new: NewToken, request: Request, person: TokenKeeper) -> Response:
    """Make a token."""
    store: Store = request.app.state.store
    try:
        secret, token = store.tokens.add(
            new.name, new.scopes, new.teams, timedelta(days=new.days), person.username
        )
    except (TokenError, AccountError) as error:
        raise Problem("token_not_made", detail=str(error)) from None
    store.audit.record(
        person.username, "token.added", token.name, address_of(request), " ".join(token.scopes)
    )
    response = views.answer(MadeToken(secret=secret, token=token))
    response.status_code = 201
    return response


@router.delete("/api/tokens/{name}", status_code=204)
def revoke(name: str, request: Request, person: TokenKeeper) -> Response:
    """Let a token let nobody in any more."""
    store: Store = request.app.state.store
    try:
        store.tokens.revoke(name)
    except TokenError:
        raise Problem("unknown_token") from None
    store.audit.record(person.username, "token.revoked", name, address_of(request))
    return Response(status_code=204)
