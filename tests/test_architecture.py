"""The arrows between the packages, the places of the outside world, and the shape of the repository."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("app", "streams", "detectors", "dashboard", "tests", "benchmarks")

# Who may import what of ours; a prefix stands for everything below it. `app` may import everything but
# the tests and benchmarks.
ARROWS = {
    "detectors": ("detectors", "streams.events"),
    "streams": ("streams",),
    "dashboard": ("dashboard", "streams.events"),
    "app": ("app", "streams", "detectors", "dashboard"),
}

# The core takes values and returns values: no clock, no event loop, no thread, no network.
PURE = (
    "audio",
    "silero",
    "vad",
    "listen",
    "batching",
    "events",
    "raising",
    "alert_life",
    "voice",
    "music",
    "quality",
    "mistaken",
    "arrival",
    "pacing",
    "wire",
    "heard",
    "followed",
    "following",
    "assembly",
)
IMPURE_MODULES = ("asyncio", "time", "threading", "multiprocessing", "socket", "subprocess", "httpx")
CLOCK_READS = ("now", "utcnow", "today")

# Top-level folders of the repository; what git ignores may lie beside them.
TOP_LEVEL = {"app", "streams", "detectors", "dashboard", "tests", "benchmarks", "scripts", "deploy", ".ci"}
MADE_HERE = {"var", "models", "artifacts", "build", "dist", "htmlcov", "node_modules", "shared"}


@dataclass(frozen=True)
class Import:
    """One imported name, fully dotted."""

    file: Path
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.name}"


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "node_modules" not in path.parts:
                yield path


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path: Path) -> Iterator[Import]:
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [node.module])))
            for alias in node.names:
                yield Import(path, node.lineno, f"{base}.{alias.name}")


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def test_every_package_has_sources() -> None:
    for package in ARROWS:
        assert any(sources(package)), package


@pytest.mark.parametrize("package", sorted(ARROWS))
def test_a_package_imports_only_along_the_arrows(package: str) -> None:
    wrong = [
        str(found)
        for path in sources(package)
        for found in imports(path)
        if found.name.split(".")[0] in OURS
        and not any(within(found.name, allowed) for allowed in ARROWS[package])
    ]
    assert not wrong, f"{package} may import {', '.join(ARROWS[package])} of ours"


def test_only_one_file_imports_the_speech_model() -> None:
    engines = ("faster_whisper", "ctranslate2")
    wrong = [
        str(found)
        for path in sources("app", "streams", "detectors", "dashboard")
        if path != ROOT / "streams" / "transcribe.py"
        for found in imports(path)
        if any(within(found.name, engine) for engine in engines)
    ]
    assert not wrong, "only streams/transcribe.py may"


def environment_reads(module: ast.Module) -> Iterator[int]:
    """Lines that read the environment; ``{**os.environ, ...}`` for a child process only hands it on."""
    handed_on = {
        id(value)
        for node in ast.walk(module)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if key is None
    }
    for node in ast.walk(module):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in ("environ", "environb", "getenv")
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and id(node) not in handed_on
        ):
            yield node.lineno


def test_only_the_settings_read_the_environment() -> None:
    wrong: list[str] = []
    for path in sources("app", "streams", "detectors", "dashboard"):
        if path != ROOT / "app" / "settings.py":
            wrong += [f"{path.relative_to(ROOT)}:{line}" for line in environment_reads(tree(path))]
            wrong += [str(found) for found in imports(path) if found.name in ("os.environ", "os.getenv")]
    assert not wrong, "only app/settings.py may"


def pure_sources() -> list[Path]:
    return [*sources("detectors"), *(path for name in PURE for path in of_streams(name))]


def of_streams(name: str) -> list[Path]:
    """The file of that name, or the files of the package."""
    file = ROOT / "streams" / f"{name}.py"
    return [file] if file.exists() else sorted((ROOT / "streams" / name).glob("*.py"))


@pytest.mark.parametrize("path", pure_sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_reads_no_clock_and_waits_for_nothing(path: Path) -> None:
    wrong = [
        str(found) for found in imports(path) if any(within(found.name, module) for module in IMPURE_MODULES)
    ]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} is asynchronous")
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in CLOCK_READS
        ):
            wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} reads a clock: {ast.unparse(node.func)}")
    assert not wrong, "time is an argument, a timer is data (wake_at, on_wake)"


def test_the_pure_files_of_streams_are_where_the_design_says() -> None:
    assert not [name for name in PURE if not of_streams(name)]


def test_the_top_level_holds_only_the_folders_of_the_design() -> None:
    found = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir()
        and path.name not in MADE_HERE
        and not path.name.endswith(".egg-info")
        and (path.name == ".ci" or not path.name.startswith((".", "__")))
    }
    assert found <= TOP_LEVEL
