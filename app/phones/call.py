"""What a telephone plays: a recording as both sides of a call, and the pace of speech."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from app.errors import DutingError
from streams.audio import Samples
from streams.events import Channel

CHUNK_MS = 20
Clock = Callable[[], float]


class PhoneFailed(DutingError):
    """The server cannot be reached, refused the call, or ended it."""


class PhoneBusy(PhoneFailed):
    """The server has no room for the call just now."""

    retryable = True


@dataclass(frozen=True)
class PhoneCall:
    call_id: str
    path: Path
    """Of a recording; stereo: agent left, customer right."""
    token: str
    """What the server wants for its ingest (``DUTING_INGEST_TOKEN``)."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """``agent``, ``queue``, ``customer``, ``customer_level``, ``direction``; everything else is custom."""


@dataclass(frozen=True)
class Played:
    call_id: str
    started_s: float
    """Clock at media time 0."""
    worst_lag_s: float
    """How late the phone itself was at worst: a measurement is only as good as this."""


def sides(path: Path, rate: int) -> dict[Channel, Samples]:
    """``agent`` and ``customer`` of a stereo call, int16 at ``rate`` hertz, equally long.

    Decoding a call takes as long as a dozen chunks: not for the thread of an event loop that plays others.
    """
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16p", layout="stereo", rate=rate)
        planes = [f.to_ndarray() for frame in container.decode(audio=0) for f in resampler.resample(frame)]
        planes += [f.to_ndarray() for f in resampler.resample(None)]
    both = np.concatenate(planes, axis=1)
    return {"agent": both[0], "customer": both[1]}


def basic(token: str) -> dict[str, str]:
    """The token as telephones present it that know user and password only."""
    return {"Authorization": "Basic " + base64.b64encode(f"duting:{token}".encode()).decode()}


class Pace:
    """Goes through a recording at the speed of speech: 20 ms at a time, each when it has just been spoken."""

    def __init__(self, samples: int, rate: int, clock: Clock) -> None:
        self._samples, self._rate, self._clock = samples, rate, clock
        self.started_s = 0.0
        """Clock at media time 0."""
        self.worst_lag_s = 0.0

    async def __aiter__(self) -> AsyncIterator[slice]:
        """The samples that are due, 20 ms at a time; the last piece may be shorter."""
        self.started_s = self._clock()
        step = self._rate * CHUNK_MS // 1000
        for at in range(0, self._samples, step):
            stop = min(at + step, self._samples)
            due = self.started_s + stop / self._rate
            await asyncio.sleep(max(0.0, due - self._clock()))
            self.worst_lag_s = max(self.worst_lag_s, self._clock() - due)
            yield slice(at, stop)

    def played(self, call_id: str) -> Played:
        return Played(call_id, self.started_s, self.worst_lag_s)
