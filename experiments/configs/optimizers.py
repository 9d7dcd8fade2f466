"""One config line for each optimizer, with the values its paper recommends.

A line is a starting point for a sweep: learning rates are to be tuned, and the
comparison is fair only between tuned optimizers. A method of gnomon says its line in
its own module, as ``RECOMMENDED``; here are those of optax's optimizers.
"""

import importlib
import pkgutil
from typing import Any

from gnomon import optimizers
from gnomon.experiments.config.resolve import ConfigError, did_you_mean


def recommended() -> dict[str, dict[str, Any]]:
    """The lines of all methods of gnomon, by label.

    Raises:
      ValueError: if two modules have a line of the same label.
    """
    lines: dict[str, dict[str, Any]] = {}
    for found in pkgutil.walk_packages(optimizers.__path__, "gnomon.optimizers."):
        module = importlib.import_module(found.name)
        for label, settings in getattr(module, "RECOMMENDED", {}).items():
            if label in lines:
                raise ValueError(f"{found.name}: a second line {label!r}")
            lines[label] = {"name": f"gnomon.optimizers.{label}", **settings}
    return lines


_ADAM = dict(learning_rate=3e-3, b1=0.9, b2=0.99, eps=1e-8)
OPTIMIZERS: dict[str, dict[str, Any]] = dict(
    adamw=dict(
        name="optax.adamw",
        **_ADAM,
        weight_decay=0.01,
    ),
    # AdamW by the other conventions of decay: subsets of one number are Adam's. Decay
    # that the learning rate does not scale is smaller by the learning rate.
    adamw_independent=dict(
        name="gnomon.optimizers.subset_norm",
        **_ADAM,
        weight_decay=3e-5,
        subset=1,
        decay="independent",
    ),
    adamw_cautious=dict(
        name="gnomon.optimizers.subset_norm",
        **_ADAM,
        weight_decay=0.01,
        subset=1,
        decay="cautious",
    ),
    lion=dict(name="optax.lion", learning_rate=6e-4, b1=0.9, b2=0.99, weight_decay=0.1),
    # Matrices inside the network by Muon, the rest by Adam; the updates of both have
    # about the same root mean square, so that they share a learning rate.
    muon=dict(
        name="optax.contrib.muon",
        learning_rate=3e-3,
        beta=0.95,
        weight_decay=0.01,
        consistent_rms=0.2,
        adam_b1=0.9,
        adam_b2=0.99,
        adam_weight_decay=0.01,
        muon_weight_dimension_numbers={
            "ref": "gnomon.optimizers.matrices.hidden_matrices"
        },
    ),
    # Momentum with decay beside it: SGDP that never projects. That divides its decay by
    # one minus the momentum, so that this is a decay of 0.001.
    sgdw=dict(
        name="gnomon.optimizers.sgdp",
        learning_rate=0.1,
        momentum=0.9,
        delta=0.0,
        weight_decay=1e-4,
    ),
    novograd=dict(
        name="optax.novograd",
        learning_rate=3e-3,
        b1=0.95,
        b2=0.98,
        weight_decay=1e-3,
    ),
    # AdaLomo is Adafactor that factors every matrix and scales by the weights.
    adalomo=dict(
        name="optax.adafactor",
        learning_rate=0.01,
        min_dim_size_to_factor=1,
        decay_rate=0.8,
        clipping_threshold=1.0,
        multiply_by_parameter_scale=True,
    ),
    sgd=dict(name="optax.sgd", learning_rate=0.1, momentum=0.9, nesterov=True),
    **recommended(),
)


def optimizer(name: str) -> dict:
    """The config line of one optimizer.

    >>> optimizer("adamw")["name"]
    'optax.adamw'
    """
    if name not in OPTIMIZERS:
        raise ConfigError(f"optimizer {name!r}{did_you_mean(name, OPTIMIZERS)}")
    return dict(OPTIMIZERS[name])
