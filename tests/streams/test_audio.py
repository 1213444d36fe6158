import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.audio import ChannelAudio, Chunk, Resampler, decode_mulaw, encode_mulaw, rms_dbfs
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


def test_a_sample_rate_that_no_telephone_has_is_refused():
    with pytest.raises(ValueError, match="expected a sample rate"):
        Resampler(100)


def chunk(number: int, value: int = 1000, samples: int = 160) -> Chunk:
    return Chunk(number, (number - 1) * 20, np.full(samples, value, np.int16))


def heard(items):
    frames = [i for i in items if isinstance(i, AudioFrame)]
    return frames, [i for i in items if isinstance(i, Gap)]


def test_chunks_in_order_become_frames_without_holes():
    audio = ChannelAudio("c", "agent", 16_000)
    frames, gaps = heard([i for n in range(1, 11) for i in audio.push(chunk(n, samples=320))])
    assert [f.media_ms for f in frames] == list(range(0, 200, 20))
    assert gaps == []


def test_two_swapped_chunks_are_put_right_without_a_gap():
    audio = ChannelAudio("c", "agent", 16_000)
    items = [i for n in (1, 2, 4, 3, 5) for i in audio.push(chunk(n, value=n, samples=320))]
    frames, gaps = heard(items)
    assert gaps == []
    assert [np.frombuffer(f.pcm, "<i2")[0] for f in frames] == [1, 2, 3, 4, 5]


def test_a_missing_chunk_becomes_a_gap_once_five_others_wait():
    audio = ChannelAudio("c", "agent", 16_000)
    items = []
    # Five chunks of 20 ms are missing, more than the drift that is forgiven.
    for n in (1, 2, *range(8, 14)):
        items += audio.push(chunk(n, samples=320))
    frames, gaps = heard(items)
    assert [(g.media_ms, g.duration_ms, g.reason) for g in gaps] == [(40, 100, "missing")]
    assert frames[-1].media_ms == 240


def test_a_chunk_after_its_time_is_dropped_and_counted():
    audio = ChannelAudio("c", "agent", 16_000)
    for n in (1, 2, 3):
        audio.push(chunk(n, samples=320))
    assert audio.push(chunk(2, samples=320)) == []
    assert audio.late == 1


def test_a_peer_that_numbers_both_channels_together_costs_no_delay():
    audio = ChannelAudio("c", "agent", 16_000)
    for index, number in enumerate((1, 3, 5, 7)):
        out = audio.push(Chunk(number, index * 20, np.ones(320, np.int16)))
        assert [f.media_ms for f in out] == [index * 20]


def test_a_timestamp_hours_away_is_an_error_not_an_hour_of_silence():
    audio = ChannelAudio("c", "agent", 16_000)
    audio.push(chunk(1))
    with pytest.raises(ValueError, match="within 10 minutes"):
        audio.push(Chunk(2, 9_999_999, np.ones(160, np.int16)))


@settings(max_examples=60)
@given(st.permutations(list(range(1, 30))), st.sets(st.integers(2, 29)))
def test_frames_never_go_back_in_time_whatever_the_order(order, lost):
    audio = ChannelAudio("c", "agent", 8_000)
    items = [i for n in order if n not in lost for i in audio.push(chunk(n))] + audio.flush()
    frames, _ = heard(items)
    ends = 0
    for frame in frames:
        assert frame.media_ms >= ends - 1
        ends = frame.media_ms + frame.duration_ms
