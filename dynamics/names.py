"""The names of the probes in ``metrics.jsonl``, in one place for who writes and reads.

A name is ``dynamics/<quantity>/<layer>`` for what is measured by layer, with the layer
``all`` for the whole model, and ``dynamics/<quantity>`` for what a model has once. The
layer may hold slashes: it is all that follows the quantity. A row holds what was
measured at its step: the weights before the step, the step itself, its batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gnomon.dynamics.layers import ALL

PREFIX = "dynamics"

# By layer and for ``all``, at the steps that are logged, with ``free``.
FREE = {
    "weight_norm": "norm of the weights",
    "weight_std": "standard deviation of the weights around their leaf's mean",
    "gradient_norm": "norm of the gradient",
    "update_norm": "norm of the update",
    "update_ratio": "norm of the update over norm of the weights",
    "growth": "change of the squared weight norm",
    "growth_radial": "its part 2 <w, u>",
    "growth_step": "its part |u|^2",
    "radial_update": "share of the update's squared norm along the weights",
    "radial_gradient": "share of the gradient's squared norm along the weights",
    "gradient_cosine": "cosine between gradient and weights",
    "descent_cosine": "cosine between update and negative gradient",
    "angle": "angle between the weights before and after the step, radians",
    "effective_rate": "learning rate over squared weight norm",
    "effective_rate_adam": "learning rate over weight norm",
    "distance": "distance of the weights from the start",
    # Where the optimizer has a weight decay and says where it holds the weights:
    "angle_ratio": "angle over the angle at equilibrium",
    "equilibrium_norm": "predicted weight norm at equilibrium",
    "norm_ratio": "norm of the weights over that at equilibrium",
}

# Once a model, at the same steps.
FREE_SCALARS = {
    "equilibrium_angle": "predicted angle of a step at equilibrium, radians",
    "logit_norm": "mean norm of the model's outputs",
    "logit_maximum": "largest absolute output of the model",
}

# By layer and for ``all``, every ``cheap_every`` steps. The last four have no ``all``.
CHEAP = {
    "gradient_noise": "variance of one example's gradient, summed",
    "gradient_signal": "squared norm of the true gradient",
    "noise_scale": "their ratio, the gradient noise scale in examples",
    "noise_scale_error": "its standard error",
    "spectral_norm": "largest singular value of the weights",
    "nuclear_norm": "nuclear norm of the gradient",
    "effective_rank": "effective rank of the gradient",
    "dead_units": "share of a module's outputs that no example puts above zero",
    "activation_maximum": "largest absolute output of a module",
}

# Once a model, every ``full_every`` steps, on the step's own batch.
FULL_SCALARS = {
    "sharpness": "largest eigenvalue of the Hessian",
    "sharpness_error": "how far from an eigenvalue it may lie",
    "smallest_curvature": "bound of the Hessian's smallest eigenvalue, from above",
    "edge_ratio": "sharpness over 2 / learning rate",
    # Where the optimizer keeps Adam's second moment:
    "preconditioned_sharpness": "largest eigenvalue of the preconditioned Hessian",
    "preconditioned_edge_ratio": "that over 2 / learning rate",
}

QUANTITIES: Mapping[str, str] = {**FREE, **FREE_SCALARS, **CHEAP, **FULL_SCALARS}


class Name(NamedTuple):
    """A key of ``metrics.jsonl``, taken apart.

    Attributes:
      quantity: one of `QUANTITIES`.
      layer: the layer, ``all``, or None for what a model has once.
    """

    quantity: str
    layer: str | None


def name_of(quantity: str, layer: str | None = None) -> str:
    """Writes a key.

    >>> name_of("weight_norm", "blocks/0/mlp/up")
    'dynamics/weight_norm/blocks/0/mlp/up'
    >>> name_of("sharpness")
    'dynamics/sharpness'
    """
    return "/".join([PREFIX, quantity, *([] if layer is None else [layer])])


def parse(key: str) -> Name | None:
    """Reads a key; None for a metric that is no probe.

    >>> parse("dynamics/angle/blocks/0/mlp/up")
    Name(quantity='angle', layer='blocks/0/mlp/up')
    >>> print(parse("train_loss"))
    None
    """
    prefix, _, rest = key.partition("/")
    quantity, slash, layer = rest.partition("/")
    if prefix != PREFIX or not quantity:
        return None
    return Name(quantity, layer if slash else None)


def named(record: Mapping[str, Any], layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Spreads a record over its keys.

    Args:
      record: by quantity, an array [lanes] for what a model has once, [lanes, layers]
        or, with ``all`` in the last place, [lanes, layers + 1].
      layers: the layers' names.

    Returns:
      By key, an array [lanes].

    Example:
      >>> named({"angle": np.array([[0.1, 0.2, 0.3]]), "sharpness": np.array([9.0])},
      ...       ("up", "down"))
      {'dynamics/angle/up': array([0.1]), 'dynamics/angle/down': array([0.2]),
       'dynamics/angle/all': array([0.3]), 'dynamics/sharpness': array([9.])}
    """
    columns: dict[str, np.ndarray] = {}
    for quantity, values in record.items():
        if values.ndim == 1:
            columns[name_of(quantity)] = values
        else:
            names = (*layers, ALL)[: values.shape[1]]
            for number, layer in enumerate(names):
                columns[name_of(quantity, layer)] = values[:, number]
    return columns
