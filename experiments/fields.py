"""Fields of a config that are no part of what a trial learns, by what they decide."""

# What is written or shown, and not what a trial computes.
RHYTHM = ("log_every", "checkpoint_every", "tensorboard")
OPERATIONAL = ("report", "tuning", *RHYTHM)
# Changes the program, and what it tells, but not the trial: no part of its id.
OBSERVING = ("dynamics",)
# Says which devices a trial lies on: as another number of devices would, it changes the
# program and the rounding of its sums, and not the trial.
PLACEMENT = ("mesh",)
