"""Least squares for layers: new weights that give the outputs of another model."""
