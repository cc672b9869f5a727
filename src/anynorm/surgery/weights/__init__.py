"""Weights in files: read without running code, load into a model, write as safetensors."""

from anynorm.surgery.weights.fit import load_into, shapes
from anynorm.surgery.weights.manifest import Manifest, manifest
from anynorm.surgery.weights.mismatch import Mismatch
from anynorm.surgery.weights.read import load_state
from anynorm.surgery.weights.settings import NormSettings
from anynorm.surgery.weights.write import check_weights, save_state

__all__ = [
    "Manifest",
    "Mismatch",
    "NormSettings",
    "check_weights",
    "load_into",
    "load_state",
    "manifest",
    "save_state",
    "shapes",
]
