"""What computes a call: each takes the input and the record of the call, and returns the output."""
