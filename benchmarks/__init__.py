"""Speed of the layers, as ratios to torch.nn measured side by side: `make bench`."""
