"""Conversion of an ONNX model to half its size: weights are stored in 16 bits; computations keep 32 bits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

SMALLEST = 256  # numbers; smaller tensors (biases, constants of shapes) gain nothing


def halve_weights(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write a copy of an ONNX model whose large weights are float16, each with a cast to float32 behind it.

    Runtimes do such casts once, when they load the file. Weights that float16 cannot hold stay as they are.

    Args:
        source: ONNX file that contains its weights.
        target: File to write.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(os.fspath(source))
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < SMALLEST or not np.isfinite(values).all() or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    Path(target).write_bytes(model.SerializeToString())
