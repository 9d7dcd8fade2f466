"""A trial's program on shapes alone, so that what cannot work fails before it runs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import split
from gnomon.experiments.data import Dataset, Examples
from gnomon.experiments.trial.mesh import specs_of
from gnomon.experiments.trial.preflight import check_fixed, check_metric
from gnomon.experiments.trial.probes import due, settings_of
from gnomon.experiments.trial.program import Program, make_program
from gnomon.experiments.trial.step import TrainState


def batch_shapes(examples: Mapping[str, Examples], size: int) -> dict:
    """The abstract batch of ``size`` examples."""
    return {
        name: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype)
        for name, array in examples.items()
    }


def of_one_lane(tree: Any) -> Any:
    """The shapes of one lane, without the axis of lanes.

    >>> of_one_lane(jax.ShapeDtypeStruct((2, 3, 4), "float32")).shape
    (3, 4)
    """
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tree)


class Shapes(NamedTuple):
    """A trial's program, and the abstract arrays that its step takes.

    Attributes:
      program: of the trial.
      state: before the first step.
      batch: of training.
      hypers: the traced numbers, which are arrays.
    """

    program: Program
    state: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]
    hypers: dict[str, jax.Array]


def on_shapes(config: Mapping, dataset: Dataset) -> Shapes:
    """Initializes a trial's program on shapes alone."""
    static, traced = split(config)
    hypers = {path: jnp.asarray(value) for path, value in traced.items()}
    batch = batch_shapes(dataset.train, config["batch"])
    program = make_program(static, dataset.bytes_per_unit)
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    state = jax.eval_shape(program.init, seed, hypers, batch)
    return Shapes(program, state, batch, hypers)


def trace(config: Mapping, dataset: Dataset) -> TrainState:
    """Runs a trial's program on shapes alone, so that what cannot work fails now.

    Args:
      config: a resolved trial config.
      dataset: its data.

    Returns:
      The abstract state of the trial.

    Raises:
      ConfigError: the model, optimizer, schedule or task refuses the config.
    """
    _enough("batch", config["batch"], dataset.train)
    evaluate = config["evaluate"]
    _enough("evaluate.batch", evaluate["batch"], dataset.validation)
    _holds(config["model"], dataset.vocabulary)
    try:
        program, state, batch, hypers = on_shapes(config, dataset)
        specs_of(config, state.params)
        after = jax.eval_shape(program.step, state, batch, hypers)
        check_fixed(state, after, config["optimizer"]["name"])
        examples = batch_shapes(dataset.validation, evaluate["batch"])
        check_metric(config, state, jax.eval_shape(program.evaluate, state, examples))
        for tier in due(settings_of(config), 0, logging=True):
            jax.eval_shape(program.probes[tier], state, batch, hypers)
    except ConfigError:
        raise
    except jax.errors.ConcretizationTypeError as error:
        numbers = sorted(p.partition(".")[2] for p in split(config)[1] if "." in p)
        raise ConfigError(
            f"config.optimizer: {config['optimizer']['name']} needs a number before"
            f" compilation that gnomon passes as traced input (one of {numbers});"
            " name it in config.static, e.g. config.static = ('eps',)"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"model {config['model']['name']} with optimizer"
            f" {config['optimizer']['name']}: {type(error).__name__}: {error}"
        ) from error
    return state


def _enough(field: str, size: int, examples: Mapping[str, Examples]) -> None:
    available = len(next(iter(examples.values())))
    if size > available:
        raise ConfigError(
            f"config.{field}={size}: the data has only {available} such examples"
        )


def _holds(model: Mapping, vocabulary: int | None) -> None:
    """Refuses a model with fewer tokens than the data: its lookup would clip them."""
    vocab = model.get("vocab")
    if vocabulary is not None and isinstance(vocab, int) and vocab < vocabulary:
        raise ConfigError(
            f"config.model.vocab={vocab}: the data has {vocabulary} tokens; give it as"
            " many"
        )
