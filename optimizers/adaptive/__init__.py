"""Methods that scale every number of a gradient by its own past."""
