from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.phrases import phrases, sentences
from detectors.mandarin import normalise
from detectors.rules import lexicon
from detectors.rules.lexicon import Lexicon
from detectors.rules.sieve import Sieve
from detectors.sounds import Sound, cost, keys, listen, near, sound_of, spelt

CHARACTERS = sorted(set("".join(phrases(2000))) - set("…"))
CHARACTER = st.sampled_from(CHARACTERS)
MADE = [
    *phrases(400),
    "我们公司一定会把本金和利息都还给您的",
    "您把验证码和密码一起告诉我就可以了",
    "百分之三点八五的年化收益保本保息",
    "12378",
    "a股",
]


def near_homophone(phrase: str, rng: random.Random) -> str:
    """The phrase with some characters misheard, missing or too many."""
    out = ""
    for char in phrase.replace("…", ""):
        draw = rng.random()
        if draw < 0.4:
            alike = [c for c in CHARACTERS if cost(sound_of(c), sound_of(char)) <= 0.4]
            out += rng.choice(alike) if alike else char
        elif draw > 0.92:
            out += rng.choice(["", char + rng.choice(CHARACTERS)])
        else:
            out += char
    return out


def by_trying_every_place(given: Lexicon, text: str) -> dict[int, list[lexicon.Hit]]:
    """What a scan finds when no sieve spares it a phrase or a place."""

    class Everything(Sieve):
        def aligned(self, sounds):  # type: ignore[no-untyped-def]
            parts = enumerate(given._parts)
            return [(n, at) for n, p in parts if len(p.sounds) > 1 for at in range(-1, len(sounds))]

        def shifted(self, sounds):  # type: ignore[no-untyped-def]
            return []

    sieve, given._sieve = given._sieve, Everything((), 0, 0, 0, 0)
    try:
        return given.scan(normalise(text))
    finally:
        given._sieve = sieve


LEXICON = Lexicon(MADE)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(MADE), st.randoms(use_true_random=False), st.text(CHARACTER, max_size=4))
def test_the_sieve_loses_nothing_that_sounds_like_a_phrase(
    phrase: str, rng: random.Random, around: str
) -> None:
    text = around + near_homophone(phrase, rng) + around
    assert by_trying_every_place(LEXICON, text) == LEXICON.scan(normalise(text))


def test_the_sieve_loses_nothing_in_ordinary_sentences() -> None:
    for text in sentences(25):
        assert by_trying_every_place(LEXICON, text) == LEXICON.scan(normalise(text))


@pytest.mark.parametrize(
    "heard",
    [
        "我们公司一定会把本金利息都还给您的",
        "我们公司一定会把本金和那利息都还给您的",
        "我公司一定会把本金和那利息都还给您的",
        "我门公司一定会把笨金和利息都还给您的",
    ],
)
def test_a_long_phrase_bears_a_syllable_too_few_and_one_too_many(heard: str) -> None:
    (hit,) = Lexicon(["我们公司一定会把本金和利息都还给您的"]).scan(normalise(heard))[0]
    assert not hit.exact
    assert (hit.start, hit.end) == (0, len(heard))


def test_phrases_do_not_disturb_each_other() -> None:
    text = normalise("您把验正码告诉我，这款产品保本保锡")
    alone = {p: Lexicon([p]).scan(text) for p in ("验证码…告诉我", "保本保息", "产品保本保息", "告诉我")}
    (together,) = [Lexicon(alone).scan(text)]
    for number, (phrase, hits) in enumerate(alone.items()):
        assert [hit._replace(phrase=0) for hit in together[number]] == hits[0], phrase


@pytest.mark.parametrize("phrase", ["保", "A", "😀", "", "……", "嗯"])
def test_a_phrase_of_one_character_or_none_is_never_matched_by_sound(phrase: str) -> None:
    hits = Lexicon([phrase]).scan(normalise("宝包报b，" + phrase))
    assert all(hit.exact for found in hits.values() for hit in found)


def test_an_empty_lexicon_finds_nothing() -> None:
    assert Lexicon(()).scan(normalise("保本保息")) == {}
    assert Lexicon(["保本保息"]).scan(normalise("")) == {}


@given(CHARACTER, CHARACTER, st.sampled_from([0.0, 0.1, 0.3, 0.45]))
def test_sounds_are_near_when_they_cost_little(one: str, other: str, most: float) -> None:
    first, second = sound_of(one), sound_of(other)
    assert (not set(near(first, most)).isdisjoint(keys(second))) == (cost(first, second) <= most)


@given(st.lists(st.text(CHARACTER, min_size=1, max_size=12), max_size=6), st.text(CHARACTER, max_size=30))
def test_what_passes_at_every_sound_is_exactly_what_the_sieve_lets_through(
    some: list[str], text: str
) -> None:
    wanted: list[tuple[Sound, ...]] = [spelt(phrase)[1] for phrase in some]
    heard = listen(normalise(text).text).sounds
    sieve = Sieve(wanted, slip=0.3, strict=2, elastic=7, double=10)
    expected = {
        (number, at)
        for number, sounds in enumerate(wanted)
        for at in range(len(heard) - len(sounds) + 1)
        if 2 <= len(sounds) < 7
        and all(
            cost(a, b) <= (0.3 if len(sounds) > 2 else 0.0)
            for a, b in zip(sounds, heard[at : at + len(sounds)], strict=True)
        )
    }
    assert expected == set(sieve.aligned(heard))
