"""Speed: cases, those who compete in them, and what is measured on a processor or a GPU.

>>> from anynorm.bench import bench, grid, select
>>> cases = select(grid("small"), normalizer=["rms"], phase=["forward"])
>>> [case.shape for case in cases]
[(4096, 4096), (256, 128)]
"""

from __future__ import annotations

from anynorm.bench.cases import Case, select
from anynorm.bench.grids import GRIDS, grid
from anynorm.bench.peers import PEERS
from anynorm.bench.run import bench

__all__ = ["GRIDS", "PEERS", "Case", "bench", "grid", "select"]
