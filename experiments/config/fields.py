"""What of a config is no part of what a trial learns, and the id of the rest."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# What is written or shown and when, and not what a trial computes.
RHYTHM = ("log_every", "checkpoint_every", "tensorboard", "steps_per_dispatch")
OPERATIONAL = ("report", "tuning", "writers", *RHYTHM)
# Changes the program, and what it tells, but not the trial: no part of its id.
OBSERVING = ("dynamics",)
# Says which devices a trial lies on: as another number of devices would, it changes the
# program and the rounding of its sums, and not the trial.
PLACEMENT = ("mesh",)
# Fields that came later, and what says nothing new: a trial that leaves them at that
# has the id that it had before.
SILENT: Mapping[str, Any] = {
    "accumulate": 1,
    "parameters": {"dtype": "", "rounding": "nearest"},
    "spikes": {
        "action": "",
        "window": 128,
        "sigma": 6.0,
        "patience": 10,
        "every": 100,
        "rewinds": 10,
    },
    "clip": {"name": ""},
    "parameter_groups": [],
    "decay_mask": [],
}
LEFT_OUT = (*OPERATIONAL, *OBSERVING, *PLACEMENT)
"""The fields that a trial's id does not tell."""


def digest(contents: Any, length: int = 12) -> str:
    """A short hash of anything JSON can hold, the same on every machine.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(contents, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def identity(config: Mapping[str, Any]) -> str:
    """The id of a config: a hash of the fields that decide a trial's result.

    >>> identity({"steps": 3, "log_every": 1}) == identity({"steps": 3})
    True
    >>> identity({"steps": 3, "accumulate": 1}) == identity({"steps": 3})
    True
    """
    told = {key: value for key, value in config.items() if key not in LEFT_OUT}
    for key, silent in SILENT.items():
        if key in told and told[key] == silent:
            del told[key]
    return digest(told)
