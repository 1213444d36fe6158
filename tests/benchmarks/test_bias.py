from __future__ import annotations

from pathlib import Path

from app.build import rules
from app.demo.truth import ScriptedCall, Turn
from benchmarks.bias import call_errors, fired, longest, never_said, variants
from benchmarks.engine import Watched
from streams.events import Transcript
from streams.testing import ScriptedTranscriber

ONE_TOKEN_A_CHARACTER = Watched(ScriptedTranscriber(lambda _: ""))  # type: ignore[arg-type]


def final(text: str, role: str = "agent", start_ms: int = 0) -> Transcript:
    return Transcript(
        call_id="c",
        utterance_id=f"c:{role}:{start_ms}",
        role=role,  # type: ignore[arg-type]
        start_ms=start_ms,
        end_ms=start_ms + 2_000,
        text=text,
        final=True,
    )


def test_a_prompt_takes_whole_words_while_they_fit() -> None:
    words = ["保本保息", "稳赚不赔", "验证码"]
    assert longest(words, 9, ONE_TOKEN_A_CHARACTER, opening="好。") == "好。保本保息。"
    assert longest(words, 12, ONE_TOKEN_A_CHARACTER, opening="好。") == "好。保本保息、稳赚不赔。"
    assert longest(words, 1, ONE_TOKEN_A_CHARACTER, opening="好。") == "好。"


def test_no_variant_is_longer_than_it_says() -> None:
    tried = {v.name: v for v in variants(rules(None), ONE_TOKEN_A_CHARACTER, [30, 60])}
    assert tried["none"].tokens == 0
    assert tried["words 30"].tokens <= 30 < tried["words 60"].tokens <= 60
    assert len(tried["words 60, turned"].prompt) == len(tried["words 60"].prompt)


def test_a_word_that_was_said_is_not_counted_against_the_prompt() -> None:
    assert never_said(["验证码", "零风险"], "请告诉我验证码，零风险", "告诉我验证码") == ["零风险"]


def test_a_channel_is_compared_with_its_own_turns() -> None:
    call = ScriptedCall(
        "c",
        Path("c.ogg"),
        (
            Turn(0.0, 2.0, "agent", "您好"),
            Turn(2.0, 4.0, "customer", "我要投诉"),
            Turn(4.0, 5.0, "agent", "好的"),
        ),
    )
    heard = [final("好的", start_ms=4_000), final("我要投书", "customer", 2_000), final("您好")]
    assert (call_errors(call, heard).edits, call_errors(call, heard).characters) == (1, 8)


def test_a_red_line_in_other_speech_is_noticed_whoever_says_it() -> None:
    assert "redline.guaranteed_return" in fired("这个产品保本保息", rules(None))
    assert fired("今天的新闻", rules(None)) == []
