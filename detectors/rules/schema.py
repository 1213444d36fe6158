"""The JSON Schema (2020-12) of rule packs, for editors that complete and check while one writes.

What it accepts is a little more than what the loader does: the loader alone knows whether a pattern
compiles, whether a phrase can be heard, and whether an id is named twice. What it refuses, the loader
refuses too. An operator may bring its own description as ``SCHEMA`` beside ``NAMES``.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from detectors.rules.loader import AROUND, LEAVES
from detectors.rules.model import Action, Mode, Role
from streams.events import Channel, Feeling, Severity

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
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

_SCOPE: Final[dict[str, Schema]] = {
    "negation": flag("否定时不算（默认是）。 A negation before it cancels it (default true)."),
    "warning": flag("作为提醒引用时不算。 Quoted as a warning it does not count."),
    "min_confidence": number(0, 1, "低于此识别置信度时只按字匹配。 Below it, matched by character only."),
}

_OPERATORS: Final[dict[str, Schema]] = {
    # ── on what is said or known ──────────────────────────────────────────────────────────────────
    "phrase": {
        "description": "说到这些短语（按字或按音）。 These phrases are said, by character or by sound.",
        "anyOf": [
            texts(),
            one_of(
                {
                    "any": texts("任一。 One of them."),
                    "all": texts("全部。 All of them."),
                    "of": texts("其中若干，配合 at_least。 Some of them, with at_least."),
                    "at_least": number(1, 1000),
                    "none": texts("不含这些。 And none of these."),
                    "match": choice(("auto", "exact", "pinyin")),
                    "guard": texts("同音的普通词，不算。 Ordinary words that sound alike: no match."),
                    **_SCOPE,
                },
                "any",
                "all",
                "of",
            ),
        ],
    },
    "regex": {
        "description": "正则表达式（RE2，匹配规范化文本）。 A pattern (RE2) over normalised text.",
        "anyOf": [
            texts(),
            mapping(
                {
                    "pattern": texts(),
                    "not_pattern": texts("出现则不算。 Not if this occurs."),
                    "negation": _SCOPE["negation"],
                    "warning": _SCOPE["warning"],
                },
                ("pattern",),
            ),
        ],
    },
    "near": mapping(
        {
            "a": texts(),
            "b": texts(),
            "distance": number(0, 200, "之间最多的字数。 Characters between them at most."),
            "ordered": flag("a 须在 b 之前。 a comes before b."),
            **_SCOPE,
        },
        ("a", "b"),
        "一句之内相近出现。 Two phrases close to each other.",
    ),
    "similar": {
        "description": "与某句意思相近的说法。 Nearly one of these sentences.",
        "anyOf": [texts(), mapping({"any": texts(), "score": number(0.5, 1), **_SCOPE}, ("any",))],
    },
    "repeat": mapping(
        {
            "times": number(2, 20),
            "similarity": number(0.5, 1),
            "min_characters": number(2, 100),
            "seconds": number(1, 600),
            "turns": number(1, 20),
            "except": texts("不算重复的话。 What may be said again."),
        },
        description="同一方反复说几乎相同的话。 The same side says nearly the same again.",
    ),
    "entity": {
        "description": "说出号码、金额、地址等。 A number, an amount, an address is spoken.",
        "anyOf": [
            some({"$ref": "#/$defs/entity"}),
            mapping(
                {
                    "any": some({"$ref": "#/$defs/entity"}),
                    "at_least": number(0, 1e12, "元，仅用于 amount。 Yuan, for amount only."),
                },
                ("any",),
            ),
        ],
    },
    "sentiment": one_of(
        {"below": number(-1, 1), "above": number(-1, 1), "turns": number(1, 10)},
        "below",
        "above",
        description="最近几句的文字情感，-1 到 1。 How pleased the words of the last turns sound.",
    ),
    "attribute": one_of(
        {
            "name": text("queue, agent, customer_level, direction, protocol, 或自定义 or a custom one"),
            "is": text(),
            "in": texts(),
            "is_not": text(),
            "not_in": texts(),
            "matches": text(),
            "at_least": number(-1e15, 1e15),
            "at_most": number(-1e15, 1e15),
            "exists": flag(),
        },
        *("is", "in", "is_not", "not_in", "matches", "at_least", "at_most", "exists"),
        required=("name",),
        description="通话的属性。 What the telephony knows of the call.",
    ),
    # ── on the stream ─────────────────────────────────────────────────────────────────────────────
    "silence": mapping(
        {
            "seconds": number(1, 3600),
            "between": some(choice(ROLES)),
            "from_start": flag("含开口之前。 Also before the first word."),
            "hold": flag("含保持期间。 Also while on hold."),
        },
        ("seconds",),
        "无人说话达此时长。 Nobody speaks for so long.",
    ),
    "interruption": mapping(
        {
            "by": choice(ROLES),
            "overlap": number(100, 5000, "毫秒。 Milliseconds."),
            "times": number(1, 20),
            "seconds": number(1, 3600),
        },
        ("by",),
        "抢话。 Breaking in while the other side speaks.",
    ),
    "overlap": mapping(
        {"share": number(0.01, 1), "seconds": number(1, 600)},
        ("share",),
        "窗口内双方同时说话的比例。 Share of the window in which both speak.",
    ),
    "rate": one_of(
        {
            "of": choice(ROLES),
            "above": number(10, 2000, "字/分钟。 Characters a minute."),
            "below": number(10, 2000, "字/分钟。 Characters a minute."),
            "baseline": number(0.1, 5, "自身平常语速的倍数。 Times the speaker's own rate."),
            "seconds": number(1, 600),
            "characters": number(1, 2000),
        },
        *("above", "below", "baseline"),
        required=("of",),
        description="语速。 How fast somebody speaks.",
    ),
    "energy": mapping(
        {"of": choice(ROLES), "jump": number(1, 40, "分贝，相对自身。 dB above the speaker's own.")},
        ("of", "jump"),
        "音量突然升高。 Somebody becomes loud.",
    ),
    "hold": mapping({"seconds": number(1, 7200)}, ("seconds",), "保持超过此时长。 On hold for so long."),
    "emotion": mapping(
        {
            "of": choice(ROLES),
            "feeling": some(choice(get_args(Feeling))),
            "level": number(0, 10),
            "trend": number(0.1, 10, "比此前 30 秒更糟多少。 How much worse than in the 30 s before."),
            "seconds": number(0, 600),
        },
        ("of",),
        "情绪（语音与文字）。 How somebody feels, by voice and words.",
    )
    | {"anyOf": [{"required": [name]} for name in ("feeling", "level", "trend")]},
    "duration": mapping({"seconds": number(1, 86_400)}, ("seconds",), "通话超过。 The call is longer."),
    "turns": mapping(
        {"at_least": number(1, 10_000), "of": choice(ROLES)},
        ("at_least",),
        "句数达到。 So many turns were spoken.",
    ),
    "hangup": mapping(
        {
            "by": choice(ROLES),
            "within": number(0, 86_400, "接通后几秒内。 Within the call's first seconds."),
            "after": condition("此话之后。 After this was said."),
            "seconds": number(0, 3600),
        },
        description="挂断。 Who hung up, and how soon.",
    )
    | {"minProperties": 1, "dependentRequired": {"after": ["seconds"], "seconds": ["after"]}},
    "no_text": mapping(
        {"speech": number(5, 600, "秒。 Seconds of speech.")},
        ("speech",),
        "有人说话但没有文字。 Speech, and no text.",
    ),
    # ── around other conditions ───────────────────────────────────────────────────────────────────
    "all": some(condition(), "全部成立。 All of them hold."),
    "any": some(condition(), "任一成立。 One of them holds."),
    "not": some(condition(), "不成立。 It does not hold."),
    "sequence": mapping(
        {
            "steps": {"type": "array", "items": condition(), "minItems": 2, "maxItems": 8},
            "seconds": number(1, 3600),
        },
        ("steps", "seconds"),
        "依次发生。 One after the other, in this order.",
    ),
    "count": mapping(
        {"of": condition(), "at_least": number(2, 20), "seconds": number(1, 3600)},
        ("of", "at_least", "seconds"),
        "窗口内发生若干次。 So many times within a window.",
    ),
    "absent": mapping(
        {
            "of": condition("应当说到的。 What should have been said."),
            "by": number(1, 7200, "期限（秒）。 Deadline in seconds."),
            "before": condition("在此之前。 Before this is said."),
            "after": {
                "anyOf": [choice(("call_start", "first_speech")), condition()],
                "description": "从何时起算。 From when the time runs.",
            },
        },
        ("of",),
        "到期仍未说到。 It was not said in time.",
    )
    | {"anyOf": [{"required": ["by"]}, {"required": ["before"]}]},
}


def operators() -> dict[str, Schema]:
    """Every operator and combinator by its name. Raises ``KeyError`` for one that nobody described."""
    shapes: dict[str, Schema] = {}
    for name, module in {**LEAVES, **AROUND}.items():
        own = getattr(module, "SCHEMA", None)
        shapes[name] = own if own is not None else _OPERATORS[name]
    return shapes | {name: _OPERATORS[name] for name in ("all", "any", "not")}


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
            "negation": _SCOPE["negation"],
            "warning": _SCOPE["warning"],
            "min_confidence": _SCOPE["min_confidence"],
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
    turn = one_of(
        {
            **{channel: text() for channel in get_args(Channel)},
            "start": number(0, 86_400),
            "end": number(0, 86_400),
        },
        *get_args(Channel),
    )
    return mapping(
        {
            "name": text(),
            "turns": {"type": "array", "items": turn},
            "expect": some({"type": "string"}, "应触发的全部规则。 All rules that must fire."),
            "ends": number(0, 86_400, "通话在第几秒结束。 Second at which the call ends."),
        },
        ("turns", "expect"),
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
