"""The audit: a chain that shows whatever is changed in it, also when many write at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.cli import app
from app.people_cli import AuditBroken
from app.store import Store
from app.store.chain import BEGINNING, Entry, chained, verify
from tests.app.store_support import House, bare_engine, house, old_database, open_store

texts = st.text(max_size=12) | st.none()
entries = st.lists(
    st.builds(Entry, st.text(max_size=9), st.text(max_size=9), st.text(max_size=9), texts, texts, texts),
    min_size=1,
    max_size=8,
)


def chain(of: list[Entry]) -> list[tuple[int, Entry, str]]:
    rows, head = [], BEGINNING
    for number, entry in enumerate(of, 1):
        head = chained(head, entry)
        rows.append((number, entry, head))
    return rows


@given(entries)
def test_a_chain_as_it_was_written_is_whole(of: list[Entry]) -> None:
    rows = chain(of)
    verdict = verify(rows)
    assert (verdict.entries, verdict.head, verdict.broken) == (len(of), rows[-1][2], None)


@given(entries, st.data())
def test_a_change_a_removal_and_an_insertion_break_it_there(of: list[Entry], data: st.DataObject) -> None:
    rows = chain(of)
    at = data.draw(st.integers(0, len(rows) - 1))
    number, entry, kept = rows[at]
    changed = [*rows[:at], (number, entry._replace(username=entry.username + "x"), kept), *rows[at + 1 :]]
    assert verify(changed).broken == number
    inserted = [*rows[:at], (99, entry._replace(action="another"), kept), *rows[at:]]
    assert verify(inserted).broken == 99
    removed = [*rows[:at], *rows[at + 1 :]]
    if at < len(rows) - 1:
        assert verify(removed).broken == rows[at + 1][0]
    else:  # of the newest only a hash tells that was kept elsewhere
        assert (verify(removed).broken, verify(removed, kept).expected) == (None, False)
    assert verify(rows, kept).expected


def test_where_a_text_ends_is_part_of_it() -> None:
    one, other = Entry("a", "b", "c", None, None, None), Entry("ab", "", "c", None, None, None)
    assert chained(BEGINNING, one) != chained(BEGINNING, other)
    assert chained(BEGINNING, one._replace(subject="")) != chained(BEGINNING, one)


def test_entries_are_chained_as_they_come_and_odd_texts_too(database_url: str) -> None:
    store = open_store(database_url)
    for subject in ("c1", None, "", "\0\ud800", "号码", "'; DROP TABLE audit; --"):
        store.audit.record("li", "call.read", subject, "10.0.0.1", subject)
    verdict = store.audit.verify()
    assert (verdict.entries, verdict.broken) == (6, None)
    store.close()


def test_many_gateways_and_threads_make_one_chain(new_database: Callable[[], str]) -> None:
    url = new_database()
    stores = [open_store(url) for _ in range(3)]

    def write(store: Store, name: str) -> None:
        for number in range(15):
            store.audit.record(name, "call.read", f"c{number}", None)

    threads = [
        threading.Thread(target=write, args=(store, f"{number}-{twice}"))
        for number, store in enumerate(stores)
        for twice in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdict = stores[0].audit.verify()
    assert (verdict.entries, verdict.broken) == (90, None)
    for store in stores:
        store.close()


def test_what_was_written_before_the_chain_becomes_its_beginning(database_url: str) -> None:
    old = [
        f"INSERT INTO audit (at, username, action, subject, address) VALUES ('2026-01-01T00:00:0{n}.000Z', "
        f"'li', 'call.read', {subject}, '10.0.0.1')"
        for n, subject in enumerate(("'c1'", "NULL", "'通话'"))
    ]
    people = [
        "INSERT INTO users (username, name, role, password, created_at) "
        f"VALUES ('{role}', '{role}', '{role}', 'x', '2026-01-01T00:00:00.000Z')"
        for role in ("agent", "supervisor", "inspector", "administrator")
    ]
    old_database(database_url, "0005", *old, *people)
    store = open_store(database_url)
    assert (store.audit.verify().entries, store.audit.verify().broken) == (3, None)
    store.audit.record("li", "call.read", "c2", None)
    assert (store.audit.verify().entries, store.audit.verify().broken) == (4, None)
    assert [entry.subject for entry in store.audit.page(2)[0]] == ["c2", "通话"]
    # Whoever saw all calls goes on seeing them.
    assert {person.username: person.teams for person in store.users.able()} == {
        "administrator": ("*",),
        "agent": (),
        "inspector": (),
        "supervisor": ("*",),
    }
    store.close()


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE audit SET username = 'nobody' WHERE audit_id = 2",
        "UPDATE audit SET detail = 'nothing' WHERE audit_id = 2",
        "DELETE FROM audit WHERE audit_id = 2",
        "UPDATE audit SET hash = '' WHERE audit_id = 2",
        "DELETE FROM audit WHERE audit_id = 3",
    ],
)
def test_the_command_finds_what_was_changed(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tampering: str
) -> None:
    monkeypatch.setenv("DUTING_DATABASE_URL", database_url)
    monkeypatch.setenv("DUTING_DATA_DIR", str(tmp_path / "var"))
    store = open_store(database_url)
    for number in range(3):
        store.audit.record("li", "call.read", f"c{number}", None)
    head = store.audit.verify().head
    store.close()
    good = CliRunner().invoke(app, ["audit", "verify", "--expect", head])
    assert (good.exit_code, good.stdout) == (0, f"3 entries in order; the last is {head}\n")
    engine = bare_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(tampering)
    engine.dispose()
    bad = CliRunner().invoke(app, ["audit", "verify", "--expect", head])
    assert isinstance(bad.exception, AuditBroken)


# ── on the web ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def at(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as house_:
        yield house_


def test_the_administrator_reads_it_in_pages_and_picks(at: House) -> None:
    for number in range(5):
        at.store.audit.record("li", "call.read", f"c{number}", "10.0.0.1")
    at.store.audit.record("wang", "callback.made", "c1", None)
    at.log_in("administrator")

    def page(query: str) -> Any:
        return at.client.get(f"/api/audit?{query}").json()

    first = page("limit=3&username=li")
    second = page(f"limit=3&username=li&before={first['next']}")
    assert [entry["subject"] for entry in first["entries"] + second["entries"]] == [
        "c4",
        "c3",
        "c2",
        "c1",
        "c0",
    ]
    assert second["next"] is None
    assert [entry["username"] for entry in page("subject=c1")["entries"]] == ["wang", "li"]
    assert {entry["action"] for entry in page("action=call")["entries"]} == {"call.read"}
    assert page("action=call%25")["entries"] == []
    assert at.client.get("/api/audit?limit=0").status_code == 422


def test_the_administrator_has_the_chain_followed_and_that_is_written_down(at: House) -> None:
    at.log_in("administrator")
    before = at.store.audit.verify()
    verdict = at.client.post(f"/api/audit/verify?expect={before.head}", headers={"X-Duting": "1"}).json()
    assert verdict == {"entries": before.entries, "head": before.head, "broken": None, "expected": True}
    (entry,), _ = at.store.audit.page(1)
    assert (entry.username, entry.action, entry.detail) == ("administrator", "audit.verified", before.head)
