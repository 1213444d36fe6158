"""How Mandarin sounds: syllables without tone, and how easily one is heard as another.

Costs lie between 0 (the same sound) and 1 (nothing in common). The confusion classes are those of
southern accents (zh/z, n/l, f/h, an/ang) and those of small speech models on a telephone line (b/p, d/t,
uo/ou, i/ü); the weights were set by hand so that one slip of the first kind costs about a tenth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from pypinyin import Style, lazy_pinyin

from detectors.mandarin import normalise

_POLYPHONES: Final = {
    char: tuple(readings.split("|"))
    for char, readings in (
        pair.split(":")
        for pair in [
            "行:hang|xing",
            "重:zhong|chong",
            "长:chang|zhang",
            "还:hai|huan",
            "得:de|dei",
            "都:dou|du",
            "了:le|liao",
            "地:di|de",
            "着:zhe|zhao|zhuo",
            "率:lv|shuai",
            "参:can|shen",
            "差:cha|chai|ci",
            "乐:le|yue",
            "调:diao|tiao",
            "便:bian|pian",
            "薄:bao|bo",
            "觉:jue|jiao",
            "角:jiao|jue",
            "降:jiang|xiang",
            "模:mo|mu",
            "藏:cang|zang",
            "传:chuan|zhuan",
            "弹:dan|tan",
            "朝:chao|zhao",
            "曾:ceng|zeng",
            "给:gei|ji",
            "解:jie|xie",
            "卡:ka|qia",
            "落:luo|la|lao",
            "没:mei|mo",
            "塞:sai|se",
            "色:se|shai",
            "省:sheng|xing",
            "说:shuo|shui",
            "宿:su|xiu",
            "提:ti|di",
            "系:xi|ji",
            "吓:xia|he",
            "校:xiao|jiao",
            "削:xiao|xue",
            "血:xue|xie",
            "咽:yan|ye",
            "折:zhe|she",
            "大:da|dai",
            "谁:shei|shui",
            "什:shen|shi",
            "似:si|shi",
            "识:shi|zhi",
            "恶:e|wu",
            "的:de|di",
            "那:na|nei",
            "哪:na|nei",
            "这:zhe|zhei",
            "剥:bo|bao",
            "伯:bo|bai",
            "柏:bo|bai",
            "车:che|ju",
            "称:cheng|chen",
            "盛:sheng|cheng",
            "畜:chu|xu",
            "度:du|duo",
            "否:fou|pi",
            "核:he|hu",
            "贾:jia|gu",
            "壳:ke|qiao",
            "绿:lv|lu",
            "陆:lu|liu",
            "六:liu|lu",
            "露:lu|lou",
            "埋:mai|man",
            "泊:bo|po",
            "迫:po|pai",
            "瀑:pu|bao",
            "圈:quan|juan",
            "尾:wei|yi",
            "约:yue|yao",
            "熟:shu|shou",
            "属:shu|zhu",
            "帖:tie",
            "爪:zhao|zhua",
            "轧:ya|zha",
            "择:ze|zhai",
            "粘:zhan|nian",
            "祭:ji|zhai",
            "仇:chou|qiu",
            "单:dan|shan",
            "区:qu|ou",
            "尿:niao|sui",
            "佛:fo|fu",
            "嚼:jiao|jue",
            "暴:bao|pu",
            "伺:ci|si",
            "勒:le|lei",
            "攒:zan|cuan",
            "扎:zha|za",
            "劲:jin|jing",
            "屏:ping|bing",
            "拓:tuo|ta",
            "吭:keng|hang",
        ]
    )
}
_SPELLED: Final = {
    "0": ("ling",),
    "1": ("yi", "yao"),
    "2": ("er", "liang"),
    "3": ("san",),
    "4": ("si",),
    "5": ("wu",),
    "6": ("liu",),
    "7": ("qi",),
    "8": ("ba",),
    "9": ("jiu",),
}
_DIGIT: Final = re.compile("[0-9]")
_INITIALS: Final = (
    *("zh", "ch", "sh"),
    *"bpmfdtnlgkhjqxrzcs",
)


def _pairs(table: str) -> dict[frozenset[str], float]:
    costs: dict[frozenset[str], float] = {}
    for line in table.strip().splitlines():
        cost, *pairs = line.split()
        for pair in pairs:
            costs[frozenset(pair.replace("_", "").split("/"))] = float(cost)
    return costs


# A fricative and the affricate of its place (x and j) differ above 3.4 kHz, where the telephone ends.
_INITIAL_COST: Final = _pairs("""
    0.10 zh/z ch/c sh/s
    0.15 n/l
    0.20 f/h r/l
    0.30 b/p d/t g/k j/q zh/ch z/c j/zh q/ch x/sh r/n x/q x/j sh/zh s/z
    0.35 j/z q/c x/s zh/c z/ch sh/ch s/c h/k m/n m/b r/zh r/sh
    0.40 g/h
    0.45 d/l t/l _/n _/l _/r _/h _/g _/m f/p d/n
""")
_FINAL_COST: Final = _pairs("""
    0.10 an/ang en/eng in/ing ian/iang uan/uang uen/ueng o/uo
    0.20 ei/uei en/uen ian/van
    0.25 uo/ou i/v ie/ve in/vn uen/ong ang/uang ou/iou a/ia eng/ueng
    0.30 e/uo e/o u/v i/ii an/uan an/ian ao/iao a/ua en/in eng/ing eng/ong en/ing eng/in vn/iong ang/iang
    0.30 van/uan e/er ian/ie u/uo
    0.35 ai/ei ao/ou u/ou u/o e/ie ong/uang ai/uai ii/e uai/uei ing/ong e/ii ang/ong
    0.40 i/ei i/in i/ing ai/an e/en ao/a ii/u ao/ang i/uei
    0.45 e/a u/uen a/an ai/a ou/ong ou/u ie/i ve/van
""")
_INITIAL_GROUPS: Final = {
    name: number
    for number, names in enumerate(
        ("b p", "m", "f h", "d t", "n l r", "g k", "j q", "zh z", "ch c", "s sh", "x", "_")
    )
    for name in names.replace("_", "_").split()
}
_FINAL_GROUPS: Final = {
    name: number
    for number, names in enumerate(
        (
            "a ia",
            "ua",
            "o uo ou",
            "iou",
            "e er",
            "ai",
            "uai",
            "ei uei",
            "ao",
            "iao",
            "an ang",
            "uan uang",
            "ian iang van",
            "en eng uen ueng",
            "in ing vn",
            "ong iong",
            "i ii v",
            "u",
            "ie ve",
        )
    )
    for name in names.split()
}
_UNRELATED: Final = 0.6


def _neighbours(
    costs: dict[frozenset[str], float], names: Iterable[str]
) -> dict[str, list[tuple[str, float]]]:
    found = {name: [(name, 0.0)] for name in names}
    for pair, cost in costs.items():
        one, other = pair
        found[one].append((other, cost))
        found[other].append((one, cost))
    return found


_NEAR_INITIALS: Final = _neighbours(_INITIAL_COST, (*_INITIALS, ""))
_NEAR_FINALS: Final = _neighbours(_FINAL_COST, _FINAL_GROUPS)

Sound = int
"""A set of readings of one character (a polyphone has several), interned."""

Key = tuple[str, ...]
"""One reading as initial and final; of a letter, the letter."""


class Heard(NamedTuple):
    """A normalised text as sounds. A number gives as many sounds as it is spoken with."""

    sounds: tuple[Sound, ...]
    starts: tuple[int, ...]
    """For each sound, the index of its character in the normalised text."""
    ends: tuple[int, ...]


_sounds: dict[tuple[str, ...], Sound] = {}
_readings: list[tuple[str, ...]] = []
_classes: list[tuple[int, ...]] = []
_costs: dict[int, float] = {}


def _intern(readings: tuple[str, ...]) -> Sound:
    sound = _sounds.get(readings)
    if sound is None:
        _readings.append(readings)
        _classes.append(tuple(sorted({_class_of(r) for r in readings})))
        sound = _sounds[readings] = len(_readings) - 1
    return sound


@lru_cache(maxsize=2048)
def split(syllable: str) -> tuple[str, str]:
    """Initial and final of a syllable in plain pinyin: ``you`` → ``("", "iou")``, ``ju`` → ``("j", "v")``."""
    if syllable.startswith("y") and len(syllable) > 1:
        rest = syllable[1:]
        if rest in ("i", "in", "ing"):
            return "", rest
        if rest[0] == "u":
            return "", "v" + rest[1:]
        return "", {"ou": "iou"}.get(rest, "i" + rest)
    if syllable.startswith("w") and len(syllable) > 1:
        rest = syllable[1:]
        return "", rest if rest == "u" else {"ei": "uei", "en": "uen", "eng": "ueng"}.get(rest, "u" + rest)
    for initial in _INITIALS:
        if syllable.startswith(initial) and len(syllable) > len(initial):
            final = syllable[len(initial) :]
            if initial in ("j", "q", "x") and final[0] == "u":
                final = "v" + final[1:]
            if final == "i" and initial in ("z", "c", "s", "zh", "ch", "sh", "r"):
                final = "ii"
            return initial, {"iu": "iou", "ui": "uei", "un": "uen"}.get(final, final)
    return "", syllable


def _class_of(syllable: str) -> int:
    initial, final = split(syllable)
    group = _FINAL_GROUPS.get(final)
    if group is None:
        # A letter of the alphabet sounds like itself alone.
        return 1000 + sum(ord(c) << (7 * i) for i, c in enumerate(syllable[:3]))
    return _INITIAL_GROUPS[initial or "_"] * 32 + group


@lru_cache(maxsize=65536)
def slip(one: str, other: str) -> float:
    """Cost of hearing the syllable ``one`` as ``other``; symmetric."""
    if one == other:
        return 0.0
    (initial, final), (other_initial, other_final) = split(one), split(other)
    if final not in _FINAL_GROUPS or other_final not in _FINAL_GROUPS:
        return 1.0
    cost = 0.0
    if initial != other_initial:
        cost += _INITIAL_COST.get(frozenset((initial, other_initial)), _UNRELATED)
    if final != other_final:
        cost += _FINAL_COST.get(frozenset((final, other_final)), _UNRELATED)
    return min(1.0, cost)


def cost(one: Sound, other: Sound) -> float:
    """Cost of hearing one sound as the other: the best over their readings."""
    if one == other:
        return 0.0
    key = (one << 20 | other) if one < other else (other << 20 | one)
    known = _costs.get(key)
    if known is None:
        known = _costs[key] = min(slip(a, b) for a in _readings[one] for b in _readings[other])
    return known


@lru_cache(maxsize=2048)
def _key(syllable: str) -> Key:
    initial, final = split(syllable)
    # A letter of the alphabet sounds like itself alone.
    return (initial, final) if final in _FINAL_GROUPS else (syllable,)


@lru_cache(maxsize=8192)
def keys(sound: Sound) -> tuple[Key, ...]:
    """What a sound consists of, one for each reading; equal for syllables that sound the same."""
    return tuple(dict.fromkeys(_key(reading) for reading in _readings[sound]))


@lru_cache(maxsize=8192)
def near(sound: Sound, most: float) -> tuple[Key, ...]:
    """Keys of all sounds whose ``cost`` against this one is at most ``most`` (below 0.6)."""
    found: dict[Key, None] = {}
    for key in keys(sound):
        found[key] = None
        if len(key) == 1 or most == 0:
            continue
        for initial, first in _NEAR_INITIALS[key[0]]:
            for final, second in _NEAR_FINALS[key[1]]:
                if 0.0 + first + second <= most:
                    found[initial, final] = None
    return tuple(found)


def share_class(one: Sound, other: Sound) -> bool:
    """Whether two sounds are of one coarse class; those that are easily confused mostly are."""
    return one == other or any(c in _classes[other] for c in _classes[one])


@lru_cache(maxsize=32768)
def sound_of(char: str) -> Sound:
    """Sound of one character of normalised text (digits are spelled)."""
    if char in _SPELLED:
        return _intern(_SPELLED[char])
    if char in _POLYPHONES:
        return _intern(_POLYPHONES[char])
    syllable = lazy_pinyin(char, style=Style.NORMAL, v_to_u=False, errors="default")
    return _intern((str(syllable[0]).replace("ü", "v"),)) if syllable else _intern((char,))


def listen(text: str) -> Heard:
    """Sounds of a *normalised* text, numbers read aloud: 3.85% → bai fen zhi san dian ba wu."""
    size = len(text)
    if _DIGIT.search(text) is None:
        return Heard(tuple(map(sound_of, text)), tuple(range(size)), tuple(range(1, size + 1)))
    sounds: list[Sound] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    while at < size:
        char = text[at]
        if "0" <= char <= "9":
            end = at + 1
            while end < size and ("0" <= text[end] <= "9" or text[end] == "."):
                end += 1
            number = text[at:end]
            percent = end < size and text[end] == "%"
            spoken = _spoken(number, percent)
            if spoken is None:
                for offset, digit in enumerate(number):
                    sounds.append(sound_of("点" if digit == "." else digit))
                    starts.append(at + offset)
                    ends.append(at + offset + 1)
            else:
                end += percent
                for char in spoken:
                    sounds.append(sound_of(char))
                    starts.append(at)
                    ends.append(end)
            at = end
            continue
        sounds.append(sound_of(char))
        starts.append(at)
        ends.append(at + 1)
        at += 1
    return Heard(tuple(sounds), tuple(starts), tuple(ends))


@lru_cache(maxsize=4096)
def _spoken(number: str, percent: bool) -> str | None:
    """How a number is said, as characters; ``None``: digit by digit, like a telephone number.

    Deterministic from the digits alone, so that equal numbers sound equal whatever stands around them.
    """
    whole, point, fraction = number.partition(".")
    if "." in fraction or len(whole) > 12 or (len(whole) > 1 and whole[0] == "0"):
        return None
    bare = whole.rstrip("0")
    is_round = len(whole) <= 2 or (bare != whole and len(bare) <= len(whole) / 2 + 1)
    if not (percent or point or is_round):
        return None
    # 1 and 2 stay digits: their readings (yi/yao, er/liang) are alternatives of one sound.
    return ("百分之" if percent else "") + _read(int(whole)) + ("点" + fraction if point else "")


def _read(value: int) -> str:
    if value == 0:
        return "0"
    groups: list[str] = []
    for unit in ("", "万", "亿"):
        value, group = divmod(value, 10_000) if unit != "亿" else (0, value)
        if group:
            groups.append(_read_group(group) + unit)
    said = "".join(reversed(groups))
    return said[1:] if said.startswith("1十") else said


def _read_group(value: int) -> str:
    said = ""
    for unit, size in (("千", 1000), ("百", 100), ("十", 10), ("", 1)):
        digit, value = divmod(value, size)
        if digit:
            said += str(digit) + unit
        elif said and value and not said.endswith("0"):
            said += "0"
    return said


@lru_cache(maxsize=16384)
def spelt(phrase: str) -> tuple[str, tuple[Sound, ...]]:
    """A phrase of a rule, normalised, and its sounds; remembered, for packs are read again and again."""
    plain = normalise(phrase).text
    return plain, listen(plain).sounds


def sounds_of(text: str) -> tuple[Sound, ...]:
    """Sounds of any text."""
    return listen(normalise(text).text).sounds
