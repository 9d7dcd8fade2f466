"""Configs that ship with gnomon; each says how to run it."""
