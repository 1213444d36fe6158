from __future__ import annotations

import pytest

from detectors.mandarin import normalise
from detectors.scope import is_denied, is_warning


def about(text: str, phrase: str) -> tuple[bool, bool]:
    normal = normalise(text)
    start = normal.text.index(phrase)
    end = start + len(phrase)
    return is_denied(normal, start, end), is_warning(normal, start, end)


@pytest.mark.parametrize(
    "text",
    ["我们不承诺保本保息", "并不是说保本保息", "没有保本保息的产品", "从不保本保息", "不能给您保本保息"],
)
def test_a_negation_before_the_phrase_denies_it(text: str) -> None:
    assert about(text, "保本保息")[0]


@pytest.mark.parametrize(
    "text",
    [
        "不用担心保本保息",
        "没问题，保本保息",
        "不但保本保息",
        "是不是保本保息",
        "我不骗您，保本保息",
        "别着急，保本保息",
    ],
)
def test_a_negation_of_something_else_denies_nothing(text: str) -> None:
    assert about(text, "保本保息") == (False, False)


@pytest.mark.parametrize(
    "text",
    [
        "凡是说保本保息的都是骗子",
        "如果有人跟您说保本保息",
        "保本保息是不可能的",
        "谨防保本保息的骗局",
        "保本保息都是骗人的",
    ],
)
def test_a_phrase_quoted_as_a_warning_is_recognised(text: str) -> None:
    assert about(text, "保本保息")[1]
