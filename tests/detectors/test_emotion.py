"""What is told of a speaker's feelings while a call runs: by voice, against its own beginning, and words."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.emotion import FEATURES, EmotionDetector
from detectors.panel import Panel
from detectors.rules import parse_pack
from streams.events import (
    CallEvent,
    CallInfo,
    Channel,
    Detection,
    Emotion,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Voice,
)

CALL = CallInfo(call_id="c")
PLAIN = "我想查一下我的信用卡账单"


def spoken(
    start: int,
    text: str = PLAIN,
    role: Channel = "customer",
    length: int = 3000,
    louder: float = 0.0,
    higher: float = 0.0,
    spread: float = 3.0,
    paused: float = 0.1,
    voice: bool = True,
) -> list[CallEvent]:
    """An utterance: ``louder`` in dB and ``higher`` in semitones than a calm one."""
    end = start + length
    name = f"c:{role}:{start}"
    return [
        SpeechStarted(call_id="c", channel=role, media_ms=start),
        SpeechStopped(call_id="c", channel=role, media_ms=end),
        *(
            [
                Voice(
                    call_id="c",
                    channel=role,
                    utterance_id=name,
                    start_ms=start,
                    end_ms=end,
                    level_db=-26 + louder,
                    peak_db=-22 + louder,
                    pitch_hz=160 * 2 ** (higher / 12),
                    pitch_spread=spread,
                    voiced=0.6,
                    paused=paused,
                    timbre=(1.0,) * 12,
                )
            ]
            if voice
            else []
        ),
        Transcript(
            call_id="c", utterance_id=name, role=role, start_ms=start, end_ms=end, text=text, final=True
        ),
    ]


def calm(until: int = 20_000, role: Channel = "customer") -> list[CallEvent]:
    return [event for start in range(0, until, 4000) for event in spoken(start, role=role)]


def felt(*parts: Sequence[CallEvent], detector: EmotionDetector | None = None) -> list[Emotion]:
    detector = detector or EmotionDetector(CALL)
    found = [finding for part in parts for event in part for finding in detector.on_event(event)]
    assert all(isinstance(finding, Emotion) for finding in found)
    return [finding for finding in found if isinstance(finding, Emotion)]


def test_every_final_utterance_tells_one_emotion_with_its_name_and_times() -> None:
    found = felt(calm(8000))
    assert [(e.utterance_id, e.media_start_ms, e.media_end_ms) for e in found] == [
        ("c:customer:0", 0, 3000),
        ("c:customer:4000", 4000, 7000),
    ]
    assert all(e.feeling == "calm" and e.level == 0 for e in found)


def test_partial_transcripts_tell_nothing() -> None:
    detector = EmotionDetector(CALL)
    partial = Transcript(
        call_id="c",
        utterance_id="c:agent:0",
        role="agent",
        start_ms=0,
        end_ms=900,
        text="气死我了",
        final=False,
    )
    assert detector.on_event(partial) == []


def test_the_voice_says_nothing_until_the_speaker_is_known() -> None:
    found = felt(calm(20_000))
    assert [e.voice for e in found] == [None, None, None, 0.0, 0.0]


def test_who_shouts_what_is_harmless_is_upset_but_never_beyond_what_a_voice_alone_is_believed() -> None:
    [*_, shout] = felt(calm(), spoken(24_000, louder=14, higher=8, spread=6))
    assert shout.feeling in ("displeased", "angry")
    assert shout.voice is not None
    assert shout.voice >= 6
    assert 4 <= shout.level <= 6.5


def test_a_little_louder_is_still_calm() -> None:
    [*_, after] = felt(calm(), spoken(24_000, louder=2, higher=0.7))
    assert after.feeling == "calm"


def test_a_voice_that_is_loud_from_the_beginning_is_its_own_measure() -> None:
    loud = [
        event
        for start in range(0, 24_000, 4000)
        for event in spoken(start, louder=14, higher=8, role="customer")
    ]
    assert felt(loud)[-1].feeling == "calm"


def test_who_grows_louder_through_the_whole_call_does_not_become_the_measure_of_it() -> None:
    growing = [spoken(24_000 + n * 4000, louder=n * 1.5, higher=n) for n in range(12)]
    found = felt(calm(), *growing)
    assert found[-1].level > 3.5
    assert found[-1].level >= found[8].level


def test_angry_words_are_angry_also_in_a_flat_voice_and_angrier_in_a_raised_one() -> None:
    words = "你们这是什么态度，凭什么扣我的钱"
    [*_, flat] = felt(calm(), spoken(24_000, words))
    [*_, raised] = felt(calm(), spoken(24_000, words, louder=10, higher=6))
    [unknown] = felt(spoken(0, words))
    assert flat.feeling == raised.feeling == unknown.feeling == "angry"
    assert flat.level == unknown.level
    assert raised.level >= flat.level + 1
    assert unknown.voice is None


def test_displeased_words_in_a_raised_voice_are_angry() -> None:
    words = "打了好几次都没人管，我很不满意"
    [*_, flat] = felt(calm(), spoken(24_000, words))
    [*_, raised] = felt(calm(), spoken(24_000, words, louder=12, higher=7))
    assert flat.feeling == "displeased"
    assert raised.feeling == "angry"


def test_a_high_voice_that_is_not_loud_is_anxious() -> None:
    [*_, after] = felt(calm(), spoken(24_000, higher=9, spread=8, louder=0))
    assert after.feeling == "anxious"


def test_a_soft_low_slow_voice_with_pauses_is_sad() -> None:
    [*_, after] = felt(calm(), spoken(24_000, louder=-12, higher=-5, spread=1, paused=0.5, length=6000))
    assert after.feeling == "sad"
    assert 2 <= after.level <= 4


def test_thanks_in_a_raised_voice_are_not_pleasure() -> None:
    [*_, after] = felt(calm(), spoken(24_000, "谢谢，不用了", louder=14, higher=8))
    assert after.feeling in ("displeased", "angry")


def test_delight_is_pleased_and_makes_no_trend_upwards() -> None:
    glad = [spoken(40_000 + n * 4000, "太好了，太感谢您了", louder=8, higher=5) for n in range(5)]
    found = felt(calm(), *glad)
    assert found[-1].feeling == "pleased"
    assert found[-1].level >= 6
    assert found[-1].trend == 0


def test_talking_over_the_other_side_raises_the_voice() -> None:
    other = spoken(23_000, role="agent", length=6000)[:1]
    [*_, alone] = felt(calm(), spoken(24_000, louder=7, higher=4))
    [*_, over] = felt(calm(), other, spoken(24_000, louder=7, higher=4))
    assert alone.voice is not None
    assert over.voice is not None
    assert over.voice > alone.voice


def test_the_trend_is_the_last_half_minute_less_the_one_before() -> None:
    detector = EmotionDetector(CALL)
    felt(calm(24_000), detector=detector)
    angry = [spoken(34_000 + n * 4000, "我很生气，凭什么") for n in range(5)]
    found = felt(*angry, detector=detector)
    assert found[-1].trend == pytest.approx(found[-1].level, abs=0.5)
    better = felt(*[spoken(64_000 + n * 4000) for n in range(7)], detector=detector)
    assert better[-1].trend < -5


def test_one_syllable_between_two_outbursts_is_no_calm() -> None:
    [_, short] = felt(spoken(0, "气死我了，什么态度"), spoken(5000, "嗯", length=400))
    assert short.feeling == "angry"
    assert short.level > 4
    [_, late] = felt(spoken(0, "气死我了，什么态度"), spoken(120_000, "嗯", length=400))
    assert late.feeling == "calm"


def test_an_utterance_without_text_says_nothing_of_a_voice() -> None:
    [*_, noise] = felt(calm(), spoken(24_000, "", louder=20, higher=12))
    assert (noise.voice, noise.level) == (None, 0)


def test_a_mixed_recording_is_judged_by_its_words_alone() -> None:
    [*_, after] = felt(calm(role="unknown"), spoken(24_000, "气死我了", role="unknown", louder=20))
    assert after.voice is None
    assert after.feeling == "angry"


def test_each_speaker_has_a_baseline_of_its_own() -> None:
    [*_, agent] = felt(calm(), spoken(24_000, role="agent", louder=20))
    assert agent.voice is None


class Certain:
    """A head that is sure of one feeling."""

    def __init__(self, feeling: str) -> None:
        self.feeling, self.asked = feeling, [[0.0]]

    def probabilities(self, features):
        self.asked.append(list(features))
        return {self.feeling: 0.9, "calm": 0.1}


def test_a_head_judges_in_place_of_the_rule_by_the_features_it_was_trained_on() -> None:
    head = Certain("anxious")
    [*_, after] = felt(calm(), spoken(24_000, "我很着急"), detector=EmotionDetector(CALL, head))
    assert (after.feeling, after.voice) == ("anxious", 9.0)
    assert len(head.asked[-1]) == len(FEATURES)
    assert head.asked[-1][FEATURES.index("words_anxious")] > 4
    [first, *_] = felt(calm(4000), detector=EmotionDetector(CALL, head))
    assert first.voice is None


SPOKEN = st.builds(
    spoken,
    start=st.integers(0, 600).map(lambda n: n * 1000),
    text=st.sampled_from([PLAIN, "", "嗯", "气死我了", "谢谢", "我很着急"]),
    role=st.sampled_from(["agent", "customer", "unknown"]),
    length=st.integers(0, 9000),
    louder=st.floats(-100, 30),
    higher=st.floats(-20, 20),
    spread=st.floats(0, 30),
    paused=st.floats(0, 1),
    voice=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SPOKEN, max_size=14), st.data())
def test_a_snapshot_at_any_event_changes_nothing_and_no_level_leaves_its_range(parts, data) -> None:
    events = [event for part in parts for event in part]
    whole, detector = felt(events), EmotionDetector(CALL)
    cut = data.draw(st.integers(0, len(events)))
    found = felt(events[:cut], detector=detector)
    fresh = EmotionDetector(CALL)
    fresh.restore(detector.snapshot())
    assert found + felt(events[cut:], detector=fresh) == whole
    for emotion in whole:
        assert 0 <= emotion.level <= 10
        assert 0 <= emotion.words <= 10
        assert emotion.voice is None or 0 <= emotion.voice <= 10
        assert -10 <= emotion.trend <= 10
        assert (emotion.feeling == "calm") == (emotion.level < 2) or emotion.level == 2.0


def test_state_stays_small_through_three_hours() -> None:
    detector = EmotionDetector(CALL)
    for start in range(0, 3 * 3_600_000, 8000):
        felt(spoken(start), spoken(start + 4000, role="agent"), detector=detector)
    assert len(detector.snapshot()) < 20_000


class Overheard:
    """Stands in for the rules of a panel and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def on_event(self, event):
        self.told.append(event)
        return []


def test_the_panel_tells_the_rules_of_a_feeling_before_the_words_it_was_found_in() -> None:
    pack = parse_pack('id: e\nversion: "1"\nrules: []\n', "e.yaml")
    panel = Panel(CALL, pack, EmotionDetector(CALL))
    rules = Overheard()
    panel._rules = rules  # type: ignore[assignment]
    found = [finding for event in spoken(0, "气死我了") for finding in panel.on_event(event)]
    assert [type(event) for event in rules.told] == [SpeechStarted, SpeechStopped, Voice, Emotion, Transcript]
    assert [type(finding) for finding in found] == [Emotion]


def test_a_panel_with_feelings_is_restored_only_from_one_with_feelings() -> None:
    pack = parse_pack('id: e\nversion: "1"\nrules: []\n', "e.yaml")
    panel = Panel(CALL, pack, EmotionDetector(CALL))
    for event in calm():
        assert not any(isinstance(finding, Detection) for finding in panel.on_event(event))
    again = Panel(CALL, pack, EmotionDetector(CALL))
    again.restore(panel.snapshot())
    assert again.snapshot() == panel.snapshot()
    with pytest.raises(ValueError, match="2 detectors"):
        again.restore(Panel(CALL, pack).snapshot())
