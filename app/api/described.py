"""The OpenAPI description, with the shapes of what is answered."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from app.api import desk, floor_views, views
from app.api.accounts import People
from app.api.alerts import Assignees
from app.api.auditing import AuditPage, AuditVerdict
from app.api.presence import Presence
from app.api.telephony import Taken
from app.api.tokens import MadeToken, Tokens
from app.api.whispers import Whispers
from app.figures import Figures
from app.store.users import Account
from app.telephony import TelephonyEvent
from streams.desk import HintAnswer, Whisper
from streams.events import Published

ANSWERS: dict[tuple[str, str], type] = {
    ("get", "/api/floor"): floor_views.Floor,
    ("get", "/api/floor/figures"): Figures,
    ("get", "/api/calls"): views.CallPage,
    ("get", "/api/calls/{call_id}"): views.CallDetail,
    ("get", "/api/rules"): views.Rules,
    ("get", "/api/rules/precision"): views.Precisions,
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
}


BODIES: dict[tuple[str, str], Any] = {
    ("post", "/api/calls/{call_id}/events"): list[TelephonyEvent] | TelephonyEvent,
}
"""What is sent, where FastAPI does not read it itself."""


def describe(app: FastAPI) -> None:
    """Let ``app.openapi()`` tell the answers too: FastAPI knows nothing of msgspec's structs."""
    usual = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = usual()
            shapes, components = msgspec.json.schema_components(
                [*ANSWERS.values(), *BODIES.values(), Published], ref_template="#/components/schemas/{name}"
            )
            document.setdefault("components", {}).setdefault("schemas", {}).update(components)
            for (method, path), shape in zip(ANSWERS, shapes, strict=False):
                responses = document["paths"][path][method]["responses"]
                status = next(status for status in responses if status.startswith("2"))
                responses[status]["content"]["application/json"] = {"schema": shape}
            for (method, path), shape in zip(BODIES, shapes[len(ANSWERS) :], strict=False):
                content = {"application/json": {"schema": shape}}
                document["paths"][path][method]["requestBody"] = {"required": True, "content": content}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
