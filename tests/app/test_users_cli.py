"""``duting users``: accounts from the command line, in whichever database is configured."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.store import AccountError, Person, Store
from tests.app.store_support import PASSWORD


def test_an_account_added_from_the_command_line_can_log_in(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("DUTING_DATABASE_URL", database_url)
    monkeypatch.setenv("DUTING_DATA_DIR", str(tmp_path / "var"))
    add = ["users", "add", "li", "--role", "inspector", "--name", "李", "--password-stdin"]
    done = CliRunner().invoke(app, add, input=f"{PASSWORD}\n")
    assert (done.exit_code, done.stdout) == (0, "added inspector li\n")
    store = Store.open(database_url)
    assert Person(username="li", name="李", role="inspector") == store.users.check("li", PASSWORD)
    store.close()
    again = CliRunner().invoke(app, add, input=f"{PASSWORD}\n")
    assert isinstance(again.exception, AccountError)
