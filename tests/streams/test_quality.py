"""What is wrong with a call's sound, and what only seems so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.audio import decode_alaw, decode_mulaw
from streams.events import SAMPLE_RATE, CallInfo, Hold
from streams.heard import HeardCall
from streams.judge import LocalJudge
from streams.quality import AFTER_LIFE, FROM_THE_START, MOST_TOLD, CallQuality, ChannelQuality
from streams.silero import WINDOW
from streams.testing import LoudnessVad, hear, music, play, silence, speak, telephone, tone
from tests.streams.misread import conversation, doubled, linear, right, wrong

SPOKEN = conversation()
RANDOM = np.random.default_rng(7)


def windowed(samples):
    return samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW)


def changes(samples, spoken=(), pieces=2, first=0):
    """Of one channel. ``spoken``: ranges in ms that the judge takes for speech."""
    windows = windowed(samples)
    probabilities = np.zeros(len(windows), np.float32)
    for start, end in spoken:
        probabilities[start // 32 : end // 32] = 1
    quality, out = ChannelQuality(), []
    for at in range(0, len(windows), pieces):
        here = slice(at, at + pieces)
        for _, found in quality.heard(windows[here], probabilities[here], first + at * WINDOW):
            out += found
    return out


def told(samples, spoken=(), pieces=2):
    return [(c.kind, c.present, c.measured) for c in changes(samples, spoken, pieces)]


def noise(ms, level=3_000):
    return RANDOM.normal(0, level, ms * SAMPLE_RATE // 1000).clip(-32768, 32767).astype(np.int16)


# ── wrong codec ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", list(wrong(SPOKEN)))
def test_a_wrong_codec_is_told_once_within_ten_seconds_of_speech(how):
    expected, heard = wrong(SPOKEN)[how]
    [change] = changes(heard)
    assert (change.kind, change.present, change.measured) == ("noise", True, expected)
    assert change.media_ms <= 10_000
    assert 0 <= change.since_ms < change.media_ms


@pytest.mark.parametrize("how", list(right(SPOKEN)))
@pytest.mark.parametrize("judge", ["hears it", "is deaf"])
def test_the_right_codec_is_not(how, judge):
    assert told(right(SPOKEN)[how], [(0, 30_000)] if judge == "hears it" else []) == []


def test_a_codec_that_is_put_right_is_told_too():
    _, gravel = wrong(SPOKEN)["mu-law as A-law"]
    good = right(SPOKEN)["mu-law"]
    found = told(np.concatenate([gravel, good]), [(30_000, 60_000)])
    assert [(kind, present) for kind, present, _ in found] == [("noise", True), ("noise", False)]


def test_a_codec_that_goes_wrong_in_the_middle_of_a_call_is_told():
    _, gravel = wrong(SPOKEN)["mu-law as A-law"]
    good = right(SPOKEN)["mu-law"]
    [change] = changes(np.concatenate([good, gravel]), [(0, 30_000)])
    assert (change.kind, change.present, change.measured) == ("noise", True, "mu-law as A-law")
    # As long as it was right, by then: what crackles for a moment is no codec.
    assert change.media_ms - len(good) * 1000 // SAMPLE_RATE <= 30_000


@pytest.mark.parametrize("read", [decode_mulaw, decode_alaw, linear])
def test_bytes_that_are_no_sound_at_all_are_noise_after_five_seconds(read):
    raw = RANDOM.integers(0, 256, 240_000).astype(np.uint8).tobytes()
    [change] = changes(doubled(read(raw))[: 12 * SAMPLE_RATE])
    assert (change.kind, change.measured, change.since_ms) == ("noise", "white noise", 0)
    assert 5_000 <= change.media_ms <= 6_000


def test_white_noise_ends():
    found = told(np.concatenate([noise(10_000, 9_000), silence(10_000)]))
    assert found == [("noise", True, "white noise"), ("noise", False, "")]


QUIET_ENOUGH = {
    "a usual office": lambda: noise(30_000, 300),
    "rain on a telephone": lambda: telephone(noise(30_000, 6_000)),
    "a hissing line": lambda: noise(30_000, 1_500),
    "hold music": lambda: telephone(music(30_000)),
    "loud hold music": lambda: telephone(music(30_000, level=30_000)),
    "the calling tone of a fax": lambda: np.concatenate([tone(500, hertz=1_100.0), silence(3_000)] * 8),
    "the answer of a fax": lambda: tone(30_000, 12_000, hertz=2_100.0),
    "a busy tone": lambda: np.concatenate([tone(350, hertz=450.0), silence(350)] * 40),
    "a machine": lambda: tone(30_000, 6_000, hertz=120.0) + noise(30_000, 400),
    "a modem": lambda: modem(30_000),
    "silence": lambda: silence(30_000),
    "silence of A-law": lambda: np.full(30 * SAMPLE_RATE, 8, np.int16),
    "four seconds of hiss": lambda: np.concatenate([noise(4_000, 9_000), silence(4_000)] * 4),
}


def modem(ms):
    """Random phases on a carrier of 1800 Hz, 2400 a second: what a fax sends."""
    t = np.arange(ms * SAMPLE_RATE // 1000)
    phase = RANDOM.integers(0, 8, len(t) * 2400 // SAMPLE_RATE + 1)[t * 2400 // SAMPLE_RATE] * np.pi / 4
    return telephone((8_000 * np.cos(2 * np.pi * 1_800 * t / SAMPLE_RATE + phase)).astype(np.int16))


@pytest.mark.parametrize("what", list(QUIET_ENOUGH))
def test_what_only_sounds_odd_is_no_trouble(what):
    assert told(QUIET_ENOUGH[what]()) == []


# ── too loud ──────────────────────────────────────────────────────────────────────────────────────


def shouted(times, ms=12_000):
    return (speak(ms, 160, 32_000, swing=3).astype(np.float32) * times).clip(-32768, 32767).astype(np.int16)


def test_speech_that_is_cut_off_at_full_scale_is_told_with_its_share():
    [change] = changes(shouted(4), [(0, 12_000)])
    assert (change.kind, change.present) == ("clipping", True)
    assert change.measured.endswith(" %")
    assert change.media_ms == 5_120


def test_loud_speech_is_not():
    assert told(shouted(1), [(0, 12_000)]) == []


def test_what_is_loud_without_speech_is_not():
    assert told(tone(12_000, 32_767)) == []


def test_it_ends_when_somebody_turns_it_down_and_not_in_a_pause():
    samples = np.concatenate([shouted(4), silence(60_000), shouted(0.5)])
    found = changes(samples, [(0, 12_000), (72_000, 84_000)])
    assert [(c.kind, c.present) for c in found] == [("clipping", True), ("clipping", False)]
    assert found[1].media_ms > 72_000


def test_a_wrong_codec_is_not_told_as_clipping_too():
    loud = (SPOKEN / np.abs(SPOKEN).max() * 32_000).astype(np.int16)
    _, gravel = wrong(loud)["mu-law as A-law"]
    assert {kind for kind, _, _ in told(gravel, [(0, 20_000)])} == {"noise"}


# ── how it comes ──────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=20)
@given(st.integers(1, 700))
def test_how_the_windows_come_in_pieces_changes_nothing(pieces):
    samples = np.concatenate([shouted(4), wrong(SPOKEN)["mu-law as A-law"][1]])
    assert changes(samples, [(0, 12_000)], pieces) == changes(samples, [(0, 12_000)], 1)


def test_where_audio_is_missing_the_block_begins_anew():
    quality = ChannelQuality()
    windows = windowed(silence(1_000))
    assert quality.heard(windows[:10], np.zeros(10, np.float32), 0) == []
    [(block, found)] = quality.heard(windows[:16], np.zeros(16, np.float32), 160_000)
    assert (block.start_ms, block.is_still, found) == (10_000, True, [])


# ── one side ──────────────────────────────────────────────────────────────────────────────────────


class Line:
    """Two channels, heard in turn as a runner hears them."""

    def __init__(self, *channels):
        self.quality = CallQuality("c", channels or ("agent", "customer"))
        self.at = dict.fromkeys(channels or ("agent", "customer"), 0)
        self.troubles = []

    def bring(self, seconds, **sides):
        """By channel: ``speech``, ``room`` (a live line), ``nothing`` (digital silence); others: absent."""
        for _ in range(seconds * 2):
            for channel, what in sides.items():
                samples = {
                    "speech": speak(512, 150, 6_000), "room": noise(512, 30), "nothing": silence(512),
                }[what]  # fmt: skip
                windows = windowed(samples)
                spoken = np.full(len(windows), float(what == "speech"), np.float32)
                self.troubles += self.quality.heard(channel, windows, spoken, self.at[channel])
                self.at[channel] += windows.size
        return self

    def skip(self, seconds):
        """Nothing comes on any channel."""
        for channel in self.at:
            self.at[channel] += seconds * SAMPLE_RATE // WINDOW * WINDOW
        return self

    def hold(self, held):
        ms = max(self.at.values()) * 1000 // SAMPLE_RATE
        self.quality.hold(Hold(call_id="c", media_ms=ms, held=held, source="telephony"))
        return self

    @property
    def told(self):
        return [(t.channel, t.kind, t.present) for t in self.troubles]


def test_a_side_that_never_brings_anything_is_dead_after_half_a_minute():
    line = Line().bring(40, agent="speech", customer="nothing")
    assert line.told == [("customer", "dead", True)]
    [trouble] = line.troubles
    assert (trouble.since_ms, trouble.measured) == (0, "30 s")
    assert FROM_THE_START.lasts_ms <= trouble.media_ms <= FROM_THE_START.lasts_ms + 600


def test_so_is_one_that_is_not_connected_at_all():
    line = Line().bring(40, agent="speech")
    assert line.told == [("customer", "dead", True)]


def test_nobody_is_dead_to_whom_nobody_speaks():
    assert Line().bring(300, agent="room", customer="nothing").told == []
    assert Line().bring(9, agent="speech", customer="nothing").bring(300, agent="room").told == []


def test_who_listens_quietly_on_a_live_line_is_not_dead():
    assert Line().bring(600, agent="speech", customer="room").told == []


def test_a_muted_agent_who_listens_for_most_of_a_minute_is_not_dead():
    line = Line().bring(20, agent="speech", customer="room").bring(55, agent="nothing", customer="speech")
    assert line.bring(5, agent="speech", customer="room").told == []


def test_a_headset_that_hears_only_voices_is_not_dead():
    line = Line()
    for _ in range(5):
        line.bring(8, agent="speech", customer="nothing").bring(45, agent="nothing", customer="speech")
    assert line.told == []


def test_a_side_that_dies_in_the_middle_is_told_after_a_minute_and_when_it_comes_back():
    line = Line().bring(20, agent="speech", customer="room").bring(90, agent="speech", customer="nothing")
    assert line.told == [("customer", "dead", True)]
    [trouble] = line.troubles
    assert trouble.since_ms == pytest.approx(20_480, abs=600)
    assert trouble.media_ms - trouble.since_ms == pytest.approx(AFTER_LIFE.lasts_ms, abs=600)
    line.bring(10, agent="room", customer="speech")
    assert line.told[1:] == [("customer", "dead", False)]


def test_a_call_that_was_heard_elsewhere_before_begins_when_it_is_heard_here():
    line = Line().skip(600)
    assert line.bring(25, agent="speech", customer="nothing").told == []
    assert line.bring(10, agent="speech", customer="nothing").told == [("customer", "dead", True)]


def test_on_hold_nobody_is_dead():
    line = Line().bring(10, agent="speech", customer="room").hold(True)
    line.bring(200, agent="speech", customer="nothing").hold(False)
    assert line.told == []
    assert line.bring(50, agent="speech", customer="nothing").told == [], "it counts from there"
    assert line.bring(20, agent="speech", customer="nothing").told == [("customer", "dead", True)]


def test_a_click_is_no_life():
    line = Line().bring(1, agent="speech", customer="room").bring(40, agent="speech", customer="nothing")
    assert line.told == [("customer", "dead", True)]


def test_a_call_that_pauses_as_a_whole_is_not_dead():
    line = (
        Line().bring(10, agent="speech", customer="room").skip(300).bring(5, agent="speech", customer="room")
    )
    assert line.told == []


def test_a_channel_by_itself_is_never_dead():
    assert Line("unknown").bring(5, unknown="speech").bring(300, unknown="nothing").told == []


def test_what_comes_and_goes_all_day_is_told_so_often_and_no_more():
    line = Line()
    for _ in range(MOST_TOLD + 5):
        line.bring(35, agent="speech", customer="nothing").bring(2, agent="room", customer="room")
        line.quality._lives["customer"].sounds = 0  # as if it had never been alive: it goes faster
    begun = [t for t in line.troubles if t.present]
    assert len(begun) == MOST_TOLD
    assert len(line.troubles) == 2 * MOST_TOLD


# ── as a call hears it ────────────────────────────────────────────────────────────────────────────


def test_a_heard_call_tells_of_its_troubles_beside_what_it_hears():
    call, judge = HeardCall(CallInfo(call_id="c")), LocalJudge(LoudnessVad)
    judge.open("c", call.info.channels)
    _, gravel = wrong(SPOKEN)["A-law as mu-law"]
    found = []
    for agent, customer in zip(
        play("c", "agent", right(SPOKEN)["A-law"]), play("c", "customer", gravel), strict=True
    ):
        call.take(agent, 0.0)
        call.take(customer, 0.0)
        found += [item for items in hear([call], judge) for item in items if hasattr(item, "kind")]
    assert [(t.channel, t.kind, t.present) for t in found] == [("customer", "noise", True)]
