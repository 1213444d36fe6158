"""Hostile messages, made of valid ones by a seeded random. Pure: the same seed, the same messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final


class Chance(Random):
    """What ``Random`` does four times as slowly: half of the time went there. A little less even."""

    def choice(self, seq: Any) -> Any:
        return seq[int(self.random() * len(seq))]

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        if stop is None:
            start, stop = 0, start
        return start + int(self.random() * (stop - start))

    def randint(self, a: int, b: int) -> int:
        return a + int(self.random() * (b - a + 1))


LONGEST: Final = 70_000
"""Bytes: what the edges let through is at most 64 KiB, and a little more is tried."""
INTERESTING: Final = (
    *(b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff"),
    *(b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe4\xbf", b"\xef\xbb\xbf", b"\xe2\x80\xa8"),
    *(b"{", b"}", b"[", b'"', b"\\", b"\\ud800", b"\\u0000", b"\r\n", b"\n", b"\r", b" ", b":", b";", b"%"),
    *(b"-1", b"0", b"1e400", b"NaN", b"9" * 40, b"9" * 400, "١".encode(), "½".encode(), b"\x1c"),
)
"""Halves of characters and surrogates as UTF-8 may not have them, marks of JSON, SDP and headers, numbers."""
NUMBERS: Final = (
    *(b"0", b"-1", b"1", b"65535", b"65536", b"2147483648", b"4294967296", b"9" * 12, b"9" * 19, b"9" * 300),
    *(b"1e9", b"0.5", b"", b"00", "٣".encode(), b"604800000", b"600001", b"599999"),
)
ODD: Final = (
    *("null", "true", "false", "0", "-1", "1", "-0.0", "1e400", "-1e400", "1e308", "NaN", "Infinity"),
    *("9223372036854775808", "-9223372036854775809", "18446744073709551616", "9" * 400, "9" * 4_300),
    *("9" * 5_000, "0.1", "1e-400", '""', '"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"a\\u0000b"'),
    *('"' + "x" * 2_000 + '"', '"' + "督" * 400 + '"', '"PT99999999S"', '"PT9M59.999999999S"', '"-1"'),
    *('"9' + "9" * 300 + '"', '"NaN"', '"inf"', '"1e400"', "[]", "{}", "[[]]", "[null]", '{"":{}}'),
    *('"٣"', '"audio"', '["a","a"]', '"\\u2028"', '"=" ', '"Zm9v"', '"////"'),
)
"""Values of JSON, and what only looks like it."""
_HERE: Final = "<here>"

Change = Callable[[Random, bytes, bytes], bytes]
"""Of a message; the second one is another, to take from."""


def _bits(random: Random, data: bytes, other: bytes) -> bytes:
    if not data:
        return data
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        out[random.randrange(len(out))] ^= 1 << random.randrange(8)
    return bytes(out)


def _cut(random: Random, data: bytes, other: bytes) -> bytes:
    at = random.randint(0, len(data))
    return data[:at] if random.random() < 0.7 else data[at:]


def _splice(random: Random, data: bytes, other: bytes) -> bytes:
    return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]


def _twice(random: Random, data: bytes, other: bytes) -> bytes:
    start = random.randint(0, len(data))
    piece = data[start : random.randint(start, len(data))] or data
    return data[:start] + piece * random.choice((2, 2, 3, 50)) + data[start:]


def _joined(random: Random, data: bytes, other: bytes) -> bytes:
    return data + random.choice((b"", b"\n", b"\x00", b" ")) + other


def _noise(random: Random, data: bytes, other: bytes) -> bytes:
    return random.randbytes(random.choice((0, 1, 2, 3, 7, 40, 300)))


def _put_in(random: Random, data: bytes, other: bytes) -> bytes:
    start = random.randint(0, len(data))
    end = start if random.random() < 0.5 else min(len(data), start + random.randint(1, 4))
    return data[:start] + random.choice(INTERESTING) + data[end:]


def _digits(random: Random, data: bytes, other: bytes) -> bytes:
    """Another number where there is one."""
    places = [at for at, byte in enumerate(data[:2_000]) if 0x30 <= byte <= 0x39]
    if not places:
        return _put_in(random, data, other)
    start = end = random.choice(places)
    while end < len(data) and 0x30 <= data[end] <= 0x39:
        end += 1
    return data[:start] + random.choice(NUMBERS) + data[end:]


def _lines(random: Random, data: bytes, other: bytes) -> bytes:
    """Lines, or words, in another order; one may be lost, or come from elsewhere."""
    mark = random.choice((b"\n", b"\r\n", b" ", b"&", b";", b","))
    parts = data.split(mark)[:300]
    more = other.split(mark)[:50]
    match random.randrange(4):
        case 0:
            random.shuffle(parts)
        case 1:
            parts.insert(random.randint(0, len(parts)), random.choice(more))
        case 2:
            del parts[random.randrange(len(parts))]
        case _:
            parts *= random.choice((2, 3, 20))
    return mark.join(parts)


def _long(random: Random, data: bytes, other: bytes) -> bytes:
    start = random.randint(0, len(data))
    length = random.choice((130, 1_100, 4_200, 17_000, 66_000))
    return data[:start] + random.choice((b"x", b" ", b"\x00", b"\xff", b"9", b"[")) * length + data[start:]


# ── of JSON ───────────────────────────────────────────────────────────────────────────────────────


def _placed(random: Random, tree: Any) -> Any:
    """The tree with ``_HERE`` somewhere in it, in a value's place."""
    if isinstance(tree, dict) and tree and random.random() < 0.85:
        key = random.choice(list(tree))
        return {**tree, key: _placed(random, tree[key])}
    if isinstance(tree, list) and tree and random.random() < 0.7:
        at = random.randrange(len(tree))
        return [*tree[:at], _placed(random, tree[at]), *tree[at + 1 :]]
    return _HERE


def _keyed(random: Random, tree: Any, key: str) -> Any:
    """The tree with another name for one of its values, with one more, or with one less."""
    if isinstance(tree, dict) and tree:
        known = random.choice(list(tree))
        inner = tree[known]
        if isinstance(inner, dict) and random.random() < 0.7:
            return {**tree, known: _keyed(random, inner, key)}
        match random.randrange(3):
            case 0:
                return {name: value for name, value in tree.items() if name != known}
            case 1:
                return {**tree, key: inner}
        return {key if name == known else name: value for name, value in tree.items()}
    return {key: tree}


def _read(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _with(random: Random, data: bytes, other: bytes, value: str) -> bytes:
    tree = _read(data)
    if tree is None:
        at = random.randint(0, len(data))
        return data[:at] + value.encode() + data[at:]
    text = json.dumps(_placed(random, tree), ensure_ascii=random.random() < 0.5)
    return text.replace(f'"{_HERE}"', value).encode(errors="surrogatepass")


def _value(random: Random, data: bytes, other: bytes) -> bytes:
    return _with(random, data, other, random.choice(ODD))


def _deep(random: Random, data: bytes, other: bytes) -> bytes:
    """Values within values, around as many as Python's stack holds, and far more."""
    depth = random.choice((2, 50, random.randint(100, 1_100), random.randint(700, 1_000), 3_000, 12_000))
    begin, end = random.choice((("[", "]"), ('{"a":', "}"), ('[{"":', "}]")))
    if random.random() < 0.1:
        end = ""
    return _with(random, data, other, begin * depth + random.choice(("1", "null", '""')) + end * depth)


def _keys(random: Random, data: bytes, other: bytes) -> bytes:
    tree = _read(data)
    if tree is None:
        return _put_in(random, data, other)
    known = _read(other)
    names = [*known] if isinstance(known, dict) else []
    key = random.choice((*names, "", "event", "type", "token", "call_id", "x" * 70, "\x00", "direction"))
    return json.dumps(_keyed(random, tree, key)).encode()


CHANGES: Final[dict[str, Change]] = {
    "bits": _bits,
    "cut": _cut,
    "splice": _splice,
    "twice": _twice,
    "joined": _joined,
    "noise": _noise,
    "put in": _put_in,
    "digits": _digits,
    "lines": _lines,
    "long": _long,
    "value": _value,
    "deep": _deep,
    "keys": _keys,
}
_SELDOM: Final = frozenset({"long", "deep"})
"""Long messages take long."""


def changed(random: Random, data: bytes, other: bytes, kinds: Sequence[str]) -> bytes:
    """``data`` changed once, or a few times, in some of the ways ``kinds``."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        kind = random.choice(kinds)
        if kind in _SELDOM and random.random() < 0.8:
            kind = "bits"
        data = CHANGES[kind](random, data, other)
    return data[:LONGEST]


def pieces(random: Random, data: bytes) -> list[bytes]:
    """Bytes cut anywhere, as a stream may bring them."""
    out, at = [], 0
    longest = random.choice((1, 3, 100, 1_500, 65_536)) if len(data) < 200 else random.choice((400, 65_536))
    while at < len(data):
        size = random.randint(1, longest)
        out.append(data[at : at + size])
        at += size
    return out or [b""]
