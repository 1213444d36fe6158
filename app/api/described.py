"""The OpenAPI description, with the shapes of what is answered."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from app.api import views
from streams.events import Published

ANSWERS: dict[str, type] = {
    "/api/floor": views.Floor,
    "/api/calls": views.CallPage,
    "/api/calls/{call_id}": views.CallDetail,
    "/api/rules": views.Rules,
}


def describe(app: FastAPI) -> None:
    """Let ``app.openapi()`` tell the answers too: FastAPI knows nothing of msgspec's structs."""
    usual = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = usual()
            shapes, components = msgspec.json.schema_components(
                [*ANSWERS.values(), Published], ref_template="#/components/schemas/{name}"
            )
            document.setdefault("components", {}).setdefault("schemas", {}).update(components)
            for path, shape in zip(ANSWERS, shapes, strict=False):
                content = document["paths"][path]["get"]["responses"]["200"]["content"]
                content["application/json"] = {"schema": shape}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
