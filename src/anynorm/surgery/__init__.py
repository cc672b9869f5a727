"""Changes to a model's modules that keep ties, hooks and modes."""

from anynorm.surgery.replace import NORMALIZERS, replace_norms
from anynorm.surgery.walk import Place, put, walk

__all__ = ["NORMALIZERS", "Place", "put", "replace_norms", "walk"]
