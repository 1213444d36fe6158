"""Logging in by way of an identity provider, which is a real server here; only the network is short."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from pydantic import ValidationError

from app.oidc import Oidc
from app.settings import Settings
from tests.app.oidc_provider import CLIENT, SECRET, Provider, provider
from tests.app.store_support import House, house

BACK = "http://testserver/api/session/oidc/callback"
ROLES = {"bank-admins": "administrator", "bank-supervisors": "supervisor", "bank-agents": "agent"}


@pytest.fixture
def there() -> Iterator[Provider]:
    with provider(BACK) as known:
        yield known


@pytest.fixture
def at(tmp_path: Path, there: Provider) -> Iterator[House]:
    with house(tmp_path) as house_:
        settle(house_, there)
        yield house_


def settle(at: House, there: Provider, **changes: Any) -> None:
    given = {
        "oidc_issuer": there.issuer,
        "oidc_client_id": CLIENT,
        "oidc_client_secret": SECRET,
        "oidc_redirect_url": BACK,
        "oidc_roles": ROLES,
    }
    settings = Settings(data_dir=at.settings.data_dir, _env_file=None, **(given | changes))
    at.client.app.state.oidc = Oidc(settings)  # type: ignore[attr-defined]


def go(at: House, there: Provider, path: str = "/api/session/oidc") -> Any:
    """All that a browser does, up to the page where it ends."""
    away = at.client.get(path, follow_redirects=False)
    assert away.status_code == 302
    return at.client.get(there.log_in(away.headers["location"]), follow_redirects=False)


def who(at: House) -> Any:
    answer = at.client.get("/api/session")
    return answer.json()["user"] if answer.status_code == 200 else None


def test_whoever_the_provider_vouches_for_is_logged_in_and_has_an_account(at: House, there: Provider) -> None:
    end = go(at, there, "/api/session/oidc?next=/calls/c1")
    assert (end.status_code, end.headers["location"]) == (302, "/calls/c1")
    cookie = end.headers["set-cookie"].lower()
    assert "samesite=strict" in cookie
    assert "httponly" in cookie
    assert who(at)["role"] == "supervisor"
    account = at.store.users.account("li")
    assert account is not None
    assert (account.name, account.role, account.teams, account.external) == ("李", "supervisor", ("*",), True)
    [entry] = [one for one in at.store.audit.page(9)[0] if one.username == "li"]
    assert (entry.action, entry.detail) == ("session.opened", "oidc supervisor *")
    # No password opens it, not even an odd one.
    assert at.store.users.check("li", "!") is None


def test_the_next_time_role_and_teams_are_what_the_provider_says_then(at: House, there: Provider) -> None:
    settle(at, there, oidc_teams_claim="departments", oidc_teams={"D1": "A", "D2": "B"})
    there.person["departments"] = ["D2", "D1", "D9"]
    go(at, there)
    assert at.store.users.account("li").teams == ("A", "B")  # type: ignore[union-attr]
    first = at.client.cookies["duting_session"]
    there.person |= {"departments": "D1", "groups": ["staff", "bank-agents"], "name": "李二"}
    go(at, there)
    account = at.store.users.account("li")
    assert (account.name, account.role, account.teams) == ("李二", "agent", ("A",))  # type: ignore[union-attr]
    # What was open under the old role is shut.
    assert at.store.sessions.person(first) is None
    assert who(at)["role"] == "agent"


def test_without_a_word_about_teams_nobody_sees_all_of_them(at: House, there: Provider) -> None:
    settle(at, there, oidc_teams_claim="departments")
    go(at, there)
    assert at.store.users.account("li").teams == ()  # type: ignore[union-attr]


def test_groups_may_be_told_with_the_userinfo_only(at: House, there: Provider) -> None:
    there.only_at_userinfo = {"groups", "name"}
    go(at, there)
    assert who(at) == {"username": "li", "name": "李", "role": "supervisor"}


def test_the_first_role_that_the_settings_name_counts(at: House, there: Provider) -> None:
    there.person["groups"] = ["bank-agents", "bank-admins", "bank-supervisors"]
    go(at, there)
    assert who(at)["role"] == "administrator"
    assert at.store.users.account("li").teams == ()  # type: ignore[union-attr]


def test_new_keys_of_the_provider_are_asked_for(at: House, there: Provider) -> None:
    now = time.time()
    at.client.app.state.oidc._clock = lambda: now  # type: ignore[attr-defined]
    go(at, there)
    at.client.cookies.clear()
    there.key = RSAKey.generate_key(2048, {"kid": "second"})
    go(at, there)
    assert who(at) is None  # asked just now: nobody makes us ask again and again
    now += 31
    go(at, there)
    assert who(at)["username"] == "li"


# ── what is not believed ──────────────────────────────────────────────────────────────────────────


def refused(at: House, end: Any, code: str = "oidc_refused") -> None:
    assert (end.status_code, end.headers["location"]) == (302, f"/login?failed={code}")
    assert who(at) is None
    assert at.store.users.account("li") is None


@pytest.mark.parametrize(
    "told",
    [
        {"iss": "https://other.example"},
        {"aud": "another program"},
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"aud": [CLIENT, "another"]},
        {"azp": "another"},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"nonce": "of another login"},
        {"nonce": None},
        {"sub": None},
        {"sub": "43"},
    ],
    ids=str,
)
def test_a_token_that_is_not_of_this_login_is_refused(
    at: House, there: Provider, told: dict[str, Any]
) -> None:
    there.told = told
    # Where the userinfo is asked, it has to be about the same person.
    there.only_at_userinfo = {"groups"}
    refused(at, go(at, there))


def forged(there: Provider) -> None:
    genuine = there.key
    there.key = RSAKey.generate_key(2048, {"kid": "first"})
    there.keys = lambda: {"keys": [genuine.as_dict(private=False)]}  # type: ignore[method-assign]


def unsigned(there: Provider) -> None:
    there.algorithm = "none"


def other_person(there: Provider) -> None:
    there.only_at_userinfo = {"groups"}
    there.info_of = "43"


@pytest.mark.parametrize("fault", [forged, unsigned, other_person])
def test_a_forged_token_is_refused(at: House, there: Provider, fault: Callable[[Provider], None]) -> None:
    fault(there)
    refused(at, go(at, there))


def test_a_code_counts_once_in_the_browser_that_asked_and_with_its_verifier(
    at: House, there: Provider
) -> None:
    away = at.client.get("/api/session/oidc", follow_redirects=False)
    back = there.log_in(away.headers["location"])
    mine = at.client.cookies["duting_oidc"]
    state, nonce, _, after = mine.strip('"').split(" ", 3)
    at.client.cookies.clear()
    refused(at, at.client.get(back, follow_redirects=False))  # another browser
    for cookie in (f"x {nonce} y {after}", f"{state} {nonce} x {after}"):
        at.client.cookies.clear()
        end = at.client.get(back, headers={"Cookie": f'duting_oidc="{cookie}"'}, follow_redirects=False)
        refused(at, end)
    refused(at, at.client.get("/api/session/oidc/callback", follow_redirects=False))
    refused(at, at.client.get("/api/session/oidc/callback?state=&code=x", follow_redirects=False))


def test_who_has_no_role_here_is_told_so(at: House, there: Provider) -> None:
    there.person["groups"] = ["staff"]
    refused(at, go(at, there), "oidc_no_role")


def test_nobody_becomes_an_account_that_is_anothers(at: House, there: Provider) -> None:
    there.person["preferred_username"] = "administrator"  # there is one, with a password
    refused(at, go(at, there))
    assert at.store.users.account("administrator").external is False  # type: ignore[union-attr]
    there.person["preferred_username"] = "wang"
    go(at, there)
    at.client.cookies.clear()
    there.person["sub"] = "77"  # the name was given to somebody else there
    refused(at, go(at, there))


def test_a_disabled_account_stays_shut(at: House, there: Provider) -> None:
    go(at, there)
    at.store.users.set_disabled("li", True)
    assert who(at) is None
    assert go(at, there).headers["location"] == "/login?failed=oidc_refused"
    assert who(at) is None


def test_a_provider_that_is_away_or_is_another_is_said_so(at: House, there: Provider) -> None:
    there.calls_itself = "https://other.example"
    end = at.client.get("/api/session/oidc", follow_redirects=False)
    assert end.headers["location"] == "/login?failed=oidc_unavailable"
    settle(at, there, oidc_issuer="http://127.0.0.1:1")
    end = at.client.get("/api/session/oidc", follow_redirects=False)
    assert end.headers["location"] == "/login?failed=oidc_unavailable"


@pytest.mark.parametrize("after", ["https://evil.example", "//evil.example", "/\\evil.example", "x", "/a b"])
def test_afterwards_one_is_on_a_page_of_ours(at: House, there: Provider, after: str) -> None:
    end = go(at, there, f"/api/session/oidc?next={after}")
    assert end.headers["location"] == "/"


def test_the_login_page_knows_whether_there_is_a_provider(at: House) -> None:
    assert at.client.get("/api/session/ways").json() == {"oidc": "SSO"}
    at.client.app.state.oidc = None  # type: ignore[attr-defined]
    assert at.client.get("/api/session/ways").json() == {"oidc": None}
    for path in ("/api/session/oidc", "/api/session/oidc/callback?code=x&state=y"):
        assert at.client.get(path).status_code == 404


@pytest.mark.parametrize(
    "given",
    [
        {"oidc_issuer": "http://idp.example", "oidc_roles": ROLES, "oidc_client_id": "x"},
        {"oidc_issuer": "https://idp.example", "oidc_roles": ROLES},
        {"oidc_issuer": "https://idp.example", "oidc_client_id": "x"},
        {"oidc_issuer": "https://idp.example", "oidc_client_id": "x", "oidc_roles": {"g": "boss"}},
    ],
)
def test_settings_that_are_not_whole_are_refused_at_the_start(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="DUTING_OIDC"):
        Settings(_env_file=None, oidc_redirect_url=BACK, **given)
