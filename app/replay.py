"""``duting replay``: a recording through the whole path, as fast as the model allows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from app.build import Service
from app.media import Recording
from streams.events import AudioFrame, CallInfo


def call_id_of(path: Path) -> str:
    """A call id from a file's name."""
    return "replay-" + (re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem)[:100] or "call")


async def replay(service: Service, recording: Recording, on_progress: Callable[[float], None]) -> None:
    """Run ``recording`` as one call; ``on_progress`` gets the media seconds handed in so far.

    The events go where ``service`` was built to send them.
    """
    info = CallInfo(call_id=call_id_of(recording.path), protocol="replay", channels=recording.channels)
    async with service.running():
        runner = service.runner
        runner.open(info, paced=False)
        try:
            for frame in recording.frames(info.call_id):
                runner.hear(frame)
                on_progress(_seconds(frame))
                await runner.ready()
        except BaseException:
            await runner.close(info.call_id, "error")
            raise
        await runner.close(info.call_id, "hangup")
        await runner.flush()


def _seconds(frame: AudioFrame) -> float:
    return (frame.media_ms + frame.duration_ms) / 1000
