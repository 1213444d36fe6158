from __future__ import annotations

import pytest

from detectors.rules import Pack
from tests.detectors.stream import heard, matched, pack, problems, said

QUESTION = "我的卡到底什么时候能寄到啊"
AGAIN = "我的卡究竟什么时候能寄到呀"


def repeats(options: str = "times: 2") -> Pack:
    return pack(f"{{repeat: {{{options}}}}}", role="customer")


def asks(text: str = QUESTION, at: int = 1000) -> object:
    return said(text, role="customer", start=at, end=at + 2600)


def test_what_is_said_a_second_time_is_raised_where_it_is_said_again() -> None:
    (found,) = heard(repeats(), asks(), asks("好的", at=6000), asks(AGAIN, at=20_000))
    assert (found.media_start_ms, found.media_end_ms) == (20_000, 22_600)
    assert matched(found) == (AGAIN,)
    assert found.evidence.how == "similar"


def test_another_question_is_no_repetition_and_neither_is_the_other_sides_echo() -> None:
    assert heard(repeats(), asks(), asks("你们营业厅周末开不开门", at=20_000)) == []
    assert heard(repeats(), said(QUESTION, role="agent"), asks(at=9000)) == []


def test_so_many_times_means_so_many_times() -> None:
    times = [asks(at=at) for at in (1000, 9000, 20_000)]
    assert heard(repeats("times: 3"), *times[:2]) == []
    (found,) = heard(repeats("times: 3"), *times)
    assert found.anchor_ms == 20_000


def test_what_was_said_too_long_ago_is_forgotten() -> None:
    assert len(heard(repeats("seconds: 60"), asks(), asks(at=63_600))) == 1
    assert heard(repeats("seconds: 60"), asks(), asks(at=63_601)) == []


def test_short_and_excepted_turns_do_not_count() -> None:
    assert heard(repeats(), asks("好的好的"), asks("好的好的", at=9000)) == []
    rules = repeats("min_characters: 4, except: [好的, 谢谢您]")
    assert heard(rules, asks("好的，好的谢谢您"), asks("好的，好的谢谢您", at=9000)) == []
    assert len(heard(rules, asks("好的，寄到哪里了"), asks("好的，寄到哪里了", at=9000))) == 1


def test_the_similarity_is_the_pack_authors() -> None:
    assert heard(repeats("similarity: 0.95"), asks(), asks(AGAIN, at=9000)) == []
    assert len(heard(repeats("similarity: 0.95"), asks(), asks(QUESTION + "！", at=9000))) == 1


def test_the_same_words_within_more_words_count_and_the_end_of_the_turn_before_does_not() -> None:
    assert len(heard(repeats(), asks(), asks("我再问一遍，" + QUESTION, at=9000))) == 1
    assert heard(repeats(), asks(), asks("嗯", at=4000)) == [], "the tail is the turn before, not this one"


def test_a_partial_is_judged_against_the_turns_before_and_not_against_itself() -> None:
    partial = said(QUESTION, role="customer", start=1000, end=3000, final=False)
    assert heard(repeats(), partial, asks()) == []
    trial = said(AGAIN, role="customer", start=9000, end=11_600, final=False)
    (early,) = heard(repeats(), asks(), trial, asks(AGAIN, at=9000))
    assert not early.withdrawn


def test_odd_texts_are_no_trouble() -> None:
    for text in ("", "😀", "啊", "卡"):
        assert heard(repeats("min_characters: 2"), asks(text), asks(text, at=9000)) == []
    long = "我的卡什么时候能到" * 1100
    assert len(heard(repeats(), asks(long), asks(long, at=9000))) == 1


@pytest.mark.parametrize(
    ("options", "said_so"),
    [
        ("{times: 1}", "t.yaml:4:95: expected times as a number from 2 to 20, came '1'"),
        ("{similarity: 20}", "expected similarity as a number from 0.5 to 1"),
        ("{except: [嗯]}", "expected a phrase that can be heard, came '嗯'"),
        ("{time: 2}", "did you mean 'times'?"),
        ("2", "expected repeat as a mapping, came '2'"),
    ],
)
def test_a_broken_repeat_is_refused_with_a_reason(options: str, said_so: str) -> None:
    assert any(said_so in problem for problem in problems(f"{{repeat: {options}}}"))
