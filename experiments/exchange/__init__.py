"""Run tables as files: those of sweeps, and those that others made."""
