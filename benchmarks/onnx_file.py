"""A small network as an ONNX file, written by hand: the format's package is not worth it for two layers.

Fields are numbered as in ``onnx.proto3`` (IR version 8, opset 13).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Layer = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Weights of shape (inputs, outputs), and what is added."""

_FLOAT, _INT = 1, 2


def network(layers: Sequence[Layer], described: Mapping[str, str]) -> bytes:
    """``layers`` with a rectifier between each two and a softmax behind the last.

    ``described``: metadata, by name. Input ``features`` of shape (n, inputs), output ``probabilities``.
    """
    nodes, tensors, last = [], [], "features"
    for number, (weights, added) in enumerate(layers):
        for name, values in ((f"weights_{number}", weights), (f"added_{number}", added)):
            tensors.append(_tensor(name, values.astype("<f4")))
        nodes.append(_node("Gemm", [last, f"weights_{number}", f"added_{number}"], f"sum_{number}"))
        last = f"sum_{number}"
        if number + 1 < len(layers):
            nodes.append(_node("Relu", [last], f"layer_{number}"))
            last = f"layer_{number}"
    nodes.append(_node("Softmax", [last], "probabilities", axis=1))
    graph = (
        b"".join(_bytes(1, node) for node in nodes)
        + _bytes(2, b"emotion")
        + b"".join(_bytes(5, tensor) for tensor in tensors)
        + _bytes(11, _value("features", layers[0][0].shape[0]))
        + _bytes(12, _value("probabilities", layers[-1][0].shape[1]))
    )
    notes = b"".join(
        _bytes(14, _bytes(1, key.encode()) + _bytes(2, value.encode())) for key, value in described.items()
    )
    return _int(1, 8) + _bytes(2, b"duting") + _bytes(7, graph) + _bytes(8, _int(2, 13)) + notes


def _node(kind: str, inputs: Sequence[str], output: str, axis: int | None = None) -> bytes:
    attribute = b"" if axis is None else _bytes(5, _bytes(1, b"axis") + _int(3, axis) + _int(20, _INT))
    named = b"".join(_bytes(1, name.encode()) for name in inputs) + _bytes(2, output.encode())
    return named + _bytes(3, output.encode()) + _bytes(4, kind.encode()) + attribute


def _tensor(name: str, values: npt.NDArray[np.float32]) -> bytes:
    sizes = b"".join(_int(1, size) for size in values.shape)
    return sizes + _int(2, _FLOAT) + _bytes(8, name.encode()) + _bytes(9, values.tobytes())


def _value(name: str, width: int) -> bytes:
    shape = _bytes(1, _bytes(2, b"n")) + _bytes(1, _int(1, width))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _int(1, _FLOAT) + _bytes(2, shape)))


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
