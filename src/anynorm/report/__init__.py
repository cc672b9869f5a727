"""Evidence as a page and as terminal tables: plain dicts in, nothing of torch or of the study."""
