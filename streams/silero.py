"""The Silero VAD network on many channels at once.

The network is that of the package faster-whisper (``assets/silero_vad_v6.onnx``): magnitudes of a short-time
Fourier transform, four convolutions, one LSTM of 128 cells, one output. As a graph it takes one channel a
run: its first axis is time. Here the same weights stand in numpy, so that the windows of all channels go
through every matrix together: about 15 µs a window instead of 120 to 220, and equal to the graph up to
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
_HALF = _FRAME // 2
_BINS = _HALF + 1
_AT_ONCE = 96
"""Windows of which features are made together: what lies between the layers stays in the processor's cache,
twice as fast as hundreds together."""

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

        basis = weights["encoder.feature_extractor.forward_basis_buffer"][:, 0].T
        self._cosines, self._sines = _halves(basis)
        # A convolution of width 3 is the sum of three products, one for each step that it sees.
        self._taps = [
            [
                np.ascontiguousarray(weights[f"encoder.conv_layers.{layer}.weight"][:, :, tap].T)
                for tap in range(3)
            ]
            for layer in range(4)
        ]
        self._biases = [weights[f"encoder.conv_layers.{layer}.bias"] for layer in range(4)]
        both = weights["onnx::LSTM_211"][0]
        # The sigmoid of x is half the tangent of x / 2 and a half: with the halves in the weights, one
        # tangent serves all gates; unlike exp it does not overflow where the network is most certain.
        scale = np.repeat(np.array([0.5, 1], np.float32), [3 * CELLS, CELLS])
        self._input = np.ascontiguousarray(weights["onnx::LSTM_209"][0].T * scale)
        self._recurrent = np.ascontiguousarray(weights["onnx::LSTM_210"][0].T * scale)
        self._lstm_bias = (both[: 4 * CELLS] + both[4 * CELLS :]) * scale
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
        first = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.intp)
        # Every channel's first window, then every one's second, as the LSTM wants them.
        active = [sum(count > step for count in counts) for step in range(counts[0])]
        order = np.concatenate([first[:channels] + step for step, channels in enumerate(active)])
        heard = np.concatenate(
            [self._features(windows[at : at + _AT_ONCE]) for at in range(0, len(windows), _AT_ONCE)]
        )
        gates = heard[order] @ self._input
        gates += self._lstm_bias
        hidden = np.empty((len(windows), CELLS), np.float32)
        end = 0
        for channels in active:
            begin, end = end, end + channels
            z = h[:channels] @ self._recurrent
            z += gates[begin:end]
            np.tanh(z, out=z)
            inward, outward, kept, new = (z[:, at * CELLS : (at + 1) * CELLS] for at in range(4))
            sigmoids = z[:, : 3 * CELLS]
            sigmoids *= 0.5
            sigmoids += 0.5
            cells = c[:channels]
            cells *= kept
            inward *= new
            cells += inward
            np.multiply(outward, np.tanh(cells), out=hidden[begin:end])
            h[:channels] = hidden[begin:end]
        np.maximum(hidden, 0, out=hidden)
        out = np.empty(len(windows), np.float32)
        out[order] = _sigmoid(hidden @ self._output + self._output_bias)
        return out

    def _features(self, windows: Floats) -> Floats:
        """What the LSTM hears of each window, shape (windows, 128)."""
        n = len(windows)
        padded = np.concatenate([windows, windows[:, -2 : -CONTEXT - 2 : -1]], axis=1)
        # Steps before windows: so each step of all windows is one matrix, and nothing is copied for a tap.
        even = np.empty((_FRAMES, n, _HALF), np.float32)
        odd = np.empty((_FRAMES, n, _HALF - 1), np.float32)
        for step in range(_FRAMES):
            frame = padded[:, step * _HOP : step * _HOP + _FRAME]
            left, right = frame[:, 1:_HALF], frame[:, :_HALF:-1]
            np.add(left, right, out=even[step, :, :-1])
            even[step, :, -1] = frame[:, _HALF]
            np.subtract(left, right, out=odd[step])
        magnitude: Floats = even.reshape(-1, _HALF) @ self._cosines
        imaginary: Floats = odd.reshape(-1, _HALF - 1) @ self._sines
        np.square(magnitude, out=magnitude)
        np.square(imaginary, out=imaginary)
        magnitude[:, 1:-1] += imaginary
        np.sqrt(magnitude, out=magnitude)
        before, here, behind = self._taps[0]
        first: Floats = magnitude @ here
        first[n:] += magnitude[:-n] @ before
        first[:-n] += magnitude[n:] @ behind
        steps = self._layer(0, first).reshape(_FRAMES, n, 128)
        # From here on every second step is looked at; what lies outside of the window is zero.
        before, here, behind = self._taps[1]
        early = self._layer(1, steps[0] @ here + steps[1] @ behind)
        late = self._layer(1, steps[1] @ before + steps[2] @ here + steps[3] @ behind)
        _, here, behind = self._taps[2]
        return self._layer(3, self._layer(2, early @ here + late @ behind) @ self._taps[3][1])

    def _layer(self, layer: int, out: Floats) -> Floats:
        out += self._biases[layer]
        np.maximum(out, 0, out=out)
        return out


def _halves(basis: Floats) -> tuple[Floats, Floats]:
    """The Fourier transform's products for what is even and what is odd about a frame's middle.

    ``basis``: shape (``_FRAME``, 2 × ``_BINS``), windowed cosines and then sines. Both its window and its
    waves are mirrored there, so that half of the products say all. Returns cosines, shape (128, 129), for the
    sums of two samples and the middle one; sines, shape (127, 127), for the differences.
    """
    cosines, sines = basis[:, :_BINS], basis[:, _BINS:]
    mirrored = slice(_FRAME - 1, _HALF, -1)
    whole = (
        np.array_equal(cosines[1:_HALF], cosines[mirrored])
        and np.array_equal(sines[1:_HALF], -sines[mirrored])
        and not (cosines[0].any() or sines[0].any() or sines[_HALF].any() or sines[:, [0, -1]].any())
    )
    if not whole:
        raise ValueError("the Fourier transform is not mirrored about its middle")
    return (
        np.ascontiguousarray(cosines[1 : _HALF + 1]),
        np.ascontiguousarray(sines[1:_HALF, 1:-1]),
    )


def _sigmoid(x: Floats) -> Floats:
    out: Floats = np.tanh(0.5 * x)
    out *= 0.5
    out += 0.5
    return out


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
