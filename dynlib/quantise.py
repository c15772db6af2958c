"""Graphs in int8: static quantisation after training, by ONNX Runtime, from a few batches of real images.

Kernels have a scale a channel, activations one a tensor; what is quantised is a convolution, a matrix product and all
that lies between them and knows int8. What stays in float32: batch norms that no convolution took in, softmax, resizing
of the input, and the decisions, which NumPy takes from dequantised outputs.
"""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class _Reader(CalibrationDataReader):
    def __init__(self, names: Sequence[str], batches: Iterable[Sequence[np.ndarray]]):
        self._batches = (dict(zip(names, arrays, strict=True)) for arrays in batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def int8(graph: bytes, batches: Iterable[Sequence[np.ndarray]]) -> bytes:
    """The graph with int8 kernels and activations; `batches` hold an array for each of its inputs, in order."""
    names = [node.name for node in onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).get_inputs()]
    with tempfile.TemporaryDirectory() as folder:
        plain, folded, quantised = (str(Path(folder) / f"{name}.onnx") for name in ("plain", "folded", "quantised"))
        Path(plain).write_bytes(graph)
        quant_pre_process(plain, folded, skip_symbolic_shape=True)
        how = {"quant_format": QuantFormat.QDQ, "per_channel": True}
        how |= {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(folded, quantised, _Reader(names, batches), **how)
        return Path(quantised).read_bytes()
