"""The JSON Schema (2020-12) of rule packs, for editors that complete and check while one writes.

What it accepts is a little more than what the loader does: the loader alone knows whether a pattern
compiles, whether a phrase can be heard, and whether an id is named twice. What it refuses, the loader
refuses too.
"""

from __future__ import annotations

from typing import Final, get_args

from detectors.rules.described import SCOPE, operators
from detectors.rules.model import Action, Mode, Role
from detectors.rules.shapes import (
    LANGUAGES,
    ROLES,
    Schema,
    choice,
    condition,
    flag,
    mapping,
    number,
    one_of,
    some,
    text,
    texts,
)
from streams.events import Channel, Feeling, Severity, TroubleKind

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema() -> Schema:
    """The whole language."""
    known = operators()
    return {
        "$schema": DIALECT,
        "title": "督听规则包 Duting rule pack",
        **mapping(
            {
                "id": text("规则包的名字。 The pack's name."),
                "version": text("版本；文件的散列会附在后面。 Its version; a hash of the file is added."),
                "name": LANGUAGES,
                "rules": {"type": "array", "items": {"$ref": "#/$defs/rule"}},
                "scripts": {"type": "array", "items": {"$ref": "#/$defs/script"}},
            },
            ("id", "version", "rules"),
        ),
        "$defs": {
            "rule": _rule(),
            "condition": one_of(
                {
                    **known,
                    "role": choice(ROLES, "说话的一方。 Who says it."),
                    "within": _window(0, "也看此前的话，用于 all、any、not。 Earlier turns count too."),
                    "anchor": _anchor(),
                },
                *known,
                description="一个条件：一个算子。 A condition: one operator.",
            ),
            "entity": choice(("bank_card", "resident_id", "phone", "amount", "one_time_code", "address")),
            "dialogue": _dialogue(),
            "turn": _turn(),
            "call": _call(),
            "script": _script(),
            "node": _node(),
        },
    }


def _rule() -> Schema:
    return mapping(
        {
            "id": {"type": "string", "pattern": r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$"},
            "name": LANGUAGES,
            "severity": choice(get_args(Severity)),
            "role": choice(get_args(Role), "谁说的。 Whose words are judged."),
            "when": condition("何时触发。 When it fires."),
            "unless": condition("除非。 Unless this holds too."),
            "cooldown": number(0, 86_400, "秒；期间不再触发。 Seconds in which it does not fire again."),
            "mode": choice(get_args(Mode), "shadow：只计数，不告警。 shadow: counted, nobody is told."),
            "actions": some(choice(get_args(Action))),
            "hint": LANGUAGES,
            "advice": _advice(),
            "negation": SCOPE["negation"],
            "warning": SCOPE["warning"],
            "min_confidence": SCOPE["min_confidence"],
            "hot": texts("供语音识别参考的词。 Words that the speech model should expect."),
            "queues": texts("只在这些队列。 Only in these queues."),
            "effective": _effective(),
            "group": text("同组规则视为一件事。 Rules of one group are about the same thing."),
            "score": number(-100, 100, "质检加减分。 What it adds to the inspection score."),
            "hits": texts("应命中的句子。 Sentences that it must find."),
            "misses": texts("不应命中的句子。 Sentences that it must not find."),
            "tests": {"type": "array", "items": {"$ref": "#/$defs/dialogue"}},
        },
        ("id", "name", "severity", "role", "when"),
    )


def _advice() -> Schema:
    return LANGUAGES | {"description": "看到预警的人该检查什么。 What whoever sees the alert should check."}


def _effective() -> Schema:
    day = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
    return mapping(
        {
            "from": day,
            "to": day,
            "hours": some({"type": "string", "pattern": r"^\s*\d{1,2}:\d{2}\s*-\s*\d{1,2}:\d{2}\s*$"}),
            "weekdays": some(number(1, 7, "1 是星期一。 1 is Monday.")),
            "offset": {"type": "string", "pattern": r"^[+-](0\d|1[0-4]):[0-5]\d$"},
        },
        description="生效的日期与时段。 Dates and hours in which it holds.",
    )


def _window(low: int, description: str) -> Schema:
    shape = mapping({"seconds": number(low, 120), "turns": number(1, 20)}, description=description)
    return shape | {"minProperties": 1}


def _anchor() -> Schema:
    return mapping(
        {
            "of": condition(),
            "where": choice(("before", "after", "around", "current")),
            "turns": number(1, 20),
            "seconds": number(0, 120),
        },
        ("of", "where"),
        "只在另一条件附近才算。 Counts only near another condition.",
    )


def _dialogue() -> Schema:
    return mapping(
        {
            "name": text(),
            "turns": {"type": "array", "items": {"$ref": "#/$defs/turn"}},
            "expect": some({"type": "string"}, "应触发的全部规则。 All rules that must fire."),
            "ends": number(0, 86_400, "通话在第几秒结束。 Second at which the call ends."),
            "call": {"$ref": "#/$defs/call"},
        },
        ("turns", "expect"),
    )


def _turn() -> Schema:
    feeling = choice(get_args(Feeling))
    felt = mapping(
        {"feeling": feeling, "level": number(0, 10), "trend": number(-10, 10)},
        ("feeling",),
    )
    return one_of(
        {
            **{channel: text() for channel in get_args(Channel)},
            "start": number(0, 86_400, "秒。 Seconds."),
            "end": number(0, 86_400, "秒。 Seconds."),
            "emotion": {"anyOf": [feeling, felt], "description": "说话时的情绪。 How the speaker feels."},
            "loudness": number(-120, 0, "分贝。 dB relative to full scale."),
            "hold": flag("保持与恢复。 Put on hold, or taken back."),
            "hangup": choice(get_args(Channel), "谁挂断。 Who hangs up."),
            "trouble": choice(get_args(TroubleKind), "声音有问题。 Something is wrong with the sound."),
            "of": choice(get_args(Channel), "哪一路。 Whose."),
            "at": number(0, 86_400, "保持、挂断、故障的时间（秒）。 Second of the hold, hang-up or trouble."),
        },
        *get_args(Channel),
        "hold",
        "trouble",
        "hangup",
    )


def _call() -> Schema:
    known = ("queue", "agent", "team", "customer_level", "protocol", "started_at")
    return mapping(
        {
            **{name: text() for name in known},
            "direction": choice(("inbound", "outbound")),
            "attributes": {"type": "object", "additionalProperties": text()},
        },
        description="电话系统所知。 What the telephony knows.",
    )


def _script() -> Schema:
    return mapping(
        {
            "id": {"type": "string", "pattern": r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$"},
            "name": LANGUAGES,
            "queues": texts("只在这些队列。 Only in these queues."),
            "when": condition("只在这样的通话。 Only in calls of which this is known."),
            "start": texts("从哪些节点开始。 Nodes at which it begins."),
            "nodes": {"type": "array", "items": {"$ref": "#/$defs/node"}, "minItems": 1},
            "tests": {"type": "array", "items": {"$ref": "#/$defs/dialogue"}},
        },
        ("id", "name", "nodes"),
    )


def _node() -> Schema:
    branch = mapping(
        {
            "to": text("节点。 A node."),
            "when": condition(),
            "priority": number(-1000, 1000, "小者先看。 Lower ones are looked at first."),
        },
        ("to",),
    )
    ahead = mapping({"turns": number(1, 100), "seconds": number(1, 7200)}) | {"minProperties": 1}
    cue: Schema = {"anyOf": [text(), condition()]}
    return mapping(
        {
            "id": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
            "name": LANGUAGES,
            "role": choice(get_args(Role)),
            "when": condition("说到即完成。 It is done when this is said."),
            "required": flag("必须（默认是）。 It must be done (default true)."),
            "by": number(1, 7200, "期限（秒）。 Deadline in seconds."),
            "after": cue | {"description": "call_start, first_speech, 节点或条件 a node or a condition"},
            "look_ahead": ahead | {"description": "此前多远也算。 Said so far ahead it counts too."},
            "before": cue | {"description": "须在此之前。 It must come before that."},
            "at": choice(("end",), "结束时。 At the call's end."),
            "hint": LANGUAGES,
            "severity": choice(get_args(Severity)),
            "cooldown": number(0, 86_400),
            "actions": some(choice(get_args(Action))),
            "weight": number(0, 100, "在得分中的份量。 Its share of the score."),
            "next": some({"anyOf": [text(), branch]}, "之后的节点。 Nodes that follow."),
            "negation": flag(),
            "warning": flag(),
        },
        ("id", "name", "role", "when"),
    )
