"""Probes of a training run; none yet.

The floor is here so that the rooms above can be told what they may import.
"""
