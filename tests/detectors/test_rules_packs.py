"""Several packs as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectors.panel import Panel
from detectors.rules import PackError, load_packs
from detectors.rules.loader import parse_packs
from streams.events import CallInfo, Detection, Transcript


def little(pack_id: str, rule_id: str, phrase: str = "保本保息", more: str = "") -> str:
    return (
        f"id: {pack_id}\nversion: '1.0'\nrules:\n  - id: {rule_id}\n    name: {{zh: 一, en: One}}\n"
        f"    severity: critical\n    role: agent\n"
        f"    when: {{phrase: {{any: [{phrase}], match: exact}}}}\n{more}"
    )


def said(text: str) -> Transcript:
    return Transcript(
        call_id="c",
        utterance_id="c:agent:0",
        role="agent",
        start_ms=0,
        end_ms=2000,
        text=text,
        final=True,
    )


def problems(sources: list[tuple[str, str]]) -> list[str]:
    with pytest.raises(PackError) as refused:
        parse_packs(sources)
    return [str(problem) for problem in refused.value.problems]


def test_a_folder_of_fifty_packs_runs_as_one_and_each_rule_names_its_own_version(tmp_path: Path) -> None:
    for number in range(50):
        pack = little(f"bank.p{number}", f"redline.r{number}", f"绝对保本第{number + 10}号产品")
        (tmp_path / f"{number:02}.yaml").write_text(pack, "utf-8")
    pack = load_packs([tmp_path])
    assert (len(pack.parts), len(pack.rules)) == (50, 50)
    assert pack.version.startswith("50 packs+")
    assert pack.card("redline.r7").version == pack.parts[7].version
    (found,) = Panel(CallInfo(call_id="c"), pack).on_event(said("这是绝对保本第四十二号产品"))
    assert isinstance(found, Detection)
    assert found.rule_id == "redline.r32"


def test_a_changed_file_changes_the_version_of_its_own_rules_only() -> None:
    one, two = ("a.yaml", little("a", "redline.a")), ("b.yaml", little("b", "redline.b"))
    before, after = parse_packs([one, two]), parse_packs([one, (two[0], two[1] + "\n# changed\n")])
    assert before.version != after.version
    assert before.card("redline.a").version == after.card("redline.a").version
    assert before.card("redline.b").version != after.card("redline.b").version


def test_an_id_that_two_packs_have_is_refused_with_both_places() -> None:
    (message,) = problems([("a.yaml", little("a", "redline.x")), ("b.yaml", little("b", "redline.x"))])
    assert message == ("b.yaml:4:5: expected an id of its own, came 'redline.x', which line 4 of a.yaml has")
    (message,) = problems([("a.yaml", little("a", "redline.x")), ("b.yaml", little("a", "redline.y"))])
    assert "b.yaml:1:1: expected a pack id of its own, came 'a'" in message


def test_the_problems_of_all_files_are_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("[", "utf-8")
    (tmp_path / "b.yaml").write_bytes(b"id: \xff")
    (tmp_path / "c.yml").write_text(little("c", "redline.c").replace("critical", "grave"), "utf-8")
    with pytest.raises(PackError) as refused:
        load_packs([tmp_path, tmp_path / "missing.yaml"])
    assert [p.file.rpartition("/")[2] for p in refused.value.problems] == [
        "missing.yaml", "a.yaml", "b.yaml", "c.yml",
    ]  # fmt: skip


def test_a_folder_without_packs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"expected a folder with \*\.yaml in it, came none"):
        load_packs([tmp_path])


def test_files_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("north", "south"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "bank.yaml").write_text("[", "utf-8")
    with pytest.raises(PackError) as refused:
        load_packs([tmp_path / "north", tmp_path / "south"])
    assert {p.file for p in refused.value.problems} == {
        str(tmp_path / "north" / "bank.yaml"),
        str(tmp_path / "south" / "bank.yaml"),
    }
