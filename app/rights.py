"""Who may do what, and who sees which call. Pure: people and calls in, yes or no out.

Two questions, and every route asks both: ``may`` a person of this role do such a thing at all, and does this
person ``see`` the call that it is about. A call that somebody does not see is answered as one that is not
there. Agents see their own calls; supervisors those of their teams; inspectors all of them.

Administrators look after accounts, tokens, rules and the audit. That somebody may make accounts is no reason
to read what customers say, so they see calls only of the teams that they are given in addition, as
supervisors do (``*``: all); an account that does both is then a decision that the audit shows.

A call without a team is seen by those who see all teams, and by its agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

from msgspec import UNSET, Struct
from msgspec.structs import replace

from streams.events import AlertAction, EventType, Published

Role = Literal["agent", "supervisor", "inspector", "administrator", "token"]
"""``token``: a program with an API token; what it may do are its scopes."""

ALL: Final = "*"
"""In a person's teams: every team, and calls of none."""

Action = Literal[
    "call.read",
    "call.audio",
    "call.listen",
    "call.reveal",
    "call.note",
    "call.takeover",
    "call.export",
    "call.whisper",
    "call.tell",
    "call.ingest",
    "alert.handle",
    "alert.judge",
    "desk.use",
    "presence.read",
    "rules.read",
    "rules.load",
    "rules.draft",
    "rules.publish",
    "people.manage",
    "tokens.manage",
    "audit.read",
    "metrics.read",
]
"""``call.read``: lists, transcripts, alerts, the stream of events. ``call.tell``: what telephony systems tell
of a call; ``call.ingest``: its audio. ``call.reveal``: read what was masked; ``call.note``: write and read
notes; ``call.takeover``: ask the telephony to hand a call over; ``call.export``: take evidence away;
``call.whisper``: tell the agent something while the call runs; ``desk.use``: what only its agent does.
``alert.handle``: take an alert while its call runs; ``alert.judge``: say afterwards whether it was right
(``app.api.alert_rights`` says which step is which). ``rules.draft``: write drafts of rule packs and try them
on stored calls; ``rules.publish``: approve somebody else's. Both are for administrators: a draft is one step
from what every call is judged by, and a trial costs the machine minutes. No token holds either: whoever
makes tokens would be two people."""

_WATCH: Final = frozenset[Action](
    {"call.read", "call.audio", "call.listen", "call.note", "call.export", "rules.read", "alert.judge"}
)
_HANDLE: Final = frozenset[Action]({"alert.handle", "call.takeover", "call.whisper", "presence.read"})
_REVEAL: Final = frozenset[Action]({"call.reveal"})
"""Not of administrators, who look after the account and the audit: nobody reads alone and unseen."""

ROLES: Final[dict[str, frozenset[Action]]] = {
    "agent": frozenset[Action]({"call.read", "call.audio", "desk.use"}),
    "supervisor": _WATCH | _HANDLE | _REVEAL,
    "inspector": _WATCH | _REVEAL,
    "administrator": _WATCH
    | _HANDLE
    | {
        "rules.load",
        "rules.draft",
        "rules.publish",
        "people.manage",
        "tokens.manage",
        "audit.read",
        "metrics.read",
    },
}

SCOPES: Final[dict[str, frozenset[Action]]] = {
    "ingest": frozenset[Action]({"call.ingest"}),
    "telephony": frozenset[Action]({"call.tell"}),
    "read": frozenset[Action]({"call.read", "rules.read"}),
    "audio": frozenset[Action]({"call.audio"}),
    "metrics": frozenset[Action]({"metrics.read"}),
    # No tokens.manage: a token that is lost must not be able to make others that nobody knows of.
    "admin": frozenset[Action]({"people.manage", "audit.read", "rules.load", "rules.read"}),
}
"""What a program with a token of this scope may do."""


class Someone(Protocol):
    """A person, or a program that stands for one; ``app.store.Person`` is one."""

    @property
    def username(self) -> str: ...

    @property
    def role(self) -> str: ...

    @property
    def teams(self) -> Sequence[str]: ...

    @property
    def scopes(self) -> Sequence[str]: ...


class Placed(Protocol):
    """Whose call it is; ``CallInfo`` and ``CallRow`` tell that, and ``Place`` is nothing else."""

    @property
    def agent(self) -> str | None: ...

    @property
    def team(self) -> str | None: ...


class Sight(Struct, frozen=True, kw_only=True):
    """Which calls somebody sees, and how much of them. Two who see the same have equal ones."""

    everything: bool = False
    teams: frozenset[str] = frozenset()
    agent: str | None = None
    """The account whose own calls are seen."""
    supervises: bool = False
    """Whether they are told what those who supervise tell each other: notes, whispers to whomever,
    take-overs, words at an alert's steps. Neither agents nor programs are."""

    def sees(self, agent: str | None, team: str | None) -> bool:
        return (
            self.everything
            or (team is not None and team in self.teams)
            or (agent is not None and agent == self.agent)
        )


EVERYTHING: Final = Sight(everything=True, supervises=True)
NOTHING: Final = Sight()


def may(person: Someone, action: Action) -> bool:
    """Whether the role (of a program: one of its scopes) allows such a thing at all."""
    if person.role == "token":
        return any(action in SCOPES.get(scope, ()) for scope in person.scopes)
    return action in ROLES.get(person.role, ())


def sight_of(person: Someone) -> Sight:
    """What somebody sees, whatever it is wanted for; ``may`` says whether it may be had."""
    supervises = may(person, "call.note")
    match person.role:
        case "inspector":
            return EVERYTHING
        case "supervisor" | "administrator" | "token" if ALL in person.teams:
            return Sight(everything=True, supervises=supervises)
        case "supervisor" | "administrator" | "token":
            return Sight(teams=frozenset(person.teams), supervises=supervises)
        case "agent":
            return Sight(agent=person.username)
    return NOTHING


def sees(person: Someone, call: Placed) -> bool:
    """Whether this call is one of those that the person sees."""
    return sight_of(person).sees(call.agent, call.team)


def usual_teams(role: str) -> tuple[str, ...]:
    """Of an account that was given none: a house without teams needs no setting for its supervisors."""
    return (ALL,) if role == "supervisor" else ()


AMONG_SUPERVISORS: Final = frozenset[EventType](
    {"note.added", "takeover.asked", "takeover.accepted", "takeover.failed"}
)
"""What those who supervise tell each other about a call."""
WHISPERS: Final = frozenset[EventType]({"whisper.sent", "whisper.seen"})
"""Told to them, and to the agent to whom it was whispered."""

_ABOUT_APPEALS: Final = frozenset[AlertAction]({"appeal", "accept_appeal", "reject_appeal"})

Shown = Literal["shown", "hidden", "gained", "lost"]


def shown(sight: Sight, published: Published) -> Shown:
    """Whether an event is one of those that somebody sees, and what becomes of the view where a call moves.

    ``gained``: the call comes into view with this event, and what happened in it before is not known there;
    ``lost``: it goes out of view, and nothing of it may be told but that. Events that do not say whose call
    they are about (written before that was kept) are for those who see everything.
    """
    if not sight.supervises and _is_kept_from(sight.agent, published):
        return "hidden"
    if sight.everything or published.call_id is None:
        return "shown"
    now = sight.sees(_known(published.agent), _known(published.team))
    left = published.left
    if left is UNSET:
        return "shown" if now else "hidden"
    before = sight.sees(left.agent, left.team)
    if now:
        return "shown" if before else "gained"
    return "lost" if before else "hidden"


def _is_kept_from(agent: str | None, published: Published) -> bool:
    if published.type in WHISPERS:
        return published.whisper is UNSET or published.whisper.to is None or published.whisper.to != agent
    return published.type in AMONG_SUPERVISORS


def told(sight: Sight, published: Published) -> Published:
    """An event as somebody reads it: what people wrote at an alert's steps is for those who supervise, and
    for the agent of the call where it is about an appeal."""
    change = published.change
    if sight.supervises or change is UNSET or change.text is None:
        return published
    if sight.agent is not None and change.action in _ABOUT_APPEALS:
        return published
    return replace(published, change=replace(change, text=None))


def sees_person(person: Someone, other: Someone) -> bool:
    """Whether somebody may know that a colleague watches: of the same team, or where all teams are seen."""
    if person.username == other.username or person.role == "administrator" or sight_of(person).everything:
        return True
    return not set(person.teams).isdisjoint(other.teams)


def _known(value: object) -> str | None:
    return value if isinstance(value, str) else None
