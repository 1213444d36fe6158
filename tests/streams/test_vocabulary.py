"""The cut-down vocabulary: what is kept, and that a model file comes out whole."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from streams.vocabulary import _BYTES, NotSlim, is_kept, slim

_SPELLING = {byte: character for character, byte in _BYTES.items()}
_CHINESE = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=1, max_size=4)


def spelled(raw: bytes) -> str:
    return "".join(_SPELLING[byte] for byte in raw)


@pytest.mark.parametrize("text", ["保本", "，", " 的", "A", "APP", "2024", "“好", "！"])
def test_what_a_mandarin_call_is_written_with_is_kept(text: str) -> None:
    assert is_kept(spelled(text.encode()))


@pytest.mark.parametrize("text", [" the", "tion", "привет", "안녕", "ありがとう", "é", "が", " guaranteed"])
def test_what_other_languages_are_written_with_is_not(text: str) -> None:
    assert not is_kept(spelled(text.encode()))


def test_every_single_byte_is_kept_so_that_anything_can_still_be_written() -> None:
    assert all(is_kept(spelled(bytes([byte]))) for byte in range(256))


@given(_CHINESE, st.integers(0, 2), st.integers(0, 2))
def test_chinese_broken_off_within_a_character_is_kept(text: str, front: int, back: int) -> None:
    raw = text.encode()
    raw = raw[front : len(raw) - back] or raw
    assert is_kept(spelled(raw))


@given(st.binary(min_size=1, max_size=9))
def test_any_bytes_get_an_answer(raw: bytes) -> None:
    assert is_kept(spelled(raw)) in (True, False)


@pytest.mark.parametrize("token", ["<|startoftranscript|>", "<|zh|>", "<|nospeech|>"])
def test_the_tokens_of_the_protocol_are_kept(token: str) -> None:
    assert is_kept(token)


@pytest.mark.parametrize("token", ["<|fr|>", "<|12.00|>", "<|time 50400|>"])
def test_other_languages_and_time_stamps_are_not(token: str) -> None:
    assert not is_kept(token)


def a_model(folder: Path, version: int = 6, rows: int | None = None) -> Path:
    """Four ordinary tokens and two special ones, one weight by token and one that is not."""
    words = ["Ġthe", spelled("保".encode()), spelled("本".encode()), "tion"]
    special = ["<|endoftext|>", "<|fr|>"]
    count = rows or len(words) + len(special)
    by_token = b"".join(struct.pack("<2f", index, -index) for index in range(count))

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    def variable(name: str, shape: list[int], data: bytes) -> bytes:
        return text(name) + struct.pack(f"<B{len(shape)}IBI", len(shape), *shape, 0, len(data)) + data

    (folder / "model.bin").write_bytes(
        struct.pack("<I", version)
        + text("WhisperSpec")
        + struct.pack("<II", 3, 2)
        + variable("decoder/embeddings/weight", [count, 2], by_token)
        + variable("encoder/conv1/bias", [3], bytes(12))
        + struct.pack("<I", 1)
        + text("decoder/projection/weight")
        + text("decoder/embeddings/weight")
    )
    names = words + special
    (folder / "tokenizer.json").write_text(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [
                    {
                        "id": 4 + index,
                        "content": token,
                        "single_word": False,
                        "lstrip": False,
                        "rstrip": False,
                        "normalized": False,
                        "special": True,
                    }
                    for index, token in enumerate(special)
                ],
                "pre_tokenizer": None,
                "decoder": dict.fromkeys(("add_prefix_space", "trim_offsets", "use_regex"), True)
                | {"type": "ByteLevel"},
                "post_processor": None,
                "normalizer": None,
                "model": {"type": "BPE", "vocab": {w: i for i, w in enumerate(words)}, "merges": []},
            }
        )
    )
    (folder / "vocabulary.txt").write_text("".join(name + "\n" for name in names))
    (folder / "config.json").write_text(json.dumps({"suppress_ids": [0, 2], "lang_ids": [5]}))
    return folder


def test_only_kept_rows_remain_and_every_id_moves_with_its_row(tmp_path: Path) -> None:
    model = slim(a_model(tmp_path))
    assert (model.kept, model.of) == (3, 6)
    assert json.loads(model.files["vocabulary.json"])[-1] == "<|endoftext|>"
    assert struct.pack("<6f", 1, -1, 2, -2, 4, -4) in model.files["model.bin"]
    assert struct.pack("<2f", 3, -3) not in model.files["model.bin"]
    config = json.loads(model.files["config.json"])
    assert config["suppress_ids"] == [1]
    assert config["lang_ids"] == []
    assert Tokenizer.from_str(model.tokenizer).decode([0, 1]) == "保本"


def test_everything_else_of_the_file_is_taken_over_byte_by_byte(tmp_path: Path) -> None:
    before = (a_model(tmp_path) / "model.bin").read_bytes()
    after = slim(tmp_path).files["model.bin"]
    tail = before[before.index(b"\x13\0encoder/conv1/bias") :]
    assert after.endswith(tail)


def test_a_file_of_another_version_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(NotSlim, match="version 6, got 5"):
        slim(a_model(tmp_path, version=5))


def test_a_model_without_a_row_for_each_token_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(NotSlim, match="6 rows"):
        slim(a_model(tmp_path, rows=7))


def test_a_file_that_was_cut_off_is_not_touched(tmp_path: Path) -> None:
    path = a_model(tmp_path) / "model.bin"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(NotSlim):
        slim(tmp_path)
