import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.audio import (
    MULAW,
    ChannelAudio,
    Codec,
    Resampler,
    decode_alaw,
    decode_mulaw,
    decode_s16le,
    encode_mulaw,
    rms_dbfs,
)
from streams.events import SAMPLE_RATE, AudioFrame, Gap


def test_mulaw_decodes_the_values_that_g711_names():
    # ITU-T G.711 table 2a/2b: the ends of the scale and the two zeros.
    assert list(decode_mulaw(b"\x00\x80\x7f\xff")) == [-32124, 32124, 0, 0]


@given(st.binary(min_size=1, max_size=400))
def test_every_mulaw_byte_survives_a_round_trip_but_for_the_second_zero(payload):
    again = encode_mulaw(decode_mulaw(payload))
    assert decode_mulaw(again).tolist() == decode_mulaw(payload).tolist()


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=200))
def test_mulaw_is_off_by_less_than_one_step(values):
    samples = np.array(values, np.int16)
    error = np.abs(decode_mulaw(encode_mulaw(samples)).astype(int) - samples)
    assert (
        error <= np.maximum(8, np.abs(samples.astype(int)) // 16 + 8) + 650 * (np.abs(samples) > 32000)
    ).all()


def test_alaw_decodes_the_values_that_g711_names():
    # ITU-T G.711 table 1a/1b: the smallest and the largest value of each sign, the ends of the first chords.
    assert list(decode_alaw(b"\xd5\x55\xaa\x2a\xda\xc5\xca")) == [8, -8, 32256, -32256, 248, 264, 504]


@pytest.mark.parametrize(
    ("decode", "name"), [(decode_alaw, "pcm_alaw"), (decode_mulaw, "pcm_mulaw")], ids=["alaw", "mulaw"]
)
def test_every_byte_of_g711_decodes_as_it_does_elsewhere(decode, name):
    codec = av.CodecContext.create(name, "r")
    codec.sample_rate, codec.layout = 8_000, "mono"
    [frame] = codec.decode(av.Packet(bytes(range(256))))
    assert decode(bytes(range(256))).tolist() == frame.to_ndarray()[0].tolist()


def test_samples_of_two_bytes_come_with_the_low_one_first():
    assert list(decode_s16le(b"\x01\x00\xff\xff\x00\x80\xff\x7f")) == [1, -1, -32768, 32767]


def test_the_level_of_silence_is_the_floor_and_of_full_scale_is_zero():
    assert rms_dbfs(np.zeros(10, np.int16)) == -120.0
    assert rms_dbfs(np.zeros(0, np.int16)) == -120.0
    assert abs(rms_dbfs(np.full(10, 32767, np.int16))) < 0.01


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_a_resampled_second_is_a_second(rate):
    resampler = Resampler(rate)
    pieces = [resampler.push(np.zeros(rate // 50, np.int16)) for _ in range(50)]
    pieces.append(resampler.push(np.zeros(0, np.int16), last=True))
    assert abs(sum(map(len, pieces)) - SAMPLE_RATE) <= 2


def level(samples, hertz):
    """Of one frequency, in decibels; ``samples`` without their ends."""
    middle = samples[2000:-2000].astype(float) / 32768
    turn = np.exp(-2j * np.pi * hertz * np.arange(len(middle)) / SAMPLE_RATE)
    return 20 * np.log10(abs(np.mean(middle * turn * np.hanning(len(middle)) * 2)) * 2 + 1e-9)


@pytest.mark.parametrize("hertz", [300, 1000, 3400])
def test_from_the_telephone_a_tone_keeps_its_level_and_gets_no_image(hertz):
    tone = (16384 * np.sin(2 * np.pi * hertz * np.arange(8000) / 8000)).astype(np.int16)
    doubled = Resampler(8_000).push(tone)
    assert level(doubled, hertz) == pytest.approx(-6.02, abs=0.1)
    assert level(doubled, 8_000 - hertz) < -6 - 55


def test_from_the_telephone_speech_comes_two_milliseconds_later_and_no_more():
    resampler = Resampler(8_000)
    came = [len(resampler.push(np.ones(160, np.int16))) for _ in range(20)]
    assert came == [320 - 2 * 16, *[320] * 19]


def test_clipped_sound_stays_within_sixteen_bits():
    loud = np.where(np.arange(8000) % 7 < 3, 32767, -32768).astype(np.int16)
    doubled = Resampler(8_000).push(loud)
    assert (doubled[::2] == loud[: len(doubled) // 2]).all()


def test_a_sample_rate_that_no_telephone_has_is_refused():
    with pytest.raises(ValueError, match="expected a sample rate"):
        Resampler(100)


PCM16 = Codec(2, lambda payload: np.frombuffer(payload, np.int16))


def chunk(number: int, value: int = 1000, samples: int = 160) -> tuple[int, int, bytes]:
    return number, (number - 1) * 20, np.full(samples, value, np.int16).tobytes()


def push(audio, chunk):
    audio.put(*chunk)
    return audio.take()


def heard(items):
    frames = [i for i in items if isinstance(i, AudioFrame)]
    return frames, [i for i in items if isinstance(i, Gap)]


def test_chunks_in_order_become_frames_without_holes():
    audio = ChannelAudio("c", "agent", 16_000, PCM16)
    frames, gaps = heard([i for n in range(1, 11) for i in push(audio, chunk(n, samples=320))])
    assert [f.media_ms for f in frames] == list(range(0, 200, 20))
    assert gaps == []


def test_two_swapped_chunks_are_put_right_without_a_gap():
    audio = ChannelAudio("c", "agent", 16_000, PCM16)
    items = [i for n in (1, 2, 4, 3, 5) for i in push(audio, chunk(n, value=n, samples=320))]
    frames, gaps = heard(items)
    assert gaps == []
    pcm = np.frombuffer(b"".join(f.pcm for f in frames), "<i2")
    assert pcm[::320].tolist() == [1, 2, 3, 4, 5]


def test_a_missing_chunk_becomes_a_gap_once_five_others_wait():
    audio = ChannelAudio("c", "agent", 16_000, PCM16)
    items = []
    # Five chunks of 20 ms are missing, more than the drift that is forgiven.
    for n in (1, 2, *range(8, 14)):
        items += push(audio, chunk(n, samples=320))
    frames, gaps = heard(items)
    assert [(g.media_ms, g.duration_ms, g.reason) for g in gaps] == [(40, 100, "missing")]
    assert frames[-1].media_ms + frames[-1].duration_ms == 260


def test_a_chunk_after_its_time_is_dropped_and_counted():
    audio = ChannelAudio("c", "agent", 16_000, PCM16)
    for n in (1, 2, 3):
        push(audio, chunk(n, samples=320))
    assert push(audio, chunk(2, samples=320)) == []
    assert audio.late == 1


def test_a_peer_that_numbers_both_channels_together_costs_no_delay():
    audio = ChannelAudio("c", "agent", 16_000, PCM16)
    for index, number in enumerate((1, 3, 5, 7)):
        out = push(audio, (number, index * 20, np.ones(320, np.int16).tobytes()))
        assert [f.media_ms for f in out] == [index * 20]


def test_a_timestamp_hours_away_is_an_error_not_an_hour_of_silence():
    audio = ChannelAudio("c", "agent", 16_000, PCM16)
    push(audio, chunk(1))
    with pytest.raises(ValueError, match="within 10 minutes"):
        audio.put(2, 9_999_999, np.ones(160, np.int16).tobytes())


@settings(max_examples=60)
@given(st.permutations(list(range(1, 30))), st.sets(st.integers(2, 29)))
def test_frames_never_go_back_in_time_whatever_the_order(order, lost):
    audio = ChannelAudio("c", "agent", 8_000, PCM16)
    items = [i for n in order if n not in lost for i in push(audio, chunk(n))] + audio.flush()
    frames, _ = heard(items)
    ends = 0
    for frame in frames:
        assert frame.media_ms >= ends - 1
        ends = frame.media_ms + frame.duration_ms


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_how_often_it_is_taken_changes_no_sample_and_no_time(groups):
    rng = np.random.default_rng(5)
    wire = rng.integers(0, 256, 160 * sum(groups), np.uint8).tobytes()
    chunks = [(n + 1, n * 20, wire[n * 160 : (n + 1) * 160]) for n in range(sum(groups))]
    at_once, in_groups = (ChannelAudio("c", "agent", 8_000, MULAW) for _ in range(2))
    for one in chunks:
        at_once.put(*one)
    together = b"".join(f.pcm for f in at_once.flush())
    pieces, end = [], 0
    for group in groups:
        for one in chunks[:group]:
            in_groups.put(*one)
        assert in_groups.ready_ms == group * 20
        del chunks[:group]
        pieces += in_groups.take()
        assert in_groups.ready_ms == 0
    for frame in pieces + in_groups.flush():
        assert abs(frame.media_ms - end * 1000 // SAMPLE_RATE) <= 1
        end += len(frame.pcm) // 2
    assert b"".join(f.pcm for f in pieces) == together[: sum(len(f.pcm) for f in pieces)]


def test_a_wire_without_numbers_is_one_stream_from_its_first_sample_on():
    stream = ChannelAudio("c", "agent", 8_000, MULAW)
    for length in (160, 1, 319):
        stream.append(b"\xff" * length)
    assert stream.ready_ms == 60
    frames = stream.flush()
    assert frames[0].media_ms == 0
    assert sum(len(frame.pcm) // 2 for frame in frames) == 2 * 480
