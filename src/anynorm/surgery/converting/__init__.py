"""The targets of a conversion: the same layer in another library, or another kind."""
