"""Trials of drafts over stored calls: one at a time, whoever asked, and what came of the last ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Select, delete, select

from app.drafts import DraftError
from app.store.drafts import Hand
from app.store.postgres import PUBLISHING, hold
from app.store.rule_tables import RuleTrialRow
from app.store.times import now, written

if TYPE_CHECKING:
    from app.store.database import Store

KEPT: Final = 50
"""The newest; older ones go when another begins."""
LOST_AFTER_S: Final = 30.0
"""A trial whose process was not heard of for so long has ended with it."""

TrialState = Literal["running", "done", "failed", "cancelled"]


class RuleTrial(Struct, frozen=True, kw_only=True):
    id: int
    draft_id: int
    digest: str
    """Of the draft's text as it was tried."""
    version: str = ""
    """Of the compiled draft."""
    by: str
    at: str
    since: str | None
    """Only calls that began then or later."""
    most: int
    """Calls at most, the newest."""
    state: TrialState
    done: int = 0
    total: int = 0
    ended_at: str | None = None
    error: str | None = None
    """A code of ``app.api.problems.MESSAGES``."""


class RuleTrials:
    def __init__(self, store: Store, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._clock = clock

    def begin(
        self, hand: Hand, draft_id: int, digest: str, since: str | None, most: int, total: int
    ) -> RuleTrial:
        """Raises ``DraftError`` with ``backtest_running`` while another one runs, anywhere."""
        moment = self._clock()
        with self._store.writing() as session:
            hold(session, PUBLISHING)
            lost = written(moment - timedelta(seconds=LOST_AFTER_S))
            running = select(RuleTrialRow).where(RuleTrialRow.state == "running")
            for row in session.scalars(running).all():
                if row.seen_at >= lost:
                    raise DraftError("backtest_running")
                _put(row, replace(_trial(row), state="failed", error="backtest_lost", ended_at=row.seen_at))
            trial = RuleTrial(
                id=0,
                draft_id=draft_id,
                digest=digest,
                by=hand.username,
                at=written(moment),
                since=since,
                most=most,
                state="running",
                total=total,
            )
            row = RuleTrialRow(draft_id=draft_id, state="running", seen_at=trial.at, body="")
            session.add(row)
            session.flush()
            trial = replace(trial, id=row.trial_id)
            _put(row, trial)
            session.execute(delete(RuleTrialRow).where(RuleTrialRow.trial_id <= trial.id - KEPT))
            session.flush()
            self._store.audit.add(
                session,
                hand.username,
                "rules.backtest",
                f"draft-{draft_id}",
                hand.address,
                f"{total} calls, {digest[:8]}",
            )
        return trial

    def go_on(self, trial_id: int, done: int, total: int) -> bool:
        """Its process lives and is so far; ``False``: it is to end, somebody has cancelled it."""
        with self._store.writing() as session:
            row = session.scalar(_locked(trial_id))
            if row is None or row.state != "running":
                return False
            row.seen_at = written(self._clock())
            _put(row, replace(_trial(row), done=done, total=total))
        return True

    def end(
        self,
        trial_id: int,
        state: TrialState,
        *,
        version: str = "",
        result: str | None = None,
        error: str | None = None,
    ) -> None:
        """What came of it; nothing changes where it has ended already."""
        with self._store.writing() as session:
            row = session.scalar(_locked(trial_id))
            if row is None or row.state != "running":
                return
            trial = replace(
                _trial(row), state=state, version=version, error=error, ended_at=written(self._clock())
            )
            _put(row, replace(trial, done=trial.total) if state == "done" else trial)
            row.result = result

    def cancel(self, hand: Hand, trial_id: int) -> RuleTrial:
        """Raises ``DraftError`` with ``unknown_backtest``; one that has ended stays as it is."""
        with self._store.writing() as session:
            row = session.scalar(_locked(trial_id))
            if row is None:
                raise DraftError("unknown_backtest")
            if row.state == "running":
                _put(row, replace(_trial(row), state="cancelled", ended_at=written(self._clock())))
                session.flush()
                self._store.audit.add(
                    session, hand.username, "rules.backtest_cancelled", f"backtest-{trial_id}", hand.address
                )
            return _trial(row)

    def get(self, trial_id: int) -> tuple[RuleTrial, str | None]:
        """The trial and its result, as it was given to ``end``. Raises ``DraftError``."""
        with self._store.reading() as session:
            row = session.get(RuleTrialRow, trial_id)
            if row is None:
                raise DraftError("unknown_backtest")
            return self._seen(row), row.result

    def of(self, draft_id: int) -> list[RuleTrial]:
        """Newest first."""
        rows = select(RuleTrialRow).where(RuleTrialRow.draft_id == draft_id)
        with self._store.reading() as session:
            return [self._seen(row) for row in session.scalars(rows.order_by(RuleTrialRow.trial_id.desc()))]

    def _seen(self, row: RuleTrialRow) -> RuleTrial:
        trial = _trial(row)
        lost = written(self._clock() - timedelta(seconds=LOST_AFTER_S))
        if trial.state == "running" and row.seen_at < lost:
            return replace(trial, state="failed", error="backtest_lost", ended_at=row.seen_at)
        return trial


def _locked(trial_id: int) -> Select[RuleTrialRow]:
    return select(RuleTrialRow).where(RuleTrialRow.trial_id == trial_id).with_for_update()


def _trial(row: RuleTrialRow) -> RuleTrial:
    return msgspec.json.decode(row.body, type=RuleTrial)


def _put(row: RuleTrialRow, trial: RuleTrial) -> None:
    row.state = trial.state
    row.body = msgspec.json.encode(trial).decode()
