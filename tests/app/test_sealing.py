"""Boxes that only the holders of a key open."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.errors import SettingsError
from app.sealing import Keyring, Locked
from app.settings import load

OLD, NEW = b"o" * 32, b"n" * 32


def text_of(*keys: bytes) -> SecretStr:
    return SecretStr(" , ".join(base64.b64encode(key).decode() for key in keys))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.text())
def test_what_was_sealed_comes_out_as_it_was(text: str, utterance: str) -> None:
    keyring = Keyring([NEW])
    assert text == keyring.open(utterance, keyring.seal(utterance, text))


def test_nothing_of_the_text_is_in_the_box_and_no_two_boxes_are_alike() -> None:
    keyring = Keyring([NEW])
    first, second = keyring.seal("u", "13912345678"), keyring.seal("u", "13912345678")
    assert first != second
    assert b"139" not in base64.urlsafe_b64decode(first)


def test_a_box_moved_to_another_utterance_does_not_open() -> None:
    keyring = Keyring([NEW])
    with pytest.raises(Locked):
        keyring.open("other", keyring.seal("u", "卡号"))


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_a_box_that_was_changed_does_not_open(place: int) -> None:
    keyring = Keyring([NEW])
    raw = bytearray(base64.urlsafe_b64decode(keyring.seal("u", "六二二二零二一二三四五六七八九")))
    raw[place] ^= 1
    with pytest.raises(Locked):
        keyring.open("u", base64.urlsafe_b64encode(raw).decode())


@given(st.text())
def test_what_is_no_box_does_not_open(box: str) -> None:
    with pytest.raises(Locked):
        Keyring([NEW]).open("u", box)


def test_after_a_rotation_old_boxes_open_and_new_ones_are_of_the_first_key() -> None:
    old, both, new = Keyring([OLD]), Keyring.of(text_of(NEW, OLD)), Keyring.of(text_of(NEW))
    assert both.open("u", old.seal("u", "旧")) == "旧"
    assert new.open("u", both.seal("u", "新")) == "新"
    with pytest.raises(Locked):
        new.open("u", old.seal("u", "旧"))


def test_without_a_key_nothing_is_sealed() -> None:
    assert not Keyring.of(None)
    assert Keyring.of(None).sealer is None


@pytest.mark.parametrize("keys", ["", "short", "c2VjcmV0LXRoYXQtaXMtc2hvcnQ=", "!" * 44, "A" * 44 + ","])
def test_keys_that_are_none_are_refused_without_being_quoted(keys: str) -> None:
    with pytest.raises(ValueError, match="DUTING_PII_KEYS") as refused:
        Keyring.of(SecretStr(keys))
    told = str(refused.value)
    assert not [key for key in keys.split(",") if key and key in told]
    assert "secret-that-is-short" not in told, "what the third one is when it is decoded"


def test_the_settings_refuse_a_wrong_key_and_do_not_quote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUTING_PII_KEYS", "kein-schluessel")
    with pytest.raises(SettingsError, match="DUTING_PII_KEYS") as refused:
        load()
    assert "kein-schluessel" not in str(refused.value)
