"""The checks: each a small function from the measurements to what it found."""
