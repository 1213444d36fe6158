"""The operators of the rule language as JSON Schema. One may bring its own as ``SCHEMA`` beside ``NAMES``."""

from __future__ import annotations

from typing import Final, get_args

from detectors.rules.loader import AROUND, LEAVES
from detectors.rules.shapes import (
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
from streams.events import Feeling

SCOPE: Final[dict[str, Schema]] = {
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
                    **SCOPE,
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
                    "negation": SCOPE["negation"],
                    "warning": SCOPE["warning"],
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
            **SCOPE,
        },
        ("a", "b"),
        "一句之内相近出现。 Two phrases close to each other.",
    ),
    "similar": {
        "description": "与某句意思相近的说法。 Nearly one of these sentences.",
        "anyOf": [texts(), mapping({"any": texts(), "score": number(0.5, 1), **SCOPE}, ("any",))],
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
            "name": text("queue, agent, team, customer_level, direction, protocol, 或自定义 or a custom one"),
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
