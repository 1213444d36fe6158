"""``attribute``: what the telephony knows about the call. It arrives with the call and may change.

Values are compared as people mean them: half width, without blanks around them, capital letters alike.
An attribute that is not known is never equal to anything: ``is_not`` and ``not_in`` hold for it, ``is``,
``in``, ``matches`` and the comparisons of numbers do not.
"""

from __future__ import annotations

import unicodedata
from typing import Final, Literal, cast, get_args

import re2
from msgspec import Struct

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Found, Scene, Turn, quiet
from streams.events import CallInfo

NAMES: Final = ("attribute",)
Test = Literal["is", "in", "is_not", "not_in", "matches", "at_least", "at_most", "exists"]
_TESTS: Final = get_args(Test)
_KNOWN: Final = ("queue", "agent", "team", "customer_level", "direction", "protocol")
_DIRECTIONS: Final = ("inbound", "outbound")


class Attribute(Struct, frozen=True):
    name: str
    test: Test
    texts: tuple[str, ...] = ()
    """Folded, for ``is``, ``in``, ``is_not`` and ``not_in``; the pattern for ``matches``."""
    number: float = 0.0
    exists: bool = True

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        return Found() if self._holds(value_of(scene.call, self.name)) else None

    def _holds(self, value: str | None) -> bool:
        match self.test:
            case "exists":
                return (value is not None) == self.exists
            case "is" | "in":
                return value is not None and _fold(value) in self.texts
            case "is_not" | "not_in":
                return value is None or _fold(value) not in self.texts
            case "matches":
                return value is not None and re2.search(self.texts[0], value) is not None
            case "at_least" | "at_most":
                number = _number(value)
                if number is None:
                    return False
                return number >= self.number if self.test == "at_least" else number <= self.number


def value_of(call: CallInfo, name: str) -> str | None:
    """The attribute's value; ``None`` where the telephony said nothing, or only blanks."""
    value = getattr(call, name) if name in _KNOWN else call.attributes.get(name)
    return value if value and value.strip() else None


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().casefold()


def _number(text: str | None) -> float | None:
    try:
        return float(_fold(text)) if text is not None else None
    except ValueError:
        return None


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("attribute", ("name", *_TESTS), ("name",))
    if fields is None:
        return None
    name = fields["name"].text("name") if "name" in fields else None
    given = [test for test in _TESTS if test in fields]
    if len(given) != 1:
        form.problem(f"expected one of {', '.join(_TESTS)} in attribute, came {', '.join(given) or 'none'}")
        return None
    test = cast(Test, given[0])
    value = fields[test]
    if name is None:
        return None
    if test == "exists":
        return Attribute(name, test, exists=bool(value.flag(test)))
    if test in ("at_least", "at_most"):
        return Attribute(name, test, number=value.number(test, -1e15, 1e15) or 0.0)
    if test == "matches":
        return Attribute(name, test, (_pattern(value) or "",))
    if test in ("is", "is_not"):
        text = value.text(test)
        items = [] if text is None else [(value, text)]
    else:
        items = value.texts("a value")
        if not items and value.is_list:
            value.problem(f"expected at least one value in {test}, came none")
    for item, text in items:
        if name == "direction" and _fold(text) not in _DIRECTIONS:
            item.choice("direction", _DIRECTIONS)
    return Attribute(name, test, tuple(_fold(text) for _, text in items))


def _pattern(form: Form) -> str | None:
    source = form.text("matches")
    if source is None:
        return None
    try:
        re2.compile(source, quiet())
    except re2.error as error:
        reason = error.args[0] if error.args else error
        if isinstance(reason, bytes):
            reason = reason.decode("utf-8", "replace")
        form.problem(f"expected a regular expression (RE2 syntax) in matches, came {source!r}: {reason}")
        return None
    return source
