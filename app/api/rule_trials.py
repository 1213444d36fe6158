"""Rules tried before anybody relies on them: on a sentence, and on the calls of the past."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Literal

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import Struct, structs
from pydantic import BaseModel, Field, model_validator
from starlette.concurrency import run_in_threadpool

from app.api import views
from app.api.people import RuleReader, RuleWriter, address_of, record_reading
from app.api.problems import Problem
from app.api.rule_drafts import checked, hand, insist
from app.drafts import Draft
from app.rights import may, sight_of
from app.rule_jobs import Rehearse, Rehearsed, RuleTried, Tried, Wrong
from app.rulebook import RuleBook
from app.store import Person, Store
from app.store.rule_trials import RuleTrial
from app.store.times import now, written
from app.workbench import Workbench
from detectors.backtest import Hit
from detectors.rehearsal import LONGEST_TEXT, MOST_TURNS, Fired, Nearly
from detectors.rules import Problem as PackProblem
from detectors.rules.case_form import CALL_ID
from detectors.rules.loader import Source
from detectors.rules.model import TestTurn
from streams.events import CallInfo

router = APIRouter(tags=["rules"])

MOST_CALLS: Final = 2_000
"""Of one backtest."""
DAY_S: Final = 86_400.0


class SpokenTurn(BaseModel, extra="forbid"):
    role: Literal["agent", "customer", "unknown"]
    text: str = Field(min_length=1, max_length=LONGEST_TEXT)
    start_s: float | None = Field(default=None, ge=0, le=DAY_S)
    """Seconds since the call's begin; two after the turn before if left out."""
    end_s: float | None = Field(default=None, ge=0, le=DAY_S)


class Sentence(BaseModel, extra="forbid"):
    """One sentence (``text``, ``role``), or several ``turns``."""

    text: str | None = Field(default=None, min_length=1, max_length=LONGEST_TEXT)
    role: Literal["agent", "customer", "unknown"] = "agent"
    turns: list[SpokenTurn] = Field(default=[], max_length=MOST_TURNS)
    queue: str | None = Field(default=None, max_length=200)
    whole: bool = False
    """The turns are a whole call: scripts say what was left out of it."""
    draft: int | None = Field(default=None, ge=1, lt=2**63)
    """On this draft, beside the other packs in force; on the rules in force if left out."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Sentence:
        if (self.text is None) == (not self.turns):
            raise ValueError("expected text or turns")
        return self

    @property
    def spoken(self) -> list[SpokenTurn]:
        return self.turns or [SpokenTurn(role=self.role, text=self.text or "")]


class Tested(Struct, frozen=True, kw_only=True):
    version: str | None
    fired: list[Fired]
    nearly: list[Nearly]
    names: dict[str, dict[str, str]]
    severities: dict[str, str]
    problems: list[PackProblem]
    """Of a draft with errors; then nothing was tested."""


class Backtest(BaseModel, extra="forbid"):
    """Over the calls that whoever asks sees, the newest."""

    seen: str = Field(pattern="^[0-9a-f]{64}$")
    days: int | None = Field(default=None, ge=1, le=3650)
    calls: int = Field(default=200, ge=1, le=MOST_CALLS)


class Place(Struct, frozen=True, kw_only=True):
    call_id: str
    start_ms: int
    end_ms: int
    text: str | None
    """The utterance as it is stored: with personal data masked."""
    role: str | None
    state: str | None
    """What people had made of the alert."""


class RuleOutcome(Struct, frozen=True, kw_only=True):
    rule_id: str
    name: dict[str, str]
    same: int
    new: int
    gone: int
    false_alarms_gone: int
    false_alarms_kept: int
    confirmed_gone: int
    limited: tuple[str, ...]
    """What the rule looks at and stored calls do not tell: sounds, holds, numbers (they are masked)."""
    new_at: list[Place]
    gone_at: list[Place]


class Outcome(Struct, frozen=True, kw_only=True):
    version: str
    in_force: str
    calls: int
    seconds: float
    hidden: int
    """Places in calls that whoever asks does not see."""
    rules: list[RuleOutcome]


class TrialView(Struct, frozen=True, kw_only=True):
    trial: RuleTrial
    outcome: Outcome | None


class TrialList(Struct, frozen=True, kw_only=True):
    trials: list[RuleTrial]
    """Newest first."""


@router.post("/api/rules/test")
async def test(sentence: Sentence, request: Request, person: RuleReader) -> Response:
    """What fires at a sentence, what nearly does, and why not. What was tried is not kept."""
    store: Store = request.app.state.store
    book: RuleBook = request.app.state.rules
    bench: Workbench = request.app.state.bench
    texts, subject = book.sources.texts, book.pack.version
    if sentence.draft is not None:
        if not may(person, "rules.draft"):
            raise Problem("role_not_allowed")
        draft = await run_in_threadpool(store.drafts.get, sentence.draft)
        texts = await run_in_threadpool(book.sources.instead, draft.pack_id, draft.text)
        subject = f"draft-{draft.id}"
    turns = tuple(
        TestTurn(role=turn.role, text=turn.text, start_ms=_ms(turn.start_s), end_ms=_ms(turn.end_s))
        for turn in sentence.spoken
    )
    call = CallInfo(call_id=CALL_ID, queue=sentence.queue)
    await run_in_threadpool(store.audit.record, person.username, "rules.tested", subject, address_of(request))
    answer = await bench.done(Rehearse(texts, turns, call, sentence.whole))
    if isinstance(answer, Wrong):
        return views.answer(
            Tested(version=None, fired=[], nearly=[], names={}, severities={}, problems=list(answer.problems))
        )
    assert isinstance(answer, Rehearsed)
    return views.answer(
        Tested(
            version=answer.version,
            fired=list(answer.fired),
            nearly=list(answer.nearly),
            names=answer.names,
            severities=answer.severities,
            problems=[],
        )
    )


@router.get("/api/rules/drafts/{draft_id}/backtests")
def backtests(draft_id: int, request: Request, _person: RuleWriter) -> Response:
    """Of one draft, those that are still kept."""
    store: Store = request.app.state.store
    draft = store.drafts.get(draft_id) if 0 < draft_id < 2**63 else None
    if draft is None:
        raise Problem("unknown_draft")
    return views.answer(TrialList(trials=store.rule_trials.of(draft.id)))


@router.post("/api/rules/drafts/{draft_id}/backtests", status_code=202)
async def backtest(draft_id: int, wanted: Backtest, request: Request, person: RuleWriter) -> Response:
    """Try a draft on stored calls, beside the rules in force. One at a time, in a process of its own."""
    store: Store = request.app.state.store
    book: RuleBook = request.app.state.rules
    bench: Workbench = request.app.state.bench
    if not 0 < draft_id < 2**63:
        raise Problem("unknown_draft")
    draft: Draft = await run_in_threadpool(store.drafts.get, draft_id)
    if draft.digest != wanted.seen:
        raise Problem("draft_changed")
    sources = await book.current()
    result = await checked(request, draft, sources)
    if result.problems:
        insist(result)
    since = None if wanted.days is None else written(now() - timedelta(days=wanted.days))
    calls = await run_in_threadpool(store.rules.calls_to_replay, since, wanted.calls, sight_of(person))
    if not calls:
        raise Problem("no_calls")
    trial = await run_in_threadpool(
        store.rule_trials.begin,
        hand(request, person),
        draft.id,
        draft.digest,
        since,
        wanted.calls,
        len(calls),
    )
    texts: tuple[Source, ...] = await run_in_threadpool(sources.instead, draft.pack_id, draft.text)
    bench.try_over_calls(trial.id, result.own, texts, book.sources.texts, calls)
    response = views.answer(TrialView(trial=trial, outcome=None))
    response.status_code = 202
    return response


@router.get("/api/rules/backtests/{trial_id}")
def outcome(trial_id: int, request: Request, person: RuleWriter) -> Response:
    """How far it is, and what came of it. Words are shown of calls in sight, and that is written down."""
    store: Store = request.app.state.store
    trial, result = store.rule_trials.get(_known(trial_id))
    if result is None:
        return views.answer(TrialView(trial=trial, outcome=None))
    tried = msgspec.json.decode(result, type=Tried)
    shown = _outcome(store, tried, person)
    if any(rule.new_at or rule.gone_at for rule in shown.rules):
        record_reading(request, person, "rules.backtest_read", f"backtest-{trial.id}")
    return views.answer(TrialView(trial=trial, outcome=shown))


@router.post("/api/rules/backtests/{trial_id}/cancel")
def cancel(trial_id: int, request: Request, person: RuleWriter) -> Response:
    """End it. Its process is gone a second later, wherever it runs."""
    store: Store = request.app.state.store
    trial = store.rule_trials.cancel(hand(request, person), _known(trial_id))
    return views.answer(TrialView(trial=trial, outcome=None))


def _outcome(store: Store, tried: Tried, person: Person) -> Outcome:
    hits = [hit for rule in tried.rules for hit in (*rule.new_at, *rule.gone_at)]
    seen = store.calls.seen(list({hit.call_id for hit in hits}), sight_of(person))
    said = store.calls.said(
        list({hit.utterance_id for hit in hits if hit.utterance_id is not None and hit.call_id in seen})
    )

    def places(of: tuple[Hit, ...]) -> list[Place]:
        out: list[Place] = []
        for hit in of:
            if hit.call_id not in seen:
                continue
            role, text = said.get(hit.utterance_id or "", (None, None))
            out.append(
                Place(
                    call_id=hit.call_id,
                    start_ms=hit.start_ms,
                    end_ms=hit.end_ms,
                    text=text,
                    role=role,
                    state=hit.state,
                )
            )
        return out

    def told(rule: RuleTried) -> RuleOutcome:
        fields = structs.asdict(rule) | {"new_at": places(rule.new_at), "gone_at": places(rule.gone_at)}
        return RuleOutcome(**fields)

    return Outcome(
        version=tried.version,
        in_force=tried.in_force,
        calls=tried.calls,
        seconds=tried.seconds,
        hidden=sum(1 for hit in hits if hit.call_id not in seen),
        rules=[told(rule) for rule in tried.rules],
    )


def _known(trial_id: int) -> int:
    if not 0 < trial_id < 2**63:
        raise Problem("unknown_backtest")
    return trial_id


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
