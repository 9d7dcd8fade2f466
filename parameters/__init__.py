"""What a tree of parameters is: its leaves' names, dtypes, units and selections.

The ground floor. ``paths`` names leaves; ``stacks`` says which leaves hold several
layers; ``trees`` maps rules over them; ``units`` says which axes of a leaf form one
output unit, with norms, tangents and retractions over them; ``matrices`` reads a leaf
as a stack of matrices; ``spectral`` has their largest singular values and polar
factors; ``roles`` says what a leaf is for; ``select`` picks leaves; ``checks`` refuses
arguments by name.
"""
