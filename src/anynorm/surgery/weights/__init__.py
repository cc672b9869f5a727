"""Weights in files: read without running code, load into a model, write as safetensors."""

from anynorm.surgery.weights.fit import load_into, shapes
from anynorm.surgery.weights.read import load_state
from anynorm.surgery.weights.write import check_weights, save_state

__all__ = ["check_weights", "load_into", "load_state", "save_state", "shapes"]
