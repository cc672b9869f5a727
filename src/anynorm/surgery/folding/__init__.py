"""How normalizers are put into the layers around them: where that is possible, and the sums."""
