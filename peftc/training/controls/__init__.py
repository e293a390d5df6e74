"""Controls: what `train` statements do, one concept in a file."""
