"""Signed requests: what is let in, and every way of not being."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.websockets import WebSocket

from app.ingest.signature import SIGNED, Nonces, authentic, decoded, refusal, sign

SECRET = b"a client secret"
NOW = 1_790_000_000
VALUES = {
    "@request-target": "/ingest/audiohook",
    "@authority": "duting.bank.example",
    "audiohook-organization-id": "o1",
    "audiohook-session-id": "s1",
    "audiohook-correlation-id": "x1",
    "x-api-key": "token",
}


def signed(names=SIGNED, created=NOW - 1, nonce="n" * 22, key="token", secret=SECRET, more=""):
    listed = " ".join(f'"{name}"' for name in names)
    parameters = f'({listed});keyid="{key}";nonce="{nonce}";alg="hmac-sha256";created={created}{more}'
    return f"sig1={parameters}", f"sig1=:{sign(parameters, tuple(names), VALUES, secret)}:"


def refused(given, signature, values=VALUES, now=NOW, nonces=None):
    return refusal(values, given, signature, SECRET, now, nonces or Nonces())


def test_a_good_signature_is_good_once():
    nonces = Nonces()
    assert refused(*signed(), nonces=nonces) is None
    assert refused(*signed(), nonces=nonces) == "used before"
    assert refused(*signed(nonce="m" * 22), nonces=nonces) is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("", ""), "not signed"),
        (("nonsense", "sig1=:x:"), "cannot be read"),
        (signed(names=SIGNED[1:]), "not all that has to be is signed"),
        (signed(created=NOW - 11), "too old"),
        (signed(created=NOW + 60), "too old"),
        (signed(more=f";expires={NOW - 4}"), "too old"),
        (signed(key="another"), "another key"),
        (signed(nonce="n" * 21), "nonce too short"),
        (signed(secret=b"another"), "wrong signature"),
        ((signed()[0], "sig1=:AAAA:"), "wrong signature"),
        ((signed()[0], signed()[1].replace("sig1", "sig2")), "wrong signature"),
        ((signed()[0] + "x" * 5_000, "sig1=:x:"), "too long"),
        ((signed()[0].replace("hmac-sha256", "none"), signed()[1]), "another algorithm"),
    ],
)
def test_any_other_is_refused_and_it_is_known_why(given, why):
    assert re.search(why, refused(*given))


def test_the_worked_example_of_genesys_is_good():
    """https://developer.genesys.cloud/devapps/audiohook/security"""
    key = "SGVsbG8sIEkgYW0gdGhlIEFQSSBrZXkh"
    values = {
        "@request-target": "/api/v1/voicebiometrics/ws",
        "@authority": "audiohook.example.com",
        "audiohook-organization-id": "d7934305-0972-4844-938e-9060eef73d05",
        "audiohook-session-id": "30b0e395-84d3-4570-ac13-9a62d8f514c0",
        "audiohook-correlation-id": "e160e428-53e2-487c-977d-96989bf5c99d",
        "x-api-key": key,
    }
    names = " ".join(f'"{name}"' for name in SIGNED)
    given = (
        f'sig1=({names});keyid="{key}";nonce="VGhpc0lzQVVuaXF1ZU5vbmNl";alg="hmac-sha256"'
        ";created=1641013200;expires=3282026430"
    )
    signature = "sig1=:NZBwyBHRRyRoeLqy1IzOa9VYBuI8TgMFt2GRDkDuJh4=:"
    secret = decoded("TXlTdXBlclNlY3JldEtleVRlbGxOby0xITJAMyM0JDU=")
    assert refusal(values, given, signature, secret, 1_641_013_205, Nonces()) is None


@pytest.mark.parametrize("name", SIGNED)
def test_nothing_that_is_signed_can_be_changed(name):
    changed = {**VALUES, name: "changed"}
    assert refused(*signed(), values=changed) is not None


def test_a_wrong_signature_uses_up_no_nonce():
    nonces = Nonces()
    assert refused(*signed(secret=b"another"), nonces=nonces) == "wrong signature"
    assert refused(*signed(), nonces=nonces) is None


def test_nonces_are_forgotten_when_they_are_too_old_to_be_used_again(monkeypatch):
    nonces = Nonces()
    assert nonces.use("n", NOW)
    assert nonces.use("m", NOW + 60)
    assert list(nonces._used) == ["m"]
    monkeypatch.setattr(Nonces, "MOST", 3)
    for number in range(10):
        assert nonces.use(str(number), NOW + 60)
    assert len(nonces._used) == 3


@pytest.mark.parametrize(("query", "good"), [(b"", True), (b"a=%ff", False), (b"\xff", False)])
def test_a_request_is_let_in_by_what_it_is_and_nothing_in_its_address_raises(query, good):
    given, signature = signed(created=int(time.time()))
    headers = {**VALUES, "host": VALUES["@authority"], "signature-input": given, "signature": signature}
    scope = {
        "type": "websocket",
        "path": VALUES["@request-target"],
        "query_string": query,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items() if name[0] != "@"],
    }
    socket = WebSocket(scope, None, None)
    assert authentic(socket, "token", "token", SecretStr(SECRET.decode()), Nonces(), None) is good


def test_a_secret_may_be_base64_or_not():
    assert decoded("c2VjcmV0") == b"secret"
    assert decoded("no base64!") == b"no base64!"


@given(st.text(max_size=300), st.text(max_size=100))
def test_no_headers_whatever_are_good_or_raise(given, signature):
    assert isinstance(refused(given, signature), str)
