"""What many tests share: the real model where it was fetched, and the recorded calls."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# Fixtures, which pytest finds by their names here.
from tests.redis_services import redis_server, redis_url, shared_redis  # noqa: F401
from tests.services import (  # noqa: F401
    database_url,
    new_database,
    new_postgres,
    own_postgres,
    postgres_server,
    postgres_url,
)

# A machine that is busy with something else is no reason to fail: speed is measured in benchmarks/.
settings.register_profile("duting", deadline=None)
# For a night: a million inputs for each test that does not say otherwise, without a database that grows.
settings.register_profile(
    "night",
    deadline=None,
    max_examples=1_000_000,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# For a lunch break: a thousand.
settings.register_profile(
    "long", deadline=None, max_examples=1000, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "duting"))

LIVE = (
    "tests/test_cluster.py",
    "tests/test_cluster_rules.py",
    "tests/test_hostile.py",
    "tests/test_end_to_end.py",
    "tests/test_watchdog.py",
    "tests/benchmarks/test_wires.py",
)
"""Files whose tests speak in real time with servers of their own, beside those in the browser. Where tests
run in two processes, these come one after another in one of them, and begin at once: they wait more than they
compute, and two of them together would be a load that none of them is about."""


def part_of(nodeid: str) -> str:
    """What a test has to stay together with in one process: those of its file share servers and models."""
    file = nodeid.partition("::")[0]
    return "live" if file in LIVE or file.endswith("_browser.py") else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    twice = sorted({one for one, times in Counter(item.nodeid for item in items).items() if times > 1})
    if twice:
        raise pytest.UsageError(f"tests of one name, of which only one would run: {', '.join(twice[:5])}")
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: part_of(item.nodeid) != "live")


class InParts(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return part_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> InParts:
    """Instead of ``--dist loadgroup``, whose groups pytest 9.2 forgets."""
    return InParts(config, log)


ROOT = Path(__file__).parent.parent
CALLS = ROOT / "tests" / "calls"
MODEL = ROOT / "models" / "base"


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The folder of whisper-base; `make test` fetches it."""
    if not (MODEL / "model.bin").exists():
        pytest.skip("whisper-base is not in models/base: run `duting models fetch base`")
    return MODEL


@pytest.fixture(scope="session")
def whisper(model_folder):
    """The real model, loaded once for all tests."""
    from streams.transcribe import WhisperTranscriber

    return WhisperTranscriber(model_folder)


@pytest.fixture(scope="session")
def short_call() -> Path:
    """Twenty seconds: an agent's red line and a customer's signal, stereo, 8 kHz."""
    return CALLS / "short.ogg"
