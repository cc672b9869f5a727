"""Measurements of a model during training, by the definitions of the original papers."""

from anynorm.study.probes.cost import bytes_for_backward
from anynorm.study.probes.recorder import Recorder
from anynorm.surgery.snapshot import Snapshot, preserved

__all__ = [
    "Recorder",
    "Snapshot",
    "bytes_for_backward",
    "preserved",
]
