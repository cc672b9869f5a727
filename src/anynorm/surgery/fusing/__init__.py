"""Fuse activations into normalizers: where one follows, and the new code of a forward."""
