"""The learned judge of voices: an ONNX file that ``benchmarks.emotion_train`` made, or one made like it.

Duting ships none: what such a head learns is the taste of those who labelled the recordings it learned
from, and the licences of the public ones forbid it. Without one ``detectors.emotion`` has a rule of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from app.errors import DutingError
from detectors.emotion import FEATURES
from streams.events import Feeling


class HeadRefused(DutingError):
    """The file is no head for these features; the message says what was expected and what came."""


class OnnxHead:
    """Keeps the promise of ``detectors.emotion.Head``; safe to use from many threads.

    The file takes float32 of shape (n, features) and gives probabilities of shape (n, feelings). Its
    metadata name both, in order, under ``features`` and ``feelings``, separated by commas.
    """

    def __init__(self, session: onnxruntime.InferenceSession, feelings: tuple[Feeling, ...]) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._feelings = feelings

    @classmethod
    def load(cls, path: Path) -> OnnxHead:
        """Raises ``HeadRefused`` when the file cannot be read, or was made for other features."""
        options = onnxruntime.SessionOptions()
        # A hundred products: threads would cost more than they save, and spin between two utterances.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except OSError as error:
            raise HeadRefused(
                f"DUTING_EMOTION_MODEL: cannot read {path}: {error.strerror}; without one a rule judges"
            ) from None
        except Exception as error:  # onnxruntime raises types of its own
            raise HeadRefused(
                f"DUTING_EMOTION_MODEL: {path} is no ONNX model: {type(error).__name__}"
            ) from None
        described = session.get_modelmeta().custom_metadata_map
        features = tuple(described.get("features", "").split(","))
        if features != FEATURES:
            raise HeadRefused(
                f"DUTING_EMOTION_MODEL: {path} was made for {len(features)} features beginning with "
                f"{features[0] or '(none)'}; this version has {len(FEATURES)}: train it again"
            )
        feelings = tuple(described.get("feelings", "").split(","))
        if unknown := sorted(set(feelings) - set(get_args(Feeling))):
            raise HeadRefused(
                f"DUTING_EMOTION_MODEL: {path} knows feelings unknown here: {', '.join(unknown)}"
            )
        head = cls(session, cast(tuple[Feeling, ...], feelings))
        try:
            head.probabilities([0.0] * len(FEATURES))
        except Exception as error:
            raise HeadRefused(
                f"DUTING_EMOTION_MODEL: {path} does not turn {len(FEATURES)} numbers into "
                f"{len(feelings)} probabilities: {type(error).__name__}"
            ) from None
        return head

    def probabilities(self, features: Sequence[float]) -> Mapping[Feeling, float]:
        row = np.array([features], np.float32)
        (found,) = self._session.run(None, {self._input: row})
        return dict(zip(self._feelings, np.asarray(found)[0].tolist(), strict=True))
