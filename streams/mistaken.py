"""Samples whose bytes were read in the wrong way: as another codec, in another order. Pure.

G.711 has two laws that nearly look alike, linear samples two byte orders, and a peer that says one and sends
the other is heard as noise, or as a voice through gravel. What was sent is still there: read the other way it
is speech again. So the same bytes are read in every way that peers get wrong, and the smoothest is
compared with what was heard: of speech neighbouring samples are nearly equal, of bytes that are misread
they are not. Noise stays rough in whatever way it is read, and what was read rightly is rough in all others,
so that neither is ever mistaken for a wrong codec.

It needs the samples as they were on the wire: those of a channel at 8 kHz are every second one at 16 kHz
(``audio.Doubler``), those at 16 kHz all of them. What was resampled otherwise tells nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.audio import Samples, decode_alaw, decode_mulaw

Bytes = npt.NDArray[np.uint8]
Reading = Literal["A-law as mu-law", "mu-law as A-law", "byte order", "G.711 as linear", "linear as G.711"]
"""What was sent, and as what it was read; ``byte order``: of linear samples, or cut apart in the middle of
one, which sounds the same."""

ROUGH: Final = 0.35
"""What is smoother was read rightly: voiced speech has 0.1 to 0.4, noise 2."""
_SMOOTH: Final = 0.4
_BETTER: Final = 0.45
"""The other reading is so much smoother at least."""
_HEARD: Final = (32768 * 10 ** (-45 / 20)) ** 2
"""Mean square below which nobody speaks."""
_FULL: Final = (0.4, 0.93)
"""Mean magnitude over the root of the mean square: a voice has 0.5 to 0.85 in a piece; clicks on a quiet line
have less, what only jumps between two values 1."""
_LOUD: Final = (32768 * 10 ** (-25 / 20)) ** 2
"""Linear samples read as G.711 are always this loud, their silence too: its zeros are full scale there."""


class _Tables(NamedTuple):
    """By sample, as an index without sign."""

    mulaw: Bytes
    """The byte of which mu-law makes the sample nearest to this one."""
    alaw: Bytes
    other_mulaw: Samples
    """What mu-law makes of the byte of which A-law made this sample."""
    other_alaw: Samples
    from_mulaw: Samples
    """By byte."""
    from_alaw: Samples


def _bytes(law: Samples) -> Bytes:
    """The byte of which a law makes each sample, or the nearest to it; the inverse of its table."""
    order = np.argsort(law, kind="stable")
    between = (law[order][1:].astype(np.int32) + law[order][:-1]) / 2
    every = np.arange(65_536, dtype=np.uint32).astype(np.uint16).view(np.int16)
    return order[np.searchsorted(between, every, side="right")].astype(np.uint8)


@cache
def _tables() -> _Tables:
    every = bytes(range(256))
    from_mulaw, from_alaw = decode_mulaw(every), decode_alaw(every)
    mulaw, alaw = _bytes(from_mulaw), _bytes(from_alaw)
    return _Tables(mulaw, alaw, from_mulaw[alaw], from_alaw[mulaw], from_mulaw, from_alaw)


def roughness(samples: Samples, least: float = 0.0) -> float:
    """How far each sample is from the one before it, over their level: 0 (constant) to 4; of noise 2.

    Infinite where their mean square is below ``least``.
    """
    x = samples.astype(np.float32)
    x -= x.mean()
    level = float(np.dot(x, x))
    if level < least * len(x):
        return math.inf
    steps = x[1:] - x[:-1]
    return float(np.dot(steps, steps)) / (level + 1.0)


def mistaken(samples: Samples) -> Reading | Literal["right"] | None:
    """How a piece of a channel was misread, int16 at 16 kHz, an eighth of a second or so.

    ``right``: it is as smooth as speech. ``None``: it is not, nor does any other reading make speech of it.
    """
    wire = np.ascontiguousarray(samples[::2])
    found: Reading | Literal["right"] | None = None
    least = _SMOOTH
    for piece, readings in ((wire, _readings(wire)), (samples, _linear(samples))):
        heard = roughness(piece)
        if heard < ROUGH:
            # In between two samples of 8 kHz it is always smooth: only the wire tells.
            found = "right" if found is None and piece is wire else found
            continue
        for reading, other in readings:
            rough = roughness(other, _HEARD)
            if rough < min(least, _BETTER * heard) and _is_full(other):
                least, found = rough, reading
    return found


def _is_full(samples: Samples) -> bool:
    x = samples.astype(np.float32)
    x -= x.mean()
    level = math.sqrt(float(np.dot(x, x)) / len(x))
    return _FULL[0] * level <= float(np.abs(x).mean()) <= _FULL[1] * level


def _readings(wire: Samples) -> Iterator[tuple[Reading, Samples]]:
    """Of a channel at 8 kHz."""
    tables = _tables()
    index = wire.view(np.uint16)
    yield "A-law as mu-law", tables.other_alaw[index]
    yield "mu-law as A-law", tables.other_mulaw[index]
    yield from _linear(wire)
    loud = wire.astype(np.float32)
    if float(np.dot(loud, loud)) > _LOUD * len(wire):
        for table in (tables.mulaw, tables.alaw):
            raw = table[index]
            for at in (0, 1):
                yield "linear as G.711", raw[at : at + (len(raw) - at) // 2 * 2].view("<i2")


def _linear(samples: Samples) -> Iterator[tuple[Reading, Samples]]:
    """Of linear samples, whatever their rate."""
    tables = _tables()
    raw = samples.view(np.uint8)
    yield "byte order", samples.byteswap()
    yield "G.711 as linear", tables.from_mulaw[raw]
    yield "G.711 as linear", tables.from_alaw[raw]
