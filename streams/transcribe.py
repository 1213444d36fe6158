"""Utterances to text: the Transcriber protocol, and the faster-whisper/CTranslate2 engine behind it.

The only file that imports either. CTranslate2's encoder takes any window up to 30 s, so a clip is padded to
the next step of 1.25 s instead of to 30 s, and clips of several calls go through the model in one
``generate``. The model is loaded once; ``transcribe`` may be called from as many threads as there are
workers, because CTranslate2 runs each call on a worker of its own and releases the GIL.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import structlog

from streams.events import SAMPLE_RATE, Word
from streams.guards import Reading, without_loops
from streams.vocabulary import NotSlim, SlimModel, raw_bytes, slim

log = structlog.get_logger(__name__)

FRAMES_PER_SECOND = 100
FULL_WINDOW = 3000
SMALLEST_WINDOW, STEP = 250, 125
"""Mel frames. A clip goes into the smallest window that holds it and ``MARGIN`` more."""
MARGIN = 64
"""Frames of silence behind the clip: without them the model often drops the last word."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Text that the model takes for what was said before: it biases towards these words."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Request:
    pcm: bytes
    """Signed 16-bit little-endian mono at ``SAMPLE_RATE``, at most 30 s."""
    prompt: Prompt

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / SAMPLE_RATE


class Transcriber(Protocol):
    """Turns clips into text. Implementations hold one model for all calls."""

    @property
    def workers(self) -> int:
        """How many batches may run at the same time."""
        ...

    @property
    def largest_batch(self) -> int: ...

    @property
    def speech_cost(self) -> float:
        """Seconds of one worker per second of speech, as it is known before the first call."""
        ...

    def enter(self) -> None:
        """Called once by each thread that will read, before it does."""
        ...

    def prompt(self, text: str) -> Prompt:
        """Prepare ``text``; cut to what the model has room for."""
        ...

    def transcribe(self, requests: Sequence[Request], frames: int) -> list[Reading]:
        """One reading per request, in order. Blocking; thread-safe.

        ``frames`` is the window for all of them; every prompt has the same number of tokens.
        """
        ...

    def locate(self, request: Request, text: str) -> tuple[Word, ...]:
        """When each character of ``text`` is said in the clip, in milliseconds from its start.

        Blocking; thread-safe. ``text`` is a reading of the same clip.
        """
        ...


def window_for(seconds: float) -> int:
    """The window, in mel frames, for a clip of this length: 250, 375, 500 … 1500, or the full one."""
    needed = math.ceil(seconds * FRAMES_PER_SECOND) + MARGIN
    window = max(SMALLEST_WINDOW, -(-needed // STEP) * STEP)
    return window if window <= FULL_WINDOW // 2 else FULL_WINDOW


def retry_window_for(frames: int) -> int:
    """The window for a reading that is doubted: loops come of windows that the clip fills."""
    window = max(3 * SMALLEST_WINDOW, 2 * frames)
    return window if window <= FULL_WINDOW // 2 else FULL_WINDOW


def give_way() -> None:
    """Lower the calling thread's priority: the model takes what hearing the calls leaves of the processor.

    Audio that waits in a socket delays every call a little, and there is always another batch to compute. Not
    for threads whose model computes elsewhere: one that is put aside while it holds the interpreter holds up
    all the others.
    """
    if sys.platform == "linux":
        # On Linux a priority belongs to a thread, whatever the name of the constant.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def keep_memory() -> None:
    """Keep glibc from giving the memory of every batch back to the system, only to ask for it again.

    A tenth of the encoder's time went into pages that were cleared for it (``mallopt(3)``: M_MMAP_THRESHOLD,
    M_TRIM_THRESHOLD). What is kept is the memory of the largest batch.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # not glibc
    trim_threshold, mmap_threshold = -1, -3
    mallopt(mmap_threshold, 32 << 20)
    mallopt(trim_threshold, 1 << 30)


def _characters(tokens: Sequence[bytes], bounds: Sequence[int]) -> Iterator[Word]:
    """Times of characters from those of tokens, which may hold several characters or parts of one.

    ``bounds`` has one more entry than ``tokens``. Characters of one token share its time evenly.
    """
    rest = b""
    begin = bounds[0]
    for token, start, stop in zip(tokens, bounds, bounds[1:], strict=False):
        if not rest:
            begin = start
        rest += token
        text = rest.decode(errors="ignore")
        if not text or len(text.encode()) < len(rest):
            continue
        rest = b""
        share = (stop - begin) / len(text)
        for number, character in enumerate(text):
            yield Word(
                text=character,
                start_ms=round(begin + share * number),
                end_ms=round(begin + share * (number + 1)),
            )


class WhisperTranscriber:
    """Whisper on CTranslate2, greedy, without timestamps.

    Args:
        folder: holds model.bin, config.json, tokenizer.json and the vocabulary.
        device: ``auto`` takes a GPU if CTranslate2 finds one.
        compute_type: ``default`` is int8 on a CPU and int8_float16 on a GPU.
        workers, threads: batches at a time, and threads each; ``None`` chooses by the machine (one worker
            per core on a CPU, because two workers of one thread beat one worker of two; one on a GPU).
    """

    LANGUAGE = "zh"
    PROMPT_STEP, MOST_PROMPT_TOKENS = 16, 48
    """Prompts are brought to a multiple of the first, so that calls with different ones share batches. A clip
    of four seconds costs a fifth more with 110 tokens than with 48, and nothing more is heard for it
    (``python -m benchmarks.bias``). With 32, at sixteen calls, one red line was lost that 48 had found."""
    MOST_TOKENS_PER_SECOND = 9.0
    MOST_TOKENS = 448
    """Whisper's decoder has no positions beyond this (prompt included)."""

    def __init__(
        self,
        folder: Path,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        compute_type: str = "default",
        workers: int | None = None,
        threads: int | None = None,
        whole_vocabulary: bool = False,
    ) -> None:
        import ctranslate2
        from faster_whisper.feature_extractor import FeatureExtractor
        from faster_whisper.tokenizer import Tokenizer
        from opencc import OpenCC
        from threadpoolctl import threadpool_limits
        from tokenizers import Tokenizer as HfTokenizer

        # Mel features are small products: BLAS's helper threads would only spin between them.
        threadpool_limits(limits=1, user_api="blas")
        if device == "auto":
            device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        if compute_type == "default":
            compute_type = "int8_float16" if device == "cuda" else "int8"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.device = device
        self._workers = workers or (1 if device == "cuda" else cores)
        self.largest_batch = 32 if device == "cuda" else 4
        self.speech_cost = 0.05
        spoken = None if whole_vocabulary else self._slim(folder)

        def loaded() -> Any:
            give_way()
            return ctranslate2.models.Whisper(
                str(folder),
                files=spoken.files if spoken else None,
                device=device,
                compute_type=compute_type,
                inter_threads=self._workers,
                intra_threads=threads or max(1, cores // self._workers),
            )

        keep_memory()
        # The engine's threads inherit the priority of the thread that makes them.
        with ThreadPoolExecutor(1) as background:
            self._model: Any = background.submit(loaded).result()
        self._storage = ctranslate2.StorageView
        self._extractor: Any = FeatureExtractor(feature_size=self._model.n_mels)
        self._tokenizer: Any = Tokenizer(
            HfTokenizer.from_str(spoken.tokenizer)
            if spoken
            else HfTokenizer.from_file(str(folder / "tokenizer.json")),
            True,
            task="transcribe",
            language=self.LANGUAGE,
        )
        self._simplified = OpenCC("t2s")
        # Sound tags, music notes and symbols are no speech: the list of openai/whisper's decoder.
        self._suppress = [-1, *self._tokenizer.non_speech_tokens]

    @staticmethod
    def _slim(folder: Path) -> SlimModel | None:
        try:
            return slim(folder)
        except NotSlim as reason:
            log.warning("model.whole_vocabulary", reason=str(reason))
            return None

    @property
    def workers(self) -> int:
        return self._workers

    def enter(self) -> None:
        if self.device == "cpu":
            give_way()

    def prompt(self, text: str) -> Prompt:
        """Longer text loses its last words, whole ones; shorter text has its own end in front of it.

        (Padding with full stops made the model write nothing but full stops.)
        """
        tokens = self._tokenizer.encode(" " + text.strip()) if text.strip() else []
        if len(tokens) > self.MOST_PROMPT_TOKENS:
            kept = self._tokenizer.decode(tokens[: self.MOST_PROMPT_TOKENS]).strip("\ufffd ")
            # Half of 12378 would be another number.
            words, comma, _ = kept.rpartition("、")
            tokens = self._tokenizer.encode(" " + (words if comma else kept))[: self.MOST_PROMPT_TOKENS]
        if not tokens:
            return Prompt("", ())
        length = -(-len(tokens) // self.PROMPT_STEP) * self.PROMPT_STEP
        repeated = tokens * -(-length // len(tokens))
        return Prompt(self._tokenizer.decode(tokens).strip("\ufffd "), tuple(repeated[-length:]))

    def warm_up(self) -> None:
        """Run a few batches, so that the first call does not pay for allocations; learn ``speech_cost``.

        Noise, to which the model finds as many words as it may: the cost errs on the side of few calls.
        """
        seconds = 4.0
        noise = np.random.default_rng(0).normal(0, 2_000, round(seconds * SAMPLE_RATE)).astype("<i2")
        clip = Request(noise.tobytes(), self.prompt("以下是银行客服的普通话通话。"))
        window = window_for(seconds)
        self.transcribe([clip], window)
        self.transcribe([clip] * self.largest_batch, window)
        started = time.perf_counter()
        self.transcribe([clip] * self.largest_batch, window)
        self.speech_cost = (time.perf_counter() - started) / seconds / self.largest_batch

    def transcribe(self, requests: Sequence[Request], frames: int) -> list[Reading]:
        tokenizer = self._tokenizer
        features = np.stack([self._features(request.pcm, frames) for request in requests])
        start = [tokenizer.sot, tokenizer.language, tokenizer.transcribe, tokenizer.no_timestamps]
        prompts = [
            ([tokenizer.sot_prev, *r.prompt.tokens] if r.prompt.tokens else []) + start for r in requests
        ]
        longest = max(r.seconds for r in requests)
        room = 10 + math.ceil(longest * self.MOST_TOKENS_PER_SECOND)
        results = self._model.generate(
            self._storage.from_array(features),
            prompts,
            beam_size=1,
            # CTranslate2 writes no more than half of this, nor more than it leaves behind the prompt.
            max_length=min(self.MOST_TOKENS, max(2 * room, max(map(len, prompts)) + room)),
            return_scores=True,
            return_no_speech_prob=True,
            repetition_penalty=1.1,
            suppress_blank=True,
            suppress_tokens=self._suppress,
        )
        return [self._reading(result, request) for result, request in zip(results, requests, strict=True)]

    def locate(self, request: Request, text: str) -> tuple[Word, ...]:
        """From the decoder's attention to the sound (openai/whisper, timing.py), one token after another."""
        tokenizer = self._tokenizer
        tokens = tokenizer.encode(text)
        if not tokens:
            return ()
        frames = window_for(request.seconds)
        [result] = self._model.align(
            self._storage.from_array(self._features(request.pcm, frames)[np.newaxis]),
            [tokenizer.sot, tokenizer.language, tokenizer.transcribe, tokenizer.no_timestamps],
            [tokens],
            min(frames, math.ceil(request.seconds * FRAMES_PER_SECOND)),
        )
        starts: dict[int, int] = {}
        for token, frame in result.alignments:
            # The path visits (token, frame of 20 ms); a token begins where it is visited first.
            starts.setdefault(token, frame * 20)
        end = round(request.seconds * 1000)
        bounds = [starts.get(index, end) for index in range(len(tokens) + 1)]
        spelled = [raw_bytes(tokenizer.tokenizer.id_to_token(token)) for token in tokens]
        return tuple(_characters(spelled, bounds))

    def _features(self, pcm: bytes, frames: int) -> npt.NDArray[np.float32]:
        """Log-mel of the clip and of the digital silence behind it: float32, shape (mels, frames)."""
        samples = np.zeros(frames * SAMPLE_RATE // FRAMES_PER_SECOND, np.float32)
        clip = np.frombuffer(pcm, "<i2")[: len(samples)]
        samples[: len(clip)] = clip.astype(np.float32) / 32768.0
        mel: npt.NDArray[np.float32] = self._extractor(samples, padding=0)[:, :frames]
        return mel

    def _reading(self, result: Any, request: Request) -> Reading:
        tokens = [t for t in result.sequences_ids[0] if t < self._tokenizer.eot]
        text = without_loops(self._simplified.convert(self._tokenizer.decode(tokens).strip()))
        return Reading(
            text=text,
            tokens=len(tokens),
            log_probability=float(result.scores[0]),
            no_speech=float(result.no_speech_prob),
            seconds=request.seconds,
        )
