"""Fold normalizers into the layers around them: where this is possible, and the new weights."""
