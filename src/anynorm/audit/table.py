"""The checks of the audit: those of the doctor that stored tensors can answer, and its own.

The documentation has the same table.
"""

from __future__ import annotations

from anynorm.audit import checks
from anynorm.doctor.check import Check
from anynorm.doctor.table import chosen

__all__ = ["CHECKS"]

_ONNX = "ONNX operator schemas"
_IOFFE = "Ioffe & Szegedy 2015, arXiv:1502.03167"
_JACOB = "Jacob et al. 2018, arXiv:1712.05877, section 3.2"

_OWN: tuple[Check, ...] = (
    Check(
        101,
        "left in train mode",
        "the mode of each batch norm, and whether it has running statistics",
        "any that uses the statistics of the batch",
        "error",
        "The program was exported from a model in train mode, so its outputs are not those that "
        "were tested.",
        "model.eval()  # then export again",
        _IOFFE,
        checks.uses_batch,
        needs=(),
    ),
    Check(
        102,
        "not folded",
        "each batch norm with stored statistics, the products around it, and who reads between",
        "one in front whose output nothing else reads, or one behind without padding that reads "
        "nothing else",
        "warning",
        "Folding gives the same outputs with an operator less; some runtimes fold when they load "
        "a file, others do not.",
        "model = anynorm.fold(model, example).model  # then export again",
        _JACOB,
        checks.unfolded,
        needs=(),
        severities="warning; info where it cannot be folded, with the reason",
    ),
    Check(
        103,
        "not the checkpoint's",
        "γ, β, statistics and the weights of products against those of checkpoint=, as they are or "
        "with a batch norm folded in",
        "any difference above eight roundings; a batch norm that is neither there nor folded",
        "error",
        "The file was exported from other weights than those that were tested.",
        "anynorm.surgery.load_into(model, checkpoint)  # then export again",
        _IOFFE,
        checks.differing,
        needs=(),
        severities="error; warning for a batch norm that is nowhere",
    ),
    Check(
        104,
        "folded twice",
        "the factor between each weight and that of checkpoint=, against γ / √(var + ε)",
        "the factor where the batch norm is still there, or its square",
        "error",
        "The batch norm is applied twice.",
        "# export the model as it was trained, and fold once: anynorm.fold(model, example)",
        "pytorch#104593, pytorch#197539",
        checks.doubled,
        needs=(),
    ),
    Check(
        105,
        "statistics computed in 16 bits",
        "the type in which mean and variance are computed (`stash_type`, or that of the operators)",
        "float16 or bfloat16",
        "warning",
        "A sum of squares in 16 bits is infinite early, and loses its small terms.",
        "# keep normalizers in float32 when the model is converted to 16 bits",
        _ONNX,
        checks.in_sixteen_bits,
        needs=(),
    ),
    Check(
        106,
        "ε is 0",
        "ε in the type in which statistics are computed",
        "0 there",
        "warning",
        "Equal values, as of padding or of an empty image, give NaN.",
        "# set ε to at least 1e-5, and export again",
        _ONNX,
        checks.zero_eps,
        needs=(),
    ),
    Check(
        107,
        "decomposed",
        "chains of operators that compute a normalizer",
        "more than one operator",
        "info",
        "Runtimes are faster with one operator, and must find the chain to replace it.",
        "# use torch.nn.LayerNorm or RMSNorm, and opset_version=23 of torch.onnx.export",
        _ONNX,
        checks.decomposed,
        needs=(),
    ),
)
_DOCTOR = (4, 9, 10, 19, 20, 26, 32)

CHECKS: tuple[Check, ...] = (*chosen(_DOCTOR), *_OWN)
