"""Changes to a model's modules that keep ties, hooks and modes."""

from anynorm.surgery.recalibrate import recalibrate
from anynorm.surgery.receipt import Difference, Note, Receipt, Result
from anynorm.surgery.replace import NORMALIZERS, replace_norms
from anynorm.surgery.walk import Place, put, walk

__all__ = [
    "NORMALIZERS",
    "Difference",
    "Note",
    "Place",
    "Receipt",
    "Result",
    "put",
    "recalibrate",
    "replace_norms",
    "walk",
]
