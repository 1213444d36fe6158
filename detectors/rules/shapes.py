"""Pieces of JSON Schema: a text, a number in its bounds, a list or one by itself, a mapping."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

ROLES: Final = ("agent", "customer")


def text(description: str = "") -> Schema:
    """A text; numbers need no quotes in YAML."""
    return _said({"type": ["string", "number"], "pattern": r"\S"}, description)


def texts(description: str = "") -> Schema:
    """A list of texts, or one by itself."""
    return _said({"anyOf": [text(), {"type": "array", "items": text(), "minItems": 1}]}, description)


def number(low: float, high: float, description: str = "") -> Schema:
    return _said({"type": "number", "minimum": low, "maximum": high}, description)


def flag(description: str = "") -> Schema:
    return _said({"type": "boolean"}, description)


def choice(options: tuple[str, ...], description: str = "") -> Schema:
    return _said({"enum": list(options)}, description)


def some(item: Schema, description: str = "") -> Schema:
    """A list of these, or one by itself."""
    return _said({"anyOf": [item, {"type": "array", "items": item}]}, description)


def mapping(properties: dict[str, Schema], required: tuple[str, ...] = (), description: str = "") -> Schema:
    shape: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        shape["required"] = list(required)
    return _said(shape, description)


def one_of(properties: dict[str, Schema], *names: str, **rest: Any) -> Schema:
    """A mapping in which exactly one of ``names`` stands."""
    return mapping(properties, **rest) | {"oneOf": [{"required": [name]} for name in names]}


def condition(description: str = "") -> Schema:
    return _said({"$ref": "#/$defs/condition"}, description)


def _said(shape: Schema, description: str) -> Schema:
    return {**shape, "description": description} if description else shape


LANGUAGES: Final = mapping({"zh": text("中文"), "en": text("English")}, ("zh", "en"))
