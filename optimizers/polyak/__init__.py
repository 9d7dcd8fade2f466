"""Step sizes from the value of the loss."""
