"""What `config.spikes` may say: which losses are spikes, and what is done about them.

    config.spikes = dict(action="skip", window=128, sigma=6.0)

A step is a spike where its loss, or the norm of its gradient, is above the mean of
those of the last ``window`` steps by more than ``sigma`` standard deviations, or is not
finite. Spikes do not count among those steps, and nothing but what is not finite is one
before half of a window is there. What ``patience`` steps in a row say is a new level:
the next begins a window.

==============  ====================================================================
``action``      what is done
==============  ====================================================================
``""``          nothing, and nothing is watched
``"record"``    a record is left
``"skip"``      also, the step is not taken: parameters, statistics and the optimizer's
                state stay as they were, and no row of metrics has it in its means
``"rewind"``    also, the run goes back to its last checkpoint, and on without the
                batches from there to the spike; checkpoints are then ``every`` so many
                steps, whatever `config.checkpoint_every` says, and an interruption
                leaves none. After ``rewinds`` of them spikes are recorded alone.
==============  ====================================================================

A trial that rewinds has an order of its own, so it runs by itself, in a group of one.
"""

from collections.abc import Mapping
from typing import Any

from gnomon.experiments.config.resolve import ConfigError, did_you_mean

ACTIONS = ("record", "skip", "rewind")


def spikes_in(config: Mapping) -> Mapping[str, Any] | None:
    """The settings of a config; None where nothing is watched.

    >>> spikes_in({"spikes": {"action": ""}}) is None
    True
    """
    settings = config.get("spikes") or {}
    return settings if settings.get("action") else None


def skips(config: Mapping) -> bool:
    """Whether a spike's step is not taken."""
    return (config.get("spikes") or {}).get("action") == "skip"


def rewinds(config: Mapping) -> bool:
    """Whether a spike sends the run back."""
    return (config.get("spikes") or {}).get("action") == "rewind"


def checkpoint_period(config: Mapping) -> int:
    """After how many steps a checkpoint is due.

    >>> checkpoint_period({"checkpoint_every": 200})
    200
    """
    return config["spikes"]["every"] if rewinds(config) else config["checkpoint_every"]


def check_spikes(config: Mapping) -> None:
    """Refuses an action that there is not.

    Raises:
      ConfigError: names the field and the fix.
    """
    action = config["spikes"].get("action", "")
    if action and action not in ACTIONS:
        hint = did_you_mean(action, ACTIONS)
        raise ConfigError(f"config.spikes.action={action!r}: unknown action{hint}")
