"""Opus packets decoded (RFC 6716), by the libopus that PyAV brings.

Its in-band repetition of the packet before (FEC, RFC 7587) is not to be had through PyAV; what was lost is
concealed by ``streams.conceal``.
"""

from __future__ import annotations

import av
import numpy as np

from app.ingest.packets import RATE
from streams.audio import Samples


class OpusDecoder:
    """One voice's decoder; it keeps its state from packet to packet."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("libopus", "r")
        assert isinstance(self._codec, av.AudioCodecContext)
        # What was sent in stereo is mixed by the decoder.
        self._codec.format, self._codec.layout, self._codec.sample_rate = "s16", "mono", RATE

    def __call__(self, payload: bytes) -> Samples:
        """The sound of a packet: int16 mono at ``RATE``, 2.5 to 120 ms. Raises ``ValueError``."""
        if not payload:
            return np.zeros(0, np.int16)
        try:
            frames = self._codec.decode(av.Packet(payload))
        except av.FFmpegError as error:
            raise ValueError(f"not an Opus packet: {type(error).__name__}") from None
        if not frames:
            return np.zeros(0, np.int16)
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
