"""The folders that hold models: verified whenever they are used, and replaced in one step or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.errors import ModelError, ModelUnreachable
from app.models.known import KNOWN, KnownModel, unknown
from app.models.lock import locked
from app.models.progress import Progress
from app.models.sources import Unavailable, sources
from app.settings import Settings

MANIFEST = "manifest.json"
"""Written beside a fetched model: source, revision, and the SHA-256 of every file."""


def resolve(settings: Settings, progress: Progress) -> Path:
    """The folder of the model that the settings name, verified; fetched first where it is missing.

    ``settings.model`` is a known name, or a folder that somebody prepared. Raises ``ModelError`` when
    the name is unknown or the model damaged, ``ModelUnreachable`` when no source delivers it.
    """
    if settings.model in KNOWN:
        return fetch(settings.model, settings.models_dir, progress)
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        return _check_folder(folder)
    raise unknown(settings.model)


def fetch(
    name: str, models_dir: Path, progress: Progress, local: Path | None = None, *, force: bool = False
) -> Path:
    """Bring the model ``name`` to ``models_dir/name`` and return that folder; nothing to do if it is there.

    ``local``: a folder to copy it from instead of the other sources. ``force``: replace what is there,
    damaged or not. Safe against other processes that fetch the same model at the same time, and against
    being killed: the folder appears whole or not at all. Raises like ``resolve``.
    """
    known = KNOWN.get(name)
    if known is None:
        raise unknown(name)
    target = models_dir / name
    if not force and local is None and target.exists():
        _verify(target, known, name)
        return target
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with locked(models_dir / f".{name}.lock", name, progress):
            if not force and local is None and target.exists():  # another process was faster
                _verify(target, known, name)
                return target
            return _fetch(name, known, models_dir, progress, local)
    except OSError as error:
        raise _disk_error(error, models_dir) from error


# ── verification ──────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Damage(Exception):
    """A file is not what it must be."""

    file: str
    expected: str
    actual: str | None

    def __str__(self) -> str:
        if self.actual is None:
            return f"{self.file} is missing"
        return f"{self.file} has SHA-256 {self.actual}, expected {self.expected}"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, about 0.1 s for 150 MB on a current processor."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hashes(folder: Path, expected: Mapping[str, str | None]) -> dict[str, str]:
    """SHA-256 of every expected file; raises ``_Damage`` on the first that differs or is missing."""
    found: dict[str, str] = {}
    for file, wanted in expected.items():
        path = folder / file
        if not path.is_file():
            raise _Damage(file, wanted or "any", None)
        found[file] = sha256(path)
        if wanted is not None and found[file] != wanted:
            raise _Damage(file, wanted, found[file])
    return found


def _expected(folder: Path, known: KnownModel) -> dict[str, str | None]:
    """What the table knows, completed by what was recorded when the model was fetched."""
    recorded = _read_manifest(folder)
    return {file: wanted or recorded.get(file) for file, wanted in known.files.items()}


def _verify(folder: Path, known: KnownModel, name: str) -> None:
    try:
        _hashes(folder, _expected(folder, known))
    except _Damage as damage:
        raise ModelError(
            f"the model {name!r} in {folder} is damaged: {damage}. "
            f"Fetch it again: duting models fetch {name} --force"
        ) from None
    except OSError as error:
        raise ModelError(f"the model {name!r} in {folder} cannot be read: {error}") from error


def _check_folder(folder: Path) -> Path:
    """A folder somebody prepared: complete, and unchanged where a manifest says what it must be."""
    wanted: dict[str, str | None] = {name: None for name in ("model.bin", "config.json", "tokenizer.json")}
    vocabularies = [name for name in ("vocabulary.txt", "vocabulary.json") if (folder / name).is_file()]
    wanted[vocabularies[0] if vocabularies else "vocabulary.txt"] = None
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} is not a speech model: {', '.join(missing)} missing. Expected a CTranslate2 folder "
            "with model.bin, config.json, tokenizer.json and vocabulary.txt or vocabulary.json"
        )
    try:
        _hashes(folder, _read_manifest(folder))
    except _Damage as damage:
        raise ModelError(f"the model in {folder} is damaged: {damage}. Copy the folder again") from None
    except OSError as error:
        raise ModelError(f"the model in {folder} cannot be read: {error}") from error
    return folder


def _read_manifest(folder: Path) -> dict[str, str]:
    try:
        files = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


# ── fetching ──────────────────────────────────────────────────────────────────────────────────────


def _fetch(name: str, known: KnownModel, models_dir: Path, progress: Progress, local: Path | None) -> Path:
    partial = models_dir / f".{name}.partial"
    failures: list[str] = []
    for source in sources(known, models_dir, progress, local):
        progress.say(f"{name} ({known.size_mb} MB): from {source.name}")
        partial.mkdir(exist_ok=True)
        try:
            source.fill(partial)
            hashes = _hashes(partial, known.files)
        except _Damage as damage:
            (partial / damage.file).unlink(missing_ok=True)
            failures.append(f"{source.name}: delivered wrong bytes: {damage}")
        except Unavailable as reason:
            failures.append(f"{source.name}: {reason}")
        else:
            _install(partial, models_dir / name, known, hashes, source.name)
            progress.say(f"{name}: {len(hashes)} files verified, in {models_dir / name}")
            return models_dir / name
        finally:
            progress.end()
        progress.say(f"  {failures[-1]}")
        if not source.keep_partial:
            shutil.rmtree(partial, ignore_errors=True)
    tried = "".join(f"\n  {number}. {failure}" for number, failure in enumerate(failures, 1))
    if local is not None:
        raise ModelError(f"the model {name!r} cannot be taken from {local}:{tried}")
    raise ModelUnreachable(
        f"no source delivered the model {name!r}; tried in this order:{tried}\n"
        f"Without a network: copy its files ({', '.join(known.files)}) to a folder of this machine and run "
        f"duting models fetch {name} --from FOLDER"
    )


def _install(partial: Path, target: Path, known: KnownModel, hashes: Mapping[str, str], source: str) -> None:
    """Put the verified files in place in one step; whatever stood there before goes."""
    for path in list(partial.iterdir()):  # what a hub client or an older version left behind
        if path.name not in known.files:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    manifest = {
        "repository": known.repository,
        "revision": known.revision,
        "source": source,
        "files": dict(hashes),
    }
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "utf-8")
    for path in [*partial.iterdir(), partial]:
        _fsync(path)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    _fsync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk_error(error: OSError, models_dir: Path) -> ModelError:
    return ModelError(
        f"cannot write a model to {models_dir}: {error.strerror or error}. Free space there, or name another "
        "folder: DUTING_MODELS_DIR"
    )
