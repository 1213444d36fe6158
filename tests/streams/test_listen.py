from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.events import SAMPLE_RATE, SpeechStarted, SpeechStopped, Utterance
from streams.listen import Endpointing, Listener
from streams.testing import LoudnessVad, play, silence, tone


def listen(*pieces, rules=None, frame_ms=20):
    listener = Listener("c", "agent", LoudnessVad(), rules)
    out = []
    for frame in play("c", "agent", np.concatenate(pieces), frame_ms=frame_ms):
        out += listener.push(frame)
    return out + listener.finish()


def finals(heard):
    return [h for h in heard if isinstance(h, Utterance) and h.final]


def test_one_stretch_of_speech_gives_start_stop_and_one_final():
    heard = listen(silence(1000), tone(1500), silence(1500))
    edges = [h for h in heard if not isinstance(h, Utterance)]
    assert [type(e) for e in edges] == [SpeechStarted, SpeechStopped]
    assert abs(edges[0].media_ms - 1000) <= 40
    assert abs(edges[1].media_ms - 2500) <= 40
    [final] = finals(heard)
    assert final.endpoint == "pause"
    # Pre-roll before, a short tail behind.
    assert 650 <= final.start_ms <= 750
    assert abs(final.end_ms - 2500) <= 40


def test_silence_gives_nothing():
    assert listen(silence(5000)) == []


def test_a_click_is_no_speech():
    assert listen(silence(500), tone(90), silence(1500)) == []


def test_a_pause_shorter_than_the_hangover_does_not_cut():
    heard = listen(tone(800), silence(300), tone(800), silence(1000))
    assert len(finals(heard)) == 1


def test_a_long_utterance_is_cut_at_a_short_breath():
    heard = listen(tone(6500), silence(260), tone(2000), silence(1000))
    assert [u.endpoint for u in finals(heard)] == ["soft", "pause"]


def test_somebody_who_never_pauses_is_cut_hard_and_nothing_is_lost():
    heard = listen(tone(40_000), silence(1000), rules=Endpointing(longest=15_000))
    cut = finals(heard)
    assert [u.endpoint for u in cut[:-1]] == ["hard"] * (len(cut) - 1)
    assert len(cut) == 4
    for before, after in pairwise(cut):
        assert after.start_ms == before.start_ms + before.duration_ms
    # The speech goes on: only one start and one stop.
    assert [type(h) for h in heard if not isinstance(h, Utterance)] == [SpeechStarted, SpeechStopped]


def test_the_end_of_the_audio_ends_the_utterance():
    [final] = finals(listen(silence(500), tone(1000)))
    assert final.endpoint == "end"


def test_partials_grow_and_keep_the_id_of_their_final():
    heard = listen(tone(4000), silence(1000))
    partials = [h for h in heard if isinstance(h, Utterance) and not h.final]
    [final] = finals(heard)
    assert len(partials) >= 3
    assert {p.utterance_id for p in partials} == {final.utterance_id}
    lengths = [p.duration_ms for p in partials]
    assert lengths == sorted(lengths)


def test_the_pre_roll_reaches_into_the_pause_that_ended_the_utterance_before():
    heard = finals(listen(tone(6500), silence(300), tone(1500), silence(900)))
    assert len(heard) == 2
    onset = 6_800
    assert heard[1].start_ms <= onset - 100


def test_a_hole_in_the_media_time_counts_as_silence():
    listener = Listener("c", "agent", LoudnessVad())
    out = []
    for frame in play("c", "agent", tone(1000)):
        out += listener.push(frame)
    for frame in play("c", "agent", tone(1000), start_ms=61_000):
        out += listener.push(frame)
    out += listener.finish()
    first, second = finals(out)
    assert abs(first.end_ms - 1000) <= 100
    assert second.start_ms >= 60_900
    assert abs(listener.media_ms - 62_000) <= 40


def test_a_frame_shorter_than_a_window_is_kept_for_the_next():
    assert len(finals(listen(silence(200), tone(700), silence(900), frame_ms=1))) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(20, 4000)), min_size=1, max_size=12))
def test_utterances_are_ordered_do_not_overlap_and_pair_with_edges(pieces):
    heard = listen(*(tone(ms) if loud else silence(ms) for loud, ms in pieces))
    cut = finals(heard)
    for before, after in pairwise(cut):
        assert after.start_ms >= before.start_ms + before.duration_ms
    for utterance in cut:
        assert 0 <= utterance.start_ms < utterance.end_ms
        assert len(utterance.pcm) % 2 == 0
        assert utterance.duration_ms <= 15_000 + 1000
    starts = sum(isinstance(h, SpeechStarted) for h in heard)
    stops = sum(isinstance(h, SpeechStopped) for h in heard)
    assert starts == stops


def test_two_runs_over_the_same_audio_are_equal():
    audio = (silence(300), tone(900), silence(700), tone(2500), silence(600))
    assert listen(*audio) == listen(*audio)
    assert SAMPLE_RATE == 16_000
