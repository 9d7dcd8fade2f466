"""Trials: fully resolved configs, their ids, and the groups one program can run.

Two trials may share a compiled program when they differ only in what a program can
take as traced input: the seed, the number of steps, and the floating-point numbers
of the optimizer and of the schedule. Everything else (shapes, model, batch, flags,
integers) is the static part. Trials that share a program and take the same number of
steps form a group.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from gnomon.experiments.config.changes import override
from gnomon.experiments.config.fields import OPERATIONAL, RHYTHM, digest, identity
from gnomon.experiments.config.ranges import check_traced
from gnomon.experiments.config.resolve import ConfigError, did_you_mean
from gnomon.experiments.config.spikes import rewinds
from gnomon.experiments.config.validation import validate

# What is static of the optimizer is static of a group's.
_GROUP = re.compile(r"^parameter_groups\.\d+\.")
TRACED_SECTIONS = ("optimizer", "schedule", "clip", "parameter_groups")


class Trial(NamedTuple):
    """One fully resolved config, and the id that its contents give it."""

    id: str
    config: dict

    @property
    def label(self) -> str:
        """The name of its optimizer in tables and pictures."""
        return self.config["label"] or self.config["optimizer"]["name"].split(".")[-1]


def make_trial(config: Mapping) -> Trial:
    """Gives a config its id: a hash of the fields that decide its result.

    Raises:
      ConfigError: a number that float32, and so the trial, would not see.
    """
    config = dict(config)
    check_traced(split(config)[1])
    return Trial(identity(config), config)


def make_trials(base: Mapping, overrides: Iterable[Mapping[str, Any]]) -> list[Trial]:
    """One trial for each override of ``base``, all checked before any may run.

    Raises:
      ConfigError: names the first bad field and the trial that holds it; or two
        overrides give the same trial.
    """
    trials = trials_at(base, numbered(overrides))
    if not trials:
        raise ConfigError("sweep() yields no trials; yield at least {} for the base")
    check_baselines(
        {trial.label for trial in trials},
        {t.config["report"].get("baseline", "") for t in trials},
    )
    return trials


def numbered(overrides: Any) -> list[tuple[int, Mapping[str, Any]]]:
    """The overrides that ``sweep()`` yields, each with its number.

    Raises:
      ConfigError: they are none.
    """
    if not isinstance(overrides, Iterable) or isinstance(overrides, str | Mapping):
        raise ConfigError(
            f"sweep() returned a {type(overrides).__name__}: yield overrides such as"
            " {'optimizer.learning_rate': 1e-3}, or return a list of them"
        )
    found = []
    for number, changes in enumerate(overrides):
        if not isinstance(changes, Mapping):
            raise ConfigError(
                f"trial {number} of sweep() is a {type(changes).__name__}: it needs an"
                " override such as {'optimizer.learning_rate': 1e-3}"
            )
        found.append((number, changes))
    return found


def trials_at(
    base: Mapping, overrides: Iterable[tuple[int, Mapping[str, Any]]]
) -> list[Trial]:
    """One trial for each numbered override of ``base``, as `make_trials`."""
    trials: dict[str, Trial] = {}
    for number, changes in overrides:
        try:
            config = override(base, changes)
            validate(config)
            trial = make_trial(config)
        except ConfigError as error:
            raise ConfigError(f"trial {number} {dict(changes)}: {error}") from error
        if trial.id in trials:
            raise ConfigError(
                f"trial {number} {dict(changes)}: the sweep already has this trial;"
                " vary a field, or give it another label"
            )
        trials[trial.id] = trial
    return list(trials.values())


def split(config: Mapping) -> tuple[dict, dict[str, float]]:
    """Parts a config into what a program is built from and what it takes as input.

    Args:
      config: the whole config of a trial.

    Returns:
      The static config, traced numbers replaced by the string ``"traced"``, and the
      traced numbers by dotted path.

    >>> static, traced = split({
    ...     "seed": 3, "static": [], "label": "A", "steps": 10, "schedule": {},
    ...     "optimizer": {"name": "optax.adamw", "learning_rate": 0.1, "b1": 1},
    ... })
    >>> traced
    {'steps': 10, 'optimizer.learning_rate': 0.1}
    >>> static["optimizer"]
    {'name': 'optax.adamw', 'learning_rate': 'traced', 'b1': 1}
    """
    traced: dict[str, float] = {"steps": config["steps"]}
    fixed = {f"optimizer.{field}" for field in config["static"]}

    def visit(node: Any, path: str) -> Any:
        if _GROUP.sub("optimizer.", path) in fixed:
            return node
        if isinstance(node, Mapping):
            return {key: visit(value, f"{path}.{key}") for key, value in node.items()}
        # Groups are a list, because their order says which of them decides.
        if isinstance(node, list) and path == "parameter_groups":
            return [visit(value, f"{path}.{at}") for at, value in enumerate(node)]
        if isinstance(node, float):
            traced[path] = node
            return "traced"
        return node

    static = {
        key: visit(value, key) if key in TRACED_SECTIONS else value
        for key, value in config.items()
        if key not in ("seed", "label", "steps", *OPERATIONAL)
    }
    return static, traced


def group_key(trial: Trial) -> str:
    """A short hash of all that the trials of a group have in common."""
    # The lanes of a chunk are logged and saved together, step by step.
    rhythm = {key: trial.config[key] for key in ("steps", *RHYTHM)}
    alone = [trial.id] if rewinds(trial.config) else []  # it has an order of its own
    return digest([split(trial.config)[0], rhythm, *alone])


def groups(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """Trials by `group_key`, in the order the groups first appear."""
    result: dict[str, list[Trial]] = {}
    for trial in trials:
        result.setdefault(group_key(trial), []).append(trial)
    return result


def check_baselines(labels: Collection[str], baselines: Collection[str]) -> None:
    """Refuses a baseline that no trial of a sweep is.

    Raises:
      ConfigError: names the labels there are.
    """
    for baseline in baselines:
        if baseline and baseline not in labels:
            hint = did_you_mean(baseline, labels)
            raise ConfigError(
                f"config.report.baseline={baseline!r}: no trial has this label{hint}"
            )
