"""Who may do what with an alert. The one place where that is decided; the routes ask here."""

from __future__ import annotations

from collections.abc import Sequence

from app.store import Person
from streams.events import AlertAction

AFTER_THE_CALL: tuple[AlertAction, ...] = (
    "comment",
    "resolve",
    "false_alarm",
    "accept_appeal",
    "reject_appeal",
)
"""What an inspector judges, and not before the call has ended: until then it is the supervisors'."""


def may(person: Person, action: AlertAction, *, live: bool) -> bool:
    """``live``: whether the alert's call still runs.

    An appeal is the agent's alone, and comes after the call: while it runs, a customer is to be looked after.
    """
    match person.role:
        case "administrator" | "supervisor":
            return action != "appeal"
        case "agent":
            return action == "appeal" and not live
        case "inspector":
            return not live and action in AFTER_THE_CALL
        case _:
            return False


def assignable(people: Sequence[Person]) -> list[Person]:
    """Those whom an alert may be given to: who can act on it while the call runs."""
    return [person for person in people if may(person, "acknowledge", live=True)]
