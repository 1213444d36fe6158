"""Troubles on their way to alerts: in one process, over a gateway, live and replayed."""

import numpy as np
import pytest
from msgspec.structs import replace

from detectors.panel import Panel
from detectors.rules import DEFAULT_PACK, load_pack
from streams import wire
from streams.arrival import MOST_SILENCES
from streams.events import Alert, CallInfo, Hold, Marker, Trouble
from streams.following import Following
from streams.gateway import GatewayRunner, Recognition
from streams.judge import LocalJudge
from streams.local import LocalRunner
from streams.testing import LoudnessVad, ScriptedTranscriber, play, silence, speak
from tests.streams.misread import conversation, right, wrong

BANK = load_pack(DEFAULT_PACK)
SPOKEN = conversation()
LINE = np.random.default_rng(1).normal(0, 20, 56 * 16_000).astype(np.int16)
"""On which nobody speaks."""


class Watched:
    """A runner whose clock is set, in one process or as a gateway with a worker behind it."""

    def __init__(self, kind, script=lambda request: "好的"):
        self.now, self.told = 100.0, []
        given = {
            "audio": None, "most_calls": 5, "judge": LocalJudge(LoudnessVad), "clock": lambda: self.now,
            "prompt": lambda call: "",
        }  # fmt: skip
        if kind == "local":

            async def emit(events):
                self.told += events

            self.runner = LocalRunner(
                transcriber=ScriptedTranscriber(script),
                detector=self.panel,
                redact=str,
                emit=emit,
                **given,
            )
            return
        self.following = Following(detector=self.panel, redact=str, wall=lambda: self.now, restore={}.get)

        async def send(messages):
            for message in messages:
                if isinstance(message.value, wire.Signal):
                    self.following.signal(message.value)
            self.told += [m.value for m in self.following.take()]

        self.runner = GatewayRunner(
            name="g",
            send=send,
            recognition=lambda: Recognition(room=10, workers=1, followers=1),
            wall=lambda: self.now,
            **given,
        )

    @staticmethod
    def panel(info):
        return Panel(info, BANK)

    async def begin(self, paced=True, source=None):
        await self.runner.start()
        self.runner.open(CallInfo(call_id="c"), paced=paced, source=source)

    def bring(self, start_ms=0, **sides):
        """Samples of each channel, at the pace of speech."""
        frames = [list(play("c", side, samples, start_ms)) for side, samples in sides.items()]
        for number in range(max(map(len, frames))):
            self.now += 0.02
            for side in frames:
                for frame in side[number : number + 1]:
                    self.runner.hear(frame)

    def wait(self, seconds):
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.runner.serve_timers()

    async def end(self):
        await self.runner.close("c", "hangup")
        await self.runner.stop()
        if isinstance(self.runner, GatewayRunner):
            # Its words never come: nobody reads here.
            self.now += 2 * Following.DRAIN_S
            self.following.tick()
            self.told += [m.value for m in self.following.take()]

    def alerts(self):
        found = {a.id: a for a in self.told if isinstance(a, Alert) and a.rule_id.startswith("ops.")}
        return [(a.rule_id, a.role, a.media_start_ms, a.evidence.text) for a in found.values()]


@pytest.fixture(params=["local", "gateway"])
def watched(request):
    return Watched(request.param)


async def test_a_call_that_is_up_and_brings_nothing_raises_an_alert_that_says_what_to_check(watched):
    await watched.begin()
    watched.bring(agent=speak(2_000), customer=silence(2_000))
    watched.wait(60)
    await watched.end()
    assert watched.alerts() == [("ops.ingest_silent", "unknown", 2_000, "8 s")]
    [alert] = [a for a in watched.told if isinstance(a, Alert) and a.rule_id == "ops.ingest_silent"]
    assert alert.advice == BANK.card("ops.ingest_silent").advice
    assert [m.alert_id for m in watched.told if isinstance(m, Marker) and m.rule_id == alert.rule_id] == [
        alert.id
    ]
    assert not [event for event in watched.told if isinstance(event, Trouble)], "it is for detectors only"


async def test_so_does_one_that_never_brought_anything(watched):
    await watched.begin()
    watched.wait(7)
    assert watched.alerts() == []
    watched.wait(5)
    await watched.end()
    assert [(rule, start) for rule, _, start, _ in watched.alerts()] == [("ops.ingest_silent", 0)]


async def test_on_hold_a_telephone_may_send_nothing(watched):
    await watched.begin()
    watched.bring(agent=speak(2_000), customer=silence(2_000))
    watched.runner.signal(Hold(call_id="c", media_ms=2_000, held=True, source="telephony"))
    watched.wait(120)
    watched.runner.signal(Hold(call_id="c", media_ms=122_000, held=False, source="telephony"))
    watched.bring(122_000, agent=speak(1_000), customer=silence(1_000))
    await watched.end()
    assert watched.alerts() == []


class Cut:
    """A telephone that was cut off, and may come back."""

    rate, arrived_s, is_connected = 8_000, 0.0, False

    def take(self):
        return ()


async def test_whose_telephone_was_cut_off_is_not_up(watched):
    await watched.begin(source=Cut())
    watched.wait(25)
    await watched.end()
    assert watched.alerts() == []


async def test_a_replay_has_no_clock(watched):
    await watched.begin(paced=False)
    watched.wait(60)
    await watched.end()
    assert watched.alerts() == []


async def test_a_line_that_comes_and_goes_floods_nobody():
    watched = Watched("local")
    seen = []
    watched.panel = None
    watched.runner._detector = lambda info: Seen(seen)
    await watched.begin()
    for number in range(20):
        watched.bring(number * 10_000, agent=silence(40), customer=silence(40))
        watched.wait(9)
    await watched.end()
    told = [event.present for event in seen if isinstance(event, Trouble)]
    assert told == [True, False] * MOST_SILENCES


class Seen:
    def __init__(self, events):
        self.on_event = lambda event: events.append(event) or []

    def wake_at(self):
        return None

    def suspects(self, utterance_id):
        return False


def sounds():
    """A call in which the customer is decoded wrongly; then nobody hears the agent."""
    agent = np.concatenate([right(SPOKEN)["A-law"], silence(70_000)])
    customer = np.concatenate([wrong(SPOKEN)["A-law as mu-law"][1], right(SPOKEN)["A-law"], speak(40_000)])
    return {"agent": agent, "customer": customer}


async def played(kind, paced):
    watched = Watched(kind)
    await watched.begin(paced=paced)
    watched.bring(**sounds())
    await watched.end()
    # Nobody waited for the words.
    return sorted(alert for alert in watched.alerts() if alert[0] != "ops.no_transcript")


async def test_one_process_and_a_cluster_a_live_call_and_its_replay_raise_the_same():
    live = await played("local", paced=True)
    assert [(rule, role) for rule, role, _, _ in live] == [
        ("ops.channel_dead", "agent"),
        ("ops.noise", "customer"),
    ]
    assert await played("gateway", paced=True) == live
    assert await played("local", paced=False) == live
    assert await played("gateway", paced=False) == live


async def test_a_trouble_that_another_gateway_notices_anew_is_not_told_twice():
    watched = Watched("gateway")
    trouble = Trouble(
        call_id="c", channel="agent", kind="noise", present=True, media_ms=9_000, since_ms=2_000, measured="x"
    )
    await watched.begin()
    watched.bring(agent=silence(9_000), customer=silence(9_000))
    watched.runner._trouble(watched.runner._calls["c"], trouble)
    other = replace(trouble, media_ms=20_000, since_ms=12_000)
    watched.runner._trouble(watched.runner._calls["c"], other)
    await watched.end()
    assert len(watched.alerts()) == 1


async def test_a_recogniser_that_answers_nothing_at_all_is_noticed():
    watched = Watched("local", script=lambda request: "")
    await watched.begin(paced=False)
    pieces = [part for _ in range(20) for part in (speak(2_000), silence(800))]
    watched.bring(agent=np.concatenate(pieces), customer=LINE)
    await watched.end()
    assert [rule for rule, *_ in watched.alerts()] == ["ops.no_transcript"]


async def test_one_that_answers_now_and_then_is_not_called_dumb():
    count = iter(range(1_000))
    watched = Watched("local", script=lambda request: "好的" if next(count) % 5 == 4 else "")
    await watched.begin(paced=False)
    pieces = [part for _ in range(20) for part in (speak(2_000), silence(800))]
    watched.bring(agent=np.concatenate(pieces), customer=LINE)
    await watched.end()
    assert watched.alerts() == []
