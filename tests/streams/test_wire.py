"""The codecs of a cluster's topics: what is written is read again, and what cannot be read says why."""

from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import wire
from streams.events import (
    CallEnded,
    CallInfo,
    CallStarted,
    CallUpdated,
    Evidence,
    Gap,
    Hint,
    Hold,
    Marker,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Utterance,
    Voice,
    Word,
)
from streams.testing import silence, tone

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MS = st.integers(0, 2**40)
REAL = st.floats(allow_nan=False, allow_infinity=False)
KINDS = (
    *(wire.Speech, wire.Search, wire.Read, wire.Found, wire.Signal),
    *get_args(wire.Told),
    *(Marker, Hint),
)
BY_KIND = {kind: topic for topic in wire.TOPICS for kind in (get_args(topic.types) or (topic.types,))}

for plain, strategy in {str: TEXT, int: MS, float: REAL}.items():
    st.register_type_strategy(plain, strategy)


def values(kind: type) -> st.SearchStrategy[Any]:
    """Values of a struct, every field given."""
    return st.builds(kind, **{field.name: st.from_type(field.type) for field in msgspec.structs.fields(kind)})


for struct in (
    *(CallInfo, CallStarted, CallUpdated, CallEnded, Hold, Gap, SpeechStarted, SpeechStopped, Voice),
    *(Word, Transcript, Evidence, *KINDS),
):
    st.register_type_strategy(struct, values(struct))


@pytest.mark.parametrize("topic", wire.TOPICS, ids=lambda topic: topic.name)
def test_a_changed_type_needs_a_new_schema_version(topic):
    shape = wire.shape_of(topic.types)
    assert topic.shape == shape, (
        f"the types of topic {topic.name} have changed: set its shape to {shape!r}, and its version to "
        f"{topic.version + 1} unless no release has written {topic.version} yet; raise `oldest` as well if "
        "the new types cannot read what the old ones wrote"
    )
    assert 1 <= topic.oldest <= topic.version <= 255


def test_the_shape_follows_fields_and_their_types_but_not_their_descriptions():
    def made(name: str, kind: Any, text: str) -> type:
        return msgspec.defstruct("Made", [(name, kind)], namespace={"__doc__": text}, tag=True)

    shape = wire.shape_of(made("a", int, "one"))
    assert shape == wire.shape_of(made("a", int, "another"))
    assert shape != wire.shape_of(made("b", int, "one"))
    assert shape != wire.shape_of(made("a", int | None, "one"))


def test_the_six_topics_carry_every_kind_of_message_once():
    names = [topic.name for topic in wire.TOPICS]
    assert names == ["speech", "transcripts", "signals", "alerts", "markers", "hints"]
    assert set(BY_KIND) == set(KINDS)


@given(st.one_of([values(kind) for kind in KINDS]))
def test_what_is_written_is_read_again(value):
    topic = BY_KIND[type(value)]
    assert topic.decode(topic.encode(value)) == value


def error_of(read):
    """The one error that reading may raise, if it does."""
    try:
        read()
    except wire.WireError as error:
        return error
    return None


REASONS = ("foreign", "version", "poisoned")


@given(st.binary(max_size=200))
def test_bytes_of_anybody_are_a_value_or_a_wire_error(message):
    for topic in wire.TOPICS:
        for start in (b"", wire.MAGIC, wire.MAGIC + bytes((topic.version,))):
            error = error_of(lambda topic=topic, start=start: topic.decode(start + message))
            assert error is None or (error.topic == topic.name and error.reason in REASONS)


HINT = Hint(id="h", call_id="c", rule_id="r", text={"zh": "请核实"}, media_ms=5)


def refusal(topic, message):
    with pytest.raises(wire.WireError) as caught:
        topic.decode(message)
    return caught.value


def test_a_message_of_a_newer_release_says_so():
    newer = wire.MAGIC + bytes((wire.HINTS.version + 1,)) + wire.HINTS.encode(HINT)[3:]
    error = refusal(wire.HINTS, newer)
    assert error.reason == "version"
    assert "topic hints" in str(error)
    assert "start workers of the release that wrote it" in str(error)


@pytest.mark.parametrize("message", [None, b"", b"dt", b'{"json": 1}'])
def test_a_message_of_something_else_is_foreign(message):
    assert refusal(wire.HINTS, message).reason == "foreign"


def test_a_poisoned_message_names_the_place_and_never_what_was_said():
    said = "我的卡号是六二二二"
    broken = msgspec.msgpack.encode({**msgspec.to_builtins(HINT), "media_ms": said})
    error = refusal(wire.HINTS, wire.MAGIC + bytes((wire.HINTS.version,)) + broken)
    assert error.reason == "poisoned"
    assert "media_ms" in str(error)
    assert said not in str(error)


def test_a_message_nested_without_end_is_poisoned():
    deep = wire.MAGIC + bytes((wire.HINTS.version,)) + b"\x91" * 100_000
    assert refusal(wire.HINTS, deep).reason == "poisoned"


# ── audio ─────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.integers(-32768, 32767), max_size=400))
def test_packed_audio_is_the_same_audio(samples):
    pcm = np.array(samples, "<i2").tobytes()
    assert wire.unpack(wire.pack(pcm)) == pcm


def test_packed_speech_is_smaller_than_its_samples():
    pcm = np.concatenate([silence(300), tone(1_000), silence(200)]).astype("<i2").tobytes()
    assert len(wire.pack(pcm)) < len(pcm) / 2


def test_an_utterance_travels_as_it_was_cut():
    cut = Utterance(
        call_id="c",
        channel="customer",
        start_ms=100,
        end_ms=900,
        pcm=tone(1_000).astype("<i2").tobytes(),
        final=True,
        endpoint="pause",
    )
    message = wire.SPEECH.decode(
        wire.SPEECH.encode(wire.speech(cut, prompt="银行", cut_at=1.5, source="g", seq=3))
    )
    assert isinstance(message, wire.Speech)
    assert wire.utterance(message) == cut
    assert (message.prompt, message.cut_at) == ("银行", 1.5)


def test_a_beginning_travels_without_what_was_sent_before():
    cut = Utterance(
        call_id="c",
        channel="agent",
        start_ms=0,
        end_ms=1_000,
        pcm=tone(1_000).astype("<i2").tobytes(),
        final=False,
        endpoint="breath",
    )
    message = wire.speech(cut, 12_000, source="g", seq=3)
    assert len(wire.unpack(message.packed)) == 2 * 4_000
    assert wire.utterance(message, cut.pcm[:24_000]) == cut


@given(st.binary(max_size=100))
def test_broken_audio_is_a_wire_error(packed):
    error = error_of(lambda: wire.unpack(packed))
    assert error is None or error.reason == "poisoned"


def test_audio_cut_off_in_the_middle_is_a_wire_error():
    with pytest.raises(wire.WireError):
        wire.unpack(wire.pack(tone(1_000).astype("<i2").tobytes())[:-8])


def test_a_few_bytes_that_claim_hours_of_audio_are_refused():
    bomb = wire.pack(bytes(32_000 * (wire.LONGEST_UTTERANCE_S + 1)))
    assert len(bomb) < 20_000
    with pytest.raises(wire.WireError, match="over 60 s"):
        wire.unpack(bomb)
