"""The life of an alert, after it was raised. Pure: an alert and a wish in, the alert after it out.

A person's wish, or the clock's (``escalate``), leads from one state to the next:

    action        from                             to
    acknowledge   open, escalated                  acknowledged, and it is theirs
    resolve       open, escalated, acknowledged    resolved
    false_alarm   open, escalated, acknowledged    false_alarm
    reopen        resolved, false_alarm            open, nobody's
    assign        open, escalated, acknowledged    open, and somebody else's; acknowledged, if one's own
    escalate      open, its deadline passed        escalated
    comment       any                              as it was
    take          any                              as it was, and theirs; open and escalated: acknowledged
    release       any                              as it was, nobody's; acknowledged: open
    appeal        all but false_alarm, withdrawn   as it was; the agent's word against it, once
    accept_appeal the same, with an open appeal    false_alarm
    reject_appeal the same, with an open appeal    as it was

Whoever judges an alert with an open appeal to be a false alarm has accepted the appeal.
Who comes to ``open`` by one of these has the whole time before it escalates again. An alert that is given to
somebody waits for them, and escalates if they do not answer. ``withdrawn`` is the rules' word, not people's:
a later transcript did not bear the alert out. It can be commented, and raised again by the rules.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import structs

from streams.events import Alert, AlertAction, AlertChange, AlertState, Decided

WAITING: Final[tuple[AlertState, ...]] = ("open", "escalated")
"""Nobody has answered yet."""
UNJUDGED: Final[tuple[AlertState, ...]] = (*WAITING, "acknowledged")
JUDGED: Final[tuple[AlertState, ...]] = ("resolved", "false_alarm")
ANY: Final[tuple[AlertState, ...]] = (*UNJUDGED, *JUDGED, "withdrawn")

FROM: Final[dict[AlertAction, tuple[AlertState, ...]]] = {
    "acknowledge": WAITING,
    "resolve": UNJUDGED,
    "false_alarm": UNJUDGED,
    "reopen": JUDGED,
    "assign": UNJUDGED,
    "escalate": ("open",),
    "comment": ANY,
    "take": ANY,
    "release": ANY,
    "appeal": (*UNJUDGED, "resolved"),
    "accept_appeal": (*UNJUDGED, "resolved"),
    "reject_appeal": (*UNJUDGED, "resolved"),
}
"""States in which an action is possible."""

Appealed = Literal["open", "accepted", "rejected"] | None

COMMENT_LENGTH: Final = 2000
"""Characters (code points) at most, of a comment and of a reason."""


class NotPossible(Exception):
    """The alert is not, or no more, as this step needs it.

    ``expected``: states from which the step leads on, or the one that was seen; ``came``: the alert as it is.
    """

    def __init__(self, expected: tuple[AlertState, ...], came: Alert) -> None:
        super().__init__(f"expected an alert that is {' or '.join(expected)}, came one that is {came.state}")
        self.expected = expected
        self.came = came


def step(alert: Alert, wish: Decided, at: str, deadline: str | None) -> tuple[Alert, AlertChange]:
    """The alert after it, and what is written into its history. Raises ``NotPossible``.

    ``at`` is now, wall clock; ``deadline`` is when it escalates if it begins to wait now (``None``: never).
    """
    if wish.seen is not None and (wish.seen.state, wish.seen.owner) != (alert.state, alert.owner):
        raise NotPossible((wish.seen.state,), alert)
    possible = FROM[wish.action]
    if alert.state not in possible:
        raise NotPossible(possible, alert)
    if wish.action == "escalate" and (alert.escalates_at is None or alert.escalates_at != wish.deadline):
        raise NotPossible(possible, alert)
    state, owner = _after(alert, wish)
    comments = alert.comments + (wish.action == "comment")
    appeal = _appeal(alert, wish)
    if (state, owner, comments, appeal) == (alert.state, alert.owner, alert.comments, alert.appeal):
        raise NotPossible(possible, alert)  # it is so already
    if state != "open":
        escalates_at = None
    elif alert.state == "open" and owner == alert.owner:
        escalates_at = alert.escalates_at
    else:
        escalates_at = deadline
    changed = structs.replace(
        alert, state=state, owner=owner, escalates_at=escalates_at, comments=comments, appeal=appeal
    )
    return changed, AlertChange(
        id=wish.id,
        action=wish.action,
        by=wish.by,
        at=at,
        from_state=alert.state,
        to_state=state,
        from_owner=alert.owner,
        to_owner=owner,
        text=wish.text,
    )


def _after(alert: Alert, wish: Decided) -> tuple[AlertState, str | None]:
    match wish.action:
        case "acknowledge":
            return "acknowledged", wish.by
        case "resolve":
            return "resolved", alert.owner or wish.by
        case "false_alarm" | "accept_appeal":
            return "false_alarm", alert.owner or wish.by
        case "appeal" | "reject_appeal":
            return alert.state, alert.owner
        case "reopen":
            return "open", None
        case "escalate":
            return "escalated", alert.owner
        case "comment":
            return alert.state, alert.owner
        case "assign" if wish.owner == wish.by:
            return "acknowledged", wish.owner
        case "assign" if wish.owner == alert.owner:
            return alert.state, alert.owner  # it is theirs already
        case "assign":
            return "open", wish.owner
        case "take":
            return "acknowledged" if alert.state in WAITING else alert.state, wish.owner
        case "release":
            return "open" if alert.state == "acknowledged" else alert.state, None


def _appeal(alert: Alert, wish: Decided) -> Appealed:
    """Of the agent's word against it. Raises ``NotPossible``."""
    match wish.action:
        case "appeal" if alert.appeal is None:
            return "open"
        case "accept_appeal" | "reject_appeal" if alert.appeal == "open":
            return "accepted" if wish.action == "accept_appeal" else "rejected"
        case "appeal" | "accept_appeal" | "reject_appeal":
            raise NotPossible(FROM[wish.action], alert)
        case "false_alarm" if alert.appeal == "open":
            return "accepted"
    return alert.appeal


def found_again(known: Alert, found: Alert, deadline: str | None) -> Alert:
    """What the rules say now, over what people decided; the latency of the first time stays.

    ``deadline`` is when it would escalate if it began to wait now: what was withdrawn may be raised again.

    What people decided stands. A deadline that passed is nobody's decision: what the rules withdraw is
    withdrawn also when it had escalated.
    """
    decided = known.state in ("acknowledged", *JUDGED)
    state = known.state if decided or (known.state, found.state) == ("escalated", "open") else found.state
    running = deadline if known.state == "withdrawn" else known.escalates_at
    return structs.replace(
        found,
        state=state,
        owner=known.owner if found.owner is None else found.owner,
        latency_ms=known.latency_ms,
        escalates_at=running if state == "open" else None,
        comments=known.comments,
        appeal=known.appeal,
    )
