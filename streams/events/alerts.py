"""What is raised, and what becomes of it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from streams.events.calls import Channel
from streams.events.findings import Evidence

Severity = Literal["info", "warning", "critical"]

AlertState = Literal["open", "acknowledged", "resolved", "false_alarm", "escalated", "withdrawn"]

AlertAction = Literal[
    "take",
    "release",
    "acknowledge",
    "resolve",
    "false_alarm",
    "reopen",
    "assign",
    "comment",
    "escalate",
    "appeal",
    "accept_appeal",
    "reject_appeal",
]
"""What becomes of an alert by a person's wish, or (``escalate``) because its time is over."""


class RuleCard(Struct, frozen=True, kw_only=True):
    """What raising needs to know of the rule that fired."""

    id: str
    version: str
    name: dict[str, str]
    """By language: ``zh``, ``en``."""
    severity: Severity
    actions: tuple[Literal["alert", "marker", "hint", "webhook", "coach"], ...] = ("alert", "marker")
    hint: dict[str, str] | None = None
    """What the agent may say, by language."""
    advice: dict[str, str] | None = None
    """What whoever sees the alert should check, by language."""
    group: str | None = None
    """Rules of one group are about the same thing: people see them as one."""
    score: float = 0.0
    """What it adds to (or takes from) the call's inspection score."""


class Latency(Struct, frozen=True, kw_only=True):
    """Milliseconds spent on each step, from the phrase's last sample entering the server.

    ``delivery`` and ``total`` are known when the alert is written to a supervisor's socket.
    """

    vad: float | None = None
    """Last sample of the phrase in → utterance cut."""
    queue: float | None = None
    """Utterance cut → its batch started."""
    asr: float | None = None
    rules: float | None = None
    """Transcript → alert raised."""
    delivery: float | None = None
    """Alert raised → stored → written to the socket."""
    total: float | None = None


class Alert(Struct, frozen=True, kw_only=True, tag=True):
    id: str
    call_id: str
    rule_id: str
    rule_version: str
    name: dict[str, str]
    """By language: ``zh``, ``en``."""
    severity: Severity
    role: Channel
    media_start_ms: int
    media_end_ms: int
    evidence: Evidence
    utterance_id: str | None = None
    state: AlertState = "open"
    owner: str | None = None
    latency_ms: Latency = Latency()
    group: str | None = None
    score: float = 0.0
    advice: dict[str, str] | None = None
    """What to check, by language: of alerts about the service itself."""
    escalates_at: str | None = None
    """Wall clock, RFC 3339: it escalates then, if nobody has taken it. ``None``: no clock runs. Set where it
    is stored, as who waits for it are people."""
    comments: int = 0
    appeal: Literal["open", "accepted", "rejected"] | None = None
    """What became of the agent's objection; ``None``: there is none."""

    @property
    def media_ms(self) -> int:
        return self.media_end_ms


class Taken(Struct, frozen=True, kw_only=True, tag=True):
    """Somebody takes an alert to look after it, or lets it go: compare and set.

    It holds only if the alert's owner is ``expected`` at that moment; then one ``alert.updated`` is
    published. Else nothing is: whoever handed it to the outlet and got nothing back has lost, or had it.
    """

    call_id: str
    alert_id: str
    media_ms: int
    """Of the alert: its end."""
    owner: str | None
    """Account; ``None`` lets it go."""
    expected: str | None
    """Whose it is as far as they know who ask; ``None``: nobody's."""
    by: str | None = None
    """Who asks; ``None``: the one who takes it, or had it."""
    address: str | None = None
    """From where, for the audit; nobody is told."""


class Seen(Struct, frozen=True, kw_only=True):
    """An alert as whoever decides about it has it before their eyes."""

    state: AlertState
    owner: str | None


class Decided(Struct, frozen=True, kw_only=True, tag=True):
    """Somebody, or the clock, wants an alert to go one step on: see ``streams.alert_life``.

    It holds only if that step is there at that moment; then one ``alert.updated`` is published, with its
    ``change``. Else nothing is, as for ``Taken``. Given twice with the same ``id`` it holds once.
    """

    id: str
    call_id: str
    alert_id: str
    media_ms: int
    """Of the alert: its end."""
    action: AlertAction
    by: str | None
    """Account; ``None``: the clock."""
    owner: str | None = None
    """Of ``assign``: the account that it is given to."""
    text: str | None = None
    """A comment, or a reason; redacted."""
    seen: Seen | None = None
    """If given, it holds only while the alert is still so."""
    deadline: str | None = None
    """Of ``escalate``: the one that has passed; another one since then, and it does not hold."""
    address: str | None = None
    """From where it was asked, for the audit; nobody is told."""


class AlertChange(Struct, frozen=True, kw_only=True):
    """One step of an alert's life: who, when, from what to what."""

    id: str
    action: AlertAction
    by: str | None
    """Account; ``None``: the clock."""
    at: str
    """Wall clock, RFC 3339, UTC."""
    from_state: AlertState
    to_state: AlertState
    from_owner: str | None
    to_owner: str | None
    text: str | None = None
    """A comment, or a reason; redacted."""


class Marker(Struct, frozen=True, kw_only=True, tag=True):
    """A point or span on the call's timeline."""

    id: str
    call_id: str
    rule_id: str
    severity: Severity
    role: Channel
    label: dict[str, str]
    media_start_ms: int
    media_end_ms: int
    alert_id: str | None = None
    rule_version: str | None = None

    @property
    def media_ms(self) -> int:
        return self.media_start_ms


class Hint(Struct, frozen=True, kw_only=True, tag=True):
    """What the agent may say next."""

    id: str
    call_id: str
    rule_id: str
    text: dict[str, str]
    media_ms: int
    severity: Severity = "info"
    """Of the rule: of several that wait, the agent sees the most urgent first."""


class ShadowHit(Struct, frozen=True, kw_only=True, tag=True):
    """A rule on trial has fired. Kept to be counted and compared, shown to nobody while the call runs."""

    id: str
    call_id: str
    rule_id: str
    rule_version: str
    role: Channel
    media_start_ms: int
    media_end_ms: int
    utterance_id: str | None = None
    withdrawn: bool = False
    """A partial transcript bore it, the final one does not: it counts no more."""

    @property
    def media_ms(self) -> int:
        return self.media_end_ms
