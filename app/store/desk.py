"""What an agent's desk shows, for reading: the running call, its hints and whispers, the calls before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.store.log import head_of
from app.store.tables import (
    AlertRow,
    CallRow,
    EmotionRow,
    HintAnswerRow,
    HintRow,
    ProgressRow,
    UtteranceRow,
    WhisperRow,
)
from streams.desk import Whisper, Worth
from streams.events import Emotion, Hint, Progress

if TYPE_CHECKING:
    from app.store.database import Store

HINTS_MOST = 50
"""Of one call, the newest."""
WHISPERS_MOST = 100
SAID_WITHIN_MS = 120_000
"""What the agent said lately, for the speed of it."""
LAST_CALLS = 10


class Usefulness(Struct, kw_only=True):
    """What agents said of a rule's hints, over all of its versions."""

    rule_id: str
    shown: int = 0
    useful: int = 0
    not_useful: int = 0
    dismissed: int = 0
    usefulness: float | None = None
    """``useful`` of those judged, 0 to 1; ``None`` while none is."""


class Said(Struct, frozen=True, kw_only=True):
    """A stretch of the agent's speech: how long it was, and how many characters."""

    utterance_id: str
    start_ms: int
    end_ms: int
    characters: int


class ShownHint(NamedTuple):
    hint: Hint
    answer: Worth | None


class LiveCall(NamedTuple):
    """The call that an agent is in."""

    call: CallRow
    hints: list[ShownHint]
    whispers: list[Whisper]
    progress: list[Progress]
    emotions: list[Emotion]
    """The agent's own, in order."""
    said: list[Said]


class LastCall(NamedTuple):
    call: CallRow
    alerts: int
    """Without those taken back."""


class DeskState(NamedTuple):
    cursor: int
    live: LiveCall | None
    others: int
    """Further live calls of the same agent, begun earlier."""
    last: Sequence[LastCall]


class Desk:
    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, agent: str) -> DeskState:
        """An agent's own calls, and nobody else's: the live one that began last, and those that ended.

        Cursor and rows are of one snapshot: a subscription from that cursor continues exactly here.
        """
        own = select(CallRow).where(CallRow.agent == agent).order_by(CallRow.cursor.desc())
        with self._store.reading() as session:
            live = session.scalars(own.where(CallRow.state == "live").limit(20)).all()
            last = session.scalars(own.where(CallRow.state == "ended").limit(LAST_CALLS)).all()
            counts = session.execute(
                select(AlertRow.call_id, func.count())
                .where(AlertRow.call_id.in_([call.call_id for call in last]), AlertRow.state != "withdrawn")
                .group_by(AlertRow.call_id)
            )
            alerts = {call_id: count for call_id, count in counts}
            return DeskState(
                head_of(session),
                _live(session, live[0]) if live else None,
                max(0, len(live) - 1),
                [LastCall(call, alerts.get(call.call_id, 0)) for call in last],
            )

    def hint(self, hint_id: str, call_id: str) -> Hint | None:
        """The hint, if it is one of that call."""
        with self._store.reading() as session:
            row = session.get(HintRow, hint_id)
            if row is None or row.call_id != call_id:
                return None
            return msgspec.json.decode(row.body, type=Hint)

    def answer(self, hint_id: str) -> Worth | None:
        with self._store.reading() as session:
            row = session.get(HintAnswerRow, hint_id)
            return None if row is None else msgspec.convert(row.answer, Worth)

    def whisper(self, whisper_id: str, call_id: str) -> Whisper | None:
        """The whisper, if it is one to that call."""
        with self._store.reading() as session:
            row = session.get(WhisperRow, whisper_id)
            if row is None or row.call_id != call_id:
                return None
            return msgspec.json.decode(row.body, type=Whisper)

    def whispers(self, call_id: str) -> list[Whisper]:
        """To one call, oldest first; of more than ``WHISPERS_MOST`` the newest."""
        with self._store.reading() as session:
            return _whispers(session, call_id)

    def usefulness(self) -> list[Usefulness]:
        """By rule; of every rule whose hints were shown, also one that is no more."""
        found: dict[str, Usefulness] = {}
        answers = select(HintAnswerRow.rule_id, HintAnswerRow.answer, func.count()).group_by(
            HintAnswerRow.rule_id, HintAnswerRow.answer
        )
        shown = select(HintRow.rule_id, func.count()).where(HintRow.rule_id.is_not(None))
        with self._store.reading() as session:
            for rule_of, count in session.execute(shown.group_by(HintRow.rule_id)):
                rule_id = str(rule_of)  # none is null: the query says so
                found[rule_id] = Usefulness(rule_id=rule_id, shown=count)
            for rule_id, answer, count in session.execute(answers):
                one = found.setdefault(rule_id, Usefulness(rule_id=rule_id))
                setattr(one, answer, count)
        for one in found.values():
            judged = one.useful + one.not_useful
            one.usefulness = one.useful / judged if judged else None
        return [found[rule_id] for rule_id in sorted(found)]


def _live(session: Session, call: CallRow) -> LiveCall:
    hints = session.execute(
        select(HintRow.body, HintAnswerRow.answer)
        .outerjoin(HintAnswerRow, HintAnswerRow.hint_id == HintRow.hint_id)
        .where(HintRow.call_id == call.call_id)
        .order_by(HintRow.cursor.desc())
        .limit(HINTS_MOST)
    ).all()
    progress = session.scalars(
        select(ProgressRow.body).where(ProgressRow.call_id == call.call_id).order_by(ProgressRow.cursor)
    )
    emotions = session.scalars(
        select(EmotionRow.body)
        .where(
            EmotionRow.call_id == call.call_id,
            EmotionRow.media_start_ms >= call.media_ms - SAID_WITHIN_MS,
        )
        .order_by(EmotionRow.media_start_ms)
    )
    said = session.scalars(
        select(UtteranceRow)
        .where(
            UtteranceRow.call_id == call.call_id,
            UtteranceRow.role == "agent",
            UtteranceRow.end_ms >= call.media_ms - SAID_WITHIN_MS,
        )
        .order_by(UtteranceRow.start_ms)
    )
    felt = [msgspec.json.decode(body, type=Emotion) for body in emotions]
    return LiveCall(
        call,
        [
            ShownHint(
                msgspec.json.decode(body, type=Hint),
                None if answer is None else msgspec.convert(answer, Worth),
            )
            for body, answer in reversed(hints)
        ],
        _whispers(session, call.call_id),
        [msgspec.json.decode(body, type=Progress) for body in progress],
        [one for one in felt if one.role == "agent"],
        [
            Said(
                utterance_id=row.utterance_id,
                start_ms=row.start_ms,
                end_ms=row.end_ms,
                characters=sum(character.isalnum() for character in row.text),
            )
            for row in said
        ],
    )


def _whispers(session: Session, call_id: str) -> list[Whisper]:
    bodies = session.scalars(
        select(WhisperRow.body)
        .where(WhisperRow.call_id == call_id)
        .order_by(WhisperRow.cursor.desc())
        .limit(WHISPERS_MOST)
    ).all()
    return [msgspec.json.decode(body, type=Whisper) for body in reversed(bodies)]
