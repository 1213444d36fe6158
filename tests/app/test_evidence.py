"""Archives of evidence, pieces of recordings, and how loud recordings are."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app import peaks, transcoding
from app.clip import clip
from app.evidence import name_of, span
from app.recorder import Recorders, find
from streams.events import AudioFrame, CallInfo, Channel, Decided
from tests.app.store_support import House, alert, ended, house, said, started

SECONDS = 40
HEADERS = {"X-Duting": "1"}
MARKUP = "<script>alert(1)</script>"


async def recorded(folder: Path, call_id: str = "c1", seconds: int = SECONDS) -> Path:
    """The agent is heard in even seconds, the customer, half as loud, in odd ones."""
    recorders = Recorders(folder)
    tone = (np.sin(np.arange(16_000) * 2 * np.pi * 440 / 16_000) * 16_000).astype("<i2")
    sounds: dict[Channel, np.ndarray] = {"agent": tone, "customer": tone // 2}
    recorders.start(CallInfo(call_id=call_id))
    for second in range(seconds):
        for channel, sound in sounds.items():
            heard = second % 2 == (channel == "customer")
            pcm = (sound if heard else np.zeros_like(sound)).tobytes()
            recorders.frame(AudioFrame(call_id=call_id, channel=channel, media_ms=second * 1000, pcm=pcm))
        await recorders.settled()
    await recorders.close(call_id, seconds * 1000)
    await recorders.aclose()
    path = find(folder, call_id)
    assert path is not None
    return path


def record(folder: Path, call_id: str = "c1", seconds: int = SECONDS) -> Path:
    return asyncio.run(recorded(folder, call_id, seconds))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def opus(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("opus") / recording.name
    transcoding.transcode(recording, path)
    return path


def samples(wav: bytes) -> tuple[int, np.ndarray]:
    with wave.open(io.BytesIO(wav)) as file:
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return file.getframerate(), frames.reshape(-1, file.getnchannels())


# ── how loud ──────────────────────────────────────────────────────────────────────────────────────


def test_each_channel_is_loud_where_its_speaker_is(recording: Path, opus: Path) -> None:
    for path in (recording, opus):
        found = peaks.measure(path)
        agent, customer = (np.frombuffer(one, np.uint8) for one in found.channels)
        assert abs(found.duration_ms - SECONDS * 1000) <= 50
        assert abs(len(agent) - SECONDS * 20) <= 1
        # In the middle of a second, away from its edges.
        middle = np.arange(10, SECONDS * 20 - 10, 20)
        assert (agent[middle[::2]] > 100).all()
        assert (agent[middle[1::2]] < 5).all()
        assert (customer[middle[1::2]] > 50).all()
        assert (customer[middle[::2]] < 5).all()


def test_fewer_points_keep_the_loudest(recording: Path) -> None:
    found = peaks.measure(recording)
    coarse = peaks.coarser(found, 7)
    assert len(coarse.channels[0]) <= 7
    assert coarse.bin_ms * 7 >= found.duration_ms - 50
    assert max(coarse.channels[1]) == max(found.channels[1])
    assert peaks.coarser(found, 8000) is found


def test_what_was_measured_is_kept_until_the_file_is_another(tmp_path: Path) -> None:
    path = record(tmp_path, seconds=2)
    assert peaks.kept(path) is None
    peaks.keep(path)
    assert peaks.kept(path) == peaks.measure(path)
    peaks.kept_at(path).write_bytes(b"broken")
    assert peaks.kept(path) is None
    peaks.keep(path)
    os.utime(path, ns=(0, 0))
    assert peaks.kept(path) is None


async def test_what_could_not_be_measured_is_not_tried_at_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, children = 0.0, 0
    begin = asyncio.create_subprocess_exec

    async def count(*given: object, **more: object) -> asyncio.subprocess.Process:
        nonlocal children
        children += 1
        return await begin(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", count)
    path = tmp_path / "c1.wav"
    path.write_bytes(b"no sound")
    measuring = peaks.Measuring(clock=lambda: now_s)

    async def ask() -> int:
        with pytest.raises(peaks.Unreadable):
            await measuring.peaks(path, 60)
        return children

    assert [await ask(), await ask()] == [1, 1]
    now_s = peaks.AGAIN_S
    assert [await ask(), await ask()] == [2, 2]
    # Another file in its place is another matter.
    whole = await recorded(tmp_path / "other", seconds=1)
    whole.replace(path)
    assert await measuring.peaks(path, 60) is not None
    await measuring.aclose()


# ── a piece of it ─────────────────────────────────────────────────────────────────────────────────


def cut(path: Path, start_ms: int, end_ms: int) -> bytes:
    with path.open("rb") as file:
        file.seek(100)
        found = clip(file, start_ms, end_ms)
        assert not file.closed
        return found


@pytest.mark.parametrize("kind", ["running", "opus"])
def test_a_clip_is_where_it_says(kind: str, recording: Path, opus: Path) -> None:
    path = recording if kind == "running" else opus
    rate, found = samples(cut(path, 20_000, 23_000))
    assert (rate, found.shape) == (16_000, (48_000, 2))
    loud = np.abs(found.astype(int)).reshape(30, 1600, 2).mean(axis=1)
    agent, customer = loud[:, 0] > 1000, loud[:, 1] > 1000
    assert agent[2:8].all()
    assert agent[22:28].all()
    assert not agent[12:18].any()
    assert customer[12:18].all()
    assert not customer[2:8].any()


def test_a_clip_beyond_the_end_is_what_there_is(recording: Path) -> None:
    _, found = samples(cut(recording, (SECONDS - 1) * 1000, SECONDS * 1000 + 60_000))
    assert abs(len(found) - 16_000) <= 1600
    _, none = samples(cut(recording, 90_000, 95_000))
    assert len(none) == 0


def test_a_span_has_room_around_it_and_an_end() -> None:
    assert span(3000, 4000) == (0, 19_000)
    assert span(60_000, 61_000) == (45_000, 76_000)
    assert span(60_000, 3_600_000) == (45_000, 345_000)


# ── the archive, over HTTP ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def at(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as house_:
        record(house_.settings.recordings)
        house_.append(
            started(agent="agent", team="A"),
            said(20_000, f"这款产品保本保息{MARKUP}"),
            said(22_000, "卡号************5678", role="customer"),
            said(39_000, "再见"),
            alert(20),
            Decided(
                id="d", call_id="c1", alert_id="a20", media_ms=20_500, action="comment", by="li", text=MARKUP
            ),
            ended(media_ms=SECONDS * 1000),
        )
        yield house_


def taken(at: House) -> httpx.Response:
    return at.client.get("/api/calls/c1/alerts/a20/evidence")


def export(at: House) -> tuple[str, dict[str, bytes]]:
    return unpacked(taken(at))


def unpacked(answer: httpx.Response) -> tuple[str, dict[str, bytes]]:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert packed.testzip() is None
        names = packed.namelist()
        folder = names[0].partition("/")[0]
        assert answer.headers["content-disposition"] == f'attachment; filename="{folder}.zip"'
        return folder, {name.partition("/")[2]: packed.read(name) for name in names}


def test_the_archive_opens_its_hashes_match_and_taking_it_is_written_down(at: House) -> None:
    at.log_in("inspector")
    answer = taken(at)
    folder, files = unpacked(answer)
    assert folder == name_of("c1", "a20")
    manifest = json.loads(files.pop("manifest.json"))
    assert set(manifest["files"]) == set(files)
    for name, content in files.items():
        assert manifest["files"][name]["sha256"] == hashlib.sha256(content).hexdigest()
    assert (manifest["rule_id"], manifest["exported_by"]) == ("redline.guarantee", "inspector")
    path = find(at.settings.recordings, "c1")
    assert path is not None
    assert manifest["recording"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(samples(files["audio.wav"])[1]) == (35_500 - 5_000) * 16
    assert [each["start_ms"] for each in json.loads(files["transcript.json"])["utterances"]] == [
        20_000,
        22_000,
    ]
    assert "再见" not in files["transcript.txt"].decode()
    told = json.loads(files["alert.json"])
    assert (told["alert"]["rule_version"], told["history"][0]["action"]) == (
        manifest["rule_version"],
        "comment",
    )
    entry = at.store.audit.about("c1")[0]
    assert (entry.username, entry.action) == ("inspector", "call.exported")
    assert entry.detail == f"a20: sha256 {hashlib.sha256(answer.content).hexdigest()}"


def test_the_page_in_it_shows_markup_as_text(at: House) -> None:
    at.log_in("supervisor")
    page = export(at)[1]["index.html"].decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_without_a_recording_there_is_everything_else(at: House) -> None:
    path = find(at.settings.recordings, "c1")
    assert path is not None
    path.write_bytes(b"no sound")
    at.log_in("supervisor")
    assert "audio.wav" not in export(at)[1]
    path.unlink()
    assert "audio.wav" not in export(at)[1]


@pytest.mark.parametrize("moment", ["open", "clip"])
def test_a_recording_that_becomes_opus_meanwhile_is_in_it_all_the_same(
    moment: str, at: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking for it and opening it, and between cutting the clip and telling what it is of."""
    path = find(at.settings.recordings, "c1")
    assert path is not None
    before = path.read_bytes()

    def become_opus() -> None:
        if path.exists():
            transcoding.replace(path)

    def found(folder: Path, call_id: str) -> Path | None:
        there = find(folder, call_id)
        become_opus()
        return there

    def cut(*given: Any) -> bytes:
        whole = clip(*given)
        become_opus()
        return whole

    monkeypatch.setattr("app.recorder.find", found if moment == "open" else find)
    monkeypatch.setattr("app.api.evidence.clip", cut)
    at.log_in("supervisor")
    files = export(at)[1]
    assert not path.exists()
    of = before if moment == "clip" else path.with_suffix(".ogg").read_bytes()
    assert json.loads(files["manifest.json"])["recording"] == {
        "name": path.name if moment == "clip" else path.with_suffix(".ogg").name,
        "bytes": len(of),
        "sha256": hashlib.sha256(of).hexdigest(),
    }
    assert len(samples(files["audio.wav"])[1]) == (35_500 - 5_000) * 16


def test_a_disk_that_fails_costs_what_was_not_read(at: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    at.log_in("supervisor")
    with monkeypatch.context() as failing:
        failing.setattr("app.api.evidence.hashlib.file_digest", fail)
        files = export(at)[1]
    assert json.loads(files["manifest.json"])["recording"] is None
    assert "audio.wav" in files
    monkeypatch.setattr("app.api.evidence.clip", fail)
    assert "audio.wav" not in export(at)[1]


def test_evidence_of_another_call_of_another_team_or_for_an_agent_is_not_given(at: House) -> None:
    at.append(started("c2"))
    at.log_in("supervisor")
    assert at.client.get("/api/calls/c2/alerts/a20/evidence").json()["error"]["code"] == "unknown_alert"
    at.store.users.set_teams("supervisor", ["B"])
    at.log_in("supervisor")
    assert at.client.get("/api/calls/c1/alerts/a20/evidence").status_code == 404
    at.log_in("agent")
    assert at.client.get("/api/calls/c1/alerts/a20/evidence").status_code == 403


def test_a_page_gets_the_waveform_of_an_ended_call_and_of_no_running_one(at: House) -> None:
    at.append(started("c2"))
    at.log_in("supervisor")
    assert at.client.get("/api/calls/c2/peaks").json()["error"]["code"] == "call_runs"
    answer = at.client.get("/api/calls/c1/peaks?points=100").json()
    while not answer["ready"]:
        answer = at.client.get("/api/calls/c1/peaks?points=100").json()
    assert [len(channel) for channel in answer["channels"]] == [100, 100]
    assert answer["bin_ms"] == 400
    assert [entry.action for entry in at.store.audit.about("c1")] == ["call.peaks"]
    path = find(at.settings.recordings, "c1")
    assert path is not None
    path.write_bytes(b"no sound")
    assert at.client.get("/api/calls/c1/peaks").json()["error"]["code"] == "no_recording"
