"""The rules in force: what they found, and how to put others in force."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from msgspec import structs
from starlette.concurrency import run_in_threadpool

from app.api import views
from app.api.people import Overseer, RuleKeeper, RuleReader, address_of
from app.api.problems import Problem
from app.rulebook import RuleBook, shown
from app.store import Store
from app.store.rules import Tally
from app.wilson import interval
from detectors.rules.model import Rule
from detectors.rules.outline import pack_id
from detectors.rules.schema import schema

router = APIRouter(tags=["rules"])

SUMMED = ("hits", "confirmed", "false_alarms", "withdrawn", "shadow")


@router.get("/api/rules")
def rules(request: Request, _person: RuleReader) -> Response:
    """What is listened for, without the words themselves, and how often it was found."""
    store: Store = request.app.state.store
    return views.answer(_view(request.app.state.rules, store.rules.tallies(), store.rules.last_hits()))


@router.get("/api/rules/precision")
def precision(request: Request, _person: Overseer) -> Response:
    """How often each rule was right, as people judged its alerts."""
    store: Store = request.app.state.store
    return views.answer(views.Precisions(rules=store.alerts.precision()))


@router.get("/api/rules/usefulness")
def usefulness(request: Request, _person: Overseer) -> Response:
    """How often each rule's hints helped, as the agents said who saw them."""
    store: Store = request.app.state.store
    return views.answer(views.Usefulnesses(rules=store.desk.usefulness()))


@router.get("/api/rules/schema")
def rule_schema(_person: RuleReader) -> Response:
    """JSON Schema (2020-12) of rule packs: with it an editor completes and checks while one writes."""
    return JSONResponse(schema())


@router.post("/api/rules/reload")
async def reload(request: Request, person: RuleKeeper) -> Response:
    """Read the rule files again, now. With an error in them, the rules in force stay; who asked is kept."""
    book: RuleBook = request.app.state.rules
    outcome = await book.reload(person.username, address_of(request))
    if outcome == "refused":
        raise Problem("rules_refused")
    store: Store = request.app.state.store
    tallies = await run_in_threadpool(store.rules.tallies)
    return views.answer(_view(book, tallies, await run_in_threadpool(store.rules.last_hits)))


def rule_view(rule: Rule, pack_id: str, counts: views.RuleCounts, last_at: str | None) -> views.RuleView:
    judged = counts.confirmed + counts.false_alarms
    return views.RuleView(
        id=rule.id,
        name=dict(rule.name),
        severity=rule.severity,
        role=rule.role,
        mode=rule.mode,
        actions=tuple(rule.actions),
        version=rule.version,
        queues=rule.queues,
        group=rule.group,
        score=rule.score,
        counts=counts,
        pack=pack_id,
        last_at=last_at,
        precision=counts.confirmed / judged if judged else None,
        interval=interval(counts.confirmed, judged),
    )


def counts_of(rule_id: str, tallies: list[Tally]) -> views.RuleCounts:
    """Over all versions."""
    return _sum(tally for tally in tallies if tally.rule_id == rule_id)


def pack_views(book: RuleBook) -> list[views.PackView]:
    published = {shown(one): one for one in book.sources.published}
    replaced = {pack_id(file.text): file.file for file in book.sources.replaced}
    return [
        views.PackView(
            id=part.id,
            file=part.file,
            version=part.version,
            name=dict(part.name),
            publication=published[part.file].id if part.file in published else None,
            replaces=replaced.get(part.id),
        )
        for part in book.pack.parts
    ]


def _view(book: RuleBook, tallies: list[Tally], last: dict[str, str]) -> views.Rules:
    pack, refused = book.pack, book.refused
    packs = {part.version: part.id for part in pack.parts}
    return views.Rules(
        version=pack.version,
        loaded_at=book.loaded_at,
        packs=pack_views(book),
        rules=[
            rule_view(rule, packs.get(rule.version, pack.id), counts_of(rule.id, tallies), last.get(rule.id))
            for rule in {rule.id: rule for rule in pack.raising}.values()
        ],
        counts=tallies,
        in_use=book.in_use(),
        refused=None
        if refused is None
        else views.RefusedView(
            at=refused.at,
            by=refused.by,
            problems=[views.PackProblem(**structs.asdict(problem)) for problem in refused.problems],
        ),
    )


def _sum(tallies: Iterable[Tally]) -> views.RuleCounts:
    total = dict.fromkeys(SUMMED, 0)
    for tally in tallies:
        for name in SUMMED:
            total[name] += getattr(tally, name)
    return views.RuleCounts(**total)
