"""One process at a time: a lock file that the system drops when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from app.errors import ModelUnreachable
from app.models.progress import Progress

LOCK_TIMEOUT_S = 1800.0
"""How long to wait for another process that is fetching the same model."""


@contextlib.contextmanager
def locked(path: Path, name: str, progress: Progress) -> Iterator[None]:
    """Hold the lock file ``path``; raises ``ModelUnreachable`` when another holds it for too long."""
    with path.open("a") as file:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ModelUnreachable(
                        f"another process has been fetching the model {name!r} for {LOCK_TIMEOUT_S:.0f} s "
                        f"(it holds {path}); wait for it or end it"
                    ) from None
                if not told:
                    progress.say(f"{name}: another process is fetching it, waiting")
                    told = True
                time.sleep(0.1)
        yield
