"""A Whisper of any shape with random weights: its speed is that of a trained one, its text means nothing.

Written with CTranslate2's own specification classes, so that the engine loads it like any other folder; the
compute type is chosen when it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ENCODER_POSITIONS = 1500
DECODER_POSITIONS = 448
_TIMESTAMPS = 1501
_FIRST_SPECIAL = 50257
"""``<|endoftext|>`` of the multilingual vocabularies."""


@dataclass(frozen=True)
class Shape:
    encoder_layers: int
    decoder_layers: int
    width: int
    heads: int
    mels: int
    vocabulary: int


SHAPES = {
    "base": Shape(6, 6, 512, 8, 80, 51865),
    "small": Shape(12, 12, 768, 12, 80, 51865),
    "large-v3": Shape(32, 32, 1280, 20, 128, 51866),
    "large-v3-turbo": Shape(32, 4, 1280, 20, 128, 51866),
    # For tests: the vocabulary alone makes CTranslate2 take it for a multilingual Whisper.
    "tiny-test": Shape(1, 1, 64, 1, 80, 51865),
}
"""openai/whisper's published dimensions; the shape alone decides how much is to be computed."""


@dataclass(frozen=True)
class Tokens:
    """Ids of the special tokens, which follow from the vocabulary's size."""

    end: int
    start: int
    language: int
    transcribe: int
    previous: int
    no_timestamps: int


def vocabulary(size: int) -> tuple[list[str], Tokens]:
    """Tokens in Whisper's order: text, specials, languages, timestamps."""
    languages = size - _FIRST_SPECIAL - 2 - 6 - _TIMESTAMPS
    if languages < 1:
        raise ValueError(f"expected a multilingual vocabulary of at least 51766 tokens, got {size}")
    names = [f"t{n}" for n in range(_FIRST_SPECIAL)]
    names += ["<|endoftext|>", "<|startoftranscript|>"]
    names += ["<|zh|>", *(f"<|l{n}|>" for n in range(1, languages))]
    names += ["<|translate|>", "<|transcribe|>", "<|startoflm|>"]
    names += ["<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    names += [f"<|{0.02 * n:.2f}|>" for n in range(_TIMESTAMPS)]
    at = {name: index for index, name in enumerate(names)}
    return names, Tokens(
        end=at["<|endoftext|>"],
        start=at["<|startoftranscript|>"],
        language=at["<|zh|>"],
        transcribe=at["<|transcribe|>"],
        previous=at["<|startofprev|>"],
        no_timestamps=at["<|notimestamps|>"],
    )


def write(shape: Shape, folder: Path, seed: int = 0) -> Tokens:
    """Make ``folder`` a model of this shape: float16 weights, about two bytes per parameter on disk."""
    from ctranslate2.specs import WhisperSpec

    rng = np.random.default_rng(seed)
    d = shape.width

    def random(*size: int) -> Any:
        return (0.02 * rng.standard_normal(size, np.float32)).astype(np.float16)

    def linear(spec: Any, out: int, into: int) -> None:
        spec.weight, spec.bias = random(out, into), np.zeros(out, np.float16)

    def norm(spec: Any) -> None:
        spec.gamma, spec.beta = np.ones(d, np.float16), np.zeros(d, np.float16)

    def feed_forward(spec: Any) -> None:
        norm(spec.layer_norm)
        linear(spec.linear_0, 4 * d, d)
        linear(spec.linear_1, d, 4 * d)

    def self_attention(spec: Any) -> None:
        norm(spec.layer_norm)
        linear(spec.linear[0], 3 * d, d)
        linear(spec.linear[1], d, d)

    spec: Any = WhisperSpec(shape.encoder_layers, shape.heads, shape.decoder_layers, shape.heads)
    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight, encoder.conv1.bias = random(d, shape.mels, 3), np.zeros(d, np.float16)
    encoder.conv2.weight, encoder.conv2.bias = random(d, d, 3), np.zeros(d, np.float16)
    encoder.position_encodings.encodings = random(ENCODER_POSITIONS, d)
    norm(encoder.layer_norm)
    for layer in encoder.layer:
        self_attention(layer.self_attention)
        feed_forward(layer.ffn)
    decoder.embeddings.weight = random(shape.vocabulary, d)
    decoder.position_encodings.encodings = random(DECODER_POSITIONS, d)
    norm(decoder.layer_norm)
    decoder.projection.weight = decoder.embeddings.weight
    for layer in decoder.layer:
        self_attention(layer.self_attention)
        norm(layer.attention.layer_norm)
        linear(layer.attention.linear[0], d, d)
        linear(layer.attention.linear[1], 2 * d, d)
        linear(layer.attention.linear[2], d, d)
        feed_forward(layer.ffn)
    names, tokens = vocabulary(shape.vocabulary)
    spec.register_vocabulary(names)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [tokens.end]
    spec.config.lang_ids = [tokens.language]
    spec.config.alignment_heads = [[shape.decoder_layers - 1, 0]]
    spec.validate()
    spec.optimize(quantization="float16")
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    return tokens
