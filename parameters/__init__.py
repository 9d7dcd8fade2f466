"""What a tree of parameters is: its leaves' names, dtypes, units and selections.

The ground floor. ``paths`` names leaves; ``trees`` maps rules over them; ``units`` says
which axes of a leaf form one output unit, with norms, tangents and retractions over
them; ``select`` picks leaves; ``checks`` refuses arguments by name.
"""
