"""Draw evidence as a page and as terminal tables; the input is plain dicts, torch is not needed."""
