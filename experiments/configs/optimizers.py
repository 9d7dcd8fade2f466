"""One config line for each optimizer, with the values its paper recommends.

A line is a starting point for a sweep: learning rates are to be tuned, and the
comparison is fair only between tuned optimizers.
"""

from gnomon.experiments.resolve import ConfigError, did_you_mean

ADAM = dict(b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.01)

OPTIMIZERS = dict(
    adamw=dict(name="optax.adamw", learning_rate=3e-3, **ADAM),
    adamp=dict(
        name="gnomon.optimizers.adamp",
        learning_rate=3e-3,
        **ADAM,
        delta=0.1,
        wd_ratio=0.1,
    ),
    sgd=dict(name="optax.sgd", learning_rate=0.1, momentum=0.9, nesterov=True),
    sgdp=dict(
        name="gnomon.optimizers.sgdp",
        learning_rate=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-5,
        delta=0.1,
        wd_ratio=0.1,
    ),
)


def optimizer(name: str) -> dict:
    """The config line of one optimizer.

    >>> optimizer("adamw")["name"]
    'optax.adamw'
    """
    if name not in OPTIMIZERS:
        raise ConfigError(f"optimizer {name!r}{did_you_mean(name, OPTIMIZERS)}")
    return dict(OPTIMIZERS[name])
