"""A trial's program on shapes alone, so that what cannot work fails before it runs."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import split
from gnomon.experiments.data import Dataset
from gnomon.experiments.trial.mesh import specs_of
from gnomon.experiments.trial.preflight import check_fixed, check_metric
from gnomon.experiments.trial.probes import due, settings_of
from gnomon.experiments.trial.program import make_program
from gnomon.experiments.trial.step import TrainState


def batch_shapes(examples: Mapping[str, np.ndarray], size: int) -> dict:
    """The abstract batch of ``size`` examples."""
    return {
        name: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype)
        for name, array in examples.items()
    }


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
    static, traced = split(config)
    hypers = {path: jnp.asarray(value) for path, value in traced.items()}
    batch = batch_shapes(dataset.train, config["batch"])
    _enough("batch", config["batch"], dataset.train)
    evaluate = config["evaluate"]
    _enough("evaluate.batch", evaluate["batch"], dataset.validation)
    try:
        program = make_program(static)
        seed = jax.ShapeDtypeStruct((), jnp.uint32)
        state = jax.eval_shape(program.init, seed, hypers, batch)
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
        numbers = sorted(p.partition(".")[2] for p in traced if "." in p)
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


def _enough(field: str, size: int, examples: Mapping[str, np.ndarray]) -> None:
    available = len(next(iter(examples.values())))
    if size > available:
        raise ConfigError(
            f"config.{field}={size}: the data has only {available} such examples"
        )
