"""The OpenAPI description, with the shapes of what is answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from msgspec import Struct

from app.api import desk, floor_views, rule_details, rule_drafts, rule_history, rule_trials, views
from app.api.accounts import People
from app.api.alerts import Assignees
from app.api.auditing import AuditPage, AuditVerdict
from app.api.people import COOKIE, logged_in
from app.api.presence import Presence
from app.api.recordings import Waveform
from app.api.supervising import Revealed
from app.api.telephony import Taken
from app.api.tokens import MadeToken, Tokens
from app.api.whispers import Whispers
from app.figures import Figures
from app.rule_jobs import Compared
from app.store.publications import Publication
from app.store.users import Account
from app.telephony import TelephonyEvent
from streams.desk import HintAnswer, Whisper
from streams.events import Published
from streams.supervising import Note, Takeover


class User(Struct, frozen=True, kw_only=True):
    username: str
    name: str
    role: str


class LoggedIn(Struct, frozen=True, kw_only=True):
    user: User


class Ways(Struct, frozen=True, kw_only=True):
    """How one can log in beside the password."""

    oidc: str | None
    """What the identity provider is called here."""


class Alive(Struct, frozen=True, kw_only=True):
    status: str
    calls: int
    rules: str


class Ready(Struct, frozen=True, kw_only=True):
    status: str


class Refused(Struct, frozen=True, kw_only=True):
    """What ``app.api.problems`` says, and for some codes more."""

    code: str
    message: dict[str, str]
    """In Chinese (``zh``) and English (``en``)."""


class Refusal(Struct, frozen=True, kw_only=True):
    error: Refused


ANSWERS: dict[tuple[str, str], type] = {
    ("get", "/api/session"): LoggedIn,
    ("post", "/api/session"): LoggedIn,
    ("get", "/api/session/ways"): Ways,
    ("get", "/api/floor"): floor_views.Floor,
    ("get", "/api/floor/figures"): Figures,
    ("get", "/api/calls"): views.CallPage,
    ("get", "/api/calls/{call_id}"): views.CallDetail,
    ("get", "/api/calls/{call_id}/peaks"): Waveform,
    ("post", "/api/calls/{call_id}/utterances/{utterance_id}/reveal"): Revealed,
    ("post", "/api/calls/{call_id}/notes"): Note,
    ("post", "/api/calls/{call_id}/takeover"): Takeover,
    ("get", "/api/rules"): views.Rules,
    ("post", "/api/rules/reload"): views.Rules,
    ("get", "/api/rules/precision"): views.Precisions,
    ("post", "/api/rules/test"): rule_trials.Tested,
    ("get", "/api/rules/{rule_id}"): rule_details.RuleDetail,
    ("get", "/api/rules/{rule_id}/shadow"): rule_details.ShadowComparison,
    ("get", "/api/rules/packs/{pack_id}"): rule_history.PackText,
    ("get", "/api/rules/publications"): rule_history.PublicationList,
    ("get", "/api/rules/publications/{publication_id}"): Publication,
    ("get", "/api/rules/publications/{publication_id}/diff"): Compared,
    ("post", "/api/rules/publications/{publication_id}/rollback"): rule_drafts.DraftView,
    ("get", "/api/rules/drafts"): rule_drafts.DraftList,
    ("post", "/api/rules/drafts"): rule_drafts.DraftView,
    ("get", "/api/rules/drafts/{draft_id}"): rule_drafts.DraftView,
    ("put", "/api/rules/drafts/{draft_id}"): rule_drafts.DraftView,
    ("get", "/api/rules/drafts/{draft_id}/diff"): Compared,
    ("post", "/api/rules/drafts/{draft_id}/check"): rule_drafts.DraftCheck,
    ("post", "/api/rules/drafts/{draft_id}/submit"): rule_drafts.DraftView,
    ("post", "/api/rules/drafts/{draft_id}/return"): rule_drafts.DraftView,
    ("post", "/api/rules/drafts/{draft_id}/discard"): rule_drafts.DraftView,
    ("post", "/api/rules/drafts/{draft_id}/approve"): rule_drafts.Published,
    ("get", "/api/rules/drafts/{draft_id}/backtests"): rule_trials.TrialList,
    ("post", "/api/rules/drafts/{draft_id}/backtests"): rule_trials.TrialView,
    ("get", "/api/rules/backtests/{trial_id}"): rule_trials.TrialView,
    ("post", "/api/rules/backtests/{trial_id}/cancel"): rule_trials.TrialView,
    ("get", "/api/alerts"): views.AlertPage,
    ("get", "/api/alerts/assignees"): Assignees,
    ("get", "/api/alerts/{alert_id}/history"): views.AlertHistory,
    ("post", "/api/alerts/{alert_id}/owner"): views.AlertView,
    ("post", "/api/alerts/{alert_id}/acknowledge"): views.AlertView,
    ("post", "/api/alerts/{alert_id}/resolve"): views.AlertView,
    ("post", "/api/alerts/{alert_id}/false-alarm"): views.AlertView,
    ("post", "/api/alerts/{alert_id}/reopen"): views.AlertView,
    ("post", "/api/alerts/{alert_id}/assign"): views.AlertView,
    ("post", "/api/alerts/{alert_id}/comment"): views.AlertView,
    ("post", "/api/alerts/{alert_id}/appeal"): views.AlertView,
    ("post", "/api/alerts/{alert_id}/accept-appeal"): views.AlertView,
    ("post", "/api/alerts/{alert_id}/reject-appeal"): views.AlertView,
    ("get", "/api/rules/usefulness"): views.Usefulnesses,
    ("get", "/api/desk"): desk.Desk,
    ("get", "/api/desk/calls/{call_id}"): desk.Review,
    ("post", "/api/calls/{call_id}/hints/{hint_id}/answer"): HintAnswer,
    ("get", "/api/calls/{call_id}/whispers"): Whispers,
    ("post", "/api/calls/{call_id}/whispers"): Whisper,
    ("post", "/api/calls/{call_id}/whispers/{whisper_id}/seen"): Whisper,
    ("post", "/api/calls/{call_id}/events"): Taken,
    ("get", "/api/presence"): Presence,
    ("get", "/api/people"): People,
    ("post", "/api/people"): Account,
    ("patch", "/api/people/{username}"): Account,
    ("get", "/api/tokens"): Tokens,
    ("post", "/api/tokens"): MadeToken,
    ("get", "/api/audit"): AuditPage,
    ("post", "/api/audit/verify"): AuditVerdict,
    ("get", "/healthz"): Alive,
    ("get", "/readyz"): Ready,
}

OTHERWISE: dict[tuple[str, str], tuple[str, str | None]] = {
    ("get", "/api/calls/{call_id}/audio"): ("200", "audio/wav audio/ogg"),
    ("post", "/api/calls/{call_id}/listen"): ("201", "application/sdp"),
    ("options", "/api/calls/{call_id}/listen"): ("204", None),
    ("options", "/api/listening/{session_id}"): ("204", None),
    ("patch", "/api/listening/{session_id}"): ("204", None),
    ("delete", "/api/listening/{session_id}"): ("200", None),
    ("get", "/api/session/oidc"): ("302", None),
    ("get", "/api/session/oidc/callback"): ("302", None),
    ("get", "/metrics"): ("200", "text/plain"),
}
"""Status and kinds, behind spaces, of what is no JSON; ``None``: there is no body."""

BODIES: dict[tuple[str, str], Any] = {
    ("post", "/api/calls/{call_id}/events"): list[TelephonyEvent] | TelephonyEvent,
}
"""What is sent, where FastAPI does not read it itself."""

SDP_BODIES = {
    ("post", "/api/calls/{call_id}/listen"): "application/sdp",
    ("patch", "/api/listening/{session_id}"): "application/trickle-ice-sdpfrag",
}

SECURITY = {
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    "token": {"type": "http", "scheme": "bearer", "description": "API token, made by an administrator."},
}
"""Either of them lets in where somebody has to be logged in. Who changes anything with a session also sends
``X-Duting: 1``, or is a page of this server."""


def describe(app: FastAPI) -> None:
    """Let ``app.openapi()`` tell the answers too: FastAPI knows nothing of msgspec's structs."""
    usual = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = usual()
            _add_shapes(document)
            _add_refusals(document)
            document["components"]["securitySchemes"] = SECURITY
            for method, path in _asking_who(app):
                document["paths"][path][method]["security"] = [{name: []} for name in SECURITY]
            document["paths"]["/api/calls/{call_id}/events"]["post"]["security"] = [{"token": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_shapes(document: dict[str, Any]) -> None:
    shapes, components = msgspec.json.schema_components(
        [*ANSWERS.values(), *BODIES.values(), Published, Refusal],
        ref_template="#/components/schemas/{name}",
    )
    document.setdefault("components", {}).setdefault("schemas", {}).update(components)
    paths = document["paths"]
    for (method, path), shape in zip(ANSWERS, shapes, strict=False):
        responses = paths[path][method]["responses"]
        status = next(status for status in responses if status.startswith("2"))
        responses[status]["content"]["application/json"] = {"schema": shape}
    for (method, path), shape in zip(BODIES, shapes[len(ANSWERS) :], strict=False):
        content = {"application/json": {"schema": shape}}
        paths[path][method]["requestBody"] = {"required": True, "content": content}
    for (method, path), kind in SDP_BODIES.items():
        content = {kind: {"schema": {"type": "string"}}}
        paths[path][method]["requestBody"] = {"required": True, "content": content}
    for (method, path), (status, other) in OTHERWISE.items():
        responses = paths[path][method]["responses"]
        told = responses.pop("200")
        told["content"] = {kind: {"schema": {"type": "string"}} for kind in (other or "").split()}
        responses[status] = told


def _add_refusals(document: dict[str, Any]) -> None:
    """Whatever goes wrong has one shape, also what FastAPI would answer otherwise."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if path.startswith("/api/"):
                operation["responses"]["default"] = {"description": "Refused, and why.", "content": content}


def _asking_who(app: FastAPI) -> Iterator[tuple[str, str]]:
    """The operations that somebody has to be logged in for."""
    for found in iter_route_contexts(app.routes):
        route = found.route
        if isinstance(route, APIRoute) and _asks(route.dependant):
            for method in route.methods or ():
                yield method.lower(), route.path


def _asks(dependant: Dependant) -> bool:
    return dependant.call is logged_in or any(_asks(each) for each in dependant.dependencies)
