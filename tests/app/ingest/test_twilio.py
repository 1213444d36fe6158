import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import IngestError
from app.ingest.peer import Changed, Closed, Opened, Told
from app.ingest.twilio import MOST_BYTES, TwilioStream
from streams.events import AudioFrame, Gap

CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
STOP = {"event": "stop", "sequenceNumber": "9", "streamSid": "MZ1", "stop": {"callSid": "CA1"}}


def start(**changes):
    body = {
        "streamSid": "MZ1",
        "accountSid": "AC1",
        "callSid": "CA1",
        "tracks": ["inbound", "outbound"],
        "customParameters": {"agent": "8001", "queue": "理财", "token": "secret", "产品": "安享"},
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
    }
    return {"event": "start", "sequenceNumber": "1", "streamSid": "MZ1", "start": {**body, **changes}}


def media(number, track="inbound", payload=b"\x7f" * 160, timestamp=None):
    return {
        "event": "media",
        "sequenceNumber": str(number + 1),
        "streamSid": "MZ1",
        "media": {
            "track": track,
            "chunk": str(number),
            "timestamp": str((number - 1) * 20 if timestamp is None else timestamp),
            "payload": base64.b64encode(payload).decode(),
        },
    }


def receive(*messages):
    """Everything that comes of these messages, audio taken after each."""
    stream, out = TwilioStream(), []
    for message in messages:
        said = stream.text(json.dumps(message))
        out += stream.finish() if any(isinstance(one, Closed) for one in said) else stream.take()
        out += said
    return out


def test_a_call_opens_with_its_metadata_and_the_token_is_not_part_of_it():
    [opened] = receive(CONNECTED, start())
    assert isinstance(opened, Opened)
    assert opened.token == "secret"
    assert (opened.call.call_id, opened.call.agent, opened.call.queue) == ("CA1", "8001", "理财")
    assert opened.call.attributes == {"产品": "安享"}
    assert opened.call.channels == ("agent", "customer")
    assert opened.channels == ("customer", "agent")


def test_inbound_is_the_customer_and_outbound_the_agent():
    events = receive(
        start(), *(media(n, track) for n in range(1, 8) for track in ("inbound", "outbound")), STOP
    )
    frames = [e for e in events if isinstance(e, AudioFrame)]
    assert {f.channel for f in frames} == {"customer", "agent"}
    for channel in ("customer", "agent"):
        assert abs(sum(f.duration_ms for f in frames if f.channel == channel) - 140) <= 2
    assert isinstance(events[-1], Closed)


def test_a_hole_in_the_stream_is_a_gap():
    events = receive(start(), media(1), *(media(n) for n in range(30, 40)), STOP)
    [gap] = [e for e in events if isinstance(e, Gap)]
    assert (gap.channel, gap.media_ms, gap.duration_ms) == ("customer", 20, 560)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([media(1)], "expected 'start' before 'media'"),
        ([STOP], "expected 'start' before 'stop'"),
        ([start(), start()], "got a second one"),
        ([start(tracks=["sideways"])], "'inbound' or 'outbound'"),
        ([start(tracks=[])], "at least one track"),
        ([start(), media(1, track="both")], "'inbound' or 'outbound'"),
        ([start(tracks=["inbound"]), media(1, track="outbound")], "not announced"),
        ([start(mediaFormat={"encoding": "audio/x-l16", "sampleRate": 16000, "channels": 1})], "8000 Hz"),
        ([start(callSid="../../etc/passwd")], "call id"),
        ([start(callSid="")], "call id"),
        ([start(customParameters={"agent": "8" * 1025})], "at most 1024 characters"),
        ([start(customParameters={str(n): "1" for n in range(65)})], "at most 64 fields"),
        ([start(customParameters={"direction": "sideways"})], "direction"),
        ([start(), media(1, payload=b"")], "1 to 8000 bytes"),
        ([start(), media(1, payload=b"x" * 8001)], "1 to 8000 bytes"),
        ([start(), media(1), media(2, timestamp=99_999_999)], "within 10 minutes"),
        ([start(), media(1, timestamp=-5)], "from 0 to"),
        ([start(), STOP, media(1)], "nothing after 'stop'"),
        ([{"event": "start", "start": {}}], "callSid"),
        ([{"event": 7}], "not a Twilio Media Streams message"),
        ([{"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": "1"}}], "'start' before 'dtmf'"),
        ([["no", "object"]], "not a Twilio Media Streams message"),
    ],
)
def test_what_the_protocol_does_not_allow_says_what_was_expected(messages, expected):
    with pytest.raises(IngestError, match=expected):
        receive(*messages)


def test_a_key_is_told_by_whose_it_is_and_never_by_which():
    dtmf = {"event": "dtmf", "streamSid": "MZ1", "dtmf": {"track": "inbound_track", "digit": "7"}}
    assert receive(start(), dtmf)[1:] == [Told("key", "customer")]


def test_one_track_alone_leaves_room_for_the_other_one():
    [opened] = receive(start(tracks=["inbound"]))
    assert (opened.channels, opened.call.channels) == (("customer",), ("agent", "customer"))


def test_a_kind_of_message_that_is_not_known_yet_and_marks_are_passed_over():
    mark = {"event": "mark", "streamSid": "MZ1", "mark": {"name": "m"}}
    assert receive(start(), {"event": "surprise", "surprise": {}}, mark)[1:] == []


def test_payloads_of_odd_length_are_whole_samples_of_mulaw():
    events = receive(start(), media(1, payload=b"\x7f" * 161), media(2, payload=b"\x7f" * 33), STOP)
    frames = [e for e in events if isinstance(e, AudioFrame)]
    assert abs(sum(len(f.pcm) // 2 for f in frames) - 2 * (161 + 33)) <= 2


def test_text_that_is_no_json_and_messages_that_are_too_long_have_their_own_close_codes():
    with pytest.raises(IngestError, match="expected JSON") as broken:
        TwilioStream().text("{nope")
    assert broken.value.code == 1007
    with pytest.raises(IngestError, match="at most") as long:
        TwilioStream().text("x" * (MOST_BYTES + 1))
    assert long.value.code == 1009


def test_base64_that_is_none_is_named():
    broken = media(1)
    broken["media"]["payload"] = "***"
    with pytest.raises(IngestError, match="base64"):
        receive(start(), broken)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
messages = st.one_of(
    st.just(CONNECTED),
    st.builds(start),
    st.just(STOP),
    st.builds(
        media,
        st.integers(0, 60),
        st.sampled_from(["inbound", "outbound", "x"]),
        st.binary(max_size=400),
        st.integers(-10, 5000),
    ),
    st.fixed_dictionaries(
        {"event": st.sampled_from(["start", "media", "stop", "dtmf"]), "start": json_values}
    ),
    st.fixed_dictionaries({"event": st.just("media"), "media": json_values}),
    json_values,
)


@given(st.lists(messages, max_size=30), st.booleans())
def test_whatever_comes_either_events_or_the_protocols_own_error(sequence, begin):
    sequence = [start(), *sequence] if begin else sequence
    with contextlib.suppress(IngestError):
        for event in receive(*sequence):
            assert isinstance(event, Opened | AudioFrame | Gap | Closed | Told | Changed)


@given(st.binary(max_size=300))
def test_bytes_at_random_never_raise_anything_else(noise):
    with contextlib.suppress(IngestError):
        TwilioStream().text(noise)
