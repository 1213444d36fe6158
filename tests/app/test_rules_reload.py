"""Rules change while calls run: whole or not at all, written down, seen by those who oversee."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.build import build
from app.errors import PackRefused, StoreError
from app.rulebook import FILES, RuleBook
from app.settings import Settings
from streams.events import CallEnded, CallInfo, Detection, Health, Published, Transcript
from streams.testing import ScriptedTranscriber
from tests.app.store_support import RULES, alert, house, started

OTHER = RULES.replace('"1"', '"2"').replace("保本保息", "稳赚不赔")
BROKEN = RULES.replace("phrase", "frase")
CLOCK = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def put(path: Path, text: str, tick: list[int] = [0]) -> None:  # noqa: B006 - each write gets a time of its own
    path.write_text(text, "utf-8")
    tick[0] += 1
    os.utime(path, ns=(tick[0] * 10**9, tick[0] * 10**9))


def spoil(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "little.yaml"
    put(path, RULES)
    return path


@pytest.fixture
def book(file: Path) -> RuleBook:
    return RuleBook.open(file)


def said(text: str, call_id: str = "c") -> Transcript:
    return Transcript(
        call_id=call_id,
        utterance_id=f"{call_id}:agent:0",
        role="agent",
        start_ms=0,
        end_ms=2000,
        text=text,
        final=True,
    )


def rules_raised(panel, text: str) -> list[str]:
    return [f.rule_id for f in panel.on_event(said(text)) if isinstance(f, Detection)]


# ── files ─────────────────────────────────────────────────────────────────────────────────────────


async def test_files_that_stay_as_they_are_are_not_read_again(book: RuleBook) -> None:
    before = book.pack
    assert [await book.look() for _ in range(3)] == [None, None, None]
    assert book.pack is before


async def test_a_changed_file_is_read_once_it_stands_still_for_one_look(book: RuleBook, file: Path) -> None:
    await book.look()
    put(file, OTHER[: len(OTHER) // 2])
    assert await book.look() is None
    put(file, OTHER)
    assert await book.look() is None
    assert await book.look() == "loaded"
    assert book.pack.version.startswith("2+")
    assert await book.look() is None


async def test_a_file_written_again_with_the_same_words_changes_nothing(book: RuleBook, file: Path) -> None:
    before = book.pack
    put(file, RULES)
    assert [await book.look(), await book.look(), await book.look()] == [None, "unchanged", None]
    assert book.pack is before


async def test_a_pack_with_an_error_is_refused_whole_and_the_running_one_stays(
    book: RuleBook, file: Path
) -> None:
    before = book.pack
    put(file, BROKEN)
    with capture_logs() as logs:
        assert await book.reload(FILES) == "refused"
        assert await book.reload("admin") == "refused"
    assert book.pack is before
    assert book.refused is not None
    assert book.refused.by == "admin"
    assert any("little.yaml:8:" in str(problem) for problem in book.refused.problems)
    (entry,) = [line for line in logs if line["event"] == "rules.refused"]
    assert entry["running"] == before.version
    assert any("little.yaml:8:" in problem for problem in entry["problems"])
    put(file, RULES)
    assert await book.reload(FILES) == "unchanged"
    assert book.refused is None


@pytest.mark.parametrize("trouble", ["gone", "bytes", "empty"])
async def test_a_file_that_cannot_be_read_is_refused_like_one_with_errors(
    book: RuleBook, file: Path, trouble: str
) -> None:
    spoil(file, None if trouble == "gone" else b"\xff\xfe" if trouble == "bytes" else b"")
    assert [await book.look(), await book.look(), await book.look()] == [None, "refused", None]
    put(file, OTHER)
    assert [await book.look(), await book.look()] == [None, "loaded"]


async def test_a_folder_of_packs_is_read_again_when_a_file_comes_or_goes(tmp_path: Path) -> None:
    put(tmp_path / "a.yaml", RULES)
    book = RuleBook.open(tmp_path)
    put(tmp_path / "b.yaml", OTHER.replace("id: little", "id: other").replace(".guarantee", ".sure"))
    assert [await book.look(), await book.look()] == [None, "loaded"]
    assert [part.id for part in book.pack.parts] == ["little", "other"]
    spoil(tmp_path / "a.yaml", None)
    assert [await book.look(), await book.look()] == [None, "loaded"]
    assert [rule.id for rule in book.pack.rules] == ["redline.sure"]


async def test_an_empty_pack_is_a_pack_that_finds_nothing(book: RuleBook, file: Path) -> None:
    put(file, "id: little\nversion: '3'\nrules: []\n")
    assert await book.reload(FILES) == "loaded"
    assert book.pack.hot_words() == ()
    assert rules_raised(book.panel(CallInfo(call_id="c")), "保本保息") == []


def test_at_the_start_a_pack_with_errors_ends_it(file: Path) -> None:
    put(file, BROKEN)
    with pytest.raises(PackRefused, match=r"little\.yaml:8:\d+: expected one of"):
        RuleBook.open(file)


async def test_the_watch_survives_a_look_that_fails(book: RuleBook) -> None:
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise asyncio.CancelledError
        raise RuntimeError("a bug")

    book.look = look  # type: ignore[assignment]
    with pytest.raises(asyncio.CancelledError):
        await book.watch(1e-9)
    assert looks == 3


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_call_in_progress_keeps_the_rules_it_began_with_and_their_cards(
    book: RuleBook, file: Path
) -> None:
    old = book.panel(CallInfo(call_id="old"))
    before = book.pack.version
    put(file, OTHER.replace("critical", "warning"))
    assert await book.reload(FILES) == "loaded"
    new = book.panel(CallInfo(call_id="new"))
    assert rules_raised(old, "我们保本保息") == ["redline.guarantee"]
    assert rules_raised(new, "我们保本保息") == []
    assert (old.card("redline.guarantee").version, old.card("redline.guarantee").severity) == (
        before,
        "critical",
    )
    assert new.card("redline.guarantee").severity == "warning"
    assert new.card("redline.guarantee").version == book.pack.version != before
    assert book.in_use() == {before: 1, book.pack.version: 1}
    old.on_event(CallEnded(call_id="old", media_ms=9000))
    assert book.in_use() == {book.pack.version: 1}


async def test_while_a_pack_of_many_phrases_is_compiled_the_loop_goes_on(book: RuleBook, file: Path) -> None:
    phrases = ", ".join(f"本产品第{n}期承诺保本" for n in range(2000))
    put(file, RULES.replace("[保本保息]", f"[{phrases}]"))
    rounds = 0
    task = asyncio.create_task(book.reload(FILES))
    while not task.done():
        await asyncio.sleep(0)
        rounds += 1
    assert await task == "loaded"
    assert rounds > 100


async def test_two_who_ask_at_once_are_served_one_after_the_other(book: RuleBook, file: Path) -> None:
    put(file, OTHER)
    assert sorted(await asyncio.gather(book.reload("a"), book.reload("b"))) == ["loaded", "unchanged"]


# ── who did it ────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_loaded_or_refused_and_who_asked_goes_into_the_audit(
    book: RuleBook, file: Path
) -> None:
    written: list[tuple[str, str, str | None, str | None]] = []
    book.record = lambda *entry: written.append(entry)
    put(file, OTHER)
    await book.reload("admin", "10.0.0.1")
    await book.reload("admin", "10.0.0.1")
    await book.reload(FILES)
    put(file, BROKEN)
    await book.reload(FILES)
    assert book.refused is not None
    version = book.pack.version
    assert written == [
        ("admin", "rules.loaded", version, "10.0.0.1"),
        ("admin", "rules.unchanged", version, "10.0.0.1"),
        (FILES, "rules.refused", book.refused.digest, None),
    ]


async def test_rules_come_into_force_also_while_the_database_is_away(book: RuleBook, file: Path) -> None:
    def away(*_: object) -> None:
        raise StoreError("away")

    async def told() -> None:
        raise StoreError("away")

    book.record, book.on_loaded = away, told
    put(file, OTHER)
    assert await book.reload(FILES) == "loaded"
    assert book.pack.version.startswith("2+")


# ── in the service ────────────────────────────────────────────────────────────────────────────────


async def test_the_service_gives_new_calls_the_new_rules_and_tells_browsers_of_them(
    tmp_path: Path, file: Path
) -> None:
    settings = Settings(data_dir=tmp_path, rules=file, rules_poll_s=0, keep_audio=False, _env_file=None)  # type: ignore[call-arg]
    told: list[Published] = []
    service = build(
        settings, lambda *_: None, transcriber=ScriptedTranscriber(lambda _: ""), on_published=told.append
    )
    async with service.running():
        before = service.rules.pack.version
        service.runner.open(CallInfo(call_id="old"), paced=False)
        put(file, OTHER)
        assert await service.rules.reload("admin", "10.0.0.1") == "loaded"
        after = service.rules.pack.version
        service.runner.open(CallInfo(call_id="new"), paced=False)
        assert service.rules.in_use() == {before: 1, after: 1}
        assert service.health().rules == after
        (health,) = [event.health for event in told if event.type == "health"]
        assert isinstance(health, Health)
        assert (health.rules, health.calls) == (after, 1)
        (entry,) = service.store.audit.about(after)
        assert (entry.username, entry.action, entry.address) == ("admin", "rules.loaded", "10.0.0.1")
        for call_id in ("old", "new"):
            await service.runner.close(call_id, "hangup")
        assert service.rules.in_use() == {}


# ── over HTTP ─────────────────────────────────────────────────────────────────────────────────────


def test_only_an_administrator_may_reload_and_only_from_here(tmp_path: Path, book: RuleBook) -> None:
    with house(tmp_path, book=book) as at:
        headers = {"X-Duting": "1"}
        assert at.client.post("/api/rules/reload", headers=headers).status_code == 401
        for account in ("agent", "supervisor", "inspector"):
            at.log_in(account)
            response = at.client.post("/api/rules/reload", headers=headers)
            assert (response.status_code, response.json()["error"]["code"]) == (403, "role_not_allowed")
        at.log_in("administrator")
        assert at.client.post("/api/rules/reload").json()["error"]["code"] == "bad_origin"
        assert at.client.post("/api/rules/reload", headers=headers).status_code == 200


def test_a_reload_is_answered_with_the_rules_in_force_or_refused_with_the_reason(
    tmp_path: Path, book: RuleBook, file: Path
) -> None:
    with house(tmp_path, book=book) as at:
        at.append(started(), alert(1, state="resolved"), alert(2, state="false_alarm"), alert(3))
        at.log_in("administrator")
        headers = {"X-Duting": "1"}
        before = at.client.get("/api/rules").json()
        assert before["refused"] is None
        put(file, OTHER)
        after = at.client.post("/api/rules/reload", headers=headers).json()
        assert after["version"] == book.pack.version != before["version"]
        (rule,) = after["rules"]
        assert rule["version"] == after["version"]
        assert rule["counts"] == {"hits": 3, "confirmed": 1, "false_alarms": 1, "withdrawn": 0, "shadow": 0}
        assert [count["version"] for count in after["counts"]] == [before["version"]]
        put(file, BROKEN)
        refused = at.client.post("/api/rules/reload", headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "rules_refused")
        seen = at.client.get("/api/rules").json()
        assert seen["version"] == after["version"]
        assert seen["refused"]["by"] == "administrator"
        assert seen["refused"]["problems"][0]["line"] == 8
        assert at.client.get("/healthz").json()["rules"] == after["version"]
        entries = at.store.audit.about(after["version"])
        assert [(entry.username, entry.action) for entry in entries] == [("administrator", "rules.loaded")]
