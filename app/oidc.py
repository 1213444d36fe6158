"""OpenID Connect: who an identity provider says somebody is. Authorization code with PKCE.

What goes to the browser and comes back is only a code; everything that counts is asked of the provider
directly, and its ID token is checked: signature, issuer, audience, time, nonce (OpenID Connect Core 1.0,
3.1.3.7; PKCE is RFC 7636). Plain ``httpx`` and ``joserfc``: the flow is four requests.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from app.errors import DutingError
from app.rights import usual_teams
from app.settings import Settings, is_safe_url

TIMEOUT_S: Final = 10.0
LEEWAY_S: Final = 60
KNOWN_S: Final = 3600.0
"""So long what the provider says of itself is believed; new keys are asked for when one is not known."""
KEYS_AGAIN_S: Final = 30.0
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those with a key that only the provider has."""


class OidcError(DutingError):
    """The provider cannot be asked, or what came back is not to be believed."""


class NoRole(OidcError):
    """The provider vouches for this person, and no role follows from what it says."""


class Identity(NamedTuple):
    """Somebody as the provider knows them, in our words."""

    subject: str
    """Issuer and subject: never given to anybody else."""
    username: str
    name: str
    role: str
    teams: tuple[str, ...]


class _Provider(NamedTuple):
    authorization: str
    token: str
    keys: str
    userinfo: str | None


class Oidc:
    """For one event loop. ``clock`` is wall clock, seconds since 1970."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        assert settings.oidc_issuer is not None
        assert settings.oidc_client_id is not None
        assert settings.oidc_redirect_url is not None
        self._settings = settings
        self._issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        self._redirect_url = settings.oidc_redirect_url
        self._clock = clock
        self._provider: tuple[float, _Provider] | None = None
        self._keys: tuple[float, KeySet] | None = None

    async def address(self, state: str, nonce: str, verifier: str) -> str:
        """Where the browser is to be sent. Raises ``OidcError``."""
        async with self._http() as http:
            provider = await self._known(http)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_url,
            "scope": self._settings.oidc_scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
        }
        sign = "&" if urlsplit(provider.authorization).query else "?"
        return f"{provider.authorization}{sign}{urlencode(query)}"

    async def identity(self, code: str, nonce: str, verifier: str) -> Identity:
        """Who came back with this code. Raises ``OidcError``."""
        async with self._http() as http:
            provider = await self._known(http)
            answer = await self._exchange(http, provider, code, verifier)
            claims = await self._checked(http, provider, str(answer.get("id_token", "")), nonce)
            if provider.userinfo is not None and not self._says_enough(claims):
                # Some tell groups only there.
                more = await _get(
                    http,
                    provider.userinfo,
                    headers={"Authorization": f"Bearer {answer.get('access_token', '')}"},
                )
                if more.get("sub") != claims["sub"]:
                    raise OidcError("the provider tells of another person than the one who logged in")
                claims = {**more, **claims}
        return self.mapped(claims)

    def mapped(self, claims: Mapping[str, Any]) -> Identity:
        """Role and teams by the settings. Of several roles the first counts that the settings name."""
        settings = self._settings
        groups = _texts(claims.get(settings.oidc_roles_claim))
        role = next((role for group, role in settings.oidc_roles.items() if group in groups), None)
        username = claims.get(settings.oidc_username_claim)
        if not isinstance(username, str) or not username:
            raise OidcError(f"expected the claim {settings.oidc_username_claim!r} in the ID token")
        if role is None:
            raise NoRole("none of this person's groups is in DUTING_OIDC_ROLES")
        teams = usual_teams(role)
        if settings.oidc_teams_claim is not None:
            told = _texts(claims.get(settings.oidc_teams_claim))
            names = settings.oidc_teams
            teams = tuple(names.get(one, one) if not names or one in names else "" for one in told)
            teams = tuple(sorted({team for team in teams if team}))
        if role == "agent":
            teams = teams[:1]
        name = claims.get(settings.oidc_name_claim)
        return Identity(
            subject=f"{self._issuer} {claims['sub']}",
            username=username,
            name=name if isinstance(name, str) and name.strip() else username,
            role=role,
            teams=teams,
        )

    def _says_enough(self, claims: Mapping[str, Any]) -> bool:
        settings = self._settings
        wanted = [settings.oidc_username_claim, settings.oidc_roles_claim, settings.oidc_teams_claim]
        return all(claim in claims for claim in wanted if claim is not None)

    # ── the provider ──────────────────────────────────────────────────────────────────────────────

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=TIMEOUT_S)

    async def _known(self, http: httpx.AsyncClient) -> _Provider:
        if self._provider is not None and self._clock() - self._provider[0] < KNOWN_S:
            return self._provider[1]
        said = await _get(http, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if said.get("issuer") != self._issuer:
            raise OidcError(
                f"expected the issuer {self._issuer} (DUTING_OIDC_ISSUER), the provider calls itself "
                f"{str(said.get('issuer'))[:200]}"
            )
        try:
            provider = _Provider(
                _checked_url(said["authorization_endpoint"]),
                _checked_url(said["token_endpoint"]),
                _checked_url(said["jwks_uri"]),
                _checked_url(said["userinfo_endpoint"]) if said.get("userinfo_endpoint") else None,
            )
        except KeyError as missing:
            raise OidcError(f"the provider does not say its {missing}") from None
        self._provider = (self._clock(), provider)
        return provider

    async def _exchange(
        self, http: httpx.AsyncClient, provider: _Provider, code: str, verifier: str
    ) -> dict[str, Any]:
        secret = self._settings.oidc_client_secret
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_url,
            "client_id": self._client_id,
            "code_verifier": verifier,
        }
        if secret is not None:
            form["client_secret"] = secret.get_secret_value()
        return await _answer(http.post(provider.token, data=form, headers={"Accept": "application/json"}))

    async def _checked(
        self, http: httpx.AsyncClient, provider: _Provider, id_token: str, nonce: str
    ) -> dict[str, Any]:
        claims: dict[str, Any] | None = None
        for again in (False, True):
            keys = await self._known_keys(http, provider, again)
            try:
                claims = dict(jwt.decode(id_token, keys, algorithms=list(ALGORITHMS)).claims)
                break
            except (JoseError, ValueError) as error:  # perhaps with a key that is new
                if again:
                    raise OidcError(f"the ID token cannot be read: {type(error).__name__}") from None
        assert claims is not None
        rules = jwt.JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._issuer},
            sub={"essential": True},
            aud={"essential": True, "value": self._client_id},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            rules.validate(claims)
        except JoseError as error:
            raise OidcError(f"the ID token is not for us: {error.error} {error.description}"[:200]) from None
        audience = claims["aud"]
        several = isinstance(audience, list) and len(audience) > 1
        if claims.get("azp", None if several else self._client_id) != self._client_id:
            raise OidcError("the ID token was made for another program")
        return claims

    async def _known_keys(self, http: httpx.AsyncClient, provider: _Provider, again: bool) -> KeySet:
        oldest = KEYS_AGAIN_S if again else KNOWN_S
        if self._keys is None or self._clock() - self._keys[0] >= oldest:
            said = await _get(http, provider.keys)
            try:
                keys = KeySet.import_key_set(said)  # type: ignore[arg-type]
            except (JoseError, ValueError, KeyError, TypeError) as error:
                raise OidcError(f"the provider's keys cannot be read: {type(error).__name__}") from None
            self._keys = (self._clock(), keys)
        return self._keys[1]


async def _get(http: httpx.AsyncClient, url: str, **more: Any) -> dict[str, Any]:
    return await _answer(http.get(url, **more))


async def _answer(asking: Any) -> dict[str, Any]:
    try:
        response = await asking
        said = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise OidcError(f"the identity provider cannot be asked: {type(error).__name__}") from None
    if response.status_code != 200 or not isinstance(said, dict):
        word = said.get("error") if isinstance(said, dict) else None
        raise OidcError(
            f"the identity provider answers {response.status_code} {str(word or '')[:80]}".strip()
        )
    return said


def _checked_url(url: object) -> str:
    if isinstance(url, str) and is_safe_url(url):
        return url
    raise OidcError("expected https addresses from the identity provider")


def _texts(value: object) -> tuple[str, ...]:
    """A claim that is one text, or a list of them."""
    if isinstance(value, str):
        return (value,)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, Iterable) else ()
