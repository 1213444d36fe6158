"""What one peer says, brought to its call, and what becomes of a peer that does not play by the rules."""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio

from app.errors import IngestError
from app.ingest.assembly import Assembly
from app.ingest.connection import Connection, PeerGone
from app.ingest.peer import Changed, Closed, Opened, Parser, Probe, Reply, Told, call_info
from streams.events import AudioFrame, Hint, Hold
from streams.runner import CallRefused
from tests.app.ingest.runner import Runner

HINT = Hint(id="h", call_id="c", rule_id="r", text={"zh": "请核实身份", "en": "Check"}, media_ms=1)


class Talking(Parser):
    """Says what its messages name; a binary message is audio."""

    name = "talking"

    def __init__(self):
        self.audio, self.at = [], 0

    def text(self, data):
        said = {
            "open": Opened(call_info("c", self.name, {}), ("agent", "customer"), 8_000, "token"),
            "wrong": Opened(call_info("c", self.name, {}), ("agent", "customer"), 8_000, "nonsense"),
            "probe": Probe("nonsense"),
            "hangup": Closed(by="customer"),
            "hold": Told("held"),
            "agent": Changed({"agent": "8002"}),
        }
        if data == "nonsense":
            raise IngestError("expected sense")
        return [said.get(data, Reply(data))]

    def binary(self, data):
        self.audio.append(AudioFrame(call_id="c", channel="agent", media_ms=self.at, pcm=data))
        self.at += len(data) // 32
        return ()

    @property
    def ready_ms(self):
        return sum(frame.duration_ms for frame in self.audio)

    def take(self):
        out, self.audio = self.audio, []
        return out

    finish = take

    def hint(self, hint):
        return f"say {hint.text['en']}"

    def refusal(self, message, code):
        return json.dumps([code, message])


class Edge:
    """A socket; one that is stuck takes nothing, and one that is gone less."""

    def __init__(self):
        self.sent, self.ended, self.stuck, self.is_gone = [], None, False, False

    async def send(self, data):
        if self.is_gone:
            raise PeerGone("the peer has closed the connection")
        if self.stuck:
            await asyncio.Event().wait()
        self.sent.append(data)

    async def refuse(self, message, code):
        self.ended = code

    async def close(self):
        self.ended = 1000


class Hints:
    def __init__(self):
        self.takers = {}

    def listen(self, call_id, take):
        self.takers[call_id] = take

    def forget(self, call_id, take):
        assert self.takers.pop(call_id) == take


class Line:
    def __init__(self, presented=None):
        self.runner, self.edge, self.hints = Runner(), Edge(), Hints()
        self.assembly = Assembly(self.runner, clock=self.runner.clock)
        self.connection = Connection(
            Talking(), self.assembly, self.edge, token="token", presented=presented, hints=self.hints
        )

    async def says(self, *messages):
        """Say them, hang up without a word, and wait for the end."""
        running = asyncio.create_task(self.connection.run())
        for message in messages:
            await asyncio.sleep(0)
            self.connection.text(message)
        for _ in range(5):
            await asyncio.sleep(0)
        self.connection.gone()
        await running


@pytest_asyncio.fixture
async def line():
    return Line()


async def test_answers_are_given_in_order_and_before_what_comes_behind_them(line):
    await line.says("one", "open", "two", "hold", "agent")
    assert line.edge.sent == ["one", "two"]
    assert [call.call_id for call in line.runner.opened] == ["c"]
    assert isinstance(line.runner.signalled[0], Hold)
    assert line.runner.updated[0].agent == "8002"
    assert line.runner.closed == []  # it may come back


async def test_a_peer_that_hangs_up_ends_its_call_and_what_was_sent_is_heard(line):
    running = asyncio.create_task(line.connection.run())
    line.connection.text("open")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    line.connection.binary(b"\x00" * 640)
    line.connection.text("hangup")
    line.connection.gone()
    await running
    assert line.runner.closed == [("c", "hangup", "customer")]
    assert sum(frame.duration_ms for frame in line.runner.heard) == 20
    assert line.edge.ended == 1000
    assert line.hints.takers == {}


@pytest.mark.parametrize(
    ("message", "code"),
    [("wrong", 4401), ("probe", 4401), ("nonsense", 1008)],
    ids=["token", "probe", "rule"],
)
async def test_what_is_wrong_is_told_with_its_code_and_the_connection_closed(line, message, code):
    await line.says(message)
    assert json.loads(line.edge.sent[-1])[0] == code
    assert line.edge.ended == code
    assert line.runner.opened == []


async def test_a_peer_that_says_goodbye_and_does_not_wait_for_the_answer_has_hung_up(line):
    running = asyncio.create_task(line.connection.run())
    line.connection.text("open")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    line.edge.is_gone = True
    line.connection.text("an answer")
    line.connection.text("hangup")
    line.connection.gone()
    await running
    assert line.runner.closed == [("c", "hangup", "customer")]


async def test_a_token_of_the_handshake_counts_before_that_of_a_message():
    line = Line(presented="wrong")
    await line.says("open")
    assert line.edge.ended == 4401


async def test_a_call_for_which_there_is_no_room_is_told_to_try_again(line):
    line.runner.refuse = CallRefused("no room for another call", retryable=True)
    await line.says("open")
    assert json.loads(line.edge.sent[-1]) == [1013, "no room for another call"]


async def test_a_second_call_on_the_same_connection_is_refused_and_the_first_may_come_back(line):
    await line.says("open", "open")
    assert line.edge.ended == 1008
    assert "c" in line.assembly


async def test_a_peer_that_does_not_begin_is_cut_off(line, monkeypatch):
    monkeypatch.setattr(Connection, "START_TIMEOUT_S", 0.0)
    await line.connection.run()
    assert line.edge.ended == 1001


async def test_a_peer_that_may_be_quiet_is_not_cut_off(line, monkeypatch):
    monkeypatch.setattr(Connection, "START_TIMEOUT_S", 0.0)
    monkeypatch.setattr(Connection, "IDLE_TIMEOUT_S", 0.0)
    monkeypatch.setattr(Talking, "quiet_s", 3_600.0)
    line.connection.text("open")
    running = asyncio.create_task(line.connection.run())
    await asyncio.wait([running], timeout=0.05)
    assert not running.done()
    line.connection.gone()
    await running


async def test_how_a_peer_closes_may_say_that_its_call_is_over(line, monkeypatch):
    monkeypatch.setattr(Talking, "gone", lambda _, code: Closed("hangup" if code == 1000 else "disconnected"))
    running = asyncio.create_task(line.connection.run())
    line.connection.text("open")
    await asyncio.sleep(0)
    line.connection.gone(1000)
    await running
    assert line.runner.closed == [("c", "hangup", None)]


async def test_a_few_long_messages_are_heard_at_once_as_well(line):
    running = asyncio.create_task(line.connection.run())
    line.connection.text("open")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _ in range(10):
        line.connection.binary(b"\x00" * 64_000)  # two seconds each
    assert line.connection._parser.ready_ms <= 2_000
    line.connection.gone()
    await running


async def test_a_peer_that_falls_silent_is_cut_off_and_its_call_waits_for_it(line, monkeypatch):
    monkeypatch.setattr(Connection, "START_TIMEOUT_S", 0.01)
    monkeypatch.setattr(Connection, "IDLE_TIMEOUT_S", 0.01)
    line.connection.text("open")
    await line.connection.run()
    assert line.edge.ended == 1001
    assert "c" in line.assembly


async def test_a_peer_that_reads_no_answers_is_cut_off(line, monkeypatch):
    monkeypatch.setattr(Connection, "SEND_TIMEOUT_S", 0.01)
    line.edge.stuck = True
    running = asyncio.create_task(line.connection.run())
    line.connection.text("open")
    line.connection.text("answer me")
    await running
    assert "c" in line.assembly


async def test_a_peer_that_says_more_than_can_be_answered_is_cut_off(line):
    line.edge.stuck = True
    running = asyncio.create_task(line.connection.run())
    await asyncio.sleep(0)
    for number in range(Connection.MOST_SAID + 10):
        line.connection.text(str(number))
    line.edge.stuck = False
    await running
    assert line.edge.ended == 1008


async def test_a_peer_that_sends_faster_than_speech_is_heard_at_once(line):
    running = asyncio.create_task(line.connection.run())
    line.connection.text("open")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _ in range(500):
        line.connection.binary(b"\x00" * 3_200)
    # Ten times what may wait: the rest was heard while it came.
    assert line.connection._parser.ready_ms < 5_000
    line.connection.gone()
    await running
    assert sum(frame.duration_ms for frame in line.runner.heard) == 50_000


async def test_hints_go_back_to_the_peer_and_are_dropped_when_it_does_not_read(line):
    running = asyncio.create_task(line.connection.run())
    line.connection.text("open")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    line.hints.takers["c"](HINT)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert line.edge.sent == ["say Check"]
    for _ in range(1_000):
        line.hints.takers["c"](HINT)
    line.connection.gone()
    await running
    assert len(line.edge.sent) <= Connection.MOST_SAID


async def test_a_connection_whose_place_was_taken_closes_and_leaves_the_call_alone(line):
    running = asyncio.create_task(line.connection.run())
    line.connection.text("open")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    line.runner.now += 3.0
    second = Connection(Talking(), line.assembly, Edge(), token="token", presented=None)
    other = asyncio.create_task(second.run())
    await asyncio.sleep(0)
    second.text("open")
    await running
    assert line.edge.ended == 4409
    assert line.hints.takers == {}
    second.text("hangup")
    await other
    assert line.runner.closed == [("c", "hangup", "customer")]
