"""``python -m benchmarks.scripted [serve]``: a recognition worker, or a server, with words from a script.

For all that is to be measured or broken beside the model: what is "said" depends on nothing but the sound of
the utterance, so that one process and a cluster, before and after a crash, read the same.
"""

from __future__ import annotations

import asyncio
import os
import sys

import numpy as np

from app import cli, logs
from app import settings as settings_
from app.build import Service
from app.build import build as build_
from app.models import Progress, RichProgress
from app.settings import Settings
from app.worker import run
from streams.gateway import WorkerState
from streams.local import LocalRunner
from streams.testing import ScriptedTranscriber
from streams.transcribe import Request
from streams.workers import ReadingWorker

SAID = (
    "您好，请问有什么可以帮您",
    "这款产品保本保息，您放心",
    "我想查一下上个月的账单",
    "你们再不处理我就要投诉到银保监会",
    "请您把短信验证码报给我一下",
    "好的，我帮您看一下",
    "我好像被骗了，钱已经转出去了",
    "麻烦您稍等，我正在查询",
    "这个肯定稳赚不赔的",
    "谢谢您的来电，再见",
)


def words(request: Request) -> str:
    """What an utterance says whose loudest sample is this: wherever it begins and ends, it says the same."""
    samples = np.frombuffer(request.pcm, "<i2")
    return SAID[int(np.abs(samples.astype(np.int32)).max(initial=0)) % len(SAID)]


def scripted(seconds: float = 0.0) -> ScriptedTranscriber:
    """``seconds``: of pretended work a batch."""
    return ScriptedTranscriber(words, seconds=seconds, largest_batch=32)


class _FinalsOnly(ReadingWorker):
    """A beginning may lack the loudest sample, and would say something else than the whole."""

    def _state(self) -> WorkerState:
        state = super()._state()
        return WorkerState(step=2, pace_ms=None, room=state.room, lag=state.lag, ready=state.ready)


async def main() -> None:
    settings = settings_.load()
    logs.configure(settings.log_level, settings.log_json)
    seconds = float(os.environ.get("SCRIPTED_SECONDS", "0"))
    await run(
        "asr",
        settings,
        RichProgress(),
        transcriber=scripted(seconds),
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
