"""Texts as every database can hold them: PostgreSQL knows no NUL, and UTF-8 no half of a surrogate pair."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator

Event = TypeVar("Event", bound=Struct)

_UNHOLDABLE: Final = re.compile("[\0\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"
"""Replaced, not removed: what is left of a text must not become another text that somebody looks for."""


def clean(text: str) -> str:
    """The text with U+FFFD in the place of every NUL and of every lone surrogate."""
    if "\0" not in text:
        try:
            text.encode()  # ten times as fast as the pattern; nearly every text ends here
        except UnicodeEncodeError:
            pass
        else:
            return text
    return _UNHOLDABLE.sub(_REPLACEMENT, text)


def clean_event(event: Event) -> Event:
    """The event with all its texts clean, ids too: what the rows are found by is what they hold."""
    try:
        if rb"\u0000" not in msgspec.json.encode(event):
            return event
    except UnicodeEncodeError:
        pass
    return msgspec.convert(_cleaned(msgspec.to_builtins(event)), type(event))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value


class CleanText(TypeDecorator[str]):
    """``TEXT``; values are cleaned on their way into rows and into questions alike.

    A question for an id with a NUL is then answered with "no such row", as on SQLite, and not refused.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean(value)


def json_of(value: object) -> str:
    """As the rows hold it."""
    return msgspec.json.encode(value).decode()


def listed(values: Sequence[str]) -> str:
    """Several names as one column holds them; ``names`` reads them again."""
    return json_of(list(values))


def names(text: str) -> tuple[str, ...]:
    return msgspec.json.decode(text, type=tuple[str, ...])
