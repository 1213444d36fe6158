"""Who may do what, and who sees which call."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UnsetType
from msgspec.structs import replace

from app.rights import (
    AMONG_SUPERVISORS,
    EVERYTHING,
    NOTHING,
    ROLES,
    SCOPES,
    WHISPERS,
    Sight,
    may,
    sees,
    sees_person,
    shown,
    sight_of,
    told,
)
from app.store import Person
from streams.desk import Whisper
from streams.events import UNSET, AlertAction, AlertChange, CallInfo, EventType, Place, Published


def person(role: str, *teams: str, username: str = "li", scopes: tuple[str, ...] = ()) -> Person:
    return Person(username=username, name="李", role=role, teams=teams, scopes=scopes)


def call(team: str | None = None, agent: str | None = None) -> CallInfo:
    return CallInfo(call_id="c1", agent=agent, team=team)


def event(team: object = UNSET, agent: object = UNSET, left: object = UNSET) -> Published:
    return Published(
        cursor=1,
        type="call.updated",
        call_id="c1",
        at="",
        media_ms=0,
        agent=agent,  # type: ignore[arg-type]
        team=team,  # type: ignore[arg-type]
        left=left,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("who", "what", "seen"),
    [
        (person("supervisor", "A"), call("A"), True),
        (person("supervisor", "A"), call("B"), False),
        (person("supervisor", "A", "B"), call("B"), True),
        (person("supervisor", "A"), call(None), False),
        (person("supervisor", "*"), call(None), True),
        (person("supervisor"), call("A"), False),
        (person("supervisor", "A", username="8001"), call("B", "8001"), False),
        (person("agent", "A", username="8001"), call("A", "8001"), True),
        (person("agent", "A", username="8001"), call("A", "8002"), False),
        (person("agent", "A", username="8001"), call("A", None), False),
        (person("inspector"), call("B"), True),
        (person("administrator"), call("A"), False),
        (person("administrator", "A"), call("A"), True),
        (person("administrator", "*"), call(None), True),
        (person("token", "A", scopes=("read",)), call("B"), False),
        (person("boss", "*"), call("A"), False),
    ],
)
def test_who_sees_which_call(who: Person, what: CallInfo, seen: bool) -> None:
    assert sees(who, what) is seen


def test_what_a_role_may() -> None:
    assert [role for role in ROLES if may(person(role), "people.manage")] == ["administrator"]
    assert [role for role in ROLES if may(person(role), "alert.handle")] == ["supervisor", "administrator"]
    assert not may(person("agent"), "call.listen")
    assert not may(person("boss"), "call.read")


def test_a_program_may_what_its_scopes_say_and_none_makes_tokens() -> None:
    assert may(person("token", scopes=("ingest", "read")), "call.read")
    assert not may(person("token", scopes=("ingest",)), "call.read")
    assert not may(person("token", scopes=("nothing",)), "call.read")
    assert not any("tokens.manage" in actions for actions in SCOPES.values())
    # A person's scopes are nothing to go by, nor a program's name for a role.
    assert not may(person("agent", scopes=("admin",)), "people.manage")


@pytest.mark.parametrize(
    ("published", "told"),
    [
        (event("A"), "shown"),
        (event("B"), "hidden"),
        (event(None), "hidden"),
        (event(), "hidden"),
        (event("A", left=Place(team="B")), "gained"),
        (event("B", left=Place(team="A")), "lost"),
        (event("A", "8002", left=Place(team="A", agent="8001")), "shown"),
        (event("B", left=Place(team="C")), "hidden"),
    ],
)
def test_what_a_supervisor_of_team_a_is_told(published: Published, told: str) -> None:
    assert shown(sight_of(person("supervisor", "A")), published) == told
    assert shown(EVERYTHING, published) == "shown"
    assert shown(NOTHING, published) == "hidden"


def test_what_is_about_no_call_is_told_to_all() -> None:
    health = Published(cursor=1, type="health", call_id=None, at="", media_ms=None)
    assert shown(NOTHING, health) == "shown"


def test_colleagues_of_other_teams_are_not_seen_watching() -> None:
    assert sees_person(person("supervisor", "A"), person("supervisor", "A", "B", username="wang"))
    assert not sees_person(person("supervisor", "A"), person("supervisor", "B", username="wang"))
    assert not sees_person(person("supervisor", "A"), person("inspector", username="wang"))
    assert sees_person(person("administrator"), person("supervisor", "B", username="wang"))


names = st.sampled_from(["A", "B", "C", None])
places = st.builds(Place, agent=names, team=names)


@given(st.frozensets(st.sampled_from(["A", "B", "C"])), names, st.lists(places, min_size=1, max_size=8))
def test_whoever_follows_a_call_knows_at_every_moment_whether_it_is_in_view(
    teams: frozenset[str], agent: str | None, path: list[Place]
) -> None:
    sight = Sight(teams=teams, agent=agent)
    knows = shown(sight, event(path[0].team, path[0].agent)) == "shown"
    for before, after in itertools.pairwise(path):
        told = shown(sight, event(after.team, after.agent, before if before != after else UNSET))
        if before != after:
            knows = {"shown": knows, "hidden": knows, "gained": True, "lost": False}[told]
        assert knows == sight.sees(after.agent, after.team)


def step(action: AlertAction, text: str | None) -> Published:
    change = AlertChange(
        id="s1", action=action, by="li", at="", from_state="open", to_state="open", from_owner=None,
        to_owner=None, text=text,
    )  # fmt: skip
    return replace(event("A", "8001"), type="alert.updated", change=change)


@pytest.mark.parametrize("action", ["comment", "resolve", "false_alarm", "assign"])
def test_what_supervisors_write_at_an_alert_is_not_told_to_the_agent(action: AlertAction) -> None:
    written = step(action, "谈一谈")
    assert told(sight_of(person("supervisor", "A")), written) is written
    assert told(EVERYTHING, written) is written
    for who in (person("agent", username="8001"), person("token", "A", scopes=("read",)), PROGRAM):
        assert told(sight_of(who), written).change == replace(written.change, text=None)


@pytest.mark.parametrize("action", ["appeal", "accept_appeal", "reject_appeal"])
def test_what_is_said_about_an_appeal_is_told_to_the_agent(action: AlertAction) -> None:
    written = step(action, "录音里听得清楚")
    assert told(Sight(agent="8001"), written) is written


PROGRAM = person("token", "*", scopes=("read",))


def of_type(type_: EventType, whisper: Whisper | UnsetType = UNSET) -> Published:
    return replace(event("A", "8001"), type=type_, whisper=whisper)


@pytest.mark.parametrize("type_", sorted(AMONG_SUPERVISORS))
def test_what_those_who_supervise_tell_each_other_is_told_to_nobody_else(type_: EventType) -> None:
    for who in (person("supervisor", "A"), person("administrator", "*"), person("inspector")):
        assert shown(sight_of(who), of_type(type_)) == "shown"
    for who in (person("agent", username="8001"), person("token", "A", scopes=("read",)), PROGRAM):
        assert shown(sight_of(who), of_type(type_)) == "hidden"


@pytest.mark.parametrize("type_", sorted(WHISPERS))
def test_a_whisper_is_told_to_its_agent_and_to_those_who_supervise(type_: EventType) -> None:
    whisper = Whisper(id="w1", call_id="c1", text="先安抚", by="li", media_ms=0, to="8001")
    mine, before = of_type(type_, whisper), of_type(type_, replace(whisper, to="8002"))
    assert shown(sight_of(person("agent", username="8001")), mine) == "shown"
    # The call was another agent's when that was whispered.
    assert shown(sight_of(person("agent", username="8001")), before) == "hidden"
    assert shown(sight_of(person("supervisor", "A")), before) == "shown"
    assert shown(sight_of(PROGRAM), mine) == "hidden"


def test_what_says_nothing_is_told_as_it_is() -> None:
    for published in (step("acknowledge", None), event("A", "8001")):
        assert told(Sight(agent="8001"), published) is published
