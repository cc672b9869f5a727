"""Speed, as ratios to others measured side by side; ``python -m benchmarks`` runs them."""

from pathlib import Path

__all__ = ["ROOT"]

ROOT = Path(__file__).resolve().parents[1]
