"""Measurements of a model in training, by the definitions of the papers they come from."""

from anynorm.study.probes.cost import bytes_for_backward
from anynorm.study.probes.recorder import Recorder
from anynorm.surgery.snapshot import Snapshot, preserved

__all__ = [
    "Recorder",
    "Snapshot",
    "bytes_for_backward",
    "preserved",
]
