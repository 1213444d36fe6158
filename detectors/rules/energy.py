"""``energy``: somebody becomes so much louder than they were in their own first seconds of this call.

Nothing is judged before those are known, and no utterance too short to have a loudness of its own. Told
once until the voice has come down. On a mixed channel nobody knows whose voice it is.
"""

from __future__ import annotations

from typing import Final, cast

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Moment, Scene, Watch
from streams.events import CallEvent, Channel, Emotion, Voice

NAMES: Final = ("energy",)
_SIDES: Final = ("agent", "customer")
_KNOWN_MS: Final = 5_000
"""Speech after which the speaker's own loudness is known."""
_FIRST_MS: Final = 20_000
"""Speech that makes it up."""
_LEAST_MS: Final = 500


class EnergyState(Struct, frozen=True, array_like=True):
    spoken_ms: int = 0
    level_db: float = 0.0
    """Mean loudness of those first seconds, by time."""
    told: bool = False


class Energy(Watch, frozen=True, kw_only=True):
    of: Channel
    jump_db: float

    state_type = EnergyState

    def fresh(self) -> EnergyState:
        return EnergyState()

    def on_event(
        self, state: EnergyState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[EnergyState, Moment | None]:
        if not isinstance(event, Voice) or event.channel != self.of:
            return state, None
        length = event.end_ms - event.start_ms
        if length < _LEAST_MS:
            return state, None
        jump = event.level_db - state.level_db
        holds = state.spoken_ms >= _KNOWN_MS and jump >= self.jump_db
        moment = Moment(
            start_ms=event.start_ms,
            end_ms=event.end_ms,
            role=event.channel,
            text=f"{jump:+.1f} dB",
            anchor_ms=event.start_ms,
            utterance_id=event.utterance_id,
        )
        told = moment if holds and not state.told else None
        state = replace(state, told=holds)
        if not holds and state.spoken_ms < _FIRST_MS:
            spoken = state.spoken_ms + length
            level = state.level_db + jump * length / spoken
            state = replace(state, spoken_ms=spoken, level_db=level)
        return state, told


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("energy", ("of", "jump"), ("of", "jump"))
    if fields is None or "of" not in fields or "jump" not in fields:
        return None
    of = fields["of"].choice("of", _SIDES)
    jump = fields["jump"].number("jump (dB)", 1, 40)
    if of is None or jump is None:
        return None
    return book.watch(lambda number: Energy(number=number, of=cast(Channel, of), jump_db=jump))
