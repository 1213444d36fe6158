"""What people do with calls and alerts, and its entry in the audit: both or neither, whenever one dies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from app.store import Store
from streams.desk import Whisper
from streams.events import Hint
from tests.app.kill_appending import ADDRESS, AT, MOST, call
from tests.app.store_support import alert, ended, house, open_store, sqlite, started

ROOT = Path(__file__).parent.parent.parent


def test_when_the_one_process_dies_no_deed_is_without_its_entry_and_no_entry_without_its_deed(
    tmp_path: Path,
) -> None:
    kill_at_every_moment(sqlite(tmp_path))


def test_nor_when_it_is_one_of_several_gateways(postgres_url: str, redis_url: str) -> None:
    kill_at_every_moment(postgres_url, redis_url)


def kill_at_every_moment(database_url: str, redis: str | None = None) -> None:
    store = open_store(database_url)
    store.log.append([(event, AT) for number in range(1, MOST) for event in call(number)])
    # A command of the same machine, so that a fork there takes no thread of the tests with it.
    given = [database_url] if redis is None else [database_url, redis]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.app.kill_appending", *given],
        capture_output=True, text=True, check=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    last = int(ran.stdout.split()[-1])
    found = [what_became_of(store, number) for number in range(1, last + 1)]
    told = "".join(stored.json for stored in store.log.read(0, 1_000_000, 1_000_000))
    store.close()
    assert found[0] == NOTHING
    assert found[-1] == ALL
    died_after = found.index(ALL)
    assert set(map(str, found[:died_after])) == {str(NOTHING)}
    assert set(map(str, found[died_after:])) == {str(ALL)}
    assert died_after > 5, "some died between the statements of the transaction"
    assert died_after < last - 1, "one died after the commit"
    assert ADDRESS not in told


SENT = ("c", "li", "whisper.sent", None)
"""Before, and by nobody at an address."""
NOTHING = ("open", [], 0, 0, None, [("w", False)], [SENT])
ALL = (
    "acknowledged",
    ["8001"],
    1,
    1,
    "useful",
    [("w", True), ("x", False)],
    [
        ("a", "li", "alert.acknowledged", ADDRESS),
        ("b", "8001", "alert.appealed", ADDRESS),
        SENT,
        ("c", "li", "call.noted", ADDRESS),
        ("c", "li", "call.takeover", ADDRESS),
        ("c", "8001", "hint.answered", ADDRESS),
        ("c", "li", "whisper.sent", ADDRESS),
        ("c", "8001", "whisper.confirmed", ADDRESS),
    ],
)


def what_became_of(store: Store, number: int) -> tuple[object, ...]:
    """One alert's state and who appealed against the other, notes, take-overs, the answer to the hint, the
    whispers and whether they were read; and the audit of all that."""
    found = store.calls.alert(f"a{number}")
    assert found is not None
    return (
        found[0].state,
        [change.by for change in store.alerts.history(f"b{number}", 10)],
        len(store.beside.notes(f"c{number}")),
        len(store.beside.takeovers(f"c{number}")),
        store.desk.answer(f"h{number}"),
        [(one.id[0], one.confirmed_at is not None) for one in store.desk.whispers(f"c{number}")],
        [
            (letter, entry.username, entry.action, entry.address)
            for letter in "abc"
            for entry in reversed(store.audit.about(f"{letter}{number}"))
        ],
    )


# ── as it is asked for ────────────────────────────────────────────────────────────────────────────

WAYS = {
    "/api/calls/c1/notes": ("supervisor", {"text": "注意", "media_ms": 0}),
    "/api/calls/c1/takeover": ("supervisor", {"reason": "理由"}),
    "/api/calls/c1/whispers": ("supervisor", {"text": "慢一点"}),
    "/api/calls/c1/whispers/w1/seen": ("agent", {}),
    "/api/calls/c1/hints/h1/answer": ("agent", {"answer": "useful"}),
    "/api/alerts/c2-a/appeal": ("agent", {"reason": "理由"}),
}


@pytest.mark.parametrize("path", WAYS)
def test_what_cannot_be_written_down_is_not_done_and_what_is_done_says_from_where(
    path: str, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_ = {"takeover_url": "http://127.0.0.1:9/", "takeover_secret": "sixteen characters"}
    person, body = WAYS[path]
    with house(tmp_path, url=database_url, set_=set_) as at:
        hint = Hint(id="h1", call_id="c1", rule_id="r", text={"zh": "请核实"}, media_ms=1)
        whisper = Whisper(id="w1", call_id="c1", text="先安抚", by="li", media_ms=0)
        at.append(started(agent="agent"), hint, whisper)
        at.append(started("c2", agent="agent"), alert(1, "c2", id="c2-a"), ended("c2"))
        session = at.store.sessions.open(person, timedelta(minutes=5))
        headers = {"X-Duting": "1", "Cookie": f"duting_session={session}"}
        before, entries = at.outlet.head, at.store.audit.page(100)[0]
        with monkeypatch.context() as away:
            for place in ("app.store.audit.enter", "app.store.projection.enter"):
                away.setattr(place, _refuse)
            assert at.client.post(path, json=body, headers=headers).status_code == 503
        assert at.store.log.bounds()[1] == before
        assert at.client.post(path, json=body, headers=headers).status_code < 300
        new = at.store.audit.page(100)[0][: -len(entries) or None]
        assert [(entry.username, entry.address) for entry in new] == [(person, "testclient")]


def _refuse(_session: object, deeds: Sequence[object]) -> None:
    if deeds:
        raise OperationalError("INSERT", {}, Exception("away"))
