"""Small ONNX models from operators, and models whose statistics are not those of a new layer."""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

C = 4


def settled(model):
    """A model in eval mode whose batch norms have statistics, γ and β like trained ones."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
                module.weight.uniform_(0.5, 2.0, generator=generator)
                module.bias.normal_(generator=generator)
                module.num_batches_tracked.fill_(1000)
    return model.eval()


def onnx_model(
    nodes, arrays, *, shape=("n", C), version=20, kind=TensorProto.FLOAT, outputs=("y",)
):
    """An ONNX model with input x, these operators and stored arrays."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])


def batch_norm(name="bn", x="x", y="y", **attributes):
    """The operator of a batch norm with the tensors of :func:`statistics`."""
    inputs = [x, *(f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))]
    outputs = attributes.pop("outputs", [y])
    return helper.make_node("BatchNormalization", inputs, outputs, name=name, **attributes)


def statistics(name="bn", kind=np.float32, **changed):
    """γ, β and the statistics of a batch norm by their names in a state dict."""
    values = {
        "weight": np.array([0.5, 1.0, 1.5, 2.0], kind),
        "bias": np.array([-1.0, 0.0, 1.0, 2.0], kind),
        "running_mean": np.array([1.0, -1.0, 0.5, 0.25], kind),
        "running_var": np.array([0.5, 1.0, 2.0, 4.0], kind),
    }
    return {f"{name}.{part}": value for part, value in (values | changed).items()}


def saved(model, path):
    """Write an ONNX model; returns the path."""
    onnx.save(model, path)
    return path


def numbers(audit, *severities):
    """The numbers of the checks that found something, as a set."""
    kinds = severities or ("error", "warning")
    return {one.check for one in audit.findings if one.severity in kinds}
