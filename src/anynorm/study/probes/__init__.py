"""Measurements of a model in training, by the definitions of the papers they come from."""

from anynorm.study.probes.cost import bytes_for_backward
from anynorm.study.probes.gap import recalibrate
from anynorm.study.probes.recorder import Recorder
from anynorm.study.probes.snapshot import Snapshot, preserved

__all__ = [
    "Recorder",
    "Snapshot",
    "accuracy",
    "bytes_for_backward",
    "preserved",
    "recalibrate",
]
