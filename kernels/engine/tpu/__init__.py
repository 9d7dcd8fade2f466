"""Programs and rows on a TPU, by Pallas."""
