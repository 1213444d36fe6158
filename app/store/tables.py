"""The tables: the event log, what is projected from it for reading, and the people who may read.

Portable between SQLite and PostgreSQL. Times are RFC 3339 text in UTC with milliseconds and a ``Z``: of
fixed width, so they sort as they are. ``cursor`` names the event that made a row; it orders rows, and
pages continue from it. ``body`` is the event's own struct as JSON, so that there is one definition of it
(``streams.events``); the columns beside it exist to be searched.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, ForeignKey, Index, Integer, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.store.texts import CleanText

BIG = BigInteger().with_variant(Integer, "sqlite")
"""64 bits on both; SQLite makes only a column of type INTEGER its row id."""


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {int: BIG, float: Double(), str: CleanText()}  # noqa: RUF012


class EventRow(Base):
    """The log. Cursors grow by one without holes; the oldest rows are trimmed."""

    __tablename__ = "events"

    cursor: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str]
    call_id: Mapped[str | None]
    at: Mapped[str]
    body: Mapped[str]
    """The ``Published``, exactly as it was sent."""


class CallRow(Base):
    __tablename__ = "calls"
    __table_args__ = (
        Index(None, "state", "cursor"),
        Index(None, "cursor", unique=True),
        Index(None, "team", "cursor"),
        Index(None, "agent", "cursor"),
        Index(None, "queue", "cursor"),
        Index(None, "started_at"),
    )

    call_id: Mapped[str] = mapped_column(primary_key=True)
    cursor: Mapped[int]
    state: Mapped[str]
    """``live`` or ``ended``."""
    agent: Mapped[str | None]
    team: Mapped[str | None]
    """With ``agent``: who may see it."""
    queue: Mapped[str | None]
    info: Mapped[str]
    """The ``CallInfo``."""
    started_at: Mapped[str]
    ended_at: Mapped[str | None]
    reason: Mapped[str | None]
    ended_by: Mapped[str | None]
    """Who hung up, where the telephony said so."""
    media_ms: Mapped[int]
    """The length once it has ended; before that, the latest media time that is known."""
    gap_ms: Mapped[int]
    """Audio that never came or was dropped, summed over the channels."""
    last_text: Mapped[str | None]
    """The ``Text`` of the last utterance in which something was said."""


class UtteranceRow(Base):
    __tablename__ = "utterances"
    __table_args__ = (Index(None, "call_id", "start_ms"),)

    utterance_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    cursor: Mapped[int]
    at: Mapped[str]
    role: Mapped[str]
    start_ms: Mapped[int]
    end_ms: Mapped[int]
    text: Mapped[str]
    confidence: Mapped[float | None]
    rejected: Mapped[str | None]
    words: Mapped[str]
    """List of ``Word``."""


class AlertRow(Base):
    __tablename__ = "alerts"
    __table_args__ = (
        Index(None, "call_id"),
        Index(None, "cursor"),
        Index(None, "rule_id", "rule_version", "state"),
        Index(None, "escalates_at"),
        Index(None, "appeal", "cursor"),
    )

    alert_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    cursor: Mapped[int]
    at: Mapped[str]
    rule_id: Mapped[str]
    rule_version: Mapped[str]
    severity: Mapped[str]
    state: Mapped[str]
    owner: Mapped[str | None]
    escalates_at: Mapped[str | None]
    """When it escalates if nobody takes it; ``None``: no clock runs."""
    appeal: Mapped[str | None]
    body: Mapped[str]


class AlertChangeRow(Base):
    """One step of an alert's life. Written, never changed."""

    __tablename__ = "alert_changes"
    __table_args__ = (Index(None, "alert_id", "cursor"),)

    change_id: Mapped[str] = mapped_column(primary_key=True)
    alert_id: Mapped[str] = mapped_column(ForeignKey("alerts.alert_id"))
    cursor: Mapped[int]
    """Of the event that told it."""
    action: Mapped[str]
    username: Mapped[str | None]
    """``None``: the clock."""
    body: Mapped[str]
    """The ``AlertChange``."""


class MarkerRow(Base):
    __tablename__ = "markers"
    __table_args__ = (
        Index(None, "call_id", "media_start_ms"),
        Index(None, "alert_id", "rule_id", "rule_version"),
    )

    marker_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    cursor: Mapped[int]
    media_start_ms: Mapped[int]
    rule_id: Mapped[str | None]
    rule_version: Mapped[str | None]
    """``None`` for markers from before this was kept."""
    alert_id: Mapped[str | None]
    body: Mapped[str]


class HintRow(Base):
    __tablename__ = "hints"
    __table_args__ = (Index(None, "call_id"), Index(None, "rule_id"))

    hint_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    cursor: Mapped[int]
    rule_id: Mapped[str | None]
    """``None`` for hints from before this was kept."""
    body: Mapped[str]


class HintAnswerRow(Base):
    """What its agent said of a hint."""

    __tablename__ = "hint_answers"
    __table_args__ = (Index(None, "call_id"), Index(None, "rule_id", "answer"))

    hint_id: Mapped[str] = mapped_column(ForeignKey("hints.hint_id"), primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    cursor: Mapped[int]
    """Of the event that told it last."""
    at: Mapped[str]
    rule_id: Mapped[str]
    answer: Mapped[str]
    username: Mapped[str]


class WhisperRow(Base):
    """A supervisor's words to the agent of a running call."""

    __tablename__ = "whispers"
    __table_args__ = (Index(None, "call_id", "cursor"),)

    whisper_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    cursor: Mapped[int]
    """Of the event that sent it."""
    body: Mapped[str]
    """The ``Whisper`` as it is now."""


class EmotionRow(Base):
    """How its speaker felt in an utterance."""

    __tablename__ = "emotions"
    __table_args__ = (Index(None, "call_id", "media_start_ms"),)

    utterance_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    cursor: Mapped[int]
    media_start_ms: Mapped[int]
    body: Mapped[str]


class ProgressRow(Base):
    """Where a call stands in a script: only the latest."""

    __tablename__ = "progress"
    __table_args__ = (Index(None, "call_id"),)

    progress_id: Mapped[str] = mapped_column(primary_key=True)
    """Call and script."""
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    cursor: Mapped[int]
    """Of the event that told it last."""
    media_ms: Mapped[int]
    body: Mapped[str]


class OriginalRow(Base):
    """What was said in an utterance that redaction has changed, sealed: see ``app.sealing``."""

    __tablename__ = "originals"
    __table_args__ = (Index(None, "call_id"),)

    utterance_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    box: Mapped[str]


class NoteRow(Base):
    """Written, never changed."""

    __tablename__ = "notes"
    __table_args__ = (Index(None, "call_id"),)

    note_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    cursor: Mapped[int]
    body: Mapped[str]
    """The ``Note``."""


class TakeoverRow(Base):
    __tablename__ = "takeovers"
    __table_args__ = (Index(None, "call_id"),)

    takeover_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    cursor: Mapped[int]
    """Of the event that told it last."""
    state: Mapped[str]
    body: Mapped[str]
    """The ``Takeover``."""


class ShadowHitRow(Base):
    """What a rule on trial found. No browser is told, so no event of the log made it."""

    __tablename__ = "shadow_hits"
    __table_args__ = (Index(None, "call_id"), Index(None, "rule_id", "rule_version"))

    hit_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.call_id"))
    at: Mapped[str]
    rule_id: Mapped[str]
    rule_version: Mapped[str]
    body: Mapped[str]


class UserRow(Base):
    __tablename__ = "users"
    __table_args__ = (Index(None, "subject", unique=True),)

    user_id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    role: Mapped[str]
    password: Mapped[str]
    """Argon2id in its encoded form, with salt and parameters; ``!`` where no password lets in."""
    created_at: Mapped[str]
    teams: Mapped[str] = mapped_column(server_default="[]")
    """JSON, a list of names."""
    disabled_at: Mapped[str | None]
    subject: Mapped[str | None]
    """Issuer and subject at the identity provider, where the account came from one."""


class SessionRow(Base):
    __tablename__ = "sessions"
    __table_args__ = (Index(None, "user_id"),)

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    """SHA-256 of the token, hexadecimal: who reads the database cannot log in with it."""
    user_id: Mapped[int] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    created_at: Mapped[str]
    expires_at: Mapped[str]
    address: Mapped[str | None]


class TokenRow(Base):
    """What lets a program in."""

    __tablename__ = "tokens"

    token_id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    token_hash: Mapped[str] = mapped_column(unique=True)
    """SHA-256, hexadecimal."""
    begins: Mapped[str]
    """Its first characters, by which people know it again."""
    scopes: Mapped[str]
    """JSON, a list."""
    teams: Mapped[str]
    """JSON, a list."""
    created_at: Mapped[str]
    created_by: Mapped[str]
    expires_at: Mapped[str]
    revoked_at: Mapped[str | None]


class AuditRow(Base):
    """Who looked at what. Written, never changed."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "subject"), Index(None, "at"))

    audit_id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[str]
    username: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str | None]
    address: Mapped[str | None]
    detail: Mapped[str | None]
    """What it became: the role that somebody was given."""
    hash: Mapped[str] = mapped_column(server_default="")
    """Of the entry before and of this one's content, see ``app.store.chain``."""
