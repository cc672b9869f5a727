"""Weights in files: read without running anything, fitted into a model, written as safetensors."""

from anynorm.surgery.weights.fit import load_into, shapes
from anynorm.surgery.weights.read import load_state
from anynorm.surgery.weights.write import check_weights, save_state

__all__ = ["check_weights", "load_into", "load_state", "save_state", "shapes"]
