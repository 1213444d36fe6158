"""Rules are worked on in a process of its own: in time, one job after the other, and it may die."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app import rule_jobs, workbench
from app.drafts import DraftError
from app.rule_jobs import Check, Checked, Compare, Compared, Rehearse, Rehearsed, Try, Wrong, done
from app.store.drafts import Hand
from app.workbench import MOST_WAITING, Workbench
from detectors.rules.loader import Source
from detectors.rules.model import TestTurn
from streams.events import CallInfo
from tests.app.store_support import RULES, open_store, sqlite

BY = Hand("li", None)
LITTLE = (Source("little.yaml", RULES),)
SENTENCE = Rehearse(LITTLE, (TestTurn(role="agent", text="保本保息"),), CallInfo(call_id="c"), False)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    store = open_store(sqlite(tmp_path))
    made = Workbench(store)
    yield made
    await made.aclose()
    store.close()


async def test_one_polite_child_does_all_jobs_and_another_follows_when_it_dies_or_takes_too_long(
    bench: Workbench,
) -> None:
    found = await asyncio.gather(*(bench.done(SENTENCE) for _ in range(3)))
    assert all(isinstance(one, Rehearsed) and one.fired for one in found)
    child = bench._child
    assert child is not None
    assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(19, os.nice(0) + rule_jobs.NICE)
    child.kill()
    with pytest.raises(DraftError) as told:
        await bench.done(SENTENCE)
    assert told.value.code in ("took_too_long", "busy")
    bench._job_s = 0.01
    with pytest.raises(DraftError, match="took_too_long"):
        await bench.done(SENTENCE)
    assert bench._child is None
    bench._job_s = 20
    assert isinstance(await bench.done(SENTENCE), Rehearsed)


async def test_a_child_that_is_let_go_ends_and_is_not_asked_again(bench: Workbench) -> None:
    assert isinstance(await bench.done(SENTENCE), Rehearsed)
    child = bench._child
    assert child is not None
    bench._let_go()
    assert bench._child is None
    # Asked at this very moment, while it may still be ending.
    assert isinstance(await bench.done(SENTENCE), Rehearsed)
    assert bench._child is not child
    assert await child.wait() is not None


async def test_a_child_that_was_just_let_go_is_gone_once_the_bench_is_closed(bench: Workbench) -> None:
    await bench.done(SENTENCE)
    child = bench._child
    assert child is not None
    bench._let_go()
    await bench.aclose()
    assert child.returncode is not None


async def test_one_job_more_than_may_wait_is_refused(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = asyncio.Event()

    async def ask(_job: object) -> object:
        await stuck.wait()
        return Compared(0, 0, ())

    monkeypatch.setattr(bench, "_ask", ask)
    jobs = [asyncio.create_task(bench.done(SENTENCE)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(DraftError, match="busy"):
        await bench.done(SENTENCE)
    stuck.set()
    await asyncio.gather(*jobs)


async def test_a_trial_that_somebody_cancels_ends_with_its_process(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbench, "BEAT_S", 0.01)
    trials = bench._store.rule_trials
    trial = trials.begin(BY, 1, "0" * 64, None, 10, 1)
    trials.cancel(BY, trial.id)
    bench.try_over_calls(trial.id, "little.yaml", LITTLE, LITTLE, ["none"] * 1000)
    (task,) = bench._trials
    await task
    assert trials.get(trial.id)[0].state == "cancelled"


async def test_a_trial_that_is_cut_off_says_so(bench: Workbench) -> None:
    trials = bench._store.rule_trials
    trial = trials.begin(BY, 1, "0" * 64, None, 10, 1)
    bench.try_over_calls(trial.id, "little.yaml", LITTLE, LITTLE, ["none"])
    await asyncio.sleep(0)
    await bench.aclose()
    assert (trials.get(trial.id)[0].state, trials.get(trial.id)[0].error) == ("failed", "backtest_lost")


# ── the jobs themselves ───────────────────────────────────────────────────────────────────────────


def test_a_pack_is_checked_beside_the_others_and_tested_by_itself() -> None:
    other = RULES.replace("id: little", "id: other").replace(".guarantee", ".sure")
    tested = (
        RULES
        + "    hits: [保本保息]\n    tests: [{turns: [{agent: 保本保息}], expect: [redline.guarantee]}]\n"
    )
    job = Check((Source("other.yaml", other), Source("little.yaml", tested)), "little.yaml")
    found = done(job, lambda _: None)
    assert isinstance(found, Checked)
    assert (found.rules, found.dialogues, found.failed) == (1, 2, ())
    clash = Check((Source("other.yaml", RULES.replace("id: little", "id: x")), *LITTLE), "little.yaml")
    assert isinstance(done(clash, lambda _: None), Wrong)


def test_what_differs_is_told_with_the_numbers_of_the_lines() -> None:
    found = done(Compare("\n".join("abcdefghijklm"), "\n".join("abcdefGhijklm")), lambda _: None)
    assert isinstance(found, Compared)
    assert [(line.kind, line.before, line.after) for line in found.lines] == [
        ("gap", None, None),
        *(("same", n, n) for n in (4, 5, 6)),
        ("removed", 7, None),
        ("added", None, 7),
        *(("same", n, n) for n in (8, 9, 10)),
    ]
    assert done(Compare("a", "a"), lambda _: None) == Compared(0, 0, ())


def test_a_trial_of_a_draft_with_errors_tells_them(tmp_path: Path) -> None:
    broken = (Source("little.yaml", "rules: 3"),)
    job = Try(sqlite(tmp_path), "little.yaml", broken, LITTLE, ())
    assert isinstance(done(job, lambda _: None), Wrong)
