"""Which specification a module computes, found from its outputs."""
