"""What would stop a run midway, found before it starts.

A step on shapes alone says whether the state of an optimizer keeps its form,
whether its updates have that of the parameters, and which metrics a run will have.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.experiments.config.resolve import ConfigError, did_you_mean
from gnomon.experiments.records.direction import names_with_errors, why_not
from gnomon.experiments.trial.signature import path_name, signature
from gnomon.optimizers.mechanisms.fused import FusedTransformation

RECORDED = ("loss", "count", "learning_rate")
"""What gnomon records of every step, beside the metrics of the task."""


def same_shapes(
    optimizer: optax.GradientTransformation, name: str
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose updates must have the shapes of the parameters.

    `optax.apply_updates` would stretch an update that has another shape, and cast one
    of another kind of number. A leaf may stay where it is, by None in its own place.
    All this is looked at when a program is traced, and costs nothing when it runs.

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
    found = _leaves(updates)
    wanted = {path: leaf for path, leaf in _leaves(params).items() if leaf is not None}
    said = f"config.optimizer.name={name!r}: its update of"
    for path in wanted:
        if path not in found:
            raise ConfigError(f"{said} {path_name(path)} is missing")
    given = {path: leaf for path, leaf in found.items() if leaf is not None}
    for path, leaf in given.items():
        shape, dtype = tuple(jnp.shape(leaf)), jnp.result_type(leaf)
        if path not in wanted or wanted[path].shape != shape:
            have = "no such"
            if path in wanted:
                have = f"the parameter has {wanted[path].shape}"
            raise ConfigError(f"{said} {path_name(path)} has shape {shape}; {have}")
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ConfigError(
                f"{said} {path_name(path)} is {dtype}; it needs real floating numbers"
            )
    if wanted and not given:
        raise ConfigError(f"{said} every parameter is None: nothing would be trained")


def _leaves(tree: Any) -> dict[tuple, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is None)
    return dict(leaves)


def check_task(task: str, loss: Any, metrics: Any) -> dict[str, jax.Array]:
    """Refuses what no run could record of a task; costs nothing when it runs.

    Args:
      task: what the config calls it.
      loss: what it returned, under a trace.
      metrics: as well.

    Returns:
      The metrics as float32 arrays.

    Raises:
      ConfigError: names the metric.
    """
    said = f"config.task={task!r}: its"
    if not isinstance(metrics, Mapping):
        raise ConfigError(
            f"{said} metrics are a {type(metrics).__name__}; return the loss and a"
            " mapping of further metrics by name"
        )
    for name in metrics:
        if name in RECORDED:
            raise ConfigError(
                f"{said} metric {name!r} has the name of what gnomon records itself"
                f" ({', '.join(RECORDED)}); give it another"
            )
    for name, value in {"loss": loss, **metrics}.items():
        shown = "loss" if name == "loss" else f"metric {name!r}"
        try:
            shape, dtype = jnp.shape(value), jnp.result_type(value)
        except TypeError as error:
            raise ConfigError(
                f"{said} {shown} is a {type(value).__name__}; give one number"
            ) from error
        kinds = (jnp.floating, *(() if name == "loss" else (jnp.integer, jnp.bool_)))
        if shape or not any(jnp.issubdtype(dtype, kind) for kind in kinds):
            raise ConfigError(
                f"{said} {shown} is {dtype} of shape {shape}; give one real number"
            )
    return {name: jnp.asarray(v).astype(jnp.float32) for name, v in metrics.items()}


def traced_schedule(name: str, make: Callable[[], Callable]) -> Callable:
    """A schedule that says so where it needs a number before compilation.

    Args:
      name: what the config calls it.
      make: builds it from traced numbers.

    Returns:
      ``step -> learning rate``.
    """

    def named(function: Callable) -> Callable:
        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except (
                jax.errors.ConcretizationTypeError,
                jax.errors.TracerArrayConversionError,
            ) as error:
                raise ConfigError(
                    f"config.schedule.name={name!r}: it makes a Python or NumPy number"
                    " of the step, or of a number of its own, which are known only"
                    " when the program runs; write it with jax.numpy"
                ) from error

        return call

    return named(named(make)())


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
    known = [f"validation_{name}" for name in evaluated if name != "count"]
    known = names_with_errors([*known, *(f"train_{name}" for name in sums)])
    if metric not in known:
        hint = did_you_mean(metric, [name for name in known if not why_not(name)])
        raise ConfigError(f"config.report.metric={metric!r}: not recorded{hint}")
    if wrong := why_not(metric):
        raise ConfigError(f"config.report.metric={metric!r}: {wrong}")
