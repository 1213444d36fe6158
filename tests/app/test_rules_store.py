"""What the store knows of rules: counts by version, hits by call, trials that nobody is told of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.store import Store
from app.store.rules import Tally
from streams.events import Hint, OutletEvent, ShadowHit
from tests.app.store_support import PACK, alert, ended, marker, old_database, open_store, started

AT = "2026-03-01T08:30:00.125Z"


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = open_store(database_url)
    yield store
    store.close()


def shadow(number: int = 1, call_id: str = "c1", **changes: Any) -> ShadowHit:
    content: dict[str, Any] = {
        "id": f"s{number}",
        "call_id": call_id,
        "rule_id": "redline.trial",
        "rule_version": "2+11111111",
        "role": "agent",
        "media_start_ms": number * 1000,
        "media_end_ms": number * 1000 + 500,
    }
    return ShadowHit(**(content | changes))


def keep(store: Store, *events: OutletEvent, at: str = AT) -> list[str]:
    return [item.published.type for told in store.log.append([(e, at) for e in events]) for item in told]


def test_a_shadow_hit_is_kept_once_and_told_to_nobody(store: Store) -> None:
    assert keep(store, started()) == ["call.started"]
    assert keep(store, shadow(), shadow(), shadow(2)) == []
    assert keep(store, shadow()) == []
    assert store.rules.tallies() == [Tally(rule_id="redline.trial", version="2+11111111", shadow=2)]
    assert store.log.bounds() == (1, 1)


def test_a_shadow_hit_that_the_final_transcript_takes_back_counts_no_more(store: Store) -> None:
    keep(store, started(), shadow(1), shadow(2))
    assert keep(store, shadow(1, withdrawn=True)) == []
    keep(store, shadow(3), shadow(3, withdrawn=True), shadow(4, withdrawn=True))
    assert [hit.id for hit in store.rules.found_in("c1")] == ["s2"]
    keep(store, shadow(1))
    assert [hit.id for hit in store.rules.found_in("c1")] == ["s1", "s2"]


def test_a_shadow_hit_of_a_call_that_was_never_announced_opens_it(store: Store) -> None:
    assert keep(store, shadow(call_id="lost")) == ["call.started"]
    assert [hit.id for hit in store.rules.found_in("lost")] == ["s1"]


def test_hits_are_counted_by_rule_version_and_what_people_made_of_them(store: Store) -> None:
    keep(
        store,
        started(),
        alert(1),
        alert(2, state="resolved"),
        alert(3, state="false_alarm"),
        alert(4, state="withdrawn"),
        alert(5, state="acknowledged", rule_version="2+11111111"),
        marker(1),
    )
    old, new = [t for t in store.rules.tallies() if t.version is not None]
    assert old == Tally(
        rule_id="redline.guarantee",
        version=PACK.version,
        hits=3,
        confirmed=1,
        false_alarms=1,
        withdrawn=1,
    )
    assert new == Tally(rule_id="redline.guarantee", version="2+11111111", hits=1)


def test_the_marker_of_an_alert_is_no_second_hit_and_a_marker_alone_is_one(store: Store) -> None:
    import msgspec

    with_alert = msgspec.structs.replace(marker(1), alert_id="a1", rule_version=PACK.version)
    alone = msgspec.structs.replace(marker(2), rule_id="opportunity.loan", rule_version=PACK.version)
    keep(store, started(), alert(1), with_alert, alone)
    assert [(t.rule_id, t.hits) for t in store.rules.tallies()] == [
        ("opportunity.loan", 1),
        ("redline.guarantee", 1),
    ]
    assert [hit.id for hit in store.rules.found_in("c1")] == ["a1", "m2"]


def test_hits_of_a_call_come_in_order_of_media_time_without_what_was_withdrawn(store: Store) -> None:
    hint = Hint(id="h1", call_id="c1", rule_id="hint.only", text={"zh": "请说明"}, media_ms=1700)
    told = Hint(id="h2", call_id="c1", rule_id="redline.guarantee", text={"zh": "请更正"}, media_ms=3500)
    keep(store, started(), alert(3), alert(1, state="withdrawn"), shadow(2), hint, told, started("c2"))
    keep(store, alert(9, call_id="c2"))
    assert [(hit.id, hit.shadow) for hit in store.rules.found_in("c1")] == [
        ("h1", False),
        ("s2", True),
        ("a3", False),
    ]


def test_calls_to_replay_are_those_that_have_ended_newest_first(store: Store) -> None:
    for day, call_id in enumerate(("c1", "c2", "c3"), 1):
        keep(store, started(call_id), at=f"2026-03-0{day}T08:00:00.000Z")
    keep(store, ended("c1"), ended("c3"))
    assert store.rules.calls_to_replay(None, None) == ["c3", "c1"]
    assert store.rules.calls_to_replay("2026-03-02", None) == ["c3"]
    assert store.rules.calls_to_replay(None, 1) == ["c3"]


def test_markers_from_before_are_counted_after_the_migration(database_url: str) -> None:
    markers = [
        ("m1", '{"rule_id":"opportunity.loan","alert_id":null}'),
        ("m2", '{"rule_id":"redline.guarantee","alert_id":"a1"}'),
    ]
    old_database(
        database_url,
        "0001",
        "INSERT INTO calls VALUES ('c1', 1, 'live', NULL, NULL, '{}', '', NULL, NULL, 0, 0, NULL)",
        *(f"INSERT INTO markers VALUES ('{marker_id}', 'c1', 2, 0, '{body}')" for marker_id, body in markers),
    )
    store = Store.open(database_url)
    assert store.rules.tallies() == [Tally(rule_id="opportunity.loan", version=None, hits=1)]
    store.close()
