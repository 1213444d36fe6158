"""A piece of YAML with its place in the file, and the problems found on the way.

Reading never stops at the first problem: methods note what was wrong and give ``None``, so that the
author of a pack sees everything at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

import yaml
from msgspec import Struct
from rapidfuzz import process

_DEEPEST: Final = 24
_LARGEST: Final = 200_000


class Problem(Struct, frozen=True):
    """What is wrong with a pack, and where. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class PackError(ValueError):
    """A pack that cannot be used. Holds every problem found; the pack is refused whole."""

    def __init__(self, problems: Collection[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
        count = len(self.problems)
        head = "1 problem" if count == 1 else f"{count} problems"
        super().__init__(f"the rule pack has {head}:\n" + "\n".join(f"  {p}" for p in self.problems))


def nearest(word: str, known: Collection[str]) -> str:
    """``; did you mean 'phrase'?`` or nothing."""
    best = process.extractOne(word, sorted(known), score_cutoff=60)
    return f"; did you mean {best[0]!r}?" if best else ""


class Form:
    """One YAML node under inspection."""

    def __init__(self, file: str, node: yaml.Node, problems: list[Problem], depth: int = 0) -> None:
        self.file, self.node, self.problems, self.depth = file, node, problems, depth

    def problem(self, message: str) -> None:
        mark = self.node.start_mark
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, message))

    def _child(self, node: yaml.Node) -> Form:
        return Form(self.file, node, self.problems, self.depth + 1)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        return isinstance(self.node, yaml.SequenceNode)

    def came(self) -> str:
        """What stands there, in words for an error message."""
        if self.is_mapping:
            return "a mapping"
        if self.is_list:
            return "a list"
        value = str(self.node.value)
        if not value:
            return "nothing"
        return repr(value if len(value) <= 40 else value[:40] + "…")

    def fields(
        self, what: str, known: Collection[str], required: Collection[str] = ()
    ) -> dict[str, Form] | None:
        """The mapping's values by key. Unknown, doubled and missing keys are problems."""
        if not isinstance(self.node, yaml.MappingNode):
            self.problem(f"expected {what} as a mapping, came {self.came()}")
            return None
        if self.depth > _DEEPEST:
            self.problem(f"expected at most {_DEEPEST} levels, came more (an alias that contains itself?)")
            return None
        found: dict[str, Form] = {}
        for key_node, value_node in self.node.value:
            key = self._child(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                key.problem(f"expected a name as key of {what}, came {key.came()}")
                continue
            name = str(key_node.value)
            if name not in known:
                options = ", ".join(sorted(known))
                key.problem(f"expected one of {options} in {what}, came {name!r}{nearest(name, known)}")
            elif name in found:
                key.problem(f"expected {name!r} once in {what}, came twice")
            else:
                found[name] = self._child(value_node)
        for name in required:
            if name not in found:
                self.problem(f"expected {name!r} in {what}, came none")
        return found

    def items(self, what: str) -> list[Form]:
        """The list's items; a single value counts as a list of one."""
        if self.depth > _DEEPEST:
            self.problem(f"expected at most {_DEEPEST} levels, came more (an alias that contains itself?)")
            return []
        if isinstance(self.node, yaml.SequenceNode):
            return [self._child(node) for node in self.node.value]
        if isinstance(self.node, yaml.MappingNode):
            self.problem(f"expected {what} as a list, came a mapping")
            return []
        return [self]

    def mappings(self, what: str) -> list[Form]:
        if not isinstance(self.node, yaml.SequenceNode):
            self.problem(f"expected {what} as a list, came {self.came()}")
            return []
        return self.items(what)

    def text(self, what: str) -> str | None:
        if not isinstance(self.node, yaml.ScalarNode) or not str(self.node.value).strip():
            self.problem(f"expected {what} as text, came {self.came()}")
            return None
        return str(self.node.value)

    def texts(self, what: str) -> list[tuple[Form, str]]:
        return [(item, text) for item in self.items(what) if (text := item.text(what)) is not None]

    def number(self, what: str, low: float, high: float) -> float | None:
        try:
            if not isinstance(self.node, yaml.ScalarNode):
                raise ValueError
            value = float(self.node.value)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            self.problem(f"expected {what} as a number from {low:g} to {high:g}, came {self.came()}")
            return None
        return value

    def flag(self, what: str) -> bool | None:
        if isinstance(self.node, yaml.ScalarNode) and self.node.value in ("true", "false"):
            return bool(self.node.value == "true")
        self.problem(f"expected {what} as true or false, came {self.came()}")
        return None

    def choice(self, what: str, options: Collection[str]) -> str | None:
        value = str(self.node.value) if isinstance(self.node, yaml.ScalarNode) else None
        if value in options:
            return value
        near = nearest(value, options) if value else ""
        self.problem(f"expected {what} as one of {', '.join(options)}, came {self.came()}{near}")
        return None

    def languages(self, what: str) -> dict[str, str] | None:
        """A text by language: ``{zh: …, en: …}``."""
        fields = self.fields(what, ("zh", "en"), ("zh", "en"))
        if fields is None:
            return None
        texts = {language: inner.text(f"{what}.{language}") for language, inner in fields.items()}
        return {language: text for language, text in texts.items() if text is not None}

    def pairs(self, what: str) -> dict[str, str]:
        """Texts by names that are the author's own."""
        if not isinstance(self.node, yaml.MappingNode):
            self.problem(f"expected {what} as a mapping, came {self.came()}")
            return {}
        found: dict[str, str] = {}
        for key_node, value_node in self.node.value:
            key, value = self._child(key_node).text(f"a name in {what}"), self._child(value_node).text(what)
            if key is not None and value is not None:
                found[key] = value
        return found


def compose(file: str, text: str) -> Form:
    """The document's root. Raises ``PackError`` when it is not YAML, is empty or grows without bound."""
    problems: list[Problem] = []
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        _check_depth(file, text, loader)
        # What a value means is asked by the field that holds it: every scalar is read as text.
        node = yaml.compose(text, Loader=loader)
    except PackError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = Problem(file, line, column, f"expected YAML: {error.problem or error.context}")
        raise PackError([problem]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PackError([Problem(file, 1, 1, f"expected YAML: {reason}")]) from error
    if node is None:
        raise PackError([Problem(file, 1, 1, "expected a rule pack, came an empty file")])
    for count, place in enumerate(_walk(node)):
        if count > _LARGEST:
            problem = Problem(
                file,
                place.start_mark.line + 1,
                place.start_mark.column + 1,
                f"expected at most {_LARGEST} values, came more (aliases that multiply?)",
            )
            raise PackError([problem])
    return Form(file, node, problems)


def _check_depth(file: str, text: str, loader: Any) -> None:
    """Composing calls itself for every level, in C: without a bound ten thousand brackets end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST + 8:
                mark = event.start_mark
                line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
                message = f"expected at most {_DEEPEST} levels, came more"
                raise PackError([Problem(file, line, column, message)])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _walk(root: yaml.Node) -> Iterator[yaml.Node]:
    """Every node in the order of the file, as often as it is referred to."""
    waiting = [(root, 0)]
    while waiting:
        node, depth = waiting.pop()
        yield node
        if depth > _DEEPEST + 1:
            continue
        if isinstance(node, yaml.SequenceNode):
            waiting += [(item, depth + 1) for item in reversed(node.value)]
        elif isinstance(node, yaml.MappingNode):
            for key, value in reversed(node.value):
                waiting += ((value, depth + 1), (key, depth + 1))
