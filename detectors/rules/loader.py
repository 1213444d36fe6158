"""From a YAML file to a compiled pack, or to the full list of what is wrong with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple, cast, get_args

import re2
from msgspec.structs import replace

from detectors.rules import (
    absent,
    anchor,
    attribute,
    audio,
    combinators,
    count,
    duration,
    emotion,
    energy,
    entity,
    hangup,
    hold,
    interruption,
    near,
    no_text,
    overlap,
    phrase,
    rate,
    regex,
    repeat,
    script_form,
    sentiment,
    sequence,
    silence,
    similar,
    swapped,
    turns,
)
from detectors.rules.case_form import cases
from detectors.rules.form import Form, PackError, Problem, compose, nearest
from detectors.rules.lexicon import Lexicon
from detectors.rules.model import (
    PATTERN_MEMORY,
    Action,
    Book,
    Condition,
    Effective,
    Mode,
    Pack,
    Part,
    Patterns,
    Role,
    Rule,
    TestCase,
)
from detectors.rules.script import Script
from detectors.telephony import CARDS
from streams.events import Channel, Severity

DEFAULT_PACK: Final = Path(__file__).parent.parent / "packs" / "bank.zh.yaml"

LEAVES: Final[dict[str, ModuleType]] = {
    name: module
    for module in (
        phrase,
        regex,
        near,
        similar,
        repeat,
        entity,
        sentiment,
        attribute,
        silence,
        interruption,
        overlap,
        rate,
        energy,
        emotion,
        hold,
        duration,
        turns,
        no_text,
        audio,
    )
    for name in cast("tuple[str, ...]", module.NAMES)
}
"""Operators by the word that calls them. A new one is a new file and a line here."""

AROUND: Final[dict[str, ModuleType]] = {
    name: module
    for module in (sequence, count, absent, hangup, swapped)
    for name in cast("tuple[str, ...]", module.NAMES)
}
"""Operators with conditions in them; their ``build`` is also given what builds those."""

_MODIFIERS: Final = ("role", "within", "anchor")
_PACK: Final = ("id", "version", "name", "rules", "scripts")
_RULE: Final = (
    "id", "name", "severity", "role", "when", "unless", "cooldown", "mode", "actions", "hint",
    "advice", "negation", "warning", "min_confidence", "hot", "tests", "hits", "misses",
    "queues", "effective", "group", "score",
)  # fmt: skip
_ROLES: Final = ("agent", "customer")
_ID: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_MIN_CONFIDENCE: Final = 0.3


Places = dict[str, tuple[str, int]]
"""File and line of everything that has an id."""


class Source(NamedTuple):
    """A pack as it was written."""

    file: str
    """What problems call it."""
    text: str


def load_pack(path: Path) -> Pack:
    """The compiled pack in a file. Raises ``PackError`` with every problem; a pack is never half used."""
    return load_packs([path])


def load_packs(paths: Sequence[Path]) -> Pack:
    """All packs in these files and folders as one, compiled together: so many packs cost what one does.

    Raises ``PackError`` with every problem of all of them; rules have ids unique across the packs.
    """
    return parse_packs(*read_packs(paths))


def read_packs(paths: Sequence[Path]) -> tuple[list[Source], list[Problem]]:
    """The texts of all packs in these files and folders, and what could not be read."""
    sources: list[Source] = []
    problems: list[Problem] = []
    try:
        files = pack_files(paths)
    except PackError as error:
        return [], list(error.problems)
    names = [file.name for file in files]
    for file in files:
        shown = file.name if names.count(file.name) == 1 else str(file)
        try:
            sources.append(Source(shown, decoded(shown, file.read_bytes())))
        except OSError as error:
            problems.append(Problem(str(file), 1, 1, f"expected a readable file: {error.strerror}"))
        except PackError as error:
            problems += error.problems
    return sources, problems


def pack_files(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and in place of a folder the ``*.yaml`` and ``*.yml`` in it, by name."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
        if not inside:
            raise PackError([Problem(str(path), 1, 1, "expected a folder with *.yaml in it, came none")])
        files += inside
    return files


def decoded(file: str, raw: bytes) -> str:
    """The text of a pack. Raises ``PackError`` when it is not UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise PackError([Problem(file, line, 1, "expected UTF-8, came bytes that are none")]) from error


def parse_pack(text: str, file: str) -> Pack:
    """The compiled pack in a text; ``file`` is what problems call it."""
    return parse_packs([Source(file, text)])


def parse_packs(sources: Sequence[Source], problems: Collection[Problem] = ()) -> Pack:
    """One pack of several. ``problems`` are those known before; any at all, and the packs are refused."""
    book = Book()
    problems = list(problems)
    parts: list[Part] = []
    rules: list[Rule] = []
    scripts: list[Script] = []
    places: Places = {}
    for file, text in sources:
        try:
            root = compose(file, text)
        except PackError as error:
            problems += error.problems
            continue
        part = _part(root, text, book, rules, scripts, places)
        if part is not None and any(part.id == other.id for other in parts):
            root.problem(f"expected a pack id of its own, came {part.id!r}, which another pack has")
        elif part is not None:
            parts.append(part)
        problems += root.problems
    if problems:
        raise PackError(problems)
    try:
        patterns = Patterns(list(book.patterns))
    except re2.error:
        message = f"expected patterns that fit into {PATTERN_MEMORY >> 20} MB together, came larger ones"
        raise PackError([Problem(sources[0].file, 1, 1, message)]) from None
    digest = hashlib.sha256("".join(part.version for part in parts).encode()).hexdigest()[:8]
    return Pack(
        id=",".join(part.id for part in parts),
        version=parts[0].version if len(parts) == 1 else f"{len(parts)} packs+{digest}",
        name=parts[0].name
        if len(parts) == 1
        else {"zh": f"{len(parts)} 个规则包", "en": f"{len(parts)} packs"},
        parts=tuple(parts),
        rules=tuple(rules),
        lexicon=Lexicon(book.phrases),
        patterns=patterns,
        scripts=tuple(scripts),
    )


def _part(
    root: Form, text: str, book: Book, rules: list[Rule], scripts: list[Script], places: Places
) -> Part | None:
    """Read one file's rules and scripts into those lists, and where each stands into ``places``."""
    fields = root.fields("the pack", _PACK, ("id", "version", "rules"))
    if fields is None:
        return None
    pack_id = fields["id"].text("id") if "id" in fields else None
    declared = fields["version"].text("version") if "version" in fields else None
    name = fields["name"].languages("name") if "name" in fields else {}
    version = f"{declared}+{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    own: list[Rule] = []
    for form in fields["rules"].mappings("rules") if "rules" in fields else ():
        rule = _rule(form, book)
        if rule is None:
            continue
        line = form.node.start_mark.line + 1
        _own_id(form, rule.id, places)
        places.setdefault(rule.id, (root.file, line))
        own.append(replace(rule, version=version))
    flows = _scripts(root, fields, book, version, scripts, places)
    known = {rule.id for rule in own} | {node.rule.id for flow in flows for node in flow.nodes}
    for tests in (*(rule.tests for rule in own), *(flow.tests for flow in flows)):
        _check_expectations(root, tests, known)
    rules += own
    scripts += flows
    return Part(root.file, pack_id or "", version, name or {}) if pack_id is not None else None


def _own_id(form: Form, name: str, places: Places) -> None:
    if name in CARDS:
        form.problem(f"expected an id of its own, came {name!r}, by which the telephony's events are marked")
    if name in places:
        file, line = places[name]
        where = f"line {line}" if file == form.file else f"line {line} of {file}"
        form.problem(f"expected an id of its own, came {name.removeprefix('scripts/')!r}, which {where} has")


def _scripts(
    root: Form, fields: dict[str, Form], book: Book, version: str, others: list[Script], places: Places
) -> list[Script]:
    """One file's scripts; ``others`` are those of the files before it."""
    flows: list[Script] = []
    for form in fields["scripts"].mappings("scripts") if "scripts" in fields else ():
        flow = script_form.script(form, book, condition)
        if flow is None:
            continue
        line = form.node.start_mark.line + 1
        _own_id(form, f"scripts/{flow.id}", places)
        places.setdefault(f"scripts/{flow.id}", (root.file, line))
        for node in flow.nodes:
            twin = next((n for s in (*others, *flows) for n in s.nodes if n.id == node.id), None)
            if twin is None:
                _own_id(form, node.rule.id, places)
            elif not _same_to_people(twin.rule, node.rule):
                form.problem(
                    f"expected the node {node.id!r} with the name, severity, actions and hint that it has in "
                    "another script, came others: what it raises has one name"
                )
            places.setdefault(node.rule.id, (root.file, line))
        nodes = tuple(replace(node, rule=replace(node.rule, version=version)) for node in flow.nodes)
        flows.append(replace(flow, nodes=nodes))
    return flows


def _same_to_people(one: Rule, other: Rule) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("name", "severity", "actions", "hint"))


def _check_expectations(root: Form, tests: tuple[TestCase, ...], known: Collection[str]) -> None:
    for case in tests:
        for wanted in case.expect or ():
            if wanted not in known:
                message = f"expected a rule of this pack in expect, came {wanted!r}{nearest(wanted, known)}"
                root.problems.append(Problem(root.file, case.line, 1, message))


def _rule(form: Form, book: Book) -> Rule | None:
    before = len(form.problems)
    fields = form.fields("a rule", _RULE, ("id", "name", "severity", "role", "when"))
    if fields is None:
        return None
    rule_id = fields["id"].text("id") if "id" in fields else None
    if rule_id is not None and not _ID.fullmatch(rule_id):
        fields["id"].problem(f"expected an id such as redline.guaranteed_return, came {rule_id!r}")
    name = fields["name"].languages("name") if "name" in fields else None
    severity = fields["severity"].choice("severity", get_args(Severity)) if "severity" in fields else None
    role = fields["role"].choice("role", get_args(Role)) if "role" in fields else None
    first = len(book.watches)
    when = condition(fields["when"], book) if "when" in fields else None
    watches = tuple(book.watches[first:])
    if severity == "critical" and when is not None and emotion.is_alone(when):
        fields["severity"].problem(
            "expected info or warning, came 'critical': what somebody feels, as it sounds, is never alone a "
            "reason for a critical alert"
        )
    unless = condition(fields["unless"], book) if "unless" in fields else None
    if len(book.watches) > first + len(watches):
        fields["unless"].problem(
            "expected a condition on what is said or known of the call under unless, came one that takes time"
        )
    cooldown = fields["cooldown"].number("cooldown (seconds)", 0, 86_400) if "cooldown" in fields else 0
    mode = fields["mode"].choice("mode", get_args(Mode)) if "mode" in fields else "live"
    actions = tuple(
        cast(Action, choice)
        for item in (fields["actions"].items("actions") if "actions" in fields else ())
        if (choice := item.choice("an action", get_args(Action))) is not None
    )
    hint = fields["hint"].languages("hint") if "hint" in fields else None
    advice = fields["advice"].languages("advice") if "advice" in fields else None
    # What an agent says about a phrase (denial, warning) absolves; a customer may say it however they like.
    by_agent = role == "agent"
    negation = fields["negation"].flag("negation") if "negation" in fields else True
    warning = fields["warning"].flag("warning") if "warning" in fields else by_agent
    low = (
        fields["min_confidence"].number("min_confidence", 0, 1)
        if "min_confidence" in fields
        else _MIN_CONFIDENCE
    )
    hot = tuple(text for _, text in fields["hot"].texts("a word")) if "hot" in fields else ()
    queues = tuple(text for _, text in fields["queues"].texts("a queue")) if "queues" in fields else ()
    effective = _effective(fields["effective"]) if "effective" in fields else None
    group = fields["group"].text("group") if "group" in fields else None
    score = fields["score"].number("score", -100, 100) if "score" in fields else 0.0
    tests = cases(fields, rule_id or "", role or "agent")
    if len(form.problems) > before or rule_id is None or name is None or when is None:
        return None
    return Rule(
        id=rule_id,
        name=name,
        severity=cast(Severity, severity),
        role=cast(Role, role),
        when=when,
        watches=watches,
        unless=unless,
        cooldown_ms=round((cooldown or 0) * 1000),
        mode=cast(Mode, mode),
        actions=actions or ("alert", "marker"),
        hint=hint,
        advice=advice,
        negation=bool(negation),
        warning=bool(warning),
        min_confidence=low or 0.0,
        hot=hot,
        queues=queues,
        effective=effective,
        group=group,
        score=score or 0.0,
        tests=tests,
    )


def condition(form: Form, book: Book) -> Condition | None:
    """A condition: a mapping with one operator, and the modifiers ``role``, ``within``, ``anchor``."""
    names = (*LEAVES, *AROUND, *combinators.NAMES)
    fields = form.fields("a condition", (*names, *_MODIFIERS))
    if fields is None:
        return None
    operators = [name for name in fields if name not in _MODIFIERS]
    if len(operators) != 1:
        form.problem(
            f"expected one operator ({', '.join(names)}) in a condition, "
            f"came {' and '.join(operators) or 'none'}"
        )
        return None
    name = operators[0]
    inner = fields[name]
    within = combinators.window(fields["within"]) if "within" in fields else None
    if within is not None and name not in combinators.NAMES:
        fields["within"].problem(f"expected within beside all, any or not, came beside {name}")
    built: Condition | None
    before = len(book.watches)
    if name in LEAVES:
        built = LEAVES[name].build(inner, book)
    elif name in AROUND:
        built = AROUND[name].build(inner, book, lambda form: condition(form, book))
    else:
        watches = len(book.watches)
        children = [condition(item, book) for item in ([inner] if inner.is_mapping else inner.items(name))]
        if name == "not" and len(book.watches) > watches:
            inner.problem(
                "expected a condition on what is said or known of the call under not, came one that takes "
                "time; absent says that something did not happen"
            )
        built = combinators.build(name, [c for c in children if c is not None], within, inner, book)
        if not children and built is None and not inner.is_mapping:
            inner.problem(f"expected at least one condition under {name}, came none")
    if built is not None and "role" in fields:
        role = fields["role"].choice("role", _ROLES)
        if role is not None:
            built = combinators.By(cast(Channel, role), built)
    if built is not None and "anchor" in fields:
        built = anchor.build(fields["anchor"], book, built, len(book.watches) > before, condition)
    return built


_HOURS: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-4]):([0-5]\d)")
_OFFSET: Final = re.compile(r"([+-])(0\d|1[0-4]):([0-5]\d)")


def _effective(form: Form) -> Effective | None:
    """``{from: 2026-01-01, to: 2026-12-31, hours: ["09:00-18:00"], weekdays: [1, 5], offset: "+08:00"}``."""
    fields = form.fields("effective", ("from", "to", "hours", "weekdays", "offset"))
    if fields is None:
        return None
    days: dict[str, date | None] = {"from": None, "to": None}
    for name in days:
        text = fields[name].text(name) if name in fields else None
        try:
            days[name] = date.fromisoformat(text) if text is not None else None
        except ValueError:
            fields[name].problem(f"expected a date such as 2026-01-31 in {name}, came {text!r}")
    since, until = days["from"], days["to"]
    if since is not None and until is not None and until < since:
        fields["to"].problem(f"expected a date not before {since} in to, came {until}: it would never hold")
    hours: list[tuple[int, int]] = []
    for item, text in fields["hours"].texts("hours") if "hours" in fields else ():
        match = _HOURS.fullmatch(text.strip())
        if match is None:
            item.problem(f"expected hours such as '09:00-18:00', came {text!r}")
        else:
            a, b, c, d = (int(group) for group in match.groups())
            hours.append((a * 60 + b, c * 60 + d))
    weekdays = [
        number
        for item in (fields["weekdays"].items("weekdays") if "weekdays" in fields else ())
        if (number := item.number("a weekday (1 is Monday)", 1, 7)) is not None
    ]
    offset = 480
    if "offset" in fields:
        text = fields["offset"].text("offset")
        match = _OFFSET.fullmatch(text or "")
        if match is None:
            fields["offset"].problem(f"expected an offset from UTC such as '+08:00', came {text!r}")
        else:
            minutes = int(match.group(2)) * 60 + int(match.group(3))
            offset = minutes if match.group(1) == "+" else -minutes
    return Effective(
        since=since,
        until=until,
        hours=tuple(hours),
        weekdays=frozenset(int(number) for number in weekdays),
        offset_minutes=offset,
    )
