from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.rules import DEFAULT_PACK, Pack, PackError, load_pack, parse_pack

GOOD = """\
id: little
version: "1.0"
rules:
  - id: redline.one
    name: {zh: 一, en: One}
    severity: critical
    role: agent
    when:
      phrase: [保本保息]
"""


def accepted_or_refused_with_reasons(text: str) -> bool:
    try:
        return isinstance(parse_pack(text, "noise.yaml"), Pack)
    except PackError as error:
        return len(error.problems) > 0


def problems(text: str) -> list[str]:
    with pytest.raises(PackError) as refused:
        parse_pack(text, "little.yaml")
    return [str(problem) for problem in refused.value.problems]


def test_a_good_pack_is_loaded_with_a_version_that_names_its_content() -> None:
    pack = parse_pack(GOOD, "little.yaml")
    assert [rule.id for rule in pack.rules] == ["redline.one"]
    assert pack.version.startswith("1.0+")
    assert len("1.0+") + 8 == len(pack.version)
    assert pack.version != parse_pack(GOOD + "\n# changed\n", "little.yaml").version
    assert pack.card("redline.one").severity == "critical"


def test_an_unknown_rule_has_no_card() -> None:
    with pytest.raises(KeyError):
        parse_pack(GOOD, "little.yaml").card("redline.two")


def test_a_wrong_operator_is_pointed_at_with_what_was_expected_and_the_nearest_word() -> None:
    (problem, missing) = problems(GOOD.replace("phrase:", "phrse:"))
    assert "expected one operator" in missing or "expected one operator" in problem
    (named,) = [p for p in (problem, missing) if "'phrse'" in p]
    assert named.startswith("little.yaml:9:7: expected one of ")
    assert named.endswith("did you mean 'phrase'?")


def test_all_problems_are_listed_at_once() -> None:
    broken = (
        GOOD.replace("critical", "critcal").replace("role: agent", "role: agnet").replace("en: One", "fr: Un")
    )
    found = problems(broken)
    assert any("'critcal'" in p and "did you mean 'critical'?" in p for p in found)
    assert any("'agnet'" in p and "did you mean 'agent'?" in p for p in found)
    assert any("expected 'en' in name" in p for p in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "came an empty file"),
        ("[", "expected YAML"),
        ("just text", "expected the pack as a mapping"),
        ("id: a\nid: b\nversion: 1\nrules: []", "expected 'id' once"),
        ("a: &x [*x]", "expected one of"),
        (GOOD.replace("[保本保息]", "['…']"), "expected a phrase that can be heard"),
        (GOOD.replace("[保本保息]", "['嗯嗯']"), "expected a phrase that can be heard"),
        (GOOD.replace("[保本保息]", "{any: [保本], at_least: 1}"), "expected at_least only beside of"),
        (GOOD.replace("phrase: [保本保息]", "regex: '保(本'"), "expected a regular expression (RE2 syntax)"),
        (GOOD.replace("phrase: [保本保息]", "regex: '(?=a)b'"), "expected a regular expression (RE2 syntax)"),
        (GOOD.replace("phrase: [保本保息]", "regex: 'a*'"), "at least one character"),
        (GOOD.replace("phrase: [保本保息]", "regex: 那个保本"), "a filler that is removed"),
        (GOOD.replace("phrase: [保本保息]", "all: []"), "expected at least one condition under all"),
        (GOOD.replace("phrase: [保本保息]", "not: {silence: {seconds: 5}}"), "came one that takes time"),
        (GOOD.replace("phrase: [保本保息]", "silence: {seconds: -1}"), "from 1 to 3600"),
        (GOOD + GOOD.split("rules:\n")[1], "expected an id of its own"),
        (GOOD.replace("redline.one", "Red Line"), "expected an id such as"),
        (
            GOOD + "    tests: [{turns: [{agent: 好}], expect: [redline.won]}]\n",
            "did you mean 'redline.one'?",
        ),
    ],
)
def test_a_broken_pack_is_refused_with_a_reason(text: str, said: str) -> None:
    assert any(said in problem for problem in problems(text))


def test_a_rule_that_refers_to_itself_is_refused() -> None:
    text = GOOD.replace("phrase: [保本保息]", "&x\n        any: [{phrase: 保本保息}, *x]")
    assert any("contains itself" in p or "expected YAML" in p for p in problems(text))


def test_aliases_that_multiply_are_refused_quickly() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    assert problems(bomb)


def test_an_empty_pack_is_a_pack() -> None:
    pack = parse_pack("id: empty\nversion: 1\nrules: []\n", "empty.yaml")
    assert () == pack.rules == pack.hot_words()


def test_a_missing_file_and_a_binary_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="expected a readable file"):
        load_pack(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"id: \xff\xfe")
    with pytest.raises(PackError, match="expected UTF-8"):
        load_pack(tmp_path / "binary.yaml")


@settings(max_examples=150)
@given(st.text(max_size=80), st.integers(0, len(GOOD)))
def test_any_text_is_a_pack_or_refused(noise: str, at: int) -> None:
    for text in (noise, GOOD[:at] + noise + GOOD[at:], GOOD[:at]):
        assert accepted_or_refused_with_reasons(text)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["phrase", "any", "agent", "after", "phone", "queue"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "any",
                        "all",
                        "not",
                        "phrase",
                        "regex",
                        "silence",
                        "role",
                        "within",
                        "match",
                        "seconds",
                    ),
                    *("near", "a", "b", "similar", "repeat", "entity", "sentiment", "below", "attribute"),
                    *("name", "is", "anchor", "of", "where", "turns"),
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(VALUES)
def test_any_condition_is_compiled_or_refused(when: object) -> None:
    pack = yaml.safe_load(GOOD)
    pack["rules"][0]["when"] = when
    assert accepted_or_refused_with_reasons(yaml.safe_dump(pack, allow_unicode=True))


def test_the_default_pack_names_its_most_telling_words() -> None:
    words = load_pack(DEFAULT_PACK).hot_words()
    assert 12 <= len(words) <= 24
    assert len(words) == len(set(words))
    assert words[0] == "12378", "numbers first: their sense helps nobody to guess them"
    assert words[1] == "保本保息"
