"""What `config.writers` may say: trackers that metrics are sent to, by name."""

from collections.abc import Mapping

from gnomon.experiments.config.resolve import ConfigError, did_you_mean

TRACKERS = ("wandb", "trackio")
OURS = {
    "id": "it is the run's",
    "resume": "a run resumes by its id",
    "reinit": "each trial has a run of its own",
}


def check_writers(config: Mapping) -> None:
    """Refuses trackers that are not known, and settings that are the suite's.

    Raises:
      ConfigError: names the field and the fix.

    >>> check_writers({"writers": {"wandb": {"project": "widths"}}})
    """
    for name, settings in config["writers"].items():
        field = f"config.writers.{name}"
        if name not in TRACKERS:
            raise ConfigError(f"{field}: no tracker{did_you_mean(name, TRACKERS)}")
        if not isinstance(settings, Mapping):
            raise ConfigError(
                f"{field}={settings!r}: give the settings of its init, such as"
                " dict(project='widths')"
            )
        for key in settings:
            if key in OURS or (name == "trackio" and key == "name"):
                why = OURS.get(key, "it is the run's")
                raise ConfigError(f"{field}.{key}: leave it out, {why}")
