"""``absent``: something was left unsaid, by a deadline or before something else was said.

``{of, by: 10, after: call_start}`` tells it at the deadline; ``{of, before}`` when ``before`` was said and
``of`` was not. Either way it is told once in a call, and not while an utterance that began before that
moment is still being said or transcribed: what it says decides. That wait is bounded, because a
transcript may never come.

``of`` counts by the deadline when the utterance in which it is said began in time; against ``before`` the
places of the two phrases count. Partial transcripts settle nothing.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.combinators import own
from detectors.rules.form import Form
from detectors.rules.inner import Inner, may_say, order, phrases, seen, speaker
from detectors.rules.model import Book, Condition, Moment, Scene, Turn, Watch
from detectors.rules.pending import START_LATE_MS, Pending, owes, spoke, transcribed
from streams.events import CallEnded, CallEvent, Emotion, SpeechStarted, SpeechStopped, Step, Transcript

NAMES: Final = ("absent",)
WAIT_MS: Final = 15_000
"""Media time behind the deadline after which no transcript is waited for."""
_MOST: Final = 8
_SHOWN: Final = 4

After = Literal["call_start", "first_speech"]


class AbsentState(Struct, frozen=True, array_like=True):
    armed_ms: int | None = None
    """When what is asked for became due."""
    since_ms: int = 0
    """What was said from here on counts: the begin of the utterance that armed it."""
    deadline_ms: int | None = None
    said: tuple[Moment, ...] = ()
    """What was asked for, when it was said: the first time and the last few."""
    turning: Moment | None = None
    """What it had to come ``before``."""
    pending: Pending = ()
    passed: bool = False
    """The deadline has passed in media time, and every start of speech before it has been told."""
    ended_ms: int | None = None
    outcome: Literal["done", "missed"] | None = None


class Absent(Watch, frozen=True, kw_only=True):
    of: Condition
    after: After | Condition
    by_ms: int | None
    """After what arms it."""
    before: Condition | None
    expected: tuple[str, ...]

    state_type = AbsentState

    def fresh(self) -> AbsentState:
        return self._armed(AbsentState(), 0, 0) if self.after == "call_start" else AbsentState()

    def wake_at(self, state: AbsentState) -> int | None:
        if state.deadline_ms is None or state.outcome is not None or state.ended_ms is not None:
            return None
        return state.deadline_ms + (WAIT_MS if state.passed else START_LATE_MS)

    def on_wake(self, state: AbsentState, now_ms: int, scene: Scene) -> tuple[AbsentState, Moment | None]:
        return self._settled(state, scene)

    def on_event(
        self, state: AbsentState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[AbsentState, Moment | None]:
        if state.outcome is not None:
            return state, None
        if isinstance(event, SpeechStarted | SpeechStopped) and may_say(self.of, scene.rule, event.channel):
            state = replace(state, pending=spoke(state.pending, event))
            if self.after == "first_speech" and state.armed_ms is None and isinstance(event, SpeechStarted):
                state = self._armed(state, event.media_ms, 0)
        if isinstance(event, CallEnded) and state.ended_ms is None:
            state = replace(state, ended_ms=event.media_ms)
        return self._settled(state, scene)

    def on_turn(self, state: AbsentState, scene: Scene, turn: Turn) -> tuple[AbsentState, Moment | None]:
        if not turn.transcript.final or state.outcome is not None:
            return state, None
        if turn.is_speech:
            state = replace(state, pending=transcribed(state.pending, turn.transcript))
        if not isinstance(self.after, str):
            arming = seen(self.after, scene, turn)
            # The first time counts, also where its transcript comes last.
            if arming is not None and (state.armed_ms is None or arming.end_ms < state.armed_ms):
                state = self._armed(state, arming.end_ms, _begin(arming))
        elif self.after == "first_speech" and turn.is_speech and may_say(self.of, scene.rule, turn.role):
            state = self._first_words(state, scene, turn.transcript)
        said = seen(self.of, scene, turn)
        if said is not None:
            state = replace(state, said=(*state.said[:1], *state.said[1:][-_MOST:], said))
        turning = seen(self.before, scene, turn) if self.before is not None else None
        if (
            turning is not None
            and state.armed_ms is not None
            and turning.start_ms >= state.since_ms
            and (state.turning is None or order(turning) < order(state.turning))
        ):
            state = replace(state, turning=turning, deadline_ms=turning.start_ms)
        return self._settled(state, scene)

    def _first_words(self, state: AbsentState, scene: Scene, heard: Transcript) -> AbsentState:
        """The first speech is that with words in it: a cough arms nothing."""
        if heard.text:
            return self._armed(state, heard.start_ms, 0) if state.armed_ms is None else state
        if state.armed_ms is None or not heard.start_ms <= state.armed_ms <= heard.end_ms:
            return state
        rest = [s.start_ms for s in state.pending if may_say(self.of, scene.rule, s.channel)]
        if rest:
            return self._armed(state, min(rest), 0)
        return replace(state, armed_ms=None, deadline_ms=None, passed=False)

    def step(self, state: AbsentState) -> Step | None:
        done = max((m.end_ms for m in state.said), default=None)
        due = state.deadline_ms if self.by_ms is not None else None
        if state.outcome is not None:
            done = done if state.outcome == "done" else None
            return Step(id="", name={}, state=state.outcome, due_ms=due, done_ms=done)
        if self.before is not None and done is not None and state.turning is None:
            return Step(id="", name={}, state="done", done_ms=done)
        return Step(id="", name={}, state="waiting" if due is None else "due", due_ms=due)

    def _armed(self, state: AbsentState, at_ms: int, since_ms: int) -> AbsentState:
        deadline = at_ms + self.by_ms if self.by_ms is not None else state.deadline_ms
        return replace(state, armed_ms=at_ms, since_ms=since_ms, deadline_ms=deadline)

    def _settled(self, state: AbsentState, scene: Scene) -> tuple[AbsentState, Moment | None]:
        """What is certain by now."""
        armed, deadline = state.armed_ms, state.deadline_ms
        if armed is None or deadline is None or state.outcome is not None:
            return state, None
        if any(self._counts(state, deadline, moment) for moment in state.said):
            return replace(state, outcome="done", pending=()), None
        # A transcript tells a time, too: it comes later than its end.
        now = scene.now_ms
        over = now >= deadline + START_LATE_MS if state.ended_ms is None else deadline <= state.ended_ms
        late = state.passed or over
        if late and not state.passed:
            state = replace(state, passed=True)
        if not late or (
            now < deadline + WAIT_MS
            and owes(state.pending, deadline, lambda channel: may_say(self.of, scene.rule, channel))
        ):
            return state, None
        return replace(state, outcome="missed", pending=()), self._told(armed, deadline, state, scene)

    def _counts(self, state: AbsentState, deadline_ms: int, said: Moment) -> bool:
        if said.start_ms < state.since_ms:
            return False
        if state.turning is not None:
            return order(said) <= order(state.turning)
        return _begin(said) <= deadline_ms

    def _told(self, armed_ms: int, deadline_ms: int, state: AbsentState, scene: Scene) -> Moment:
        if state.turning is not None:
            return replace(state.turning, expected=self.expected)
        return Moment(
            start_ms=armed_ms,
            end_ms=deadline_ms,
            role=speaker(self.of, scene.rule),
            text=f"{(deadline_ms - armed_ms) / 1000:g} s",
            how="timer",
            expected=self.expected,
            anchor_ms=armed_ms,
        )


def _begin(moment: Moment) -> int:
    """Begin of the utterance in which it was said."""
    return moment.start_ms if moment.anchor_ms is None else min(moment.start_ms, moment.anchor_ms)


def build(form: Form, book: Book, inner: Inner) -> Condition | None:
    fields = form.fields("absent", ("of", "by", "after", "before"), ("of",))
    if fields is None or "of" not in fields:
        return None
    given = [name for name in ("by", "before") if name in fields]
    if len(given) != 1:
        form.problem(f"expected one of by, before in absent, came {' and '.join(given) or 'none'}")
        return None
    of = inner(fields["of"])
    by = fields["by"].number("by (seconds)", 1, 7200) if "by" in fields else None
    before = inner(fields["before"]) if "before" in fields else None
    after: After | Condition | None = "call_start"
    if "after" in fields:
        if fields["after"].is_mapping:
            condition = inner(fields["after"])
            after = None if condition is None else own(condition)
        else:
            choice = fields["after"].choice("after", ("call_start", "first_speech"))
            after = "first_speech" if choice == "first_speech" else "call_start"
    if of is None or after is None or (by is None and before is None):
        return None
    settled = after
    return book.watch(
        lambda number: Absent(
            number=number,
            of=own(of),
            after=settled,
            by_ms=None if by is None else round(by * 1000),
            before=None if before is None else own(before),
            expected=phrases(of)[:_SHOWN],
        )
    )
