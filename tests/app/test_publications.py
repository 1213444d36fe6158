"""What is published counts for every process: here at once, elsewhere at the next look, after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread

import pytest

from app.drafts import Draft, DraftError
from app.errors import PackRefused, StoreError
from app.rulebook import RuleBook, shown
from app.store import Store, rule_trials
from app.store.drafts import MOST_OPEN, Hand
from app.store.publications import Publication, Replaced
from app.store.rule_trials import LOST_AFTER_S, RuleTrials
from detectors.rules import parse_pack
from tests.app.store_support import RULES, open_store
from tests.app.test_rules_reload import BROKEN, OTHER, put

LI, WANG = Hand("li", "10.0.0.1"), Hand("wang", None)
SEEN = "0" * 64


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "little.yaml"
    put(path, RULES)
    return path


def submitted(store: Store, text: str, pack: str = "little") -> Draft:
    draft = store.drafts.add(LI, pack, text, "")
    return store.drafts.submit(LI, draft.id, draft.digest)


def publish(store: Store, text: str, pack: str = "little") -> Publication:
    draft = submitted(store, text, pack)
    version = parse_pack(text, "x").version
    replaced = Replaced("1+file", RULES)
    head = store.publications.head()
    return store.publications.publish(WANG, draft.id, draft.digest, version, head, replaced)[1]


async def test_another_process_takes_what_is_published_at_its_next_look(store: Store, file: Path) -> None:
    here, there = RuleBook.open(file, store.publications), RuleBook.open(file, store.publications)
    published = publish(store, OTHER)
    for book in (here, there):
        assert await book.look() == "loaded"
        assert book.pack.version == published.version
        assert await book.look() is None
    assert [source.file for source in there.sources.replaced] == ["little.yaml"]
    # A file that nobody reads any more may change: nothing happens.
    put(file, RULES + "# x\n")
    assert [await there.look(), await there.look()] == [None, "unchanged"]


async def test_the_same_text_published_again_is_named_after_its_last_publication(
    store: Store, file: Path
) -> None:
    book = RuleBook.open(file, store.publications)
    publish(store, OTHER)
    assert await book.look() == "loaded"
    again = publish(store, OTHER)
    assert await book.look() == "loaded"
    assert [part.file for part in book.pack.parts] == [shown(again)]
    assert [source.file for source in book.sources.texts] == [shown(again)]


async def test_where_files_are_never_looked_at_what_is_published_counts_all_the_same(
    store: Store, file: Path
) -> None:
    book = RuleBook.open(file, store.publications)
    put(file, RULES.replace('"1"', '"7"'))
    assert [await book.look(files=False), await book.look(files=False)] == [None, None]
    publish(store, OTHER)
    assert await book.look(files=False) == "loaded"


async def test_a_pack_that_is_in_no_file_stands_beside_those_that_are(store: Store, file: Path) -> None:
    publish(store, OTHER.replace("id: little", "id: other").replace(".guarantee", ".sure"), "other")
    book = RuleBook.open(file, store.publications)
    assert [part.id for part in book.pack.parts] == ["little", "other"]


async def test_while_the_database_is_away_the_rules_in_force_stay(store: Store, file: Path) -> None:
    book = RuleBook.open(file, store.publications)
    head = store.publications.head

    def away() -> int:
        raise StoreError("away")

    book._published.head = away  # type: ignore[method-assign, union-attr]
    assert await book.look() is None
    publish_head = store.publications
    publish_head.head = head  # type: ignore[method-assign]
    publish(store, OTHER)
    assert await book.look() == "loaded"


def test_a_published_pack_that_does_not_compile_any_more_ends_the_start_and_says_what_to_do(
    store: Store, file: Path
) -> None:
    draft = submitted(store, BROKEN)
    store.publications.publish(WANG, draft.id, draft.digest, "1+x", 0, None)
    with pytest.raises(PackRefused, match="duting rules unpublish PACK"):
        RuleBook.open(file, store.publications)
    assert store.publications.withdraw(Hand("(command)", None), "little") is not None
    assert RuleBook.open(file, store.publications).pack.version.startswith("1+")


def test_the_file_that_is_replaced_is_kept_once_as_the_beginning_of_the_history(store: Store) -> None:
    publish(store, OTHER)
    publish(store, OTHER + "# x\n")
    found, more = store.publications.page(10)
    assert [one.origin for one in found] == ["draft", "draft", "file"]
    assert more is None
    assert store.publications.before(found[0]) == store.publications.get(found[1].id)
    assert [one.id for one in store.publications.page(1)[0]] == [found[0].id]


def test_of_two_who_approve_at_once_beside_the_same_rules_one_is_sent_back(store: Store) -> None:
    other = OTHER.replace("id: little", "id: other")
    drafts = [submitted(store, OTHER), submitted(store, other, "other")]
    start, told = Barrier(2), list[str]()

    def approve(draft: Draft) -> None:
        start.wait()
        try:
            store.publications.publish(WANG, draft.id, draft.digest, "2+x", 0, None)
            told.append("published")
        except DraftError as error:
            told.append(error.code)

    threads = [Thread(target=approve, args=(draft,)) for draft in drafts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["published", "rules_moved"]


def test_a_publication_its_draft_and_its_audit_entry_are_there_together_or_not_at_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = submitted(store, OTHER)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.audit, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        store.publications.publish(WANG, draft.id, draft.digest, "2+x", 0, None)
    assert store.publications.head() == 0
    assert store.drafts.get(draft.id).state == "submitted"
    monkeypatch.undo()
    store.publications.publish(WANG, draft.id, draft.digest, "2+x", 0, None)
    rows, _ = store.audit.page(1)
    assert (rows[0].username, rows[0].action) == ("wang", "rules.published")
    assert store.audit.verify().broken is None


def test_drafts_are_bounded(store: Store) -> None:
    for _ in range(MOST_OPEN):
        last = store.drafts.add(LI, "little", RULES, "")
    with pytest.raises(DraftError, match="too_many_drafts"):
        store.drafts.add(LI, "little", RULES, "")
    store.drafts.discard(LI, last.id, last.digest)
    store.drafts.add(LI, "little", RULES, "\0")
    assert {draft.state for draft in store.drafts.all()} == {"draft", "discarded"}


def test_a_trial_whose_process_is_gone_makes_room_for_the_next(store: Store) -> None:
    clock = [datetime(2026, 3, 1, tzinfo=UTC)]
    trials = RuleTrials(store, lambda: clock[0])
    first = trials.begin(LI, 1, SEEN, None, 10, 5)
    assert trials.go_on(first.id, 2, 5)
    with pytest.raises(DraftError, match="backtest_running"):
        trials.begin(LI, 1, SEEN, None, 10, 5)
    clock[0] += timedelta(seconds=LOST_AFTER_S + 1)
    assert trials.get(first.id)[0].error == "backtest_lost"
    second = trials.begin(LI, 1, SEEN, None, 10, 5)
    # Should the first one live after all, it is told to end.
    assert not trials.go_on(first.id, 3, 5)
    trials.end(first.id, "done", result="{}")
    ended, result = trials.get(first.id)
    assert (ended.state, ended.error, result) == ("failed", "backtest_lost", None)
    trials.end(second.id, "done", version="2+x", result="{}")
    assert (trials.get(second.id)[0].done, trials.get(second.id)[1]) == (5, "{}")


def test_of_trials_the_newest_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_trials, "KEPT", 3)
    begun = []
    for _ in range(5):
        begun.append(store.rule_trials.begin(LI, 1, SEEN, None, 10, 5).id)
        store.rule_trials.end(begun[-1], "done")
    assert [trial.id for trial in store.rule_trials.of(1)] == begun[:1:-1]
