"""What trains the trials of a group: program, lanes, loop, checkpoints."""
