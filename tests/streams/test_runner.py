"""The hearing of all calls: what one of them does must not reach the others."""

from __future__ import annotations

from streams.events import CallInfo, Transcript
from streams.testing import play, silence, tone
from tests.streams.test_local import Outlet, runner


class Line:
    """A source that gives its frames one a round, or breaks."""

    rate, arrived_s, is_connected = 16_000, 0.0, True

    def __init__(self, frames=(), broken=False):
        self._frames, self._broken = list(frames), broken

    def take(self):
        if self._broken:
            raise RuntimeError("this source is broken")
        return [self._frames.pop(0)] if self._frames else []


async def test_a_source_that_breaks_costs_no_other_call_its_sound():
    outlet = Outlet()
    run = runner(outlet)
    await run.start()
    frames = [*play("well", "agent", tone(1_500)), *play("well", "agent", silence(900), start_ms=1_500)]
    run.open(CallInfo(call_id="broken"), paced=True, source=Line(broken=True))
    run.open(CallInfo(call_id="well"), paced=True, source=Line(frames))
    for _ in frames:
        run.listen()
    await run.close("well", "hangup")
    await run.stop()
    assert [event.call_id for event in outlet.of(Transcript) if event.final] == ["well"]
