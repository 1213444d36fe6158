"""What the service gives up first when there is more speech than machine. Pure: time is an argument.

Five named steps, taken in order, each on top of the one before:

    0 all             everything
    1 fewer_partials  partials at half the rate
    2 no_partials     finals only
    3 no_retries      the short window's reading stands
    4 refuse_calls    new calls get a clear error; those in progress stay whole

The measure is the wait of finals in front of the model, as a moving average. A step up needs the average
above its threshold and ``DWELL_S`` since the last change, so that each step gets the chance to help; a step
down needs it below half of the threshold that led there for ``RECOVERY_S``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Step = Literal["all", "fewer_partials", "no_partials", "no_retries", "refuse_calls"]
STEPS: tuple[Step, ...] = ("all", "fewer_partials", "no_partials", "no_retries", "refuse_calls")


@dataclass
class Degradation:
    """Feed it the wait of each final that starts, and the age of the oldest one that waits."""

    thresholds_s: tuple[float, float, float, float] = (0.4, 0.7, 1.2, 2.5)
    smoothing: float = 0.25
    DWELL_S: float = 1.0
    RECOVERY_S: float = 4.0
    step: int = 0
    wait_s: float = 0.0
    _changed_s: float | None = None
    _calm_since_s: float | None = None

    @property
    def name(self) -> Step:
        return STEPS[self.step]

    def observe(self, wait_s: float, now_s: float) -> bool:
        """Take one measurement; return whether the step has changed."""
        self.wait_s += self.smoothing * (wait_s - self.wait_s)
        settled = self._changed_s is None or now_s - self._changed_s >= self.DWELL_S
        if self.step < len(self.thresholds_s) and self.wait_s > self.thresholds_s[self.step]:
            self._calm_since_s = None
            return settled and self._change(self.step + 1, now_s)
        if self.step == 0 or self.wait_s > self.thresholds_s[self.step - 1] / 2:
            self._calm_since_s = None
            return False
        if self._calm_since_s is None:
            self._calm_since_s = now_s
        if now_s - self._calm_since_s >= self.RECOVERY_S:
            self._calm_since_s = now_s
            return self._change(self.step - 1, now_s)
        return False

    def _change(self, step: int, now_s: float) -> bool:
        self.step, self._changed_s = step, now_s
        return True
