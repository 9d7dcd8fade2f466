"""What would stop a run midway, found before it starts.

A component refuses numbers outside its own range, but only those that it sees: a
compiled program takes them as input. So each is built once with the numbers themselves.
A step on shapes alone then says whether the state of an optimizer keeps its form,
whether its updates have that of the parameters, and which metrics a run will have.
"""

import functools
import json
from collections.abc import Collection, Mapping
from typing import Any

import jax
import optax

from gnomon.experiments.direction import names_with_errors, why_not
from gnomon.experiments.errors import UserError
from gnomon.experiments.resolve import ConfigError, build, did_you_mean
from gnomon.experiments.signature import path_name, signature
from gnomon.optimizers.fused import FusedTransformation


def check_components(config: Mapping) -> None:
    """Builds the schedule and the optimizer of a config with its own numbers.

    Raises:
      ConfigError: one of them refuses its numbers, or is not what it should be.
    """
    parts = [config[name] for name in ("optimizer", "schedule", "steps")]
    _components(json.dumps(parts))


@functools.lru_cache(maxsize=1024)
def _components(parts: str) -> None:
    optimizer, spec, steps = json.loads(parts)
    provided = {}
    peak = optimizer.get("learning_rate")
    if peak is not None:
        schedule = _built("schedule", spec, peak=peak, steps=steps)
        if not callable(schedule):
            raise ConfigError(
                f"config.schedule.name={spec['name']!r}: returned a"
                f" {type(schedule).__name__}, not a function of the step"
            )
        provided = {"learning_rate": schedule}
    built = _built("optimizer", optimizer, **provided)
    if not (callable(getattr(built, "init", None)) and hasattr(built, "update")):
        raise ConfigError(
            f"config.optimizer.name={optimizer['name']!r}: returned a"
            f" {type(built).__name__}, not an optax transformation"
        )


def _built(section: str, spec: Mapping[str, Any], **provided: Any) -> Any:
    try:
        return build(spec, **provided)
    except UserError:
        raise
    except Exception as error:
        said = f"{spec['name']}: {type(error).__name__}: {error}"
        raise ConfigError(f"config.{section}: {said}") from error


def same_shapes(
    optimizer: optax.GradientTransformation, name: str
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose updates must have the shapes of the parameters.

    `optax.apply_updates` would stretch an update that has another shape. Shapes are
    looked at when a program is traced, and cost nothing when it runs.

    Args:
      optimizer: the optimizer.
      name: what the config calls it.
    """
    if isinstance(optimizer, FusedTransformation):
        return optimizer
    extended = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, **extra_args):
        found, state = extended.update(updates, state, params, **extra_args)
        if params is not None:
            _compare(params, found, name)
        return found, state

    return optax.GradientTransformationExtraArgs(extended.init, update)


def _compare(params: Any, updates: Any, name: str) -> None:
    wanted = _shapes(params)
    found = _shapes(updates)
    for path, shape in found.items():
        if wanted.get(path) != shape:
            have = f"the parameter has {wanted[path]}" if path in wanted else "no such"
            raise ConfigError(
                f"config.optimizer.name={name!r}: its update of {path_name(path)} has"
                f" shape {shape}; {have}"
            )


def _shapes(tree: Any) -> dict[tuple, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path: tuple(jax.numpy.shape(leaf)) for path, leaf in leaves}


def check_fixed(before: Any, after: Any, name: str) -> None:
    """Refuses a step that leaves a state of another form than it was given.

    Args:
      before: the abstract state.
      after: the abstract state after a step.
      name: what the config calls the optimizer.

    Raises:
      ConfigError: names the first leaf that changes, and how.
    """
    old, new = dict(signature(before)), dict(signature(after))
    for path in [*old, *new]:
        was, becomes = old.get(path, "missing"), new.get(path, "missing")
        if was != becomes:
            raise ConfigError(
                f"config.optimizer.name={name!r}: a step changes the form of its state:"
                f" {path} is {was} and becomes {becomes}; keep shape and dtype"
            )


def check_metric(config: Mapping, state: Any, evaluated: Collection[str]) -> None:
    """Refuses a metric to compare that no trial will record, or that should be large.

    Args:
      config: the config.
      state: its abstract state.
      evaluated: the names of what is evaluated.

    Raises:
      ConfigError: names the metrics there are.
    """
    metric = config["report"].get("metric", "validation_loss")
    sums = [name for name in state.window if name not in ("count", "learning_rate")]
    known = [f"validation_{name}" for name in evaluated]
    known = names_with_errors([*known, *(f"train_{name}" for name in sums)])
    if metric not in known:
        hint = did_you_mean(metric, [name for name in known if not why_not(name)])
        raise ConfigError(f"config.report.metric={metric!r}: not recorded{hint}")
    if wrong := why_not(metric):
        raise ConfigError(f"config.report.metric={metric!r}: {wrong}")


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
