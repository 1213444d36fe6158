"""Clips for measuring: a manifest of recordings, heard as through a telephone."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soxr

from app.errors import MediaError
from app.media import open_recording
from streams.audio import Resampler, Samples, decode_mulaw, encode_mulaw
from streams.events import SAMPLE_RATE

TELEPHONE_RATE = 8_000
CHUNK_MS = 20


@dataclass(frozen=True)
class Clip:
    """One row of a manifest."""

    path: Path
    seconds: float
    corpus: str
    """The folder, and the label where it has one."""
    text: str | None
    """What is said; ``None`` where nothing is."""

    @cached_property
    def payload(self) -> bytes:
        """G.711 mu-law at 8 kHz, as the telephone sends it."""
        frames = list(open_recording(self.path).frames("clip"))
        if not frames:
            raise MediaError(f"{self.path}: expected audio, found none")
        first = frames[0].channel
        samples = np.concatenate([np.frombuffer(f.pcm, "<i2") for f in frames if f.channel == first])
        return encode_mulaw(soxr.resample(samples, SAMPLE_RATE, TELEPHONE_RATE, "HQ"))

    @cached_property
    def heard(self) -> Samples:
        """int16 at ``SAMPLE_RATE``: the payload as the server decodes and resamples it."""
        return Resampler(TELEPHONE_RATE).push(decode_mulaw(self.payload), last=True)

    def chunks(self) -> Iterator[tuple[int, int, bytes]]:
        """The payload in the pieces in which a wire brings it: number, media time, mu-law bytes."""
        step = TELEPHONE_RATE * CHUNK_MS // 1000
        for number, start in enumerate(range(0, len(self.payload), step)):
            yield number, number * CHUNK_MS, self.payload[start : start + step]


def manifest_rows(manifest: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a tab-separated file; raises ``MediaError`` naming the line that lacks one of ``columns``."""
    try:
        with manifest.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise MediaError(f"{manifest}: expected a manifest: {error.strerror}") from None
    for number, row in enumerate(rows, start=2):
        if any(row.get(column) is None for column in columns):
            *first, last = columns
            raise MediaError(f"{manifest}:{number}: expected the columns {', '.join(first)} and {last}")
    return rows


def read_manifest(manifest: Path, folders: Sequence[str] = ()) -> list[Clip]:
    """Rows of a tab-separated file with the columns ``path`` (relative to it), ``seconds`` and ``text``.

    ``folders``: only those top folders; empty takes all. Raises ``MediaError`` naming what is missing.
    """
    clips = []
    for row in manifest_rows(manifest, ("path", "seconds", "text")):
        folder = Path(row["path"]).parts[0]
        if folders and folder not in folders:
            continue
        label = row.get("label") or ""
        corpus = folder if label in ("", "neutral") else f"{folder}/{label.partition(':')[0]}"
        clips.append(
            Clip(manifest.parent / row["path"], float(row["seconds"]), corpus, row["text"].strip() or None)
        )
    if not clips:
        raise MediaError(f"{manifest}: expected rows of {', '.join(folders) or 'any folder'}, found none")
    return clips


def some(clips: Sequence[Clip], limit: int | None, seed: int) -> list[Clip]:
    """At most ``limit`` clips, chosen by ``seed``, in their order."""
    if limit is None or limit >= len(clips):
        return list(clips)
    chosen = set(random.Random(seed).sample(range(len(clips)), limit))
    return [clip for index, clip in enumerate(clips) if index in chosen]
