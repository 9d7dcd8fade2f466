"""Methods whose moments live in a subspace of each matrix."""
