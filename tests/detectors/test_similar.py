from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detectors.stream import heard, matched, pack, problems, said

SENTENCE = "本产品不保证本金和收益请您谨慎购买"
SIMILAR = f"{{similar: {{any: [{SENTENCE}], negation: false, warning: false}}}}"


def test_a_sentence_said_nearly_so_is_found_where_it_stands() -> None:
    (found,) = heard(
        pack(SIMILAR), said("好的，本产品呢不保证本金和收益，请您谨慎的购买。那么", start=0, end=2600)
    )
    assert matched(found) == ("本产品呢不保证本金和收益，请您谨慎的购买",)
    assert (found.media_start_ms, found.media_end_ms) == (300, 2300)
    assert found.evidence.expected == (SENTENCE,)
    assert found.evidence.how == "similar"
    assert found.evidence.confidence is not None
    assert 0.8 <= found.evidence.confidence < 1


def test_another_sentence_of_the_same_words_is_not() -> None:
    rules = pack(SIMILAR)
    assert heard(rules, said("购买本产品的客户请您放心收益都很好")) == []
    assert heard(rules, said("本产品不保证")) == [], "half of it is not it"


def test_the_score_is_the_share_that_must_agree() -> None:
    text = "本产品不保证本金和收益您看看再买吧"
    assert heard(pack(SIMILAR), said(text)) == []
    loose = pack(f"{{similar: {{any: [{SENTENCE}], score: 0.6, negation: false, warning: false}}}}")
    assert len(heard(loose, said(text))) == 1


def test_a_sentence_misheard_is_known_by_its_sound_if_the_transcript_is_sure_enough() -> None:
    rules = pack(SIMILAR)
    misheard = "本场品不保正本今和收意请宁警慎够买"
    (found,) = heard(rules, said(misheard, confidence=0.9))
    assert matched(found) == (misheard,)
    assert heard(rules, said(misheard, confidence=0.2)) == []


def test_a_sentence_cut_by_an_endpoint_is_found_and_one_that_was_whole_not_twice() -> None:
    rules = pack(SIMILAR)
    (found,) = heard(
        rules, said("本产品不保证本金和", end=3000), said("收益请您谨慎购买", start=3300, end=5000)
    )
    assert matched(found) == ("收益请您谨慎购买",)
    assert found.anchor_ms == 3300
    assert len(heard(rules, said(SENTENCE, end=3000), said("好的好的", start=3300, end=4000))) == 1


def test_a_denied_sentence_does_not_count() -> None:
    rules = pack("{similar: [保证收益百分之五以上]}")
    assert len(heard(rules, said("我们保证收益百分之五以上"))) == 1
    assert heard(rules, said("我们不能保证收益百分之五以上")) == []


def test_a_partial_raises_and_a_final_without_it_withdraws() -> None:
    early, withdrawn = heard(pack(SIMILAR), said(SENTENCE, final=False, end=3000), said("您好", end=3000))
    assert (early.withdrawn, withdrawn.withdrawn) == (False, True)


def test_odd_texts_are_no_trouble() -> None:
    rules = pack(SIMILAR)
    assert heard(rules, said(""), said("😀"), said("本"), said("本" * 10_000, start=9000)) == []
    (found,) = heard(rules, said("好的" * 4990 + SENTENCE))
    assert matched(found) == (SENTENCE,)


@settings(deadline=None)
@given(st.sets(st.integers(0, len(SENTENCE) - 1), max_size=3))
def test_three_characters_in_seventeen_may_be_missing(gone: set[int]) -> None:
    text = "".join(char for at, char in enumerate(SENTENCE) if at not in gone)
    assert len(heard(pack(SIMILAR), said(f"请听好{text}明白吗"))) == 1


@pytest.mark.parametrize(
    ("options", "said_so"),
    [
        ("[保本]", "t.yaml:4:89: expected a sentence of 4 to 200 characters (of normalised text), came 2"),
        ("[]", "expected at least one sentence, came none"),
        ("{score: 0.9}", "expected 'any' in similar, came none"),
        ("{any: [请您谨慎购买], score: 2}", "expected score as a number from 0.5 to 1, came '2'"),
        ("{any: [请您谨慎购买], scor: 1}", "did you mean 'score'?"),
    ],
)
def test_a_broken_similar_is_refused_with_a_reason(options: str, said_so: str) -> None:
    assert any(said_so in problem for problem in problems(f"{{similar: {options}}}"))
