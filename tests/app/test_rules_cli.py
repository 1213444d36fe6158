"""``duting rules``: what is printed, where, and with which exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.backtest import since
from app.cli import app
from app.errors import PackRefused, SettingsError
from app.store import Store
from app.store.drafts import Hand
from app.store.publications import Replaced
from detectors.rules import parse_pack
from tests.app.store_support import PACK, RULES, alert, ended, said, started

TESTED = (
    RULES
    + """\
    hits: [我们保本保息]
    misses: [不保本保息]
  - id: signal.complaint
    name: {zh: 投诉, en: Complaint}
    severity: warning
    role: customer
    when: {phrase: {any: [我要投诉], match: exact}}
    tests:
      - name: 投诉并保本
        turns: [{customer: 我要投诉}, {agent: 这个保本保息}]
        expect: [signal.complaint]
"""
)


def duting(*arguments: object):
    return CliRunner().invoke(app, ["rules", *map(str, arguments)])


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    path = tmp_path / "packs" / "little.yaml"
    path.parent.mkdir()
    path.write_text(TESTED, "utf-8")
    return path


# ── check ─────────────────────────────────────────────────────────────────────────────────────────


def test_checking_a_folder_names_every_pack_and_all_together(pack: Path) -> None:
    pack.with_name("other.yaml").write_text("id: other\nversion: '7'\nrules: []\n", "utf-8")
    done = duting("check", pack.parent)
    little, other, together = done.stdout.splitlines()
    assert little.startswith("little 1+")
    assert little.endswith("2 rules (2 live), 3 dialogues, no errors")
    assert other.startswith("other 7+")
    assert other.endswith("0 rules, no errors")
    assert together.startswith("together 2 packs+")


def test_an_error_is_told_with_file_line_and_column(pack: Path) -> None:
    pack.write_text(TESTED.replace("phrase: [保", "frase: [保"), "utf-8")
    done = duting("check", pack)
    assert isinstance(done.exception, PackRefused)
    assert "little.yaml:8:" in str(done.exception)
    assert "did you mean 'phrase'?" in str(done.exception)


# ── test ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_failed_dialogue_is_told_with_its_place_what_was_missing_and_what_was_unexpected(
    pack: Path,
) -> None:
    pack.write_text(TESTED.replace("expect: [signal.complaint]", "expect: []"), "utf-8")
    done = duting("test", pack)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "FAILED little.yaml:17 signal.complaint",
        "  投诉并保本",
        "  unexpected  redline.guarantee, signal.complaint",
        "2 passed, 1 failed",
    ]


def test_only_the_dialogues_of_a_rule_are_run_when_it_is_named(pack: Path) -> None:
    done = duting("test", pack, "--rule", "redline.*")
    assert (done.exit_code, done.stdout) == (0, "2 passed, 0 failed\n")
    assert duting("test", pack, "--rule", "signal.complaint").exit_code == 1
    assert isinstance(duting("test", pack, "--rule", "redline.none").exception, SettingsError)


def test_a_dialogue_says_what_its_own_pack_finds(pack: Path) -> None:
    other = RULES.replace("id: little", "id: other").replace("redline.guarantee", "redline.again")
    pack.with_name("other.yaml").write_text(other + "    hits: [我们保本保息]\n", "utf-8")
    pack.write_text(
        RULES + "    tests: [{turns: [{agent: 保本保息}], expect: [redline.guarantee]}]\n", "utf-8"
    )
    done = duting("test", pack.parent)
    assert (done.exit_code, done.stdout) == (0, "2 passed, 0 failed\n")


def test_rules_without_a_dialogue_are_named_on_standard_error(pack: Path) -> None:
    pack.write_text(RULES, "utf-8")
    done = duting("test", pack)
    assert done.stdout == "0 passed, 0 failed\n"
    assert "without a dialogue: redline.guarantee" in done.stderr


# ── backtest ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def calls(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Two calls: in the first an alert that is borne out and one that is not, in the second nothing yet."""
    monkeypatch.setenv("DUTING_DATABASE_URL", database_url)
    store = Store.open(database_url)
    for number, events in enumerate(
        (
            (
                started("c1"),
                said(1000, "我们保本保息"),
                said(9000, "张三的卡号"),
                alert(1, utterance_id="c1:agent:1000", state="resolved"),
                alert(9, utterance_id="c1:agent:9000", state="false_alarm"),
                alert(20, state="withdrawn"),
                ended("c1", 30_000),
            ),
            (started("c2"), said(70_000, "我要投诉", "c2", "customer"), ended("c2", 90_000)),
        ),
        1,
    ):
        store.log.append([(event, f"2026-03-0{number}T08:00:00.000Z") for event in events])
    yield store
    store.close()


def test_a_backtest_tells_what_stays_what_is_new_and_what_is_gone(calls: Store, pack: Path) -> None:
    done = duting("backtest", pack, "--json")
    report = json.loads(done.stdout)
    assert (report["calls"], report["seconds"], report["versions"]) == (2, 120.0, [PACK.version])
    guarantee, complaint = report["rules"]
    assert (guarantee["same"], guarantee["new"], guarantee["gone"]) == (1, 0, 1)
    assert (guarantee["false_alarms_kept"], guarantee["false_alarms_gone"]) == (0, 1)
    assert guarantee["hits"]["gone"][0]["call_id"] == "c1"
    assert (complaint["rule_id"], complaint["same"], complaint["new"]) == ("signal.complaint", 0, 1)
    assert complaint["hits"]["new"] == [
        {"call_id": "c2", "start_ms": 70_000, "end_ms": 70_800, "shadow": False}
    ]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_backtest_never_prints_what_was_said(calls: Store, pack: Path, form: list[str]) -> None:
    done = duting("backtest", pack, *form)
    assert done.exit_code == 0
    assert "c2" in done.stdout
    for words in ("张三", "卡号", "保本", "投诉"):
        assert words not in done.output


def test_the_table_names_calls_and_media_times_and_progress_goes_to_standard_error(
    calls: Store, pack: Path
) -> None:
    done = duting("backtest", pack)
    assert "new   signal.complaint  c2  1:10.0–1:10.8" in done.stdout
    assert "gone  redline.guarantee  c1  0:09.0–0:09.5" in done.stdout
    assert "redline.guarantee     1    0  1 (1 false)" in done.stdout
    assert "backtest" not in done.stdout


def test_calls_are_chosen_by_time_number_and_id(calls: Store, pack: Path) -> None:
    for chosen, count in (
        (["--since", "2026-03-02T00:00:00Z"], 1),
        (["--calls", "1"], 1),
        (["--call", "c1", "--call", "c2"], 2),
        (["--call", "unknown"], 0),
    ):
        assert json.loads(duting("backtest", pack, "--json", *chosen).stdout)["calls"] == count


def test_a_time_to_begin_is_a_day_a_moment_or_so_long_ago() -> None:
    moment = datetime(2026, 3, 8, 12, tzinfo=UTC)
    assert since("7d", moment) == "2026-03-01T12:00:00.000Z"
    assert since("24h", moment) == "2026-03-07T12:00:00.000Z"
    assert since("2026-03-01T08:00:00+08:00") == "2026-03-01T00:00:00.000Z"
    assert since("2026-03-01").startswith("2026-0")
    for wrong in ("yesterday", "7", "2026-13-01", ""):
        with pytest.raises(SettingsError, match="--since expects"):
            since(wrong)


# ── what the README says ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_pack_in_the_readme_is_in_order_and_passes_its_dialogues(tmp_path: Path, readme: str) -> None:
    text = (Path(__file__).parents[2] / readme).read_text("utf-8")
    path = tmp_path / "my-bank.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0], "utf-8")
    assert duting("check", path).stdout.endswith("2 rules (1 live, 1 shadow), 3 dialogues, no errors\n")
    assert duting("test", path).stdout == "3 passed, 0 failed\n"


# ── published ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def house_with_a_publication(tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("DUTING_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DUTING_RULES", str(pack))
    monkeypatch.delenv("DUTING_DATABASE_URL", raising=False)
    store = Store.open(f"sqlite:///{tmp_path / 'duting.db'}")
    text = RULES.replace('"1"', '"9"')
    draft = store.drafts.add(Hand("li", None), "little", text, "")
    store.drafts.submit(Hand("li", None), draft.id, draft.digest)
    version = parse_pack(text, "x").version
    store.publications.publish(
        Hand("wang", None), draft.id, draft.digest, version, 0, Replaced("1+x", TESTED)
    )
    yield store
    store.close()


def test_the_list_says_what_was_published_in_place_of_which_file(house_with_a_publication: Store) -> None:
    (line,) = duting("list").stdout.splitlines()
    assert line.startswith("little 9+")
    assert "published #2" in line
    assert "by li, approved by wang, in place of the file little.yaml" in line
    first, second = duting("published").stdout.splitlines()
    assert first.startswith("#2")
    assert first.endswith("in force")
    assert "file" in second
    assert duting("published", "--text", 1).stdout == TESTED
    assert isinstance(duting("published", "--text", 7).exception, SettingsError)


def test_unpublishing_brings_the_file_back_and_is_written_down(house_with_a_publication: Store) -> None:
    assert duting("unpublish", "little").stdout == "little: #3, the file is in force again\n"
    assert "file little.yaml" in duting("list").stdout
    rows, _ = house_with_a_publication.audit.page(1)
    assert (rows[0].username, rows[0].action) == ("(command)", "rules.unpublished")
    assert isinstance(duting("unpublish", "little").exception, SettingsError)
