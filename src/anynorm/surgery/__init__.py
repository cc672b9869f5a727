"""Functions that change the normalization of a model, and keep ties, hooks and modes."""

from anynorm.surgery.center import center
from anynorm.surgery.convert import convert
from anynorm.surgery.fold import fold
from anynorm.surgery.freeze import freeze
from anynorm.surgery.fuse import fuse
from anynorm.surgery.gammas import Gammas
from anynorm.surgery.normalizers import NORMALIZERS
from anynorm.surgery.parameter_groups import parameter_groups
from anynorm.surgery.prune import Plan, Pruned, prune
from anynorm.surgery.recalibrate import recalibrate
from anynorm.surgery.receipt import Difference, Note, Receipt, Result
from anynorm.surgery.recognize import Recognition, recognize
from anynorm.surgery.replace import replace_norms
from anynorm.surgery.slim import Slim, slim
from anynorm.surgery.walk import Place, put, walk
from anynorm.surgery.weights import (
    Manifest,
    Mismatch,
    NormSettings,
    load_into,
    load_state,
    manifest,
    save_state,
)

__all__ = [
    "NORMALIZERS",
    "Difference",
    "Gammas",
    "Manifest",
    "Mismatch",
    "NormSettings",
    "Note",
    "Place",
    "Plan",
    "Pruned",
    "Receipt",
    "Recognition",
    "Result",
    "Slim",
    "center",
    "convert",
    "fold",
    "freeze",
    "fuse",
    "load_into",
    "load_state",
    "manifest",
    "parameter_groups",
    "prune",
    "put",
    "recalibrate",
    "recognize",
    "replace_norms",
    "save_state",
    "slim",
    "walk",
]
