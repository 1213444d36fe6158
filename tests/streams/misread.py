"""Speech that was read as what it is not, for tests; and lines that sound odd and are in order."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from app.phones.call import sides
from streams.audio import Resampler, Samples, decode_alaw, decode_mulaw, encode_mulaw

CALL = Path(__file__).parents[2] / "app" / "demo" / "calls" / "compliant_sale.ogg"


@cache
def conversation() -> Samples:
    """Half a minute of an agent who speaks most of the time, int16 at 8 kHz."""
    return sides(CALL, 8_000)["agent"][8_000:248_000]


def encode_alaw(samples: Samples) -> bytes:
    """The nearest byte of A-law (ITU-T G.711)."""
    values = decode_alaw(bytes(range(256)))
    order = np.argsort(values, kind="stable")
    between = (values[order][1:].astype(np.int32) + values[order][:-1]) / 2
    return bytes(order[np.searchsorted(between, samples)].astype(np.uint8))


def doubled(samples: Samples) -> Samples:
    """From 8 to 16 kHz, as a channel comes from the wire."""
    resampler = Resampler(8_000)
    return np.concatenate([resampler.push(samples), resampler.push(samples[:0], last=True)])


def linear(raw: bytes) -> Samples:
    return np.frombuffer(raw[: len(raw) // 2 * 2], "<i2")


def right(samples: Samples) -> dict[str, Samples]:
    """Every way in which 8 kHz comes, read rightly."""
    return {
        "mu-law": doubled(decode_mulaw(encode_mulaw(samples))),
        "A-law": doubled(decode_alaw(encode_alaw(samples))),
        "linear": doubled(samples),
    }


def wrong(samples: Samples) -> dict[str, tuple[str, Samples]]:
    """Every way in which it is misread: what is to be said of it, and what is heard."""
    mulaw, alaw, raw = encode_mulaw(samples), encode_alaw(samples), samples.astype("<i2").tobytes()
    wide = doubled(samples)
    return {
        "mu-law as A-law": ("mu-law as A-law", doubled(decode_alaw(mulaw))),
        "A-law as mu-law": ("A-law as mu-law", doubled(decode_mulaw(alaw))),
        "big endian as little": ("byte order", doubled(samples.byteswap())),
        "one byte late": ("byte order", doubled(linear(raw[1:]))),
        "mu-law as linear": ("G.711 as linear", doubled(linear(mulaw))),
        "A-law as linear": ("G.711 as linear", doubled(linear(alaw))),
        "mu-law as linear of 16 kHz": ("G.711 as linear", linear(mulaw)),
        "linear as mu-law": ("linear as G.711", doubled(decode_mulaw(raw))),
        "linear as A-law": ("linear as G.711", doubled(decode_alaw(raw))),
        "big endian of 16 kHz": ("byte order", wide.byteswap()),
    }
