"""Rule packs on their way into force: drafts, what was published, trials over stored calls."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables import Base


class RuleDraftRow(Base):
    """A ``Draft``, see ``app.drafts``."""

    __tablename__ = "rule_drafts"
    __table_args__ = (Index(None, "state", "draft_id"),)

    draft_id: Mapped[int] = mapped_column(primary_key=True)
    pack_id: Mapped[str]
    state: Mapped[str]
    text: Mapped[str]
    digest: Mapped[str]
    body: Mapped[str]
    """The ``Draft`` without its text."""


class RulePublicationRow(Base):
    """A pack that was put in force. Written, never changed; of each pack the last one counts."""

    __tablename__ = "rule_publications"
    __table_args__ = (Index(None, "pack_id", "publication_id"),)

    publication_id: Mapped[int] = mapped_column(primary_key=True)
    pack_id: Mapped[str]
    origin: Mapped[str]
    text: Mapped[str]
    body: Mapped[str]
    """The ``Publication`` without its text."""


class RuleTrialRow(Base):
    """A draft over stored calls: running, or what came of it."""

    __tablename__ = "rule_trials"
    __table_args__ = (Index(None, "state"),)

    trial_id: Mapped[int] = mapped_column(primary_key=True)
    draft_id: Mapped[int]
    state: Mapped[str]
    seen_at: Mapped[str]
    """When its process was heard of last."""
    body: Mapped[str]
    """The ``RuleTrial``."""
    result: Mapped[str | None]
