"""``python -m benchmarks.scripted [serve]``: a recognition worker, or a server, with words from a script.

For all that is to be measured or broken beside the model: the scripted calls are read without a mistake, by
one process and by a cluster, before and after a crash.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import numpy as np

from app import cli, logs
from app import settings as settings_
from app.build import Service
from app.build import build as build_
from app.demo import truth
from app.models import Progress, RichProgress
from app.settings import Settings
from app.worker import run
from benchmarks.cluster_calls import load, sound
from streams.events import SAMPLE_RATE
from streams.gateway import WorkerState
from streams.local import LocalRunner
from streams.reading_worker import ReadingWorker
from streams.testing import ScriptedTranscriber
from streams.transcribe import Request


class Script:
    """What is said in the scripted calls, found by its sound: a turn is read where its middle is heard.

    The telephone's samples come through unchanged (mu-law, doubled), so a few of them, found byte by byte,
    say which turn this is: wherever an utterance begins and ends, the words of a turn are read once.
    """

    PIECE = 96
    """Samples at 16 kHz."""

    def __init__(self, *folders: Path) -> None:
        """Of the demo's calls, and of those in further ``folders``."""
        turns: dict[int, list[tuple[bytes, str]]] = {}
        for call in (each for folder in (truth.CALLS, *folders) for each in truth.load(folder)):
            heard = sound("c", load(call.audio))
            for turn in call.turns:
                channel = heard["agent" if turn.role == "agent" else "customer"]
                piece = self._piece(channel, turn)
                turns.setdefault(int(np.frombuffer(piece, "<i8", 1)[0]), []).append((piece, turn.text))
        self._turns = turns
        """By the first four samples of the piece."""
        self._firsts = np.array(sorted(turns), "<i8")
        self._begins = np.zeros(2**16, bool)
        """Whether a piece begins with a word that is mixed to this."""
        self._begins[_mixed(self._firsts)] = True

    def _piece(self, channel: np.ndarray, turn: truth.Turn) -> bytes:
        """The loudest piece of the turn's middle, or of its phrase's where it has one."""
        start, end = (turn.spans[0].start, turn.spans[0].end) if turn.spans else (turn.start, turn.end)
        quarter = (end - start) / 4
        first, last = int((start + quarter) * SAMPLE_RATE), int((end - quarter) * SAMPLE_RATE)
        middle = np.abs(channel[first : max(last, first + self.PIECE)].astype(np.int32))
        # Even, as the first sample of every utterance is: see ``__call__``.
        at = (first + max(0, int(middle.argmax()) - self.PIECE // 2)) // 2 * 2
        return channel[at : at + self.PIECE].tobytes()

    def __call__(self, request: Request) -> str:
        pcm, found = request.pcm, []
        # A hundred and fifty calls are read at once: looking for each turn of all calls would take longer
        # than the model. Pieces begin at even samples, so every four samples from one are compared at once.
        for offset in (0, 2):
            words = np.frombuffer(pcm, "<i8", max(0, len(pcm) - 2 * offset) // 8, 2 * offset)
            # Most words begin no piece; one look tells, where looking for a word takes eight.
            some = np.flatnonzero(self._begins[_mixed(words)])
            places = np.searchsorted(self._firsts, words[some]).clip(max=len(self._firsts) - 1)
            for index in some[self._firsts[places] == words[some]].tolist():
                at = 2 * offset + 8 * index
                for piece, text in self._turns[int(words[index])]:
                    if pcm.startswith(piece, at):
                        found.append((at, text))
        return "，".join(text for _, text in sorted(found))


def _mixed(words: np.ndarray) -> np.ndarray:
    """Sixteen bits of words of four samples: different words hardly ever have the same."""
    mixed: np.ndarray = (words.view("<u4")[::2] * np.uint32(2_654_435_761)) >> np.uint32(16)
    return mixed


def scripted(seconds: float = 0.0, *more: Path) -> ScriptedTranscriber:
    """``seconds``: of pretended work a batch; ``more``: folders of calls beside the demo's."""
    return ScriptedTranscriber(Script(*more), seconds=seconds, largest_batch=32)


class _FinalsOnly(ReadingWorker):
    """What is compared is what one process says that replays the calls, which has no partials either."""

    def _state(self) -> WorkerState:
        state = super()._state()
        return WorkerState(step=2, pace_ms=None, room=state.room, lag=state.lag, ready=state.ready)


async def main() -> None:
    settings = settings_.load()
    logs.configure(settings.log_level, settings.log_json)
    seconds = float(os.environ.get("SCRIPTED_SECONDS", "0"))
    more = [Path(folder) for folder in os.environ.get("SCRIPTED_MORE", "").split(os.pathsep) if folder]
    await run(
        "asr",
        settings,
        RichProgress(),
        transcriber=scripted(seconds, *more),
        on_listening=lambda address: print(address, flush=True),
        reading=_FinalsOnly,
    )


def serve() -> None:
    """``duting serve`` with these words, finals only."""

    def build(settings: Settings, progress: Progress) -> Service:
        service = build_(settings, progress, transcriber=scripted())
        if isinstance(service.runner, LocalRunner):
            service.runner.finals_only = True
        return service

    cli.serve_with(build, announce=True)


if __name__ == "__main__":
    serve() if "serve" in sys.argv else asyncio.run(main())
