"""The dialogues that stand in a pack as tests: from YAML to ``TestCase``."""

from __future__ import annotations

from typing import Final, cast, get_args

from detectors.rules.form import Form
from detectors.rules.model import TestCase, TestTurn
from streams.events import CallInfo, Channel, Feeling, TroubleKind

CASE: Final = ("name", "turns", "expect", "ends", "call")
TURN: Final = (
    *("agent", "customer", "unknown", "start", "end", "emotion", "loudness"),
    *("hold", "hangup", "trouble", "of", "at"),
)
CALL: Final = (
    "queue",
    "agent",
    "team",
    "customer_level",
    "direction",
    "protocol",
    "started_at",
    "attributes",
)
CALL_ID: Final = "test"
_LONGEST_S: Final = 86_400
_SIGNALS: Final = ("hold", "hangup", "trouble")


def cases(fields: dict[str, Form], rule_id: str, role: str) -> tuple[TestCase, ...]:
    """What stands under ``hits``, ``misses`` and ``tests`` of a rule or a script."""
    speaker: Channel = "customer" if role == "customer" else "agent"
    found: list[TestCase] = []
    for kind in ("hits", "misses"):
        for item, text in fields[kind].texts("a sentence") if kind in fields else ():
            line = item.node.start_mark.line + 1
            turns = (TestTurn(role=speaker, text=text),)
            hits, misses = (rule_id, None) if kind == "hits" else (None, rule_id)
            found.append(TestCase(name=f"{kind}: {text}", line=line, turns=turns, hits=hits, misses=misses))
    for form in fields["tests"].mappings("tests") if "tests" in fields else ():
        case = _case(form)
        if case is not None:
            found.append(case)
    return tuple(found)


def _case(form: Form) -> TestCase | None:
    fields = form.fields("a test", CASE, ("turns", "expect"))
    if fields is None or "turns" not in fields or "expect" not in fields:
        return None
    line = form.node.start_mark.line + 1
    turns: list[TestTurn] = []
    hung_up: tuple[Channel, int | None] | None = None
    for item in fields["turns"].mappings("turns"):
        if hung_up is not None:
            item.problem("expected hangup as the last turn, came another one behind it")
        turn = _turn(item)
        if isinstance(turn, TestTurn):
            turns.append(turn)
        elif turn is not None:
            hung_up = turn
    expect = [text for _, text in fields["expect"].texts("a rule id")]
    name = fields["name"].text("name") if "name" in fields else None
    ends = _ms(fields, "ends")
    return TestCase(
        name=name or (turns[0].text if turns else "") or f"line {line}",
        line=line,
        turns=tuple(turns),
        expect=tuple(expect),
        ends_ms=ends if hung_up is None or hung_up[1] is None else hung_up[1],
        call=_call(fields["call"]) if "call" in fields else None,
        hung_up_by=None if hung_up is None else hung_up[0],
    )


def _call(form: Form) -> CallInfo | None:
    """``{queue: …, customer_level: …, attributes: {product: …}}``."""
    fields = form.fields("call", CALL)
    if fields is None:
        return None
    known: dict[str, object] = {
        name: inner.text(name) for name, inner in fields.items() if name != "attributes"
    }
    if "direction" in fields:
        known["direction"] = fields["direction"].choice("direction", ("inbound", "outbound"))
    if "attributes" in fields:
        known["attributes"] = fields["attributes"].pairs("attributes")
    return CallInfo(call_id=CALL_ID, **{name: value for name, value in known.items() if value is not None})  # type: ignore[arg-type]


def _turn(form: Form) -> TestTurn | tuple[Channel, int | None] | None:
    """A turn; or who hung up, and when."""
    fields = form.fields("a turn", TURN)
    if fields is None:
        return None
    kinds = [name for name in (*get_args(Channel), *_SIGNALS) if name in fields]
    if len(kinds) != 1:
        form.problem(
            "expected one speaker (agent, customer, unknown), hold, hangup or trouble in a turn, "
            f"came {' and '.join(kinds) or 'none'}"
        )
        return None
    kind = kinds[0]
    wrong = [name for name in fields if name in ("start", "end", "emotion", "loudness")]
    if kind != "trouble" and "of" in fields:
        fields["of"].problem(f"expected of beside trouble, came beside {kind}")
    if kind in _SIGNALS:
        if wrong:
            fields[wrong[0]].problem(f"expected at beside {kind}, came {wrong[0]}")
        if kind == "hangup":
            by = fields["hangup"].choice("hangup", get_args(Channel))
            return None if by is None else (cast(Channel, by), _ms(fields, "at"))
        if kind == "trouble":
            trouble = fields["trouble"].choice("trouble", get_args(TroubleKind))
            of = fields["of"].choice("of", get_args(Channel)) if "of" in fields else "unknown"
            return TestTurn(
                role=cast(Channel, of or "unknown"),
                trouble=cast("TroubleKind | None", trouble),
                start_ms=_ms(fields, "at"),
            )
        return TestTurn(hold=fields["hold"].flag("hold"), start_ms=_ms(fields, "at"))
    if "at" in fields:
        fields["at"].problem("expected start and end beside what is said, came at")
    text = fields[kind].text("what is said")
    feeling, level, trend = _emotion(fields["emotion"]) if "emotion" in fields else (None, 7.0, 0.0)
    loudness = fields["loudness"].number("loudness (dB)", -120, 0) if "loudness" in fields else None
    if text is None:
        return None
    return TestTurn(
        role=cast(Channel, kind),
        text=text,
        start_ms=_ms(fields, "start"),
        end_ms=_ms(fields, "end"),
        feeling=feeling,
        level=level,
        trend=trend,
        loudness_db=loudness,
    )


def _emotion(form: Form) -> tuple[Feeling | None, float, float]:
    """``angry``, or ``{feeling: angry, level: 8, trend: 2}``."""
    if not form.is_mapping:
        return cast("Feeling | None", form.choice("emotion", get_args(Feeling))), 7.0, 0.0
    fields = form.fields("emotion", ("feeling", "level", "trend"), ("feeling",)) or {}
    feeling = fields["feeling"].choice("feeling", get_args(Feeling)) if "feeling" in fields else None
    level = fields["level"].number("level", 0, 10) if "level" in fields else 7.0
    trend = fields["trend"].number("trend", -10, 10) if "trend" in fields else 0.0
    return cast("Feeling | None", feeling), 7.0 if level is None else level, trend or 0.0


def _ms(fields: dict[str, Form], name: str) -> int | None:
    seconds = fields[name].number(name, 0, _LONGEST_S) if name in fields else None
    return None if seconds is None else round(seconds * 1000)
