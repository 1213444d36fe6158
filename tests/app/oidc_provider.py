"""A small identity provider on a real socket of this machine, strict about what it is sent."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "duting", "the client's secret"


class Provider:
    """``person`` are the claims of whoever logs in; ``told`` changes the ID token before it is signed."""

    def __init__(self, redirect_url: str) -> None:
        self.redirect_url = redirect_url
        self.key = RSAKey.generate_key(2048, {"kid": "first"})
        self.person: dict[str, Any] = {
            "sub": "42",
            "preferred_username": "li",
            "name": "李",
            "groups": ["bank-supervisors"],
        }
        self.told: dict[str, Any] = {}
        self.algorithm = "RS256"
        self.only_at_userinfo: set[str] = set()
        self.info_of: str | None = None
        """Whom the userinfo is about, if not who logged in."""
        self.issuer = ""
        self.calls_itself: str | None = None
        self._codes: dict[str, dict[str, str]] = {}

    def log_in(self, address: str) -> str:
        """What a browser does there: returns the address to which it is sent back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert asked["redirect_uri"] == self.redirect_url
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        return f"{self.redirect_url}?{urlencode({'code': code, 'state': asked['state']})}"

    # ── what it answers ───────────────────────────────────────────────────────────────────────────

    def configuration(self) -> dict[str, Any]:
        return {
            "issuer": self.calls_itself or self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
        }

    def keys(self) -> dict[str, Any]:
        return {"keys": [self.key.as_dict(private=False)]}

    def token(self, form: dict[str, str]) -> dict[str, Any] | None:
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        right = (form.get("grant_type"), form.get("client_id"), form.get("client_secret")) == (
            "authorization_code",
            CLIENT,
            SECRET,
        )
        if asked is None or not right or challenge != asked["code_challenge"]:
            return None
        if form.get("redirect_uri") != self.redirect_url:
            return None
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **{name: value for name, value in self.person.items() if name not in self.only_at_userinfo},
            **self.told,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.algorithm == "none":
            parts = ({"alg": "none"}, claims)
            signed = ".".join(
                base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts
            )
            signed += "."
        else:
            header = {"alg": self.algorithm, "kid": self.key.kid}
            signed = jwt.encode(header, claims, self.key, algorithms=[self.algorithm])
        return {"access_token": "opaque", "token_type": "Bearer", "id_token": signed}

    def userinfo(self, authorization: str) -> dict[str, Any] | None:
        if authorization != "Bearer opaque":
            return None
        return {**self.person, **({} if self.info_of is None else {"sub": self.info_of})}


@contextmanager
def provider(redirect_url: str) -> Iterator[Provider]:
    known = Provider(redirect_url)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            answers = {
                "/.well-known/openid-configuration": known.configuration,
                "/keys": known.keys,
                "/userinfo": lambda: known.userinfo(self.headers.get("Authorization", "")),
            }
            self._answer(answers[path]() if path in answers else None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(known.token({name: values[0] for name, values in parse_qs(body).items()}))

        def _answer(self, said: dict[str, Any] | None) -> None:
            body = json.dumps(said if said is not None else {"error": "invalid_grant"}).encode()
            self.send_response(200 if said is not None else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    serving.start()
    try:
        yield known
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
