"""The demo calls are what their truth says, and the script that renders them measures time rightly."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from app.demo import make_calls
from app.demo.make_calls import LINE_RATE, PAD_S, SPEECH_RATE, Script, ScriptError, Turn

DEMO = Path(make_calls.__file__).parent / "calls"
SCRIPTS = Path(make_calls.__file__).parent / "scripts"
TESTS = Path(__file__).parents[1] / "calls"
DEMO_CALLS = sorted(DEMO.glob("*.ogg"))
STEREO_CALLS = [*DEMO_CALLS, TESTS / "short.ogg"]

REDLINES = {
    "redline.guaranteed_return",
    "redline.exaggerated_return",
    "redline.deposit_equivalence",
    "redline.fake_endorsement",
    "redline.private_transfer",
    "redline.ask_credentials",
    "redline.borrow_to_invest",
    "redline.abuse",
    "redline.leak_customer_data",
}
WARNINGS = {
    "warning.hunger_marketing",
    "warning.disparage_peers",
    "warning.pushy_after_refusal",
    "warning.unsuitable_investor",
    "warning.deflect",
}
SIGNALS = {
    "signal.complaint",
    "signal.regulator",
    "signal.legal",
    "signal.media",
    "signal.repeat_contact",
    "signal.escalate",
    "signal.fraud_victim",
    "signal.self_harm",
    "signal.churn",
    "signal.praise",
}
OPPORTUNITIES = {"opportunity.loan", "opportunity.wealth"}
DYNAMICS = {
    "dynamics.dead_air",
    "dynamics.interruption",
    "dynamics.overlap",
    "dynamics.fast_speech",
    "dynamics.long_hold",
    "emotion.customer_anger",
    "emotion.agent_anger",
    "emotion.customer_distress",
    "privacy.spoken",
}
ROLE_OF = dict.fromkeys(REDLINES | WARNINGS, "agent") | dict.fromkeys(SIGNALS | OPPORTUNITIES, "customer")
CLEAN = {"compliant_sale", "plain_service"}

Truth = list[dict[str, Any]]


def name(path: Path) -> str:
    return path.stem


@cache
def truth_of(path: Path) -> Truth:
    rows: Truth = json.loads(path.with_suffix(".json").read_text("utf-8"))
    return rows


@cache
def decode(path: Path) -> npt.NDArray[np.float32]:
    """The call as heard, shape (channels, samples) at 16 kHz."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", layout=stream.layout.name, rate=16_000)
        pieces = [
            part.to_ndarray() for frame in container.decode(stream) for part in resampler.resample(frame)
        ]
        pieces += [part.to_ndarray() for part in resampler.resample(None)]
    return np.concatenate(pieces, axis=1)


def level(audio: npt.NDArray[np.float32], start: float, end: float) -> float:
    """dBFS between two seconds."""
    piece = audio[max(0, round(start * 16_000)) : round(end * 16_000)]
    return float(10 * np.log10(np.mean(piece**2) + 1e-12))


def alone(rows: Truth) -> Truth:
    """The turns during which, and around which, the other side says nothing."""

    def apart(row: dict[str, Any], other: dict[str, Any]) -> bool:
        return bool(row is other or other["end"] + 0.15 < row["start"] or row["end"] + 0.15 < other["start"])

    return [row for row in rows if row["text"] and all(apart(row, other) for other in rows if other["text"])]


# ── the committed calls ───────────────────────────────────────────────────────────────────────────


def test_there_are_at_least_eight_demo_calls_and_they_are_small() -> None:
    assert len(DEMO_CALLS) >= 8
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 4 * 2**20


def test_every_script_is_rendered_and_every_call_has_a_script() -> None:
    assert {path.stem for path in DEMO_CALLS} == {path.stem for path in SCRIPTS.glob("*.yaml")}


@pytest.mark.parametrize("path", DEMO_CALLS, ids=name)
def test_a_demo_call_has_two_channels_and_lasts_40_to_90_seconds(path: Path) -> None:
    audio = decode(path)
    assert audio.shape[0] == 2
    assert 40 <= audio.shape[1] / 16_000 <= 90


@pytest.mark.parametrize("path", [*STEREO_CALLS, TESTS / "mono.ogg"], ids=name)
def test_the_truth_is_in_the_agreed_form(path: Path) -> None:
    rows = truth_of(path)
    assert [row["start"] for row in rows] == sorted(row["start"] for row in rows)
    for row in rows:
        assert set(row) == {"start", "end", "role", "text", "emotion", "rules", "spans"}
        assert row["role"] in {"agent", "customer"}
        assert 0 <= row["start"] < row["end"]
        assert {span["rule"] for span in row["spans"]} == set(row["rules"])
        for span in row["spans"]:
            assert row["start"] - 0.001 <= span["start"] < span["end"] <= row["end"] + 0.001


@pytest.mark.parametrize("path", STEREO_CALLS, ids=name)
def test_the_rules_exist_and_stand_on_the_side_they_watch(path: Path) -> None:
    for row in truth_of(path):
        for rule in row["rules"]:
            assert rule in REDLINES | WARNINGS | SIGNALS | OPPORTUNITIES | DYNAMICS
            assert ROLE_OF.get(rule, row["role"]) == row["role"]


@pytest.mark.parametrize("path", STEREO_CALLS, ids=name)
def test_the_audio_ends_shortly_after_the_last_turn(path: Path) -> None:
    last = max(row["end"] for row in truth_of(path))
    assert last + make_calls.TAIL_S == pytest.approx(decode(path).shape[1] / 16_000, abs=0.05)


@pytest.mark.parametrize("path", DEMO_CALLS, ids=name)
def test_the_truth_says_what_the_script_says(path: Path) -> None:
    script = make_calls.read_script(SCRIPTS / f"{path.stem}.yaml")
    assert [(turn.role, turn.text, [*turn.rules]) for turn in script.turns] == [
        (row["role"], row["text"], row["rules"]) for row in truth_of(path)
    ]


def test_the_calls_cover_every_redline_and_every_signal() -> None:
    said = {rule for path in DEMO_CALLS for row in truth_of(path) for rule in row["rules"]}
    assert said >= REDLINES | SIGNALS | WARNINGS


def test_the_clean_calls_hold_no_redline_and_no_signal() -> None:
    for call in CLEAN:
        said = {rule for row in truth_of(DEMO / f"{call}.ogg") for rule in row["rules"]}
        assert not said & (REDLINES | SIGNALS | WARNINGS)


def test_the_near_misses_hold_no_redline() -> None:
    assert not {rule for row in truth_of(DEMO / "near_misses.ogg") for rule in row["rules"]} & REDLINES


@pytest.mark.parametrize("path", STEREO_CALLS, ids=name)
def test_one_side_is_quiet_while_the_other_speaks(path: Path) -> None:
    audio, turns = decode(path), alone(truth_of(path))
    assert {row["role"] for row in turns} == {"agent", "customer"}
    for row in turns:
        speaks, listens = (0, 1) if row["role"] == "agent" else (1, 0)
        loud = level(audio[speaks], row["start"], row["end"])
        assert loud > -35
        assert level(audio[listens], row["start"], row["end"]) < loud - 25


@pytest.mark.parametrize("path", STEREO_CALLS, ids=name)
def test_a_turn_begins_and_ends_when_its_voice_does(path: Path) -> None:
    audio = decode(path)
    for row in alone(truth_of(path)):
        channel = audio[0 if row["role"] == "agent" else 1]
        start, end = row["start"], row["end"]
        assert level(channel, start - 0.15, start - 0.04) < -50
        assert level(channel, start, start + 0.2) > -48
        assert level(channel, end - 0.25, end) > -52
        assert level(channel, end + 0.04, end + 0.15) < -50


def test_one_call_holds_a_dead_air_of_17_to_18_seconds() -> None:
    found = [
        (path, row) for path in DEMO_CALLS for row in truth_of(path) if "dynamics.dead_air" in row["rules"]
    ]
    assert len(found) == 1
    path, row = found[0]
    assert path.stem not in CLEAN
    assert 17 <= row["end"] - row["start"] <= 18
    for channel in decode(path):
        assert level(channel, row["start"] + 0.05, row["end"] - 0.05) < -55


def test_the_short_call_holds_one_redline_and_one_signal() -> None:
    rules = [rule for row in truth_of(TESTS / "short.ogg") for rule in row["rules"]]
    assert rules == ["redline.guaranteed_return", "signal.complaint"]
    assert 12 <= decode(TESTS / "short.ogg").shape[1] / 16_000 <= 22


def test_the_mono_call_holds_both_sides_in_one_channel() -> None:
    audio, rows = decode(TESTS / "mono.ogg"), truth_of(TESTS / "mono.ogg")
    assert audio.shape[0] == 1
    assert 7 <= audio.shape[1] / 16_000 <= 15
    assert {row["role"] for row in rows} == {"agent", "customer"}
    assert all(level(audio[0], row["start"], row["end"]) > -35 for row in rows)


# ── the script that renders them ──────────────────────────────────────────────────────────────────


def hum(sentence: str, voice: str, speed: float) -> npt.NDArray[np.float32]:
    """A stand-in for the speech model: 0.2 s of tone a character, 0.3 s of nothing a comma."""
    pieces = [np.zeros(1200, np.float32)]
    for sign in sentence.rstrip("。！？"):
        if sign == "，":
            pieces.append(np.zeros(round(0.3 * SPEECH_RATE), np.float32))
        else:
            time = np.arange(round(0.2 * SPEECH_RATE)) / SPEECH_RATE
            pieces.append(np.sin(2 * np.pi * 1000 * time + 0.5).astype(np.float32) * 0.3)
    return np.concatenate([*pieces, np.zeros(1200, np.float32)])


def script(*turns: Turn, **more: Any) -> Script:
    return Script(
        "test", {"agent": "a", "customer": "b"}, {"agent": 1.0, "customer": 1.0}, tuple(turns), **more
    )


def test_a_phrase_behind_a_comma_is_found_where_it_sounds() -> None:
    turn = Turn("agent", "您好。这款产品，保本保收益，请放心。", rules={"r": ("保本保收益",)})
    _, rows = make_calls.render(script(turn), hum)
    sentence = rows[0]["start"] + 0.4 + 2 * PAD_S + make_calls.SENTENCE_PAUSE_S
    (span,) = rows[0]["spans"]
    assert span["start"] == pytest.approx(sentence + 0.8 + 0.3, abs=0.03)
    assert span["end"] == pytest.approx(sentence + 0.8 + 0.3 + 1.0, abs=0.03)


def test_a_phrase_within_a_clause_lies_in_proportion_to_its_syllables() -> None:
    _, rows = make_calls.render(script(Turn("agent", "我们保本的。", rules={"r": ("保本",)})), hum)
    (span,) = rows[0]["spans"]
    assert span["start"] - rows[0]["start"] == pytest.approx(0.4, abs=0.02)
    assert span["end"] - rows[0]["start"] == pytest.approx(0.8, abs=0.02)


def test_a_negative_pause_lets_the_next_turn_begin_before_the_last_one_ends() -> None:
    _, rows = make_calls.render(
        script(Turn("agent", "我们马上处理。"), Turn("customer", "不行。", pause=-0.4)), hum
    )
    assert rows[1]["start"] == pytest.approx(rows[0]["end"] - 0.4, abs=0.001)


def test_a_silence_stands_in_the_truth_and_lasts_exactly_as_written() -> None:
    dead_air = Turn("agent", "", silence=17.5, rules={"dynamics.dead_air": ()})
    call, rows = make_calls.render(script(Turn("customer", "喂。"), dead_air, Turn("agent", "在。")), hum)
    assert rows[1]["start"] == rows[0]["end"]
    assert rows[2]["start"] == pytest.approx(rows[0]["end"] + 17.5, abs=0.001)
    assert rows[1]["spans"] == [
        {"rule": "dynamics.dead_air", "start": rows[1]["start"], "end": pytest.approx(rows[1]["start"] + 15)}
    ]
    quiet = call[:, round((rows[1]["start"] + 0.1) * LINE_RATE) : round((rows[1]["end"] - 0.1) * LINE_RATE)]
    assert np.abs(quiet).max() < 0.01


def test_the_same_script_gives_the_same_bytes(tmp_path: Path) -> None:
    one = script(Turn("agent", "您好。"), Turn("customer", "你好，我问一下。"))
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        assert len([*make_calls.make(one, hum, tmp_path / folder)]) == 1
    for file in ("test.ogg", "test.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_the_telephone_keeps_1000_hertz_and_drops_50_and_6000() -> None:
    time = np.arange(SPEECH_RATE) / SPEECH_RATE

    def through(hertz: float) -> float:
        heard = make_calls.telephone(np.sin(2 * np.pi * hertz * time).astype(np.float32))
        return float(np.sqrt(np.mean(heard[800:-800] ** 2)))

    assert through(1000) == pytest.approx(np.sqrt(0.5), abs=0.01)
    assert through(50) < 0.01
    assert through(6000) < 0.01


@pytest.mark.parametrize(
    ("turn", "complaint"),
    [
        ("{role: agent, text: 您好, rules: {redline.abuse: 再见}}", "expected phrases of the turn's text"),
        ("{role: boss, text: 您好}", "expected role agent or customer, got 'boss'"),
        ("{role: agent, text: 请打12378}", "expected the text as it is spoken, got"),
        ("{role: agent, text: 您好, loudness: 3}", "loudness"),
    ],
)
def test_a_wrong_turn_is_refused_with_its_number(tmp_path: Path, turn: str, complaint: str) -> None:
    path = tmp_path / "wrong.yaml"
    turns = f"turns:\n  - {{role: agent, text: 好}}\n  - {turn}\n"
    path.write_text("voices: {}\nspeed: {}\n" + turns, "utf-8")
    with pytest.raises(ScriptError, match=r"wrong\.yaml, turn 2") as caught:
        make_calls.read_script(path)
    assert complaint in str(caught.value)


def test_an_unknown_call_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_calls.main(["--voices", "none", "--only", "nothing_of_the_kind"])
    assert "mis_selling" in capsys.readouterr().err
