"""The Silero VAD network on many channels at once.

The network is that of the package faster-whisper (``assets/silero_vad_v6.onnx``): magnitudes of a short-time
Fourier transform, four convolutions, one LSTM of 128 cells, one output. As a graph it takes one channel a
run: its first axis is time. Here the same weights stand in numpy, so that the windows of all channels go
through every matrix together: about 30 µs a window instead of 120 to 220, and equal to the graph up to
rounding (``tests/streams/test_silero.py`` compares them).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

WINDOW = 512
"""Samples per window; Silero v5 and later take no other length at 16 kHz."""
CONTEXT = 64
"""Samples of the window before that Silero wants in front of each window."""
CELLS = 128
"""Of the LSTM: the length of each half of a channel's state."""

_FRAME, _HOP = 256, 128
"""Of the Fourier transform, in samples."""
_FRAMES = 4
"""Frames per window, its context and a reflection of its end of the same length included."""
_BINS = 129

Floats = npt.NDArray[np.float32]

SHAPES = {
    "encoder.feature_extractor.forward_basis_buffer": (2 * _BINS, 1, _FRAME),
    "encoder.conv_layers.0.weight": (128, _BINS, 3),
    "encoder.conv_layers.0.bias": (128,),
    "encoder.conv_layers.1.weight": (64, 128, 3),
    "encoder.conv_layers.1.bias": (64,),
    "encoder.conv_layers.2.weight": (64, 64, 3),
    "encoder.conv_layers.2.bias": (64,),
    "encoder.conv_layers.3.weight": (128, 64, 3),
    "encoder.conv_layers.3.bias": (128,),
    # ONNX, LSTM: input and recurrence weights and biases; gates in the order input, output, forget, cell.
    "onnx::LSTM_209": (1, 4 * CELLS, 128),
    "onnx::LSTM_210": (1, 4 * CELLS, CELLS),
    "onnx::LSTM_211": (1, 8 * CELLS),
    "decoder.conv1d.weight": (1, CELLS, 1),
    "decoder.conv1d.bias": (1,),
}
"""What the file must hold: name and shape of each weight."""


class Silero:
    """The network. Without state of its own: each channel's is an argument.

    Raises ``ValueError`` when ``weights`` are not those of ``SHAPES``.
    """

    def __init__(self, weights: dict[str, Floats]) -> None:
        for name, shape in SHAPES.items():
            found = weights[name].shape if name in weights else None
            if found != shape:
                raise ValueError(f"expected the weight {name} of shape {shape}, got {found}")

        def taps(layer: int) -> Floats:
            # A convolution of width 3 over (time, features) is one product of three steps side by side.
            weight = weights[f"encoder.conv_layers.{layer}.weight"]
            return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, weight.shape[0]))

        self._basis = np.ascontiguousarray(weights["encoder.feature_extractor.forward_basis_buffer"][:, 0].T)
        self._kernels = [taps(layer) for layer in range(4)]
        # The last layer sees one step only, between two of padding: its outer taps meet zeros.
        self._kernels[3] = np.ascontiguousarray(self._kernels[3][64:128])
        self._biases = [weights[f"encoder.conv_layers.{layer}.bias"] for layer in range(4)]
        self._input = np.ascontiguousarray(weights["onnx::LSTM_209"][0].T)
        self._recurrent = np.ascontiguousarray(weights["onnx::LSTM_210"][0].T)
        both = weights["onnx::LSTM_211"][0]
        self._lstm_bias = both[: 4 * CELLS] + both[4 * CELLS :]
        self._output = weights["decoder.conv1d.weight"][0, :, 0]
        self._output_bias = weights["decoder.conv1d.bias"][0]

    def run(self, windows: Floats, counts: Sequence[int], h: Floats, c: Floats) -> Floats:
        """Judge the windows of ``len(counts)`` channels.

        Args:
            windows: shape (sum of counts, CONTEXT + WINDOW), −1 to 1; those of one channel follow each other.
            counts: windows per channel, none below 1, in descending order.
            h, c: the channels' states, shape (channels, CELLS); advanced in place.

        Returns probabilities of speech, shape (sum of counts,).
        """
        gates = self._features(windows) @ self._input
        gates += self._lstm_bias
        first = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.intp)
        hidden = np.empty((len(windows), CELLS), np.float32)
        active = len(counts)
        for step in range(counts[0]):
            while counts[active - 1] <= step:
                active -= 1
            rows = first[:active] + step
            z = h[:active] @ self._recurrent
            z += gates[rows]
            inward, outward, kept = np.split(_sigmoid(z[:, : 3 * CELLS]), 3, axis=1)
            c[:active] = kept * c[:active] + inward * np.tanh(z[:, 3 * CELLS :])
            h[:active] = outward * np.tanh(c[:active])
            hidden[rows] = h[:active]
        np.maximum(hidden, 0, out=hidden)
        return _sigmoid(hidden @ self._output + self._output_bias)

    def _features(self, windows: Floats) -> Floats:
        """What the LSTM hears of each window, shape (windows, 128)."""
        n = len(windows)
        padded = np.concatenate([windows, windows[:, -2 : -CONTEXT - 2 : -1]], axis=1)
        frames = _side_by_side(padded[:, :, None], _FRAME, _HOP, _FRAMES)
        spectrum = frames @ self._basis
        np.square(spectrum, out=spectrum)
        magnitude = np.sqrt(spectrum[:, :_BINS] + spectrum[:, _BINS:]).reshape(n, _FRAMES, _BINS)
        x = self._layer(0, _side_by_side(_between(magnitude, 1, 1), 3, 1, 4))
        x = self._layer(1, _side_by_side(_between(x.reshape(n, 4, 128), 1, 0), 3, 2, 2))
        x = self._layer(2, _side_by_side(_between(x.reshape(n, 2, 64), 1, 0), 3, 2, 1))
        return self._layer(3, x)

    def _layer(self, layer: int, steps: Floats) -> Floats:
        out: Floats = steps @ self._kernels[layer]
        out += self._biases[layer]
        np.maximum(out, 0, out=out)
        return out


def _sigmoid(x: Floats) -> Floats:
    # By the tangent: exp overflows where the network is most certain.
    out: Floats = np.tanh(0.5 * x)
    out *= 0.5
    out += 0.5
    return out


def _between(x: Floats, before: int, behind: int) -> Floats:
    """``x``, shape (n, steps, features), with steps of zeros before and behind."""
    n, steps, features = x.shape
    out = np.zeros((n, before + steps + behind, features), np.float32)
    out[:, before : before + steps] = x
    return out


def _side_by_side(x: Floats, width: int, stride: int, count: int) -> Floats:
    """``count`` stretches of ``width`` steps, ``stride`` apart: (n, steps, f) → (n × count, width × f)."""
    n, steps, features = x.shape
    size = x.itemsize  # x lies in one piece: a step begins where the one before it ends
    strides = (steps * features * size, stride * features * size, size)
    view = np.lib.stride_tricks.as_strided(x, (n, count, width * features), strides, writeable=False)
    return view.reshape(n * count, width * features)


# ── where the weights come from ───────────────────────────────────────────────────────────────────


def path() -> Path:
    """The network's file in faster-whisper's package; found without importing that package."""
    spec = importlib.util.find_spec("faster_whisper")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("expected the package faster-whisper, which carries the Silero VAD; install it")
    found = sorted((Path(spec.submodule_search_locations[0]) / "assets").glob("silero_vad*.onnx"))
    if not found:
        raise RuntimeError("expected assets/silero_vad*.onnx in the package faster-whisper; reinstall it")
    return found[-1]


@cache
def network() -> Silero:
    """The one network of this process; from here on its BLAS runs on one thread.

    Raises ``RuntimeError`` when the file is missing or holds another network.
    """
    from threadpoolctl import threadpool_limits

    # The matrices are small: BLAS threads would spin between them for longer than they take.
    threadpool_limits(limits=1, user_api="blas")
    file = path()
    try:
        return Silero(dict(initializers(file.read_bytes())))
    except (ValueError, IndexError) as error:
        raise RuntimeError(
            f"{file.name}: expected the network Silero VAD v6 of faster-whisper 1.2, got another one "
            f"({error}); install faster-whisper 1.2"
        ) from None


def initializers(model: bytes) -> Iterator[tuple[str, Floats]]:
    """Name and values of each float32 weight of an ONNX model.

    Fields as in onnx.proto: ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.dims = 1,
    .data_type = 2 (1 is float32), .name = 8, .raw_data = 9.
    """
    for number, graph in _fields(model):
        if number != 7 or not isinstance(graph, bytes):
            continue
        for inner, tensor in _fields(graph):
            if inner != 5 or not isinstance(tensor, bytes):
                continue
            fields = list(_fields(tensor))
            if (2, 1) not in fields:
                continue
            name = b"".join(v for n, v in fields if n == 8 and isinstance(v, bytes)).decode()
            raw = b"".join(v for n, v in fields if n == 9 and isinstance(v, bytes))
            yield name, np.frombuffer(raw, "<f4").reshape(list(_dims(fields)))


def _dims(fields: list[tuple[int, int | bytes]]) -> Iterator[int]:
    for number, value in fields:
        if number == 1:
            if isinstance(value, int):
                yield value
            else:  # packed: several in one field
                at = 0
                while at < len(value):
                    dim, at = _varint(value, at)
                    yield dim


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol buffer's fields (protobuf.dev, "Encoding")."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            number, at = _varint(message, at)
            yield tag >> 3, number
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field of type {kind}")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
