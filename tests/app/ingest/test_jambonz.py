"""jambonz listen and mod_audio_fork: metadata and interleaved samples in; a call out."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import IngestError
from app.ingest.jambonz import LONGEST_S, MOST_BYTES, AudioFork, JambonzListen
from app.ingest.peer import Changed, Closed, Opened, Told
from streams.events import AudioFrame, Gap


def metadata(**changes):
    """As jambonz-feature-server puts it together, less what ``None`` takes away."""
    told = {
        "sampleRate": 8_000,
        "mixType": "stereo",
        "callSid": "9fb35c28",
        "direction": "inbound",
        "from": "13912345678",
        "to": "95588",
        "callId": "d8907723@10.0.0.7",
        "sipStatus": 200,
        "callStatus": "in-progress",
        "accountSid": "300be250",
        "applicationSid": "b5e39996",
        "traceId": "0d41",
        "fsSipAddress": "10.0.150.88:5070",
        **changes,
    }
    return json.dumps({name: value for name, value in told.items() if value is not None})


def stereo(left, right, count=160):
    return np.array([[left, right]] * count, "<i2").tobytes()


def received(parser, *messages):
    """What is said, and what is heard, of these messages."""
    said = []
    for message in messages:
        said += parser.text(message) if isinstance(message, str) else parser.binary(message)
    return said, parser.finish()


def listen(*messages, **given):
    return received(JambonzListen(given), *messages)


def fork(*messages, **given):
    return received(AudioFork({"call_id": "c", **given}), *messages)


def levels(heard):
    """The middle sample of each channel."""
    out = {}
    for item in heard:
        out.setdefault(item.channel, []).append(np.frombuffer(item.pcm, "<i2"))
    return {channel: int(np.concatenate(pcm)[160]) for channel, pcm in out.items()}


# ── jambonz ───────────────────────────────────────────────────────────────────────────────────────


def test_a_call_opens_with_the_applications_metadata_and_none_of_jambonzs_own():
    [opened], _ = listen(
        metadata(agent="8001", 产品="安享", vip=True, nested={"a": 1}, customerData={"queue": "理财"})
    )
    assert isinstance(opened, Opened)
    assert (opened.call.call_id, opened.call.protocol) == ("9fb35c28", "jambonz")
    assert (opened.call.agent, opened.call.queue, opened.call.direction) == ("8001", "理财", "inbound")
    assert opened.call.attributes == {"产品": "安享", "vip": "true"}
    assert (opened.rate, opened.call.channels) == (8_000, ("agent", "customer"))


@pytest.mark.parametrize(
    ("changes", "customer"),
    [
        ({}, "****5678"),
        ({"direction": "outbound", "to": "13987654321"}, "****4321"),
        ({"direction": "outbound", "parentCallSid": "p", "to": "8001"}, "****5678"),
        ({"customer": "C-77"}, "C-77"),
        ({"from": "anonymous"}, None),
    ],
    ids=["inbound", "outbound", "nested", "told", "anonymous"],
)
def test_the_customers_number_is_masked(changes, customer):
    [opened], _ = listen(metadata(**changes))
    assert opened.call.customer == customer


def test_inside_of_dial_the_direction_is_the_new_legs_and_not_the_calls():
    [opened], _ = listen(metadata(direction="outbound", parentCallSid="p"))
    assert opened.call.direction is None
    [opened], _ = listen(metadata(direction="outbound", parentCallSid="p"), direction="inbound")
    assert opened.call.direction == "inbound"


@pytest.mark.parametrize(
    ("changes", "given", "left"),
    [
        ({}, {}, "customer"),
        ({"direction": "outbound"}, {}, "customer"),
        ({"side": "agent"}, {}, "agent"),
        ({"channels": ["agent", "customer"]}, {}, "agent"),
        ({}, {"channels": "agent,customer"}, "agent"),
        ({"side": "agent"}, {"side": "customer"}, "customer"),
    ],
    ids=["inbound", "outbound", "side", "channels", "address", "address first"],
)
def test_left_is_who_speaks_on_the_forked_leg(changes, given, left):
    said, heard = listen(metadata(**changes), *[stereo(1_000, -2_000)] * 5, **given)
    right = {"agent": "customer", "customer": "agent"}[left]
    assert said[0].channels == (left, right)
    assert levels(heard) == {left: 1_000, right: -2_000}


@pytest.mark.parametrize(
    ("changes", "channels", "all_"),
    [
        ({"mixType": "mono"}, ("customer",), ("agent", "customer")),
        ({"mixType": "mono", "side": "agent"}, ("agent",), ("agent", "customer")),
        ({"mixType": "mono", "channels": ["agent"]}, ("agent",), ("agent", "customer")),
        ({"mixType": "mixed"}, ("unknown",), ("unknown",)),
    ],
)
def test_one_side_alone_leaves_room_for_the_other_and_a_mix_is_nobodys(changes, channels, all_):
    said, heard = listen(metadata(**changes), np.full(800, 500, "<i2").tobytes())
    assert (said[0].channels, said[0].call.channels) == (channels, all_)
    assert levels(heard) == {channels[0]: 500}


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000, 64_000, "16000"])
def test_a_second_is_a_second_at_every_rate_and_in_pieces_of_any_length(rate):
    wire = stereo(1, 2, int(rate))
    step = 4 * 777
    pieces = [wire[at : at + step] for at in range(0, len(wire), step)]
    _, heard = listen(metadata(sampleRate=rate), *pieces)
    for channel in ("agent", "customer"):
        length = sum(len(item.pcm) for item in heard if item.channel == channel) // 2
        assert length == pytest.approx(16_000, abs=2)


def test_audio_waits_until_it_is_taken():
    stream = JambonzListen({})
    stream.text(metadata())
    for _ in range(5):
        stream.binary(stereo(1, 2))
    assert stream.ready_ms == 100
    assert len(stream.take()) == 2
    assert stream.ready_ms == 0


def test_a_key_is_told_as_the_forked_legs_and_never_by_which():
    key = json.dumps({"event": "dtmf", "dtmf": "7", "duration": "2880"})
    assert listen(metadata(), key)[0][1:] == [Told("key", "customer")]


@pytest.mark.parametrize(
    "text", [{"type": "playDone", "data": {}}, {"msg": "buffer overrun"}, {"event": "x"}]
)
def test_what_is_not_for_us_is_passed_over(text):
    assert listen(metadata(), json.dumps(text))[0][1:] == []


def test_the_end_is_a_close_of_1000_or_an_empty_message_that_asks_for_it():
    said, heard = listen(metadata(), stereo(1, 2), b"", stereo(3, 4), "{}")
    assert said[1:] == [Closed()]
    assert sum(item.duration_ms for item in heard) == pytest.approx(40, abs=2)
    assert JambonzListen({}).gone(1000) == Closed("hangup")
    assert [JambonzListen({}).gone(code) for code in (1001, 1006, None)] == [Closed("disconnected")] * 3


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([stereo(1, 2)], "metadata of jambonz's listen first"),
        (["{nope"], "expected a JSON object"),
        (["[]"], "expected a JSON object"),
        ([metadata(callSid=None)], "the call's id"),
        ([metadata(callSid="../x")], "call id"),
        ([metadata(sampleRate=None)], "sample rate in hertz"),
        ([metadata(sampleRate="fast")], "got 'fast'"),
        ([metadata(sampleRate=1)], "got '1'"),
        ([metadata(mixType="quad")], "got 'quad'"),
        ([metadata(mixType=None)], "mixType"),
        ([metadata(side="left")], "whose leg this is"),
        ([metadata(channels=["agent"])], "2 of 'agent' and 'customer' as the channels of stereo"),
        ([metadata(channels=["agent", "agent"])], "2 of 'agent'"),
        ([metadata(channels=7)], "2 of 'agent'"),
        ([metadata(channels=["agent", {}])], "2 of 'agent'"),
        ([metadata(agent="8" * 1_025)], "at most 1024 characters"),
        ([metadata(), b"\x00" * 6], "whole samples of 4 bytes"),
        ([metadata(mixType="mono"), b"\x00" * 3], "whole samples of 2 bytes"),
        ([metadata(), b"\x00" * (LONGEST_S * 32_000 + 4)], "at most 5 s"),
        (["x" * (MOST_BYTES + 1)], "at most"),
    ],
)
def test_what_the_protocol_does_not_allow_says_what_was_expected(messages, expected):
    with pytest.raises(IngestError, match=expected):
        listen(*messages)


# ── mod_audio_fork ────────────────────────────────────────────────────────────────────────────────

MONO = {"side": "agent", "mix": "mono", "rate": "8000"}


def test_a_fork_without_metadata_begins_with_its_audio():
    said, heard = fork(*[np.full(160, 700, "<i2").tobytes()] * 5, **MONO)
    assert (said[0].call.call_id, said[0].channels, said[0].rate) == ("c", ("agent",), 8_000)
    assert len(said) == 1
    assert levels(heard) == {"agent": 700}


def test_a_forks_metadata_is_json_or_a_few_words():
    [opened], _ = fork(json.dumps({"agent": "8001", "callSid": "kept", "sampleRate": 16_000}), **MONO)
    assert (opened.call.agent, opened.call.attributes) == ("8001", {"callSid": "kept"})
    [opened], _ = fork("from the wealth queue", **MONO)
    assert opened.call.attributes == {"metadata": "from the wealth queue"}


def test_a_number_in_a_forks_metadata_is_masked_and_not_kept():
    [opened], _ = fork('{"from":"13912345678","to":"95588","callid":"x"}', **MONO)
    assert (opened.call.customer, opened.call.attributes) == ("****5678", {"callid": "x"})


def test_what_a_fork_was_started_with_may_stand_in_its_metadata_instead():
    [opened], _ = fork(json.dumps({"side": "customer", "mixType": "stereo", "sampleRate": 16_000}))
    assert (opened.channels, opened.rate) == (("customer", "agent"), 16_000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"agent":"8002","note":"vip"}', [Changed({"agent": "8002", "note": "vip"})]),
        ('{"event":"hold"}', [Told("held")]),
        ('{"event":"resume"}', [Told("resumed")]),
        ('{"event":"transfer","to":"8002"}', [Told("transfer", to="8002")]),
        ('{"event":"transfer"}', [Told("transfer")]),
        ('{"event":"hangup","by":"customer"}', [Closed(by="customer")]),
        ('{"event":"hangup","by":7}', [Closed()]),
        ("done", [Changed({"metadata": "done"})]),
        ("{}", []),
    ],
)
def test_text_during_the_call_and_at_its_end_is_new_metadata_or_an_event(text, said):
    assert fork("{}", text, **MONO)[0][1:] == said


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"mix": "mono", "rate": "8000"}, "whose leg this is"),
        ({"side": "agent", "rate": "8000"}, "as mix in the address"),
        ({"side": "agent", "mix": "mono"}, "as rate in the address"),
    ],
)
def test_a_fork_has_to_say_what_it_was_started_with(given, expected):
    with pytest.raises(IngestError, match=expected):
        fork(b"\x00" * 320, **given)


# ── whatever comes ────────────────────────────────────────────────────────────────────────────────

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
named = st.dictionaries(
    st.sampled_from(
        [
            *("callSid", "sampleRate", "mixType", "side", "channels", "agent", "direction", "from"),
            *("customerData", "event", "by", "to", "type", "token", "call_id", "rate", "mix"),
        ]
    ),
    json_values | st.sampled_from(["mono", "stereo", "agent", "customer", "hangup", "dtmf", "transfer"]),
)
texts = st.one_of(
    st.just(metadata()),
    st.builds(lambda more: json.dumps({**json.loads(metadata()), **more}), named),
    st.builds(json.dumps, named),
    st.builds(json.dumps, json_values),
    st.text(max_size=60),
)


@given(
    st.sampled_from([JambonzListen, AudioFork]),
    st.lists(st.one_of(texts, st.binary(max_size=200)), max_size=15),
    st.dictionaries(
        st.sampled_from(["call_id", "side", "mix", "rate", "channels"]),
        st.sampled_from(["agent", "mono", "stereo", "8000", "agent,customer"]) | st.text(max_size=8),
    ),
    st.booleans(),
)
def test_whatever_comes_either_events_or_the_protocols_own_error(kind, messages, given, begin):
    parser = kind({"call_id": "c", **MONO} if begin else given)
    with contextlib.suppress(IngestError):
        said, heard = received(parser, *messages)
        assert all(isinstance(one, Opened | Told | Changed | Closed) for one in said)
        assert all(isinstance(item, AudioFrame | Gap) for item in heard)


@given(st.sampled_from([JambonzListen, AudioFork]), st.binary(max_size=300))
def test_bytes_at_random_never_raise_anything_else(kind, noise):
    with contextlib.suppress(IngestError):
        kind({"call_id": "c", **MONO}).text(noise)
