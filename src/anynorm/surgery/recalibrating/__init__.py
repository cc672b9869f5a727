"""How running statistics are recomputed: the parts of :mod:`anynorm.surgery.recalibrate`."""
