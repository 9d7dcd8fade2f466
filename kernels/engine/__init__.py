"""What runs the operations: programs, layouts, rounding, shards, and the choice."""
