"""The checks: each is a small function from the measurements to its findings."""
