"""The rules in force."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.api import views
from app.api.people import Overseer
from detectors.rules import Pack

router = APIRouter(tags=["rules"])


@router.get("/api/rules")
def rules(request: Request, _person: Overseer) -> Response:
    """What is listened for, without the words themselves."""
    pack: Pack = request.app.state.pack
    return views.answer(
        views.Rules(
            version=pack.version,
            rules=[
                views.RuleView(
                    id=rule.id,
                    name=dict(rule.name),
                    severity=rule.severity,
                    role=rule.role,
                    mode=rule.mode,
                    actions=tuple(rule.actions),
                )
                for rule in pack.rules
            ],
        )
    )
