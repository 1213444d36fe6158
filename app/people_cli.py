"""``duting users``, ``duting tokens``, ``duting audit``."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app import settings as settings_
from app.errors import DutingError

if TYPE_CHECKING:
    from app.store import Store

users_app = typer.Typer(no_args_is_help=True, help="Accounts of the dashboard.")
tokens_app = typer.Typer(no_args_is_help=True, help="API tokens of programs.")
audit_app = typer.Typer(no_args_is_help=True, help="Who looked at what.")

COMMAND = "(command)"
"""Who it was, in the audit."""

Username = Annotated[str, typer.Argument(help="name of the account")]
Stdin = Annotated[bool, typer.Option("--password-stdin", help="read the password from standard input")]
Teams = Annotated[
    list[str] | None, typer.Option("--team", help="may be repeated; * is all of them; see the role's usual")
]


class AuditBroken(DutingError):
    """Somebody has changed the audit."""


@contextmanager
def _store() -> Iterator[Store]:
    from app.store import Store

    settings = settings_.load()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    store = Store.open(settings.database)
    try:
        yield store
    finally:
        store.close()


def _password(stdin: bool) -> str:
    return sys.stdin.readline().rstrip("\n") if stdin else getpass.getpass("Password: ")


def _shown(teams: tuple[str, ...]) -> str:
    return f", teams {' '.join(teams)}" if teams else ""


# ── users ─────────────────────────────────────────────────────────────────────────────────────────


@users_app.command("add")
def users_add(
    username: Username,
    role: Annotated[str, typer.Option(help="agent, supervisor, inspector or administrator")] = "supervisor",
    name: Annotated[str | None, typer.Option(help="as colleagues see it")] = None,
    team: Teams = None,
    password_stdin: Stdin = False,
) -> None:
    """Add an account; the password is asked for, or read from standard input.

    Teams: an agent's is whose supervisors see the calls; a supervisor sees the calls of these (all unless
    said); an administrator sees no calls unless teams are given.
    """
    password = _password(password_stdin)
    with _store() as store:
        made = store.users.add(username, password, name or username, role, team)
        detail = f"{made.role} {' '.join(made.teams)}".strip()
        store.audit.record(COMMAND, "user.added", username, None, detail)
    print(f"added {role} {username}{_shown(made.teams)}")


@users_app.command("list")
def users_list() -> None:
    """All accounts: name, role, state, teams, the person's name, with a tab between them."""
    with _store() as store:
        for one in store.users.accounts():
            state = "disabled" if one.disabled_at else "external" if one.external else "open"
            print(one.username, one.role, state, " ".join(one.teams) or "-", one.name, sep="\t")


@users_app.command("set-role")
def users_set_role(username: Username, role: str) -> None:
    """Give an account another role, with that role's usual teams. It has to log in again."""
    with _store() as store:
        now = store.users.set_role(username, role)
        store.audit.record(COMMAND, "user.role", username, None, now.role)
    print(f"{username} is {role}{_shown(now.teams)}")


@users_app.command("set-teams")
def users_set_teams(
    username: Username, teams: Annotated[list[str] | None, typer.Argument(help="* is all of them")] = None
) -> None:
    """Set the teams of an account; none if none are given. It has to log in again."""
    with _store() as store:
        now = store.users.set_teams(username, teams or [])
        store.audit.record(COMMAND, "user.teams", username, None, " ".join(now.teams))
    print(f"{username} has {'teams ' + ' '.join(now.teams) if now.teams else 'no teams'}")


@users_app.command("disable")
def users_disable(username: Username) -> None:
    """Shut an account: no login, and whoever is logged in with it is out within seconds."""
    _set_disabled(username, True)


@users_app.command("enable")
def users_enable(username: Username) -> None:
    """Open an account again."""
    _set_disabled(username, False)


def _set_disabled(username: str, disabled: bool) -> None:
    word = "disabled" if disabled else "enabled"
    with _store() as store:
        store.users.set_disabled(username, disabled)
        store.audit.record(COMMAND, "user.disabled" if disabled else "user.enabled", username, None)
    print(f"{word} {username}")


@users_app.command("password")
def users_password(username: Username, password_stdin: Stdin = False) -> None:
    """Set a password, and log the account out everywhere."""
    password = _password(password_stdin)
    with _store() as store:
        store.users.set_password(username, password)
        store.audit.record(COMMAND, "user.password", username, None)
    print(f"changed the password of {username}")


# ── tokens ────────────────────────────────────────────────────────────────────────────────────────


@tokens_app.command("add")
def tokens_add(
    name: Annotated[str, typer.Argument(help="by which it is known, here and in the audit")],
    scope: Annotated[
        list[str], typer.Option(help="ingest, telephony, read, audio, metrics, admin; may be repeated")
    ],
    team: Annotated[list[str] | None, typer.Option(help="whose calls it may read; all unless said")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="so long it is good")] = 365,
) -> None:
    """Make a token and print it: it cannot be read again. It works within two seconds."""
    from app.rights import ALL

    with _store() as store:
        secret, token = store.tokens.add(name, scope, team or [ALL], timedelta(days=days), COMMAND)
        store.audit.record(COMMAND, "token.added", name, None, " ".join(token.scopes))
    print(f"token {name} until {token.expires_at}: it is shown only now", file=sys.stderr)
    print(secret)


@tokens_app.command("list")
def tokens_list() -> None:
    """All tokens: name, first characters, state, scopes, teams, end, with a tab between them."""
    from app.store.times import now, written

    with _store() as store:
        for one in store.tokens.list():
            state = "revoked" if one.revoked_at else "expired" if one.expires_at <= written(now()) else "good"
            print(
                one.name,
                f"{one.begins}…",
                state,
                " ".join(one.scopes),
                " ".join(one.teams),
                one.expires_at,
                sep="\t",
            )


@tokens_app.command("revoke")
def tokens_revoke(name: str) -> None:
    """Let a token let nobody in any more; within two seconds, everywhere."""
    with _store() as store:
        store.tokens.revoke(name)
        store.audit.record(COMMAND, "token.revoked", name, None)
    print(f"revoked {name}")


# ── audit ─────────────────────────────────────────────────────────────────────────────────────────


@audit_app.command("verify")
def audit_verify(
    expect: Annotated[
        str | None, typer.Option(help="a hash that was noted before: is it still in the chain?")
    ] = None,
) -> None:
    """Follow the audit's chain of hashes; exit status 1 if an entry was changed, removed or put in.

    Keep the hash that is printed elsewhere: against it shows also that the newest entries were removed.
    """
    with _store() as store:
        verdict = store.audit.verify(expect)
    if verdict.broken is not None:
        raise AuditBroken(
            f"the audit was changed: entry {verdict.broken} is not what was written there, or one before "
            f"it is missing; {verdict.entries - 1} before it are in order, the last of them {verdict.head}"
        )
    if not verdict.expected:
        raise AuditBroken(
            f"the hash {str(expect)[:64]} is not in the chain: entries were removed, or it is of another "
            "database"
        )
    print(f"{verdict.entries} entries in order; the last is {verdict.head}")
