"""chan_websocket: Asterisk's events in both forms and bare audio in; a call out."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import IngestError
from app.ingest.chan_websocket import FORMATS, MOST_BYTES, MediaWebSocket
from app.ingest.peer import Closed, Opened, Told
from streams.audio import encode_mulaw
from streams.events import AudioFrame, Gap

GIVEN = {"call_id": "c", "channel": "customer"}


def start(form="ulaw", **more):
    words = {
        "connection_id": "duting",
        "channel": "WebSocket/duting/0x7f5a",
        "channel_id": "1716984212.3",
        "format": form,
        "optimal_frame_size": "160",
        "ptime": "20",
        **more,
    }
    return "MEDIA_START " + " ".join(f"{name}:{value}" for name, value in words.items())


def start_json(form="ulaw", **variables):
    return json.dumps(
        {
            "event": "MEDIA_START",
            "connection_id": "duting",
            "channel": "WebSocket/duting/0x7f5a",
            "channel_id": "1716984212.3",
            "format": form,
            "optimal_frame_size": 160,
            "ptime": 20,
            "channel_variables": {"DIALEDPEERNUMBER": "duting/c(ulaw)", **variables},
        }
    )


def received(given, *messages):
    """What is said, and what is heard, of these messages."""
    stream, said = MediaWebSocket(given), []
    for message in messages:
        said += stream.text(message) if isinstance(message, str) else stream.binary(message)
    return said, stream.finish()


def test_a_call_opens_with_what_the_address_says():
    given = {**GIVEN, "agent": "8001", "queue": "理财", "产品": "安享", "token": "secret"}
    [opened], _ = received(given, start())
    assert isinstance(opened, Opened)
    assert (opened.call.call_id, opened.call.agent, opened.call.queue) == ("c", "8001", "理财")
    assert opened.call.attributes == {"产品": "安享"}
    assert (opened.channels, opened.call.channels) == (("customer",), ("agent", "customer"))
    assert (opened.rate, opened.token) == (8_000, "secret")


def test_what_the_address_leaves_open_comes_from_the_channels_variables_and_no_others_are_kept():
    said, _ = received(
        {"channel": "agent"},
        start_json(DUTING_CALL_ID="c9", __DUTING_AGENT="8002", DUTING_CHANNEL="customer", CALLERID="139…"),
    )
    assert (said[0].call.call_id, said[0].call.agent) == ("c9", "8002")
    assert said[0].channels == ("agent",)
    assert said[0].call.attributes == {}


def test_the_first_release_said_less_at_the_start():
    plain = "MEDIA_START connection_id:e226e283 channel:WebSocket/duting format:alaw optimal_frame_size:160"
    [opened], _ = received(GIVEN, plain)
    assert opened.rate == 8_000


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("begin", [start, start_json], ids=["plain", "json"])
def test_a_second_of_audio_is_a_second_in_every_format(begin, form):
    codec, rate = FORMATS[form]
    chunk = bytes(rate // 50 * codec.width)
    _, heard = received(GIVEN, begin(form), *[chunk] * 50)
    assert sum(len(item.pcm) for item in heard) // 2 == pytest.approx(16_000, abs=2)
    assert {item.channel for item in heard} == {"customer"}


def test_both_sides_in_one_are_a_call_of_one_channel_that_nobody_can_tell_apart():
    [opened], _ = received({**GIVEN, "channel": "mixed"}, start())
    assert (opened.channels, opened.call.channels) == (("unknown",), ("unknown",))


def test_mu_law_is_heard_as_it_was_said():
    tone = (8_000 * np.sin(np.arange(1_600) / 10)).astype(np.int16)
    _, heard = received(GIVEN, start(), *(encode_mulaw(tone[at : at + 160]) for at in range(0, 1_600, 160)))
    pcm = np.frombuffer(b"".join(item.pcm for item in heard), "<i2")
    assert np.abs(pcm[::2][:1_500].astype(int) - tone[:1_500]).max() < 300


@pytest.mark.parametrize(
    "key", ["DTMF_END digit:7 channel_id:1.2", json.dumps({"event": "DTMF_END", "digit": "7"})]
)
def test_a_key_is_told_by_whose_it_is_and_never_by_which(key):
    said, _ = received(GIVEN, start(), key)
    assert said[1:] == [Told("key", "customer")]


@pytest.mark.parametrize(
    "message",
    [
        "MEDIA_XON",
        "MEDIA_XOFF channel_id:1.2",
        "QUEUE_DRAINED",
        "MEDIA_MARK_PROCESSED m1",
        "STATUS channel_id:1.2 queue_length:43 xon_level:800 media_paused:false",
        "ERROR channel_id:1.2 error_text:no such command",
        json.dumps({"event": "STATUS", "queue_length": 4}),
        json.dumps({"event": "TOMORROW", "news": []}),
    ],
)
def test_events_about_audio_that_is_not_sent_and_those_of_tomorrow_are_passed_over(message):
    assert received(GIVEN, start(), message, b"\xff" * 160)[0][1:] == []


def test_asterisk_hangs_up_by_closing_and_whoever_breaks_off_may_come_back():
    stream = MediaWebSocket(GIVEN)
    assert stream.gone(1000) == Closed("hangup")
    assert [stream.gone(code) for code in (1001, 1005, 1006, None)] == [Closed("disconnected")] * 4


@pytest.mark.parametrize(
    ("given", "messages", "expected"),
    [
        (GIVEN, [b"\xff" * 160], "expected MEDIA_START before audio"),
        (GIVEN, ["DTMF_END digit:1"], "expected MEDIA_START before DTMF_END"),
        (GIVEN, [start(), start()], "got a second one"),
        (GIVEN, [start("opus")], r"got 'opus': dial with c\(ulaw\)"),
        (GIVEN, ["MEDIA_START"], "got 'None'"),
        (GIVEN, [start_json(form=7)], "got '7'"),
        ({"channel": "agent"}, [start()], "DUTING_CALL_ID"),
        ({"call_id": "c"}, [start()], "'agent', 'customer' or 'mixed', got nothing"),
        ({"call_id": "c", "channel": "left"}, [start()], "got 'left'"),
        ({**GIVEN, "call_id": "../../etc"}, [start()], "call id"),
        ({**GIVEN, "direction": "up"}, [start()], "direction"),
        (GIVEN, ["{nope"], "in JSON"),
        (GIVEN, ["{}"], "its name in 'event'"),
        (GIVEN, ["hello there"], "expected an event of chan_websocket"),
        (GIVEN, [""], "expected an event of chan_websocket"),
        (GIVEN, [start("slin"), b"\x00" * 321], "whole samples of 2 bytes"),
        (GIVEN, [start(), b"\x00" * (MOST_BYTES + 1)], "at most"),
        (GIVEN, ["X" * (MOST_BYTES + 1)], "at most"),
    ],
)
def test_what_the_protocol_does_not_allow_says_what_was_expected(given, messages, expected):
    with pytest.raises(IngestError, match=expected):
        received(given, *messages)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
texts = st.one_of(
    st.builds(start, st.sampled_from(["ulaw", "slin16", "opus"])),
    st.builds(start_json, st.sampled_from(["alaw", "slin"]), DUTING_AGENT=st.text(max_size=5)),
    st.sampled_from(["DTMF_END digit:1", "STATUS", "MEDIA_XON"]),
    st.text(max_size=80),
    st.builds(json.dumps, json_values),
    st.builds(
        json.dumps,
        st.fixed_dictionaries(
            {
                "event": st.sampled_from(["MEDIA_START", "DTMF_END"]),
                "format": st.just("ulaw") | json_values,
                "channel_variables": json_values,
            }
        ),
    ),
)


@given(
    st.lists(st.one_of(texts, st.binary(max_size=400)), max_size=20),
    st.dictionaries(st.sampled_from(["call_id", "channel", "agent", "direction"]), st.text(max_size=10)),
    st.booleans(),
)
def test_whatever_comes_either_events_or_the_protocols_own_error(messages, given, begin):
    with contextlib.suppress(IngestError):
        said, heard = received({**given, **GIVEN} if begin else given, *messages)
        assert all(isinstance(one, Opened | Told) for one in said)
        assert all(isinstance(item, AudioFrame | Gap) for item in heard)


@given(st.binary(max_size=300))
def test_bytes_at_random_never_raise_anything_else(noise):
    with contextlib.suppress(IngestError):
        MediaWebSocket(GIVEN).text(noise)
