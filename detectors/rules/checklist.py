"""What the rules of a pack still wait to hear, for the agent's checklist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from detectors.rules.model import Rule, Watch
from streams.events import CallInfo, Progress, Step

SCRIPT: Final = "rules"
NAME: Final = {"zh": "不可遗漏", "en": "Not to be left unsaid"}


class Checklist:
    """The steps of all watches that have something to say on it, in the order of the pack."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._lines = [
            (rule, [watch for watch in rule.watches if type(watch).step is not Watch.step])
            for rule in rules
            if rule.mode == "live"
        ]
        self._lines = [(rule, watches) for rule, watches in self._lines if watches]

    def steps(self, states: Mapping[int, Any], call: CallInfo, now_ms: int) -> tuple[Step, ...]:
        """``states``: of every watch, by its number."""
        steps: list[Step] = []
        for rule, watches in self._lines:
            if not rule.in_force(call, now_ms):
                continue
            for nth, watch in enumerate(watches, 1):
                step = watch.step(states[watch.number])
                if step is not None:
                    line = rule.id if nth == 1 else f"{rule.id}.{nth}"
                    hint = dict(rule.hint) if rule.hint else None
                    steps.append(replace(step, id=line, name=dict(rule.name), hint=hint))
        return tuple(steps)

    @staticmethod
    def progress(call: CallInfo, now_ms: int, steps: tuple[Step, ...]) -> Progress:
        return Progress(call_id=call.call_id, script=SCRIPT, name=NAME, media_ms=now_ms, steps=steps)
