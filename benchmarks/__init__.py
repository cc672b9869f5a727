"""Speed, as ratios to others measured side by side; ``python -m benchmarks`` runs them."""
