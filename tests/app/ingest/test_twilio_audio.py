"""The parser of Twilio Media Streams: messages in, audio in order out."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import IngestError
from app.ingest.peer import Closed, Opened
from app.ingest.twilio import TwilioStream
from streams.events import AudioFrame, Gap


def start(**changes):
    body = {"callSid": "CA1", "tracks": ["inbound", "outbound"], "customParameters": {"agent": "8001"}}
    return json.dumps({"event": "start", "start": {**body, **changes}})


def media(number, track="inbound", payload=b"\xff" * 160, **changes):
    body = {"track": track, "chunk": str(number), "timestamp": str((number - 1) * 20)}
    coded = {"payload": base64.b64encode(payload).decode()}
    return json.dumps({"event": "media", "media": {**body, **coded, **changes}})


def opened():
    stream = TwilioStream()
    stream.text(json.dumps({"event": "connected", "protocol": "Call"}))
    assert isinstance(stream.text(start())[0], Opened)
    return stream


def test_a_call_opens_with_its_metadata_and_ends_with_stop():
    stream = TwilioStream()
    [event] = stream.text(start(customParameters={"agent": "8001", "token": "t", "product": "安享一号"}))
    assert (event.call.call_id, event.call.agent, event.token) == ("CA1", "8001", "t")
    assert event.call.attributes == {"product": "安享一号"}
    assert stream.text(json.dumps({"event": "stop"})) == (Closed(),)


def test_audio_waits_until_it_is_taken_and_leaves_as_one_frame_a_channel():
    stream = opened()
    for number in range(1, 6):
        for track in ("inbound", "outbound"):
            assert stream.text(media(number, track).encode()) == ()
    assert stream.ready_ms == 100
    frames = stream.take()
    assert [f.channel for f in frames] == ["customer", "agent"]
    assert stream.ready_ms == 0
    total = sum(f.duration_ms for f in frames + stream.finish())
    assert total == pytest.approx(200, abs=2)


def test_what_never_came_is_a_gap_between_frames():
    stream = opened()
    for number in (1, 2, *range(13, 19)):
        stream.text(media(number))
    kinds = [type(item) for item in stream.take()]
    assert kinds == [AudioFrame, Gap, AudioFrame]


@pytest.mark.parametrize("size", [1, 3, 159, 8000])
def test_a_payload_of_any_length_up_to_a_second_is_taken(size):
    stream = opened()
    stream.text(media(1, payload=b"\x00" * size))
    assert sum(len(f.pcm) for f in stream.take() + stream.finish()) // 2 == pytest.approx(size * 2, abs=2)


@pytest.mark.parametrize(
    ("message", "said", "code"),
    [
        (media(1, payload=b""), "1 to 8000 bytes", 1008),
        (media(1, payload=b"\x00" * 8001), "1 to 8000 bytes", 1008),
        (media(1).replace("////", "//*/", 1), "[Bb]ase64", 1008),
        (media(1, track="sideways"), "'inbound' or 'outbound'", 1008),
        (media(1, timestamp="-1"), "from 0 to", 1008),
        (media(1, timestamp="soon"), "int", 1008),
        (media(1, timestamp="NaN"), "int", 1008),
        (start(), "second one", 1008),
        ('{"event": "\ud800"}'.encode("utf-8", "surrogatepass"), "expected JSON", 1007),
        (b'{"event": ["dance"]}', "event", 1008),
        (b"{nope", "expected JSON", 1007),
        (b"x" * 70_000, "at most 65536", 1009),
    ],
    ids=[
        "empty", "long", "base64", "track", "negative", "word", "NaN", "two starts", "surrogate", "event",
        "no JSON", "huge",
    ],
)  # fmt: skip
def test_what_the_protocol_forbids_is_told(message, said, code):
    stream = opened()
    with pytest.raises(IngestError, match=said) as error:
        stream.text(message)
    assert error.value.code == code


def test_nothing_may_follow_stop():
    stream = opened()
    stream.text(json.dumps({"event": "stop"}))
    with pytest.raises(IngestError, match="nothing after 'stop'"):
        stream.text(media(1))


@given(st.binary(max_size=120))
def test_no_bytes_whatever_do_more_than_raise_an_ingest_error(message):
    stream = opened()
    try:
        stream.text(message)
    except IngestError:
        return
