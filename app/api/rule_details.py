"""One rule: as it was written, what it found lately, and what it would have found on trial."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from msgspec import Struct
from starlette.concurrency import run_in_threadpool

from app.api import views
from app.api.people import RuleReader
from app.api.problems import Problem
from app.api.rules import counts_of, rule_view
from app.rights import Sight, sight_of
from app.rulebook import RuleBook
from app.store import Store
from app.store.rules import Known
from app.store.times import now, written
from detectors.backtest import Hit, twins
from detectors.rules import Pack, PackError
from detectors.rules.model import Rule
from detectors.rules.outline import outline
from streams.events import Channel

router = APIRouter(tags=["rules"])

ALERTS_SHOWN: Final = 20
PLACES_SHOWN: Final = 30
MOST_HITS: Final = 5_000
"""Of each side of a comparison, the newest: beyond it nothing is counted, and the answer says so."""
MOST_CALLS: Final = 500
"""In which it is looked for what else was found beside a rule on trial."""
MOST_BESIDE: Final = 8


class SourceText(Struct, frozen=True, kw_only=True):
    file: str
    first_line: int
    text: str


class DialogueView(Struct, frozen=True, kw_only=True):
    name: str
    line: int
    turns: list[tuple[Channel, str]]
    """Who says what; what is no speech (hold, trouble) is left out."""
    expect: list[str]


class AlertLink(Struct, frozen=True, kw_only=True):
    """Where to look, without a word of what was said: whoever goes there is written down."""

    id: str
    call_id: str
    at: str
    media_start_ms: int
    state: str
    severity: str
    agent: str | None


class RuleDetail(Struct, frozen=True, kw_only=True):
    rule: views.RuleView
    hint: dict[str, str] | None
    advice: dict[str, str] | None
    cooldown_s: float
    source: SourceText | None
    """``None`` where the rules were not read from a text."""
    tests: list[DialogueView]
    alerts: list[AlertLink]
    """The newest in sight."""


class ShadowDay(Struct, frozen=True, kw_only=True):
    day: str
    """UTC."""
    agree: int = 0
    only_shadow: int = 0
    only_live: int = 0


class ShadowPlace(Struct, frozen=True, kw_only=True):
    kind: Literal["agree", "only_shadow", "only_live"]
    call_id: str
    start_ms: int
    at: str


class ShadowComparison(Struct, frozen=True, kw_only=True):
    rule_id: str
    against: str | None
    """The live rule that it is held against; ``None``: none found anything beside it."""
    since: str
    shadow: int
    live: int
    """Of ``against``, since the rule on trial found something for the first time."""
    agree: int
    only_shadow: int
    only_live: int
    capped: bool
    """There are more hits than were looked at."""
    beside: list[tuple[str, int]]
    """Live rules that found something at the same places, and how often; the most first."""
    days: list[ShadowDay]
    places: list[ShadowPlace]
    """In calls in sight, the newest."""


@router.get("/api/rules/{rule_id}")
def rule(rule_id: str, request: Request, person: RuleReader) -> Response:
    """One rule in force, with its text and its last alerts."""
    store: Store = request.app.state.store
    book: RuleBook = request.app.state.rules
    found = _rule(book.pack, rule_id)
    part = next((part for part in book.pack.parts if part.version == found.version), None)
    last = store.rules.last_hits().get(rule_id)
    return views.answer(
        RuleDetail(
            rule=rule_view(
                found, part.id if part else book.pack.id, counts_of(rule_id, store.rules.tallies()), last
            ),
            hint=dict(found.hint) if found.hint else None,
            advice=dict(found.advice) if found.advice else None,
            cooldown_s=found.cooldown_ms / 1000,
            source=_source(book, rule_id, part.file if part else None),
            tests=[
                DialogueView(
                    name=case.name,
                    line=case.line,
                    turns=[(turn.role, turn.text) for turn in case.turns if turn.text],
                    expect=list(case.expect) if case.expect is not None else [case.hits] if case.hits else [],
                )
                for case in found.tests
            ],
            alerts=[
                AlertLink(
                    id=alert.id,
                    call_id=alert.call_id,
                    at=at,
                    media_start_ms=alert.media_start_ms,
                    state=alert.state,
                    severity=alert.severity,
                    agent=call.agent,
                )
                for alert, at, call in store.rules.alerts_of(rule_id, sight_of(person), ALERTS_SHOWN)
            ],
        )
    )


@router.get("/api/rules/{rule_id}/shadow")
async def shadow(
    rule_id: str,
    request: Request,
    person: RuleReader,
    against: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    days: Annotated[int, Query(ge=1, le=365)] = 30,
) -> Response:
    """What a rule found while it was on trial, held against what a live rule found in the same time.

    Without ``against``: the live rule that found most at the same places. Counts are of all calls, places of
    those in sight.
    """
    store: Store = request.app.state.store
    since = written(now() - timedelta(days=days))
    return views.answer(await run_in_threadpool(_compared, store, rule_id, against, since, sight_of(person)))


def _compared(store: Store, rule_id: str, against: str | None, since: str, sight: Sight) -> ShadowComparison:
    tried = store.rules.shadow_hits(rule_id, since, MOST_HITS)
    calls = list(dict.fromkeys(call_id for _, call_id, _ in tried))[:MOST_CALLS]
    around = store.rules.live_hits(since, MOST_HITS, call_ids=calls) if calls else []
    pairs = twins([_hit(*one) for one in tried], [_hit(*one) for one in around])
    beside = Counter(around[index][0].rule_id for index in pairs.values()).most_common(MOST_BESIDE)
    if against is None:
        against = beside[0][0] if beside else None
    # Before it found anything nobody knows whether it listened.
    begin = min((at for _, _, at in tried), default=since)
    live = store.rules.live_hits(begin, MOST_HITS, rule_id=against) if against is not None and tried else []
    pairs = twins([_hit(*one) for one in tried], [_hit(*one) for one in live])
    places = [
        *(
            ShadowPlace(
                kind="agree" if index in pairs else "only_shadow",
                call_id=call_id,
                start_ms=known.start_ms,
                at=at,
            )
            for index, (known, call_id, at) in enumerate(tried)
        ),
        *(
            ShadowPlace(kind="only_live", call_id=call_id, start_ms=known.start_ms, at=at)
            for index, (known, call_id, at) in enumerate(live)
            if index not in pairs.values()
        ),
    ]
    counts = Counter(place.kind for place in places)
    by_day: dict[str, Counter[str]] = {}
    for place in places:
        by_day.setdefault(place.at[:10], Counter())[place.kind] += 1
    places.sort(key=lambda place: place.at, reverse=True)
    return ShadowComparison(
        rule_id=rule_id,
        against=against,
        since=begin,
        shadow=len(tried),
        live=len(live),
        agree=counts["agree"],
        only_shadow=counts["only_shadow"],
        only_live=counts["only_live"],
        capped=len(tried) == MOST_HITS or len(live) == MOST_HITS,
        beside=beside,
        days=[ShadowDay(day=day, **by_day[day]) for day in sorted(by_day)],
        places=_in_sight(store, places, sight),
    )


def _in_sight(store: Store, places: list[ShadowPlace], sight: Sight) -> list[ShadowPlace]:
    """The first of each kind that the person may look at."""
    shown: list[ShadowPlace] = []
    left = Counter({"agree": PLACES_SHOWN, "only_shadow": PLACES_SHOWN, "only_live": PLACES_SHOWN})
    known = store.calls.seen(list({place.call_id for place in places}), sight)
    for place in places:
        if left[place.kind] and place.call_id in known:
            left[place.kind] -= 1
            shown.append(place)
    return shown


def _hit(known: Known, call_id: str, _at: str) -> Hit:
    return Hit(
        call_id=call_id,
        rule_id=known.rule_id,
        start_ms=known.start_ms,
        end_ms=known.end_ms,
        utterance_id=known.utterance_id,
    )


def _rule(pack: Pack, rule_id: str) -> Rule:
    for one in pack.raising:
        if one.id == rule_id:
            return one
    raise Problem("unknown_rule")


def _source(book: RuleBook, rule_id: str, file: str | None) -> SourceText | None:
    source = next((one for one in book.sources.texts if one.file == file), None)
    if source is None:
        return None
    try:
        lines = outline(source.text).get(rule_id)
    except PackError:
        return None
    if lines is None:
        return None
    text = "\n".join(source.text.split("\n")[lines.first - 1 : lines.last])
    return SourceText(file=source.file, first_line=lines.first, text=text)
