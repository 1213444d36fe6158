"""Where rule packs are worked on while calls run: checks, sentences, comparisons, trials over stored calls.

All of it happens in processes of its own (``app.rule_jobs``). One serves what people wait for, one job after
the other, and is kept for the next for ``IDLE_S``; each job has a time, after which the process is ended and
the next job starts another. A trial over stored calls has a process for itself. What waits is bounded: with
``MOST_WAITING`` jobs before it, one more is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from app.drafts import DraftError
from app.errors import StoreError
from app.piped import framed, next_message
from app.rule_jobs import ANSWERS, Answer, Broke, Job, Progress, Tried, Try, Wrong
from app.settings import for_a_child
from app.store import Store
from detectors.rules.loader import Source

MOST_WAITING: Final = 8
JOB_S: Final = 20.0
"""For one job; the built-in pack is compiled and its 400 dialogues run in 3 s."""
IDLE_S: Final = 120.0
TRIAL_S: Final = 1800.0
BEAT_S: Final = 1.0
"""How often a trial writes how far it is, and looks whether somebody has cancelled it."""
STOP_S: Final = 5.0

log = structlog.get_logger(__name__)


class Workbench:
    """For one event loop; ``aclose`` at the end. May raise ``DraftError``: ``busy`` or ``took_too_long``."""

    def __init__(self, store: Store, job_s: float = JOB_S) -> None:
        self._store = store
        self._job_s = job_s
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._child: Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        """Ends children that were let go."""
        self._trials: set[asyncio.Task[None]] = set()

    async def done(self, job: Job) -> Answer:
        """What comes of a job."""
        if self._waiting >= MOST_WAITING:
            raise DraftError("busy")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._ask(job)
        finally:
            self._waiting -= 1

    def try_over_calls(
        self,
        trial_id: int,
        file: str,
        sources: Sequence[Source],
        in_force: Sequence[Source],
        call_ids: Sequence[str],
    ) -> None:
        """Begin a trial that is in the store already; what comes of it will be there too."""
        job = Try(self._store.url, file, tuple(sources), tuple(in_force), tuple(call_ids))
        task = asyncio.create_task(self._try(trial_id, job), name=f"backtest-{trial_id}")
        self._trials.add(task)
        task.add_done_callback(self._trials.discard)

    async def aclose(self) -> None:
        """End all processes; trials that run are cut off."""
        for task in self._trials:
            task.cancel()
        await asyncio.gather(*self._trials, return_exceptions=True)
        await self._end()
        await asyncio.gather(*self._leaving)

    # ── jobs that people wait for ─────────────────────────────────────────────────────────────────

    async def _ask(self, job: Job) -> Answer:
        if self._idle is not None:
            self._idle.cancel()
        try:
            async with asyncio.timeout(self._job_s):
                if self._child is None or self._child.returncode is not None:
                    self._child = await _start()
                answer = await _answer(self._child, job)
        except TimeoutError:
            log.warning("rules.job_too_long", job=type(job).__name__, limit_s=self._job_s)
            await self._end()
            raise DraftError("took_too_long") from None
        except (OSError, ValueError) as error:
            log.error("rules.job_not_done", error=type(error).__name__)
            await self._end()
            raise DraftError("busy") from None
        except BaseException:  # cancelled in the middle: whatever it still answers is for nobody
            await self._end()
            raise
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._let_go)
        if answer is None or isinstance(answer, Broke):
            # It died, or fell over: memory that ran out, as far as anybody knows.
            log.error("rules.job_failed", job=type(job).__name__, error=answer.error if answer else "ended")
            await self._end()
            raise DraftError("took_too_long")
        return answer

    def _let_go(self) -> None:
        """Nobody has asked for a while. Who asks from now on gets another child, not one that is ending."""
        self._idle = None
        if self._child is not None and not self._turn.locked():
            child, self._child = self._child, None
            task = asyncio.create_task(_stop(child), name="rules-let-go")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        child, self._child = self._child, None
        if child is not None:
            await _stop(child)

    # ── trials ────────────────────────────────────────────────────────────────────────────────────

    async def _try(self, trial_id: int, job: Try) -> None:
        child: Process | None = None
        error: str | None = "backtest_lost"
        try:
            async with asyncio.timeout(TRIAL_S):
                child = await _start("--trial")
                error = await self._follow(trial_id, child, job)
        except TimeoutError:
            error = "took_too_long"
        except (OSError, ValueError) as failure:
            log.error("rules.trial_failed", trial=trial_id, error=type(failure).__name__)
        except StoreError as failure:  # it counts as lost once it was not heard of for a while
            log.error("rules.trial_not_written", trial=trial_id, error=str(failure))
        finally:
            if child is not None:
                await _stop(child)
            if error is not None:
                with contextlib.suppress(StoreError):
                    await asyncio.to_thread(self._store.rule_trials.end, trial_id, "failed", error=error)

    async def _follow(self, trial_id: int, child: Process, job: Try) -> str | None:
        """Write how far it is until it has ended, or is to; the code of what went wrong, if anything did."""
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(framed(job))
        await child.stdin.drain()
        trials, total, done = self._store.rule_trials, len(job.call_ids), 0
        reading = asyncio.create_task(next_message(child.stdout))
        loop = asyncio.get_running_loop()
        beat = loop.time()
        try:
            while True:
                await asyncio.wait({reading}, timeout=max(0.0, beat + BEAT_S - loop.time()))
                if loop.time() - beat >= BEAT_S:
                    beat = loop.time()
                    if not await asyncio.to_thread(trials.go_on, trial_id, done, total):
                        return None  # cancelled: that is written already
                if not reading.done():
                    continue
                message = reading.result()
                answer = None if message is None else ANSWERS.decode(message)
                match answer:
                    case Progress():
                        done = answer.done
                        reading = asyncio.create_task(next_message(child.stdout))
                    case Tried():
                        result = msgspec.json.encode(answer).decode()
                        await asyncio.to_thread(
                            trials.end, trial_id, "done", version=answer.version, result=result
                        )
                        return None
                    case Wrong():
                        return "rules_refused"
                    case _:
                        kind = answer.error if isinstance(answer, Broke) else "ended"
                        log.error("rules.trial_failed", trial=trial_id, error=kind)
                        return "backtest_lost"
        finally:
            reading.cancel()


async def _start(*arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app.rule_jobs",
        *arguments,
        stdin=PIPE,
        stdout=PIPE,
        env={**for_a_child(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


async def _answer(child: Process, job: Job) -> Answer | None:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(framed(job))
    await child.stdin.drain()
    message = await next_message(child.stdout)
    return None if message is None else ANSWERS.decode(message)


async def _stop(child: Process) -> None:
    """A killed process holds nothing that anybody needs: what counts is in the store."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), STOP_S)
