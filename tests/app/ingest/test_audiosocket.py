"""AudioSocket: bytes in any pieces in; a call, its keys, its audio and its end out."""

import contextlib
import re
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import IngestError
from app.ingest.audiosocket import (
    ERROR,
    HANGUP,
    IDENTITY,
    KEY,
    RATES,
    AudioSocketStream,
    Messages,
    booking,
    message,
    read_body,
)
from app.ingest.peer import Closed, Opened, Told, call_info
from streams.events import AudioFrame, Gap

UUID_ = UUID("66571994-0000-0011-a1ad-0b9bbd1eb20a")
CALL = call_info("c", "audiosocket", {"agent": "8001"})
HELLO = message(IDENTITY, UUID_.bytes)
SLIN = message(0x10, b"\x01\x00" * 160)


def find(uuid):
    return (CALL, "agent") if uuid == UUID_ else None


class Line:
    """A connection, as the server has it: what is said, what is heard, and what went wrong."""

    def __init__(self):
        self.messages, self.stream = Messages(), AudioSocketStream(find)
        self.said, self.heard, self.wrong = [], [], None

    def receive(self, data):
        for one in self.messages.receive(data):
            if self.wrong is not None:
                return
            try:
                self.said += self.stream.binary(one)
            except IngestError as error:
                self.wrong = str(error)

    def end(self):
        self.heard += self.stream.finish()
        return self

    def pcm(self):
        return b"".join(item.pcm for item in self.heard)


def received(*pieces):
    line = Line()
    for piece in pieces:
        line.receive(piece)
    return line.end()


def test_a_connection_opens_with_its_uuid_before_any_audio():
    line = received(HELLO)
    [opened] = line.said
    assert isinstance(opened, Opened)
    assert (opened.call, opened.channels) == (CALL, ("agent",))
    assert opened.call.channels == ("agent", "customer")


@pytest.mark.parametrize(("kind", "rate"), RATES.items(), ids=str)
def test_a_second_of_audio_is_a_second_at_every_rate(kind, rate):
    chunk = message(kind, b"\x10\x00" * (rate // 50))
    line = received(HELLO, *[chunk] * 50)
    assert line.wrong is None
    assert len(line.pcm()) // 2 == pytest.approx(16_000, abs=2)
    assert line.heard[0].media_ms == 0


def test_samples_are_signed_and_their_low_byte_comes_first():
    samples = np.array([1, -1, 256, -32768, 32767], "<i2")
    assert received(HELLO, message(0x12, samples.tobytes())).pcm() == samples.tobytes()


def test_a_key_is_told_by_whose_it_is_and_never_by_which():
    assert received(HELLO, message(KEY, b"7")).said[1:] == [Told("key", "agent")]


@pytest.mark.parametrize("end", [message(HANGUP), message(HANGUP, b"why"), message(ERROR, b"\x01")])
def test_the_end_is_a_hangup_and_what_comes_behind_it_is_nothing(end):
    line = received(HELLO, SLIN, end, SLIN, message(0x77), HELLO)
    assert line.said[1:] == [Closed()]
    assert len(line.pcm()) == 640
    assert line.wrong is None


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([SLIN], "expected the UUID first"),
        ([message(KEY, b"1")], "expected the UUID first"),
        ([message(0x47, b"ET / HTTP/1.1")], "is this Asterisk"),
        ([HELLO, HELLO], "got a second one"),
        ([message(IDENTITY, b"\x00" * 15)], "16 bytes, got 15"),
        ([message(IDENTITY, b"\x00" * 16)], "POST /ingest/audiosocket/calls"),
        ([HELLO, SLIN, message(0x12, b"\x00" * 640)], "at 8000 Hz throughout, got some at 16000 Hz"),
        ([HELLO, message(0x19, b"\x00" * 640)], r"0x10 to 0x18, got 0x19: dial with c\(slin\)"),
        ([HELLO, message(KEY, b"12")], "1 byte, got 2"),
        ([HELLO, message(ERROR, b"\x02")], "code 02"),
        ([HELLO, message(ERROR)], "code none"),
    ],
)
def test_what_the_protocol_does_not_allow_says_what_was_expected(pieces, expected):
    wrong = received(*pieces).wrong
    assert wrong is not None
    assert re.search(expected, wrong)


def test_what_asterisk_itself_takes_is_taken():
    # Half a sample at the end, an empty message, and a kind that is not known yet.
    line = received(HELLO, message(0x10, b"\x01\x00\x7f"), message(0x10), message(0x02, b"\x01#"), SLIN)
    assert line.wrong is None
    assert len(line.pcm()) // 2 == 2 * 161


def test_a_peer_that_closes_between_two_messages_has_hung_up_and_one_that_breaks_off_may_come_back():
    stream = AudioSocketStream(find)
    assert stream.gone(1000) == Closed("hangup")
    assert stream.gone(None) == Closed("disconnected")


def test_the_end_is_all_that_asterisk_is_told():
    assert AudioSocketStream(find).refusal("whatever", 1008) == message(HANGUP)


# ── whatever comes ────────────────────────────────────────────────────────────────────────────────

payloads = st.binary(max_size=700)
wire = st.builds(message, st.sampled_from([HANGUP, IDENTITY, KEY, *RATES, 0x19, 0x42, ERROR]), payloads)
talk = st.builds(message, st.sampled_from([0x10, 0x10, 0x10, KEY]), st.binary(min_size=1, max_size=700))


@given(st.lists(st.one_of(talk, wire), max_size=12), st.lists(st.integers(1, 400), max_size=60))
def test_however_the_bytes_are_cut_the_same_is_said_and_heard(sequence, cuts):
    data, whole = HELLO + b"".join(sequence), received(HELLO + b"".join(sequence))
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    cut_up = received(*pieces, data[at:])
    assert (cut_up.said, cut_up.wrong) == (whole.said, whole.wrong)
    one, other = (np.frombuffer(line.pcm(), "<i2").astype(int) for line in (cut_up, whole))
    # The resampler of the higher rates adds noise in the last bit.
    assert one.shape == other.shape
    assert np.abs(one - other).max(initial=0) <= 2


@given(st.lists(st.binary(max_size=300), max_size=20), st.booleans())
def test_bytes_at_random_never_raise_anything_but_the_protocols_own_error(pieces, begin):
    line = Line()
    for piece in [HELLO, *pieces] if begin else pieces:
        line.receive(piece)
    for said in line.said:
        assert isinstance(said, Opened | Closed | Told)
    for item in line.end().heard:
        assert isinstance(item, AudioFrame | Gap)


@given(st.integers(0, 255), st.lists(st.integers(0, 5_000), max_size=40))
def test_a_message_that_is_announced_and_never_ends_holds_no_more_than_it_announced(kind, lengths):
    messages = Messages()
    messages.receive(bytes((kind, 0xFF, 0xFF)))
    for length in lengths:
        messages.receive(b"\x00" * length)
        assert len(messages._rest) < 3 + 0xFFFF
    assert messages.partial == bool(messages._rest)


# ── bookings ──────────────────────────────────────────────────────────────────────────────────────


def test_a_booking_comes_as_json_or_as_the_form_that_a_dialplan_sends():
    told = read_body(
        b'{"call_id": "c", "channel": "agent", "metadata": {"agent": "8001"}, "valid_s": 60}', False
    )
    form = read_body("call_id=c&channel=agent&agent=8001&产品=安享&valid_s=60&token=t".encode(), True)
    assert form.token == "t"
    assert booking(told).call.agent == booking(form).call.agent == "8001"
    assert booking(form).call.attributes == {"产品": "安享"}
    assert (booking(told).channel, booking(told).valid_s) == ("agent", 60)
    assert booking(told).call.channels == ("agent", "customer")


def test_a_call_may_have_one_channel_alone_or_both_in_one():
    alone = read_body(b"call_id=c&channel=customer&channels=customer", True)
    mixed = read_body(b"call_id=c&channel=mixed", True)
    assert booking(alone).call.channels == ("customer",)
    assert (booking(mixed).channel, booking(mixed).call.channels) == ("unknown", ("unknown",))


@pytest.mark.parametrize(
    ("body", "form", "expected"),
    [
        (b"{", False, "cannot be read"),
        (b"[]", False, "cannot be read"),
        (b"\xff", True, "cannot be read"),
        (b"call_id=c&channel=agent&valid_s=soon", True, "cannot be read"),
        (b"a=1&" * 100, True, "cannot be read"),
        (b"channel=agent", True, "call id"),
        (b"call_id=c", True, "'agent', 'customer' or 'mixed'"),
        (b"call_id=c&channel=left", True, "'agent', 'customer' or 'mixed'"),
        (b"call_id=c&channel=agent&channels=customer", True, "with 'agent' among them"),
        (b"call_id=c&channel=agent&valid_s=0", True, "from 1 to 3600"),
        (b"call_id=c&channel=agent&valid_s=nan", True, "from 1 to 3600"),
        (b"call_id=../x&channel=agent", True, "call id"),
        (b'{"call_id": "c", "channel": "agent", "metadata": {"agent": []}}', False, "text for the metadata"),
    ],
)
def test_a_booking_that_is_wrong_says_what_was_expected(body, form, expected):
    with pytest.raises(IngestError, match=expected):
        booking(read_body(body, form))


@given(st.binary(max_size=300), st.booleans())
def test_a_booking_at_random_raises_nothing_but_its_own_error(body, form):
    with contextlib.suppress(IngestError):
        booking(read_body(body, form))
