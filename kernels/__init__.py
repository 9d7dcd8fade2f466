"""Fused operations for TPU and GPU; none yet.

The floor is here so that the rooms above can be told what they may import.
"""
