"""What words say of a speaker's feeling: a lexicon of bank calls, with negation and intensity.

The words stand in ``feelings.zh.txt``, each with the level that it says by itself. ``words`` joins them:
特别 before or 死了 behind makes one stronger, 有点 weaker, 不 turns it around or away, and what an agent says
of the customer (您别着急) is nobody's own feeling.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, cast

import ahocorasick

from detectors.mandarin import normalise
from streams.events import Channel, Feeling

FEELINGS: Final[tuple[Feeling, ...]] = ("pleased", "anxious", "sad", "displeased", "angry")
UNPLEASANT: Final = frozenset({"anxious", "sad", "displeased", "angry"})

_LEXICON: Final = Path(__file__).with_name("feelings.zh.txt")

_STRONGER: Final = re.compile(
    "(?:非常|特别|尤其|极其|极度|实在是?|简直|完全|太|真的?|真是|很|好|超级?|贼|巨|十分|万分|相当|越来越|更|最|"
    "快要?|都要?|已经|一直|总是|老是|天天|这么|那么|如此)$"
)
_WEAKER: Final = re.compile("(?:有一?点儿?|有些|稍微?|略微?|一点儿?|不太|不是很|还算|也不算|多少)$")
_BEHIND: Final = re.compile(
    "(?:死(?:我|人)?了?|极了|透了?|坏了|疯了|得要命|要命|得很|得不得了|到不行|得不行)"
)
_DENIED: Final = re.compile(
    "(?:没有?|不|(?<![特分区个级])别|不用|不必|不要|不需要|无需|无须|不会|不是|并不|并没有?|从不|从没|再也不|不再|毫不|请勿|免得|省得|"
    "不太|不是很|不怎么|没什么|没那么|不那么)(?:太|很|特别|那么|这么|多|什么|再|会|让您|让你|感到|觉得|用|跟您|跟你)?$"
)
_OTHERS: Final = re.compile(
    "(?:您|你)(?:们)?(?:的|先|也|很|非常|是|会|肯定|一定|现在|现在很|比较|这么|感到|觉得|别|不要|不用){0,3}$"
)
_SOOTHES: Final = re.compile("理解|抱歉|对不起|不好意思|让您|给您|帮您|为您")
_FRAUD: Final = re.compile("骗|坑人|忽悠|上当")
_OWN: Final = 6.5
"""What weighs more than this an agent says for himself."""
_TASK: Final = 4.0
"""Unpleasant words below this are daily work for an agent: 投诉, 尽快."""
_ASKED: Final = re.compile("度|吗|么")
"""Behind 满意: nobody is pleased, somebody asks."""
_STRENGTH, _WEAKNESS = 1.3, 0.6
_MORE: Final = 0.25
"""What each further word adds, as a share of its own weight."""
_REACH: Final = 6
_TURNED: Final[dict[str, tuple[Feeling, float]]] = {"pleased": ("displeased", 0.8)}
"""What a denied feeling becomes, and how much of it; the others are gone when they are denied."""
_COURTESY: Final = 3.0
"""Pleasure up to this weight is good manners on the telephone: 谢谢 says little."""


class Words(NamedTuple):
    """What the words alone say."""

    feeling: Feeling
    level: float
    """0 to 10."""
    scores: dict[Feeling, float]
    """By feeling, 0 to 10."""


class _Hit(NamedTuple):
    start: int
    end: int
    feeling: Feeling
    weight: float


@cache
def _automaton() -> ahocorasick.Automaton:
    automaton = ahocorasick.Automaton()
    feeling, weight = "", 0.0
    for line in _LEXICON.read_text("utf-8").splitlines():
        if line.startswith("["):
            feeling, level = line.strip("[]").split()
            weight = float(level)
        elif not line.startswith("#"):
            for word in line.split():
                plain = normalise(word).text
                automaton.add_word(plain, (len(plain), feeling, weight))
    automaton.make_automaton()
    return automaton


def words(text: str, role: Channel) -> Words:
    """Judge one utterance of ``role``; an empty one is calm."""
    normal = normalise(text)
    scores: dict[Feeling, float] = dict.fromkeys(FEELINGS, 0.0)
    for hit in _hits(normal.text):
        floor = max((b for b in normal.breaks if b <= hit.start), default=0)
        before = normal.text[max(floor, hit.start - _REACH) : hit.start]
        feeling, weight = hit.feeling, hit.weight
        behind = normal.text[hit.end :]
        if feeling == "calm" or (feeling == "pleased" and _ASKED.match(behind)):
            continue
        if role == "agent" and _is_work(hit, before, normal.text):
            continue
        if _DENIED.search(before):
            if feeling not in _TURNED:
                continue
            feeling, share = _TURNED[feeling]
            weight *= share
        elif _WEAKER.search(before):
            weight *= _WEAKNESS
        elif _STRONGER.search(before) or _BEHIND.match(behind):
            weight *= _STRENGTH
        strongest = max(scores[feeling], weight)
        scores[feeling] = min(10.0, strongest + _MORE * min(scores[feeling], weight))
    if role == "agent" and scores["pleased"] <= _COURTESY * _STRENGTH:
        scores["pleased"] = 0.0
    feeling = max(FEELINGS, key=lambda f: (scores[f], FEELINGS.index(f)))
    level = round(scores[feeling], 2)
    return Words(feeling if level else "calm", level, {f: round(s, 2) for f, s in scores.items()})


def _is_work(hit: _Hit, before: str, text: str) -> bool:
    """Whether an agent only speaks of the customer's feeling, or of what there is to do.

    理解您着急, 抱歉让您担心, 帮您登记投诉; or warns of fraud: 那都是骗人的. Abuse is never that.
    """
    if hit.weight > _OWN or hit.feeling == "pleased":
        return False
    warns = _FRAUD.search(text[hit.start : hit.end]) is not None
    return warns or hit.weight < _TASK or bool(_OTHERS.search(before) or _SOOTHES.search(before))


def _hits(text: str) -> list[_Hit]:
    """Words of the lexicon, the longest first where they overlap, then in order."""
    found = [
        _Hit(end - length + 1, end + 1, cast(Feeling, feeling), weight)
        for end, (length, feeling, weight) in _automaton().iter(text)
    ]
    found.sort(key=lambda hit: (hit.start - hit.end, hit.start))
    taken: list[_Hit] = []
    for hit in found:
        if all(hit.end <= other.start or hit.start >= other.end for other in taken):
            taken.append(hit)
    return sorted(taken)
