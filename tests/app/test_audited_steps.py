"""A step of an alert and its entry in the audit: both or neither, whenever the process dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from app.store import Store
from tests.app.kill_appending import MOST
from tests.app.store_support import alert, open_store, sqlite, started

ROOT = Path(__file__).parent.parent.parent
AT = "2026-03-01T08:30:00.125Z"


def test_when_the_one_process_dies_no_step_is_without_its_entry_and_no_entry_without_its_step(
    tmp_path: Path,
) -> None:
    kill_at_every_moment(sqlite(tmp_path))


def test_nor_when_it_is_one_of_several_gateways(postgres_url: str, redis_url: str) -> None:
    kill_at_every_moment(postgres_url, redis_url)


def kill_at_every_moment(database_url: str, redis: str | None = None) -> None:
    store = open_store(database_url)
    store.log.append([(started(), AT), *((alert(number), AT) for number in range(1, MOST))])
    # A command of the same machine, so that a fork there takes no thread of the tests with it.
    given = [database_url] if redis is None else [database_url, redis]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.app.kill_appending", *given],
        capture_output=True, text=True, check=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    last = int(ran.stdout.split()[-1])
    found = [what_became_of(store, number) for number in range(1, last + 1)]
    store.close()
    assert found[0] == ("open", [], [])
    done = ("acknowledged", ["li"], [("li", "alert.acknowledged", "10.0.0.7")])
    assert found[-1] == done
    died_after = found.index(done)
    assert set(map(str, found[:died_after])) == {str(found[0])}
    assert set(map(str, found[died_after:])) == {str(done)}
    assert died_after > 5, "some died between the statements of the transaction"
    assert died_after < last - 1, "one died after the commit"


def what_became_of(store: Store, number: int) -> tuple[str, list[str | None], list[tuple[str, ...]]]:
    """State, history and audit of one alert."""
    found = store.calls.alert(f"a{number}")
    assert found is not None
    entries = store.audit.about(f"a{number}")
    return (
        found[0].state,
        [change.by for change in store.alerts.history(f"a{number}", 10)],
        [(entry.username, entry.action, entry.address or "") for entry in entries],
    )
