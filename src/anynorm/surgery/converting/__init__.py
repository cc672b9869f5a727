"""What a normalizer is turned into: the same in another library, or another kind."""
