"""AudioHook's server side: what is answered, what it says of the call, and where its audio stands."""

from __future__ import annotations

import contextlib
import json
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import IngestError
from app.ingest.audiohook import LONGEST_S, MOST_BYTES, NOBODY, AudioHookStream, milliseconds
from app.ingest.peer import Changed, Closed, Opened, Probe, Reply, Told
from streams.audio import encode_mulaw
from streams.events import AudioFrame, Gap, Hint

BOTH = {"type": "audio", "format": "PCMU", "channels": ["external", "internal"], "rate": 8000}
L16 = {**BOTH, "format": "L16"}
ONE = {**BOTH, "channels": ["external"]}


class Client:
    """Numbers its messages as it should."""

    def __init__(self, session_id=None):
        self.stream = AudioHookStream(session_id)
        self.seq = self.serverseq = 0

    def message(self, kind, parameters=None, **changes):
        self.seq += 1
        body = {
            "version": "2",
            "id": "s1",
            "type": kind,
            "seq": self.seq,
            "serverseq": self.serverseq,
            "position": "PT0S",
            "parameters": parameters or {},
        }
        return json.dumps({**body, **changes})

    def say(self, kind, parameters=None, **changes):
        said = self.stream.text(self.message(kind, parameters, **changes))
        for one in said:
            if isinstance(one, Reply):
                self.serverseq = json.loads(one.data)["seq"]
        return said

    def open(self, **changes):
        body = {
            "organizationId": "o1",
            "conversationId": "c1",
            "participant": {"id": "p1", "ani": "+8613812345678", "dnis": "+95588"},
            "media": [ONE, L16, BOTH],
            "language": "zh-CN",
            "customConfig": {"agent": "8001", "queue": "理财", "product": "安享"},
        }
        return self.say("open", {**body, **changes})


def replied(said):
    return [json.loads(one.data) for one in said if isinstance(one, Reply)]


def test_open_is_answered_first_with_one_of_the_media_and_then_opens_the_call():
    reply, opened = Client().open()
    [answer] = replied([reply])
    assert (answer["type"], answer["seq"], answer["clientseq"], answer["id"]) == ("opened", 1, 1, "s1")
    assert answer["parameters"]["media"] == [BOTH]
    assert isinstance(opened, Opened)
    assert opened.channels == ("customer", "agent")
    call = opened.call
    assert (call.call_id, call.agent, call.queue, call.customer) == ("c1", "8001", "理财", "****5678")
    assert call.attributes["product"] == "安享"


def test_a_ping_is_answered_and_close_ends_the_call():
    client = Client()
    client.open()
    [pong] = replied(client.say("ping"))
    assert (pong["type"], pong["seq"], pong["clientseq"]) == ("pong", 2, 2)
    closed, end = client.say("close", {"reason": "end"})
    assert replied([closed])[0]["type"] == "closed"
    assert end == Closed()
    assert client.stream.text("whatever comes then") == ()


def test_a_probe_is_answered_and_opens_no_call():
    client = Client()
    reply, probe = client.open(conversationId=NOBODY)
    assert replied([reply])[0]["parameters"]["media"] == []
    assert probe == Probe()
    assert isinstance(client.say("close")[-1], Closed)


def test_both_channels_are_taken_apart_external_is_the_customer():
    client = Client()
    client.open()
    left, right = np.full(800, 1_000, np.int16), np.full(800, -9_000, np.int16)
    client.stream.binary(encode_mulaw(np.stack([left, right], axis=1).reshape(-1)))
    assert client.stream.ready_ms == 100
    frames = client.stream.take() + client.stream.finish()
    heard = {
        channel: np.concatenate([np.frombuffer(f.pcm, "<i2") for f in frames if f.channel == channel])
        for channel in ("customer", "agent")
    }
    assert abs(int(np.median(heard["customer"])) - 1_000) < 100
    assert abs(int(np.median(heard["agent"])) + 9_000) < 400
    assert all(len(samples) == 1_600 for samples in heard.values())


def test_what_was_discarded_is_a_gap():
    client = Client()
    client.open()
    client.stream.binary(b"\xff" * 1_600)
    client.say("discarded", {"start": "PT0.1S", "discarded": "PT2.5S"})
    client.stream.binary(b"\xff" * 1_600)
    items = client.stream.take() + client.stream.finish()
    gaps = [(item.channel, item.media_ms, item.duration_ms) for item in items if isinstance(item, Gap)]
    assert gaps == [("customer", 100, 2_500), ("agent", 100, 2_500)]
    assert max(item.media_ms + item.duration_ms for item in items) == 2_700


def test_a_pause_is_a_hold_and_an_update_changes_the_metadata():
    client = Client()
    client.open()
    assert client.say("paused") == (Told("held"),)
    assert client.say("resumed") == (Told("resumed"),)
    assert client.say("update", {"language": "en-US", "customConfig": '{"agent": "8002"}'}) == (
        Changed({"language": "en-US", "agent": "8002"}),
    )
    assert client.say("something new") == ()


def test_a_hint_goes_back_as_an_entity_of_the_agent_assist():
    client = Client()
    hint = Hint(id="h1", call_id="c1", rule_id="script.greeting", text={"zh": "请<先>问候"}, media_ms=1_500)
    assert client.stream.hint(hint) is None  # nobody is there to be told
    client.open()
    event = json.loads(client.stream.hint(hint))
    [entity] = event["parameters"]["entities"]
    assert (event["type"], event["seq"], entity["type"]) == ("event", 2, "agentassist")
    [suggestion] = entity["data"]["suggestions"]
    assert (suggestion["type"], suggestion["answer"]) == ("faq", "请&lt;先&gt;问候")
    assert suggestion["confidence"] == 1.0
    assert str(UUID(suggestion["id"])) == suggestion["id"]


@pytest.mark.parametrize(
    ("code", "reason"), [(1008, "error"), (4401, "unauthorized"), (1000, "completed"), (1013, "error")]
)
def test_a_refusal_is_a_disconnect_that_says_why(code, reason):
    client = Client()
    client.open()
    told = json.loads(client.stream.refusal("because", code))
    assert (told["type"], told["parameters"]) == ("disconnect", {"reason": reason, "info": "because"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "3"}, "version '2'"),
        ({"seq": 7}, "expected seq 2, got 7"),
        ({"seq": 1}, "expected seq 2, got 1"),
        ({"serverseq": 5}, "serverseq from 0 to 1"),
        ({"serverseq": -1}, "serverseq"),
        ({"id": "another"}, "the id of 'open'"),
        ({"position": "yesterday"}, "a position"),
        ({"position": "PT"}, "a position"),
    ],
)
def test_whoever_loses_count_is_told_what_was_expected(change, said):
    client = Client()
    client.open()
    with pytest.raises(IngestError, match=said):
        client.say("ping", **change)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"media": []}, "PCMU or L16"),
        ({"media": [{**BOTH, "rate": 16000}]}, "8000 Hz"),
        ({"media": [{**BOTH, "channels": ["external", "external"]}]}, "8000 Hz"),
        ({"conversationId": "../x"}, "call id"),
        ({"media": "all"}, "parameters of 'open'"),
        ({"customConfig": {"direction": "up"}}, "direction"),
    ],
)
def test_an_offer_that_cannot_be_taken_says_why(changes, said):
    with pytest.raises(IngestError, match=said):
        Client().open(**changes)


def test_the_session_has_the_id_of_its_header():
    with pytest.raises(IngestError, match="Audiohook-Session-Id"):
        Client("another").open()


def test_other_messages_that_are_wrong():
    client = Client()
    with pytest.raises(IngestError, match="'open' first"):
        Client().say("ping")
    with pytest.raises(IngestError, match="'open' before audio"):
        client.stream.binary(b"\xff" * 160)
    client.open()
    with pytest.raises(IngestError, match="second one"):
        client.open()
    with pytest.raises(IngestError, match="whole samples"):
        client.stream.binary(b"\xff" * 3)
    with pytest.raises(IngestError, match="at once"):
        client.stream.binary(b"\xff" * (8_000 * 2 * LONGEST_S + 2))
    with pytest.raises(IngestError, match="at most") as long:
        client.stream.text("x" * (MOST_BYTES + 1))
    assert long.value.code == 1009
    with pytest.raises(IngestError, match="JSON") as broken:
        client.stream.text("{")
    assert broken.value.code == 1007


@pytest.mark.parametrize(
    ("position", "expected"),
    [("PT0S", 0), ("PT1.2S", 1_200), ("PT2M3.0045S", 123_004), ("PT1H", 3_600_000), ("PT0.05S", 50)],
)
def test_positions_are_durations(position, expected):
    assert milliseconds(position) == expected


@given(st.lists(st.integers(1, 400), max_size=20), st.lists(st.booleans(), max_size=20))
def test_however_the_audio_is_cut_the_samples_are_the_same(cuts, takes):
    whole = encode_mulaw((np.arange(2 * sum(cuts)) * 37 % 20_000 - 10_000).astype(np.int16))
    client, at, items = Client(), 0, []
    client.open()
    for number, cut in enumerate(cuts):
        client.stream.binary(whole[at : at + 2 * cut])
        at += 2 * cut
        if number < len(takes) and takes[number]:
            items += client.stream.take()
    items += client.stream.finish()
    other = Client()
    other.open()
    if whole:
        other.stream.binary(whole)
    at_once = other.stream.finish()
    for channel in ("customer", "agent"):
        one = b"".join(i.pcm for i in items if i.channel == channel)
        assert one == b"".join(i.pcm for i in at_once if i.channel == channel)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
steps = st.one_of(
    st.tuples(
        st.sampled_from(["open", "ping", "close", "paused", "resumed", "discarded", "update", "error", "x"]),
        st.one_of(
            values,
            st.fixed_dictionaries({"start": st.just("PT1S"), "discarded": st.sampled_from(["PT1S", "PT9M"])}),
            st.fixed_dictionaries({"media": values, "organizationId": values, "conversationId": values}),
        ),
    ),
    st.binary(max_size=400),
    values,
)


@given(st.lists(steps, max_size=20), st.booleans())
def test_whatever_comes_nothing_but_the_protocols_own_error_is_raised(sequence, begin):
    client = Client()
    if begin:
        client.open()
    with contextlib.suppress(IngestError):
        for step in sequence:
            if isinstance(step, bytes):
                client.stream.binary(step)
            elif isinstance(step, tuple):
                client.say(step[0], step[1])
            else:
                client.stream.text(json.dumps(step))
            for item in client.stream.take():
                assert isinstance(item, AudioFrame | Gap)
    client.stream.finish()


def test_more_than_ten_minutes_discarded_is_refused_also_where_several_messages_say_so():
    client = Client()
    client.open()
    client.stream.binary(b"\xff" * 320)
    client.say("discarded", {"start": "PT0S", "discarded": "PT9M"})
    with pytest.raises(IngestError, match="at most 599 s discarded at once"):
        client.say("discarded", {"start": "PT9M", "discarded": "PT9M"})
    client.stream.binary(b"\xff" * 320)
    client.say("discarded", {"start": "PT9M", "discarded": "PT9M"})
    client.stream.binary(b"\xff" * 320)
    assert sum(item.duration_ms for item in client.stream.finish() if isinstance(item, Gap)) == 4 * 540_000


def test_the_longest_discard_is_a_gap_also_where_shorter_ones_were_none():
    client = Client()
    client.open()
    for _ in range(3):
        for length in ("PT0.06S", "PT599S"):
            client.stream.binary(b"\xff" * 322)
            client.say("discarded", {"start": "PT0S", "discarded": length})
    client.stream.binary(b"\xff" * 322)
    gaps = [item.duration_ms for item in client.stream.finish() if isinstance(item, Gap)]
    assert gaps == [pytest.approx(599_060, abs=2)] * 6


@given(st.binary(max_size=200))
def test_bytes_at_random_raise_nothing_else(noise):
    client = Client()
    with contextlib.suppress(IngestError):
        client.stream.text(noise)
