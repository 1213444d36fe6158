"""A Whisper model cut down to the words of Mandarin calls: half of a decoding step is choosing the token.

Whisper's vocabulary has 51,865 tokens for ninety-nine languages, about three thousand of which can be part of
Mandarin. Every decoding step multiplies the state with all of them, and sorts out the ones that were not
meant. Here the rows of the others are taken out of the embedding (which is also the projection), of the
vocabulary and of the tokenizer, in memory, while the model is loaded: the verified file on disk stays what it
is. What remains is chosen by bytes (``is_kept``), so it holds for every multilingual Whisper.

The file format is CTranslate2's (version 6, ``python/ctranslate2/specs/model_spec.py`` writes it): strings
and tensors, little-endian, each with its length in front.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CT2_VERSION = 6
_SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|zh|>", "<|en|>", "<|translate|>", "<|transcribe|>")
_SPECIAL_AFTER = ("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|nocaptions|>", "<|notimestamps|>")
_BY_ROW = ("decoder/embeddings/", "decoder/projection/")
"""Variables whose first axis counts tokens."""


class NotSlim(Exception):
    """The model is not of the kind that can be cut down; it can be used as it is."""


@dataclass(frozen=True)
class SlimModel:
    """What CTranslate2 and the tokenizer are given in place of the folder's files."""

    files: dict[str, bytes]
    """``model.bin``, ``config.json``, ``vocabulary.json``."""
    tokenizer: str
    """JSON for ``tokenizers.Tokenizer.from_str``."""
    kept: int
    of: int


def slim(folder: Path) -> SlimModel:
    """Read a verified model folder and leave out what Mandarin calls never need.

    Raises ``NotSlim`` when a file has another shape than expected, saying which.
    """
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokens = _tokens(folder)
    kept = [index for index, token in enumerate(tokens) if is_kept(token)]
    ids = {old: new for new, old in enumerate(kept)}
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for name in ("suppress_ids", "suppress_ids_begin", "lang_ids"):
        config[name] = [ids[i] for i in config.get(name) or () if i in ids]
    names = [tokens[index] for index in kept]
    return SlimModel(
        files={
            "model.bin": _slim_weights((folder / "model.bin").read_bytes(), kept, len(tokens)),
            "config.json": json.dumps(config).encode(),
            "vocabulary.json": json.dumps(names).encode(),
        },
        tokenizer=json.dumps(_slim_tokenizer(tokenizer, ids)),
        kept=len(kept),
        of=len(tokens),
    )


def is_kept(token: str) -> bool:
    """Whether a token, in byte-level BPE spelling, can be part of a Mandarin call.

    Kept are all single bytes, Chinese characters and punctuation and parts of their UTF-8, short pieces of
    Latin letters and figures (from which every longer word can be put together), and the few special tokens.
    """
    if token in _SPECIAL or token in _SPECIAL_AFTER:
        return True
    try:
        raw = raw_bytes(token)
    except KeyError:
        return False
    if len(raw) <= 1 or raw.startswith(b"<|"):
        return len(raw) == 1
    if raw.isascii():
        word = raw.strip()
        return len(word) <= 2 or (len(word) <= 4 and (word.isupper() or word.isdigit()))
    return _is_chinese(raw)


def raw_bytes(token: str) -> bytes:
    """The bytes that a token in byte-level spelling stands for; ``KeyError`` for a special token."""
    return bytes(_BYTES[character] for character in token)


def _is_chinese(raw: bytes) -> bool:
    """Whether ``raw`` is Chinese text in UTF-8, perhaps begun or broken off within a character."""
    start = 0
    while start < min(2, len(raw)) and 0x80 <= raw[start] < 0xC0:
        start += 1
    body = raw[start:]
    for cut in range(min(3, len(body)) + 1):
        try:
            text = body[: len(body) - cut].decode()
        except UnicodeDecodeError:
            continue
        return all(map(_chinese, text.strip())) and _may_begin_chinese(body[len(body) - cut :])
    return False


def _chinese(character: str) -> bool:
    code = ord(character)
    return (
        0x4E00 <= code <= 0x9FFF  # ideographs
        or 0x3001 <= code <= 0x3017  # 、。〈〉《》「」【】
        or 0xFF00 <= code <= 0xFF65  # full-width forms
        or character in "“”‘’…—·℃°±×÷￥"
        or character.isascii()
    )


def _may_begin_chinese(rest: bytes) -> bool:
    """Whether ``rest`` (a character broken off) may go on as one: 0xE3 80, 0xE4 to 0xE9, 0xEF BC or BD."""
    if not rest:
        return True
    if rest[0] in (0xE3, 0xEF):
        return len(rest) < 2 or rest[:2] in (b"\xe3\x80", b"\xef\xbc", b"\xef\xbd")
    return 0xE4 <= rest[0] <= 0xE9


def _byte_of_character() -> dict[str, int]:
    """GPT-2's byte-level spelling: printable bytes stand for themselves, the others for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


_BYTES = _byte_of_character()


def _tokens(folder: Path) -> list[str]:
    """All tokens by id, as CTranslate2 reads them, in byte-level spelling."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    by_id = {index: token for token, index in tokenizer["model"]["vocab"].items()}
    by_id |= {added["id"]: added["content"] for added in tokenizer["added_tokens"]}
    path = folder / "vocabulary.json"
    if path.exists():
        count = len(json.loads(path.read_text("utf-8")))
    else:
        count = len((folder / "vocabulary.txt").read_text("utf-8").split("\n")) - 1
    # Behind the tokenizer's own come the 1,501 time stamps.
    return [by_id.get(index, f"<|time {index}|>") for index in range(count)]


def _slim_tokenizer(tokenizer: dict[str, Any], ids: dict[int, int]) -> dict[str, Any]:
    model = tokenizer["model"]
    if model.get("type", "BPE") != "BPE":
        raise NotSlim(f"expected a BPE tokenizer, got {model.get('type')}")
    vocab = {token: ids[index] for token, index in model["vocab"].items() if index in ids}

    def pair(merge: str | list[str]) -> tuple[str, str]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        return left, right

    merges = [
        merge
        for merge, (left, right) in ((m, pair(m)) for m in model["merges"])
        if left in vocab and right in vocab and left + right in vocab
    ]
    added = [{**a, "id": ids[a["id"]]} for a in tokenizer["added_tokens"] if a["id"] in ids]
    # The post-processor names ids of its own, and nothing here asks for it.
    return {
        **tokenizer,
        "model": {**model, "vocab": vocab, "merges": merges},
        "added_tokens": added,
        "post_processor": None,
    }


def _slim_weights(raw: bytes, kept: list[int], of: int) -> bytes:
    """The same variables, those by token with the kept rows only."""
    reader = _Reader(memoryview(raw))
    version = reader.number("I")
    if version != CT2_VERSION:
        raise NotSlim(f"expected model.bin of version {CT2_VERSION}, got {version}")
    out: list[bytes | memoryview] = []
    reader.skip_string()
    reader.number("I")
    count = reader.number("I")
    out.append(reader.since(0))
    found = 0
    for _ in range(count):
        begin = reader.position
        name = reader.string()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        dtype = reader.number("B")
        data = reader.take(reader.number("I"))
        if not (name.startswith(_BY_ROW) and shape and shape[0] == of):
            out.append(reader.since(begin))
            continue
        found += 1
        width = len(data) // of
        rows = b"".join(data[index * width : (index + 1) * width] for index in kept)
        encoded = name.encode() + b"\0"
        shape[0] = len(kept)
        out.append(struct.pack("<H", len(encoded)) + encoded)
        out.append(struct.pack(f"<B{len(shape)}IBI", len(shape), *shape, dtype, len(rows)))
        out.append(rows)
    if not found:
        raise NotSlim(f"expected decoder/embeddings with {of} rows, found none")
    out.append(reader.since(reader.position, to_end=True))
    return b"".join(out)


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.position = 0

    def number(self, kind: str) -> int:
        value: int = struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]
        return value

    def take(self, size: int) -> memoryview:
        self.position += size
        if self.position > len(self._data):
            raise NotSlim("model.bin ends in the middle of a variable")
        return self._data[self.position - size : self.position]

    def string(self) -> str:
        return bytes(self.take(self.number("H"))[:-1]).decode()

    def skip_string(self) -> None:
        self.take(self.number("H"))

    def since(self, begin: int, to_end: bool = False) -> memoryview:
        return self._data[begin : len(self._data) if to_end else self.position]
