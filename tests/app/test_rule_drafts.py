"""Drafts over HTTP: written, checked, tried, submitted, approved by a second person, in force, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import drafts
from app.drafts import LONGEST_TEXT, DraftError
from app.errors import StoreError
from app.rule_jobs import Answer, Job, done
from app.rulebook import RuleBook
from app.store import Store
from app.store.drafts import Hand
from app.workbench import Workbench
from streams.events import CallInfo, Detection
from tests.app.store_support import (
    PASSWORD,
    RULES,
    House,
    alert,
    ended,
    house,
    said,
    started,
    until,
)
from tests.app.test_rules_reload import put
from tests.app.test_rules_reload import said as heard

OTHER = RULES.replace('"1"', '"2"').replace("保本保息", "稳赚不赔")
BROKEN = RULES.replace("phrase", "frase")
FAILING = RULES + "    hits: [今天天气很好]\n"
HEADERS = {"X-Duting": "1"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "little.yaml"
    put(path, RULES)
    return path


class Here(Workbench):
    """Does in a thread what is otherwise done in a process, which takes a second to start."""

    async def _ask(self, job: Job) -> Answer:
        return await asyncio.to_thread(done, job, lambda _: None)


@pytest.fixture
def at(tmp_path: Path, file: Path) -> Iterator[House]:
    def book(store: Store) -> RuleBook:
        store.users.add("second", PASSWORD, "Second", "administrator", ["A"])
        bench._store = store
        return RuleBook.open(file, store.publications)

    bench = Here(None)  # type: ignore[arg-type]
    with house(tmp_path, book, bench=bench) as opened:
        yield opened


def ask(at: House, method: str, path: str, body: Any = None, status: int = 200, by: str | None = None) -> Any:
    if by is not None:
        at.client.cookies.clear()
        at.log_in(by)
    answer = at.client.request(method, f"/api/rules/{path}", json=body, headers=HEADERS)
    assert answer.status_code == status, answer.text
    return answer.json()


def begun(at: House, text: str = OTHER, by: str = "administrator") -> Any:
    return ask(at, "POST", "drafts", {"text": text, "note": "更严"}, 201, by)


def submitted(at: House, text: str = OTHER) -> Any:
    draft = begun(at, text)
    return ask(at, "POST", f"drafts/{draft['id']}/submit", {"seen": draft["digest"]})


def published(at: House, text: str = OTHER) -> Any:
    draft = submitted(at, text)
    return ask(at, "POST", f"drafts/{draft['id']}/approve", {"seen": draft["digest"]}, by="second")


def code(answer: Any) -> str:
    return answer["error"]["code"]


def found_by(book: RuleBook, text: str) -> list[str]:
    panel = book.panel(CallInfo(call_id="c"))
    return [one.rule_id for one in panel.on_event(heard(text)) if isinstance(one, Detection)]


def actions(store: Store) -> list[tuple[str, str]]:
    rows, _ = store.audit.page(50, action="rules")
    return [(row.username, row.action) for row in reversed(rows)]


# ── drafts ────────────────────────────────────────────────────────────────────────────────────────


def test_a_draft_begins_from_the_pack_in_force(at: House) -> None:
    draft = ask(at, "POST", "drafts", {"pack": "little"}, 201, "administrator")
    assert (draft["text"], draft["pack_id"], draft["state"]) == (RULES, "little", "draft")
    assert draft["base"] == at.book.pack.version
    assert code(ask(at, "POST", "drafts", {"pack": "none"}, 404)) == "unknown_pack"


def test_what_is_wrong_is_told_with_line_and_column_and_keeps_it_from_being_submitted(at: House) -> None:
    draft = begun(at, BROKEN)
    told = ask(at, "POST", f"drafts/{draft['id']}/check")
    assert (told["problems"][0]["file"], told["problems"][0]["line"]) == ("little.yaml", 8)
    assert any("did you mean 'phrase'?" in one["message"] for one in told["problems"])
    refused = ask(at, "POST", f"drafts/{draft['id']}/submit", {"seen": draft["digest"]}, 422)
    assert code(refused) == "draft_refused"
    assert refused["error"]["problems"][0]["column"] > 1


def test_a_draft_whose_own_dialogues_fail_is_not_submitted(at: House) -> None:
    draft = begun(at, FAILING)
    told = ask(at, "POST", f"drafts/{draft['id']}/check")
    assert [one["missing"] for one in told["failed"]] == [["redline.guarantee"]]
    refused = ask(at, "POST", f"drafts/{draft['id']}/submit", {"seen": draft["digest"]}, 422)
    assert code(refused) == "dialogues_failed"


def test_a_draft_of_one_pack_does_not_take_the_place_of_another(at: House) -> None:
    draft = begun(at)
    text = OTHER.replace("id: little", "id: other")
    changed = ask(at, "PUT", f"drafts/{draft['id']}", {"text": text, "seen": draft["digest"]})
    told = ask(at, "POST", f"drafts/{draft['id']}/check")
    assert "came 'other'" in told["problems"][0]["message"]
    ask(at, "POST", f"drafts/{draft['id']}/submit", {"seen": changed["digest"]}, 422)


def test_of_two_who_change_a_draft_at_once_the_second_is_told(at: House) -> None:
    draft = begun(at)
    body = {"text": OTHER + "# a\n", "seen": draft["digest"]}
    ask(at, "PUT", f"drafts/{draft['id']}", body)
    refused = ask(at, "PUT", f"drafts/{draft['id']}", body | {"text": OTHER + "# b\n"}, 409)
    assert code(refused) == "draft_changed"


def test_whatever_is_written_into_a_draft_is_kept_and_told_to_be_wrong(at: House) -> None:
    draft = begun(at)
    path = f"drafts/{draft['id']}"
    long = ("x" * 100_000, "💥" * 1000, "[" * 100_000, "- " * 100_000)
    for text in ("\0", "a: [", "- 1", "&a [*a, *a]", *long):
        draft = ask(at, "PUT", path, {"text": text, "seen": draft["digest"]})
        assert ask(at, "POST", f"{path}/check")["problems"], text[:20]


def test_a_text_that_is_too_long_is_refused(at: House) -> None:
    body = {"text": "保" * (LONGEST_TEXT // 3 + 1), "pack": "little"}
    assert code(ask(at, "POST", "drafts", body, 422, "administrator")) == "draft_too_long"


# ── a second person ───────────────────────────────────────────────────────────────────────────────


def test_a_second_person_puts_it_in_force_and_running_calls_keep_their_rules(at: House) -> None:
    running = at.book.panel(CallInfo(call_id="running"))
    before = at.book.pack.version
    told = published(at)
    assert told["in_force"]
    assert told["publication"]["approver"] == "second"
    assert told["publication"]["author"] == "administrator"
    assert at.book.pack.version == told["publication"]["version"] != before
    assert found_by(at.book, "稳赚不赔") == ["redline.guarantee"]
    assert found_by(at.book, "保本保息") == []
    assert running.pack.version == before
    assert actions(at.store) == [
        ("administrator", "rules.drafted"),
        ("administrator", "rules.submitted"),
        ("second", "rules.published"),
        ("second", "rules.loaded"),
    ]
    rules = at.client.get("/api/rules").json()
    assert rules["packs"][0]["publication"] == told["publication"]["id"]
    assert rules["packs"][0]["replaces"] == "little.yaml"


def test_nobody_approves_what_they_wrote_in_part_or_submitted(at: House) -> None:
    draft = begun(at)
    changed = ask(
        at, "PUT", f"drafts/{draft['id']}", {"text": OTHER + "# x\n", "seen": draft["digest"]}, by="second"
    )
    ask(at, "POST", f"drafts/{draft['id']}/submit", {"seen": changed["digest"]}, by="administrator")
    for who in ("administrator", "second"):
        path = f"drafts/{draft['id']}/approve"
        assert code(ask(at, "POST", path, {"seen": changed["digest"]}, 403, who)) == "own_draft"
    assert at.book.pack.parts[0].version.startswith("1+")


def test_who_hands_in_somebody_elses_draft_does_not_approve_it_either(at: House) -> None:
    draft = begun(at)
    ask(at, "POST", f"drafts/{draft['id']}/submit", {"seen": draft["digest"]}, by="second")
    path = f"drafts/{draft['id']}/approve"
    assert code(ask(at, "POST", path, {"seen": draft["digest"]}, 403)) == "own_draft"


def test_only_what_was_looked_at_is_approved(at: House) -> None:
    draft = submitted(at)
    path = f"drafts/{draft['id']}/approve"
    assert code(ask(at, "POST", path, {"seen": "0" * 64}, 409, "second")) == "draft_changed"
    # Nor is anything that was not submitted, or is not any more.
    ask(at, "POST", f"drafts/{draft['id']}/return", {"seen": draft["digest"], "reason": "太宽"})
    assert code(ask(at, "POST", path, {"seen": draft["digest"]}, 409)) == "draft_changed"
    again = ask(at, "GET", f"drafts/{draft['id']}")
    assert (again["state"], again["decision"], again["decided_by"]) == ("draft", "太宽", "second")


def test_what_does_not_go_together_any_more_is_not_approved(at: House, file: Path) -> None:
    draft = submitted(at, OTHER.replace("id: little", "id: other").replace(".guarantee", ".sure"))
    put(file, RULES.replace(".guarantee", ".sure"))
    path = f"drafts/{draft['id']}/approve"
    refused = ask(at, "POST", path, {"seen": draft["digest"]}, 422, "second")
    assert code(refused) == "draft_refused"
    assert at.store.publications.head() == 0


def test_a_published_version_counts_for_every_process_and_after_a_restart(at: House, file: Path) -> None:
    told = published(at)
    started_later = RuleBook.open(file, at.store.publications)
    assert started_later.pack.version == told["publication"]["version"]
    # The file that it replaces may change, or be broken: nobody reads it.
    put(file, BROKEN)
    assert RuleBook.open(file, at.store.publications).pack.version == told["publication"]["version"]


def test_a_rollback_is_a_publication_that_needs_approval_too(at: House) -> None:
    published(at)
    history = ask(at, "GET", "publications")["publications"]
    assert [one["origin"] for one in history] == ["draft", "file"]
    draft = ask(at, "POST", f"publications/{history[1]['id']}/rollback", status=201, by="administrator")
    assert (draft["state"], draft["origin"], draft["of"]) == ("submitted", "rollback", history[1]["id"])
    path = f"drafts/{draft['id']}/approve"
    assert code(ask(at, "POST", path, {"seen": draft["digest"]}, 403)) == "own_draft"
    told = ask(at, "POST", path, {"seen": draft["digest"]}, by="second")
    assert found_by(at.book, "保本保息") == ["redline.guarantee"]
    assert told["publication"]["of"] == history[1]["id"]


def test_a_rollback_that_cannot_be_asked_for_leaves_nothing_behind(
    at: House, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(at)
    path = f"publications/{ask(at, 'GET', 'publications')['publications'][1]['id']}/rollback"
    before = ask(at, "GET", "drafts", by="administrator")["drafts"], actions(at.store)

    # What it needs is in another pack by now.
    put(file.with_name("other.yaml"), OTHER.replace("id: little", "id: other"))
    monkeypatch.setattr(at.book, "_paths", (file.parent,))
    assert code(ask(at, "POST", path, status=422)) == "draft_refused"
    file.with_name("other.yaml").unlink()

    async def busy(_job: Job) -> Answer:
        raise DraftError("took_too_long")

    with monkeypatch.context() as patch:
        patch.setattr(at.client.app.state.bench, "_ask", busy)  # type: ignore[attr-defined]
        assert code(ask(at, "POST", path, status=422)) == "took_too_long"

    def away(*_: object) -> None:
        raise StoreError("away")

    with monkeypatch.context() as patch:
        patch.setattr(drafts, "submitted", away)
        ask(at, "POST", path, status=503)
    assert (ask(at, "GET", "drafts")["drafts"], actions(at.store)) == before
    ask(at, "POST", path, status=201)
    assert actions(at.store)[len(before[1]) :] == [
        ("administrator", "rules.drafted"),
        ("administrator", "rules.submitted"),
    ]


def test_what_was_published_is_told_so_though_the_database_is_away_at_once_afterwards(
    at: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = submitted(at)
    publish = at.store.publications.publish

    def away(*_: object) -> Any:
        raise StoreError("away")

    def last_word(*arguments: Any) -> Any:
        monkeypatch.setattr(at.store.publications, "in_force", away)
        return publish(*arguments)

    monkeypatch.setattr(at.store.publications, "publish", last_word)
    before = at.book.pack.version
    told = ask(at, "POST", f"drafts/{draft['id']}/approve", {"seen": draft["digest"]}, by="second")
    assert (told["draft"]["state"], told["in_force"]) == ("published", False)
    assert at.book.pack.version == before
    monkeypatch.undo()
    assert at.client.portal.call(at.book.look) == "loaded"  # type: ignore[union-attr]
    assert at.book.pack.version == told["publication"]["version"]


def test_an_approval_whose_commit_was_written_but_not_answered_is_told_as_what_it_is(
    at: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = submitted(at)
    publish = at.store.publications.publish
    path, seen = f"drafts/{draft['id']}/approve", {"seen": draft["digest"]}

    def before_it_is_written(*_: Any) -> Any:
        raise StoreError("gone")

    monkeypatch.setattr(at.store.publications, "publish", before_it_is_written)
    assert code(ask(at, "POST", path, seen, 503, "second")) == "store_unavailable"

    def answer_lost(*arguments: Any) -> Any:
        publish(*arguments)
        raise StoreError("gone")

    monkeypatch.setattr(at.store.publications, "publish", answer_lost)
    told = ask(at, "POST", path, seen)
    assert (told["draft"]["state"], told["in_force"]) == ("published", True)
    assert told["publication"]["draft_id"] == draft["id"]
    assert at.book.pack.version == told["publication"]["version"]


def test_the_difference_between_versions_is_told_line_by_line(at: House) -> None:
    draft = begun(at)
    told = ask(at, "GET", f"drafts/{draft['id']}/diff")
    assert (told["added"], told["removed"]) == (2, 2)
    published_ = published(at, OTHER + "# twice\n")["publication"]
    told = ask(at, "GET", f"publications/{published_['id']}/diff", by="supervisor")
    assert [line["text"] for line in told["lines"] if line["kind"] == "added"][-1] == "# twice"


def test_the_file_is_in_force_again_once_the_machine_says_so(at: House) -> None:
    published(at)
    by = Hand("(command)", None)
    assert at.store.publications.withdraw(by, "little") is not None
    assert at.client.portal.call(at.book.look) == "loaded"  # type: ignore[union-attr]
    assert found_by(at.book, "保本保息") == ["redline.guarantee"]
    assert at.store.publications.withdraw(by, "little") is None


# ── one rule ──────────────────────────────────────────────────────────────────────────────────────


def test_a_rule_is_told_with_its_text_its_interval_and_its_last_alerts_in_sight(at: House) -> None:
    at.append(started("a", team="A"), started("b", team="B"))
    at.append(alert(1, "a", state="resolved"), alert(2, "b", state="false_alarm"))
    at.store.users.set_teams("supervisor", ["A"])
    told = ask(at, "GET", "redline.guarantee", by="supervisor")
    assert told["source"]["first_line"] == 4
    assert told["source"]["text"].splitlines()[0] == "  - id: redline.guarantee"
    assert [one["call_id"] for one in told["alerts"]] == ["a"]
    assert told["rule"]["precision"] == 0.5
    low, high = told["rule"]["interval"]
    assert 0 < low < 0.5 < high < 1
    assert code(ask(at, "GET", "redline.none", status=404)) == "unknown_rule"


# ── sentences ─────────────────────────────────────────────────────────────────────────────────────


def test_a_sentence_says_what_fires_where_and_how(at: House) -> None:
    told = ask(at, "POST", "test", {"text": "我们宝本宝息", "role": "agent"}, by="inspector")
    (fired,) = told["fired"]
    assert (fired["rule_id"], fired["how"], fired["spans"]) == ("redline.guarantee", "pinyin", [[2, 6]])
    assert told["names"]["redline.guarantee"]["zh"] == "承诺保本"
    rows, _ = at.store.audit.page(1, action="rules.tested")
    assert "保" not in str(rows[0].detail) + str(rows[0].subject)


def test_a_sentence_says_what_keeps_a_rule_from_firing(at: House) -> None:
    told = ask(at, "POST", "test", {"text": "不保本保息", "role": "agent"}, by="supervisor")
    assert [(one["rule_id"], one["why"]) for one in told["nearly"]] == [("redline.guarantee", "denied")]
    told = ask(at, "POST", "test", {"turns": [{"role": "customer", "text": "保本保息吗"}]})
    assert [one["why"] for one in told["nearly"]] == ["other_side"]


def test_a_sentence_is_tried_on_a_draft_by_those_who_may_write_one(at: House) -> None:
    draft = begun(at)
    body = {"text": "稳赚不赔", "draft": draft["id"]}
    assert [one["rule_id"] for one in ask(at, "POST", "test", body)["fired"]] == ["redline.guarantee"]
    assert code(ask(at, "POST", "test", body, 403, "supervisor")) == "role_not_allowed"
    broken = begun(at, BROKEN)
    assert ask(at, "POST", "test", {"text": "x", "draft": broken["id"]})["problems"][0]["line"] == 8


def test_what_is_too_much_or_no_sentence_is_refused(at: House) -> None:
    turn = {"role": "agent", "text": "b"}
    at.log_in("administrator")
    for body in (
        {},
        {"text": ""},
        {"text": "长" * 501},
        {"text": "a", "turns": [turn]},
        {"turns": [turn] * 21},
        {"turns": [turn | {"role": "boss"}]},
        {"turns": [turn | {"start_s": -1}]},
        {"text": "a", "draft": 2**63},
    ):
        assert code(ask(at, "POST", "test", body, 422)) == "invalid", body


# ── stored calls ──────────────────────────────────────────────────────────────────────────────────


def test_a_draft_is_tried_on_the_calls_that_its_author_sees(at: House) -> None:
    at.append(started("a", team="A"), said(1000, "这个稳赚不赔", "a"), ended("a"))
    at.append(started("b", team="B"), said(1000, "我们保本保息", "b"), alert(1, "b", state="false_alarm"))
    at.append(ended("b"))
    draft = begun(at)
    body = {"seen": draft["digest"], "calls": 10}
    trial = ask(at, "POST", f"drafts/{draft['id']}/backtests", body, 202)["trial"]
    assert trial["total"] == 2
    path = f"backtests/{trial['id']}"
    until(lambda: ask(at, "GET", path)["trial"]["state"] != "running", 60)
    told = ask(at, "GET", path)
    assert told["trial"]["state"] == "done"
    (rule,) = told["outcome"]["rules"]
    assert (rule["new"], rule["gone"], rule["same"], rule["false_alarms_gone"]) == (1, 1, 0, 1)
    assert [place["text"] for place in rule["new_at"]] == ["这个稳赚不赔"]
    # Somebody who does not see a call is told that there is one, and nothing of it.
    told = ask(at, "GET", path, by="second")
    (rule,) = told["outcome"]["rules"]
    assert [place["call_id"] for place in rule["new_at"]] == ["a"]
    assert (rule["gone"], rule["gone_at"], told["outcome"]["hidden"]) == (1, [], 1)
    assert ("second", "rules.backtest_read") in actions(at.store)


def test_backtests_run_one_at_a_time_and_can_be_cancelled(at: House) -> None:
    at.append(started("a"), said(1000, "稳赚不赔", "a"), ended("a"))
    draft = begun(at)
    body = {"seen": draft["digest"]}
    trial = ask(at, "POST", f"drafts/{draft['id']}/backtests", body, 202)["trial"]
    assert code(ask(at, "POST", f"drafts/{draft['id']}/backtests", body, 409)) == "backtest_running"
    ask(at, "POST", f"backtests/{trial['id']}/cancel")
    assert ask(at, "GET", f"backtests/{trial['id']}")["trial"]["state"] == "cancelled"
    again = ask(at, "POST", f"drafts/{draft['id']}/backtests", body, 202)["trial"]
    assert again["state"] == "running"
    assert [one["id"] for one in ask(at, "GET", f"drafts/{draft['id']}/backtests")["trials"]] == [2, 1]


def test_whoever_sees_no_calls_has_none_to_try_a_draft_on(at: House) -> None:
    at.append(started("b", team="B"), ended("b"))
    draft = begun(at, by="second")
    refused = ask(at, "POST", f"drafts/{draft['id']}/backtests", {"seen": draft["digest"]}, 422)
    assert code(refused) == "no_calls"


# ── on trial ──────────────────────────────────────────────────────────────────────────────────────


def test_what_a_rule_on_trial_found_is_held_against_the_live_rule_beside_it(at: House) -> None:
    from streams.events import ShadowHit

    def shadow(number: int, start_ms: int) -> ShadowHit:
        return ShadowHit(
            id=f"s{number}",
            call_id="a",
            rule_id="redline.trial",
            rule_version="2+x",
            role="agent",
            media_start_ms=start_ms,
            media_end_ms=start_ms + 500,
        )

    at.append(started("a", team="A"), shadow(1, 1000), shadow(2, 60_000), alert(1, "a"))
    at.append(alert(90, "a"))
    told = ask(at, "GET", "redline.trial/shadow", by="inspector")
    assert told["against"] == "redline.guarantee"
    assert (told["agree"], told["only_shadow"], told["only_live"]) == (1, 1, 1)
    assert told["beside"] == [["redline.guarantee", 1]]
    assert sum(day["agree"] for day in told["days"]) == 1
    assert {place["kind"] for place in told["places"]} == {"agree", "only_shadow", "only_live"}
    at.store.users.set_teams("supervisor", ["B"])
    assert ask(at, "GET", "redline.trial/shadow", by="supervisor")["places"] == []
