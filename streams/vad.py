"""Is this speech? A cheap gate (WebRTC) asks first, a judge (Silero) decides.

Both look at windows of 512 samples, 32 ms at 16 kHz. The gate costs about 6 µs a window, the judge about
a hundred and fifty: silence therefore costs next to nothing.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import webrtcvad

from streams.audio import Samples, rms_dbfs
from streams.events import SAMPLE_RATE

WINDOW = 512
"""Samples per window; Silero v5 and later take no other length at 16 kHz."""
WINDOW_MS = WINDOW * 1000 // SAMPLE_RATE
_CONTEXT = 64
"""Samples of the window before that Silero wants in front of each window."""

Probabilities = npt.NDArray[np.float32]


class Vad(Protocol):
    """Speech probability of successive windows of one channel."""

    def probabilities(self, windows: Samples) -> Probabilities:
        """``windows``: int16, shape (n, WINDOW), following each other. Returns float32, shape (n,)."""
        ...


@cache
def _silero() -> Any:
    """The Silero network that faster-whisper's package carries; found without importing that package."""
    import onnxruntime

    spec = importlib.util.find_spec("faster_whisper")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("expected the package faster-whisper, which carries the Silero VAD; install it")
    found = sorted((Path(spec.submodule_search_locations[0]) / "assets").glob("silero_vad*.onnx"))
    if not found:
        raise RuntimeError("expected assets/silero_vad*.onnx in the package faster-whisper; reinstall it")
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(found[-1]), sess_options=options, providers=["CPUExecutionProvider"]
    )


class SileroVad:
    """The gate, then the judge. One instance per channel; the network itself is shared.

    A window goes to the judge when its level is above ``FLOOR_DBFS`` and the gate heard something in it
    or in one of the ``LINGER`` windows before; all others are 0. The judge is recurrent: before it is asked
    again it hears the last ``WARM_UP`` windows that it was spared, or it would miss the first syllable.
    """

    FLOOR_DBFS = -62.0
    LINGER = 10
    WARM_UP = 16

    def __init__(self) -> None:
        self._gate = webrtcvad.Vad(2)
        self._state = np.zeros((2, 1, 1, 128), np.float32)
        self._context = np.zeros(_CONTEXT, np.float32)
        self._linger = 0
        self._spared: deque[npt.NDArray[np.float32]] = deque(maxlen=self.WARM_UP)
        """Windows that the judge has not heard, the newest last."""

    def probabilities(self, windows: Samples) -> Probabilities:
        out = np.zeros(len(windows), np.float32)
        wanted = [self._wanted(window) for window in windows]
        scaled = windows.astype(np.float32) / 32768.0
        start = 0
        while start < len(windows):
            stop = start
            while stop < len(windows) and wanted[stop] == wanted[start]:
                stop += 1
            if wanted[start]:
                heard = [*self._spared, *scaled[start:stop]]
                out[start:stop] = self._judge(np.stack(heard))[len(self._spared) :]
                self._spared.clear()
            else:
                self._spared.extend(scaled[start:stop])
            start = stop
        return out

    def _wanted(self, window: Samples) -> bool:
        # 480 samples: WebRTC's VAD takes 10, 20 or 30 ms and nothing else.
        if rms_dbfs(window) > self.FLOOR_DBFS and self._gate.is_speech(window[:480].tobytes(), SAMPLE_RATE):
            self._linger = self.LINGER
            return True
        self._linger = max(0, self._linger - 1)
        return self._linger > 0

    def _judge(self, windows: npt.NDArray[np.float32]) -> Probabilities:
        contexts = np.vstack([self._context, windows[:-1, -_CONTEXT:]])
        probabilities, h, c = _silero().run(
            None,
            {"input": np.hstack([contexts, windows]), "h": self._state[0], "c": self._state[1]},
        )
        self._state = np.stack([h, c])
        self._context = windows[-1, -_CONTEXT:]
        result: Probabilities = probabilities.reshape(-1).astype(np.float32)
        return result
