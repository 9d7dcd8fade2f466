"""Bounds on gradients and updates: by unit, by group of leaves, by their past."""
