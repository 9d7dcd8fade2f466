"""One config line for each optimizer, with the values its paper recommends.

A line is a starting point for a sweep: learning rates are to be tuned, and the
comparison is fair only between tuned optimizers.
"""

from typing import Any

from gnomon.experiments.config.resolve import ConfigError, did_you_mean

ADAM = dict(b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.01)

OPTIMIZERS: dict[str, dict[str, Any]] = dict(
    adamw=dict(name="optax.adamw", learning_rate=3e-3, **ADAM),
    adamp=dict(
        name="gnomon.optimizers.adamp",
        learning_rate=3e-3,
        **ADAM,
        delta=0.1,
        wd_ratio=0.1,
    ),
    fadam=dict(
        name="gnomon.optimizers.fadam",
        learning_rate=3e-3,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        weight_decay=0.1,
        clip=1.0,
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
    weight_norm_adamw=dict(
        name="gnomon.optimizers.weight_norm",
        inner=dict(ref="optax.adamw"),
        inner_kwargs=ADAM,
        learning_rate=3e-3,
        eps=1e-8,
    ),
    # Moments in eight bits, of every leaf of min_size numbers or more.
    adamw_8bit=dict(
        name="gnomon.optimizers.quantize_moments",
        inner=dict(ref="optax.adamw"),
        inner_kwargs=ADAM,
        learning_rate=3e-3,
        min_size=4096,
    ),
    adamp_8bit=dict(
        name="gnomon.optimizers.quantize_moments",
        inner=dict(ref="gnomon.optimizers.adamp"),
        inner_kwargs=dict(**ADAM, delta=0.1, wd_ratio=0.1),
        learning_rate=3e-3,
        min_size=4096,
    ),
    # Step sizes from the loss: the bound is what is left to tune. alr_hb and alr_mag
    # have none: they are meant for exact gradients. On these networks alr_hb diverges
    # with momentum 0.5 and more, so its line starts the tuning of momentum at 0.
    sps=dict(
        name="gnomon.optimizers.sps",
        variant="smooth",
        max_learning_rate=1.0,
        c=0.5,
        n_batches=500.0,
    ),
    alig=dict(name="gnomon.optimizers.alig", max_learning_rate=0.1, momentum=0.9),
    alr_hb=dict(name="gnomon.optimizers.alr_hb", momentum=0.0),
    alr_mag=dict(name="gnomon.optimizers.alr_mag", momentum=0.9),
    alr_shb=dict(
        name="gnomon.optimizers.alr_shb", max_learning_rate=0.1, momentum=0.9, c=1.0
    ),
    alr_smag=dict(
        name="gnomon.optimizers.alr_smag", max_learning_rate=0.1, momentum=0.9, c=1.0
    ),
    momsps=dict(
        name="gnomon.optimizers.momsps",
        variant="smooth",
        momentum=0.9,
        c=0.4,
        n_batches=256.0,
    ),
    momo=dict(
        name="gnomon.optimizers.momo", learning_rate=1.0, b1=0.9, weight_decay=0.0
    ),
    momo_adam=dict(
        name="gnomon.optimizers.momo_adam",
        learning_rate=1e-2,
        b1=0.9,
        b2=0.999,
        weight_decay=0.0,
    ),
    # The authors' floor of 0.1 is for small convex problems.
    sania=dict(
        name="gnomon.optimizers.sania",
        preconditioner=dict(name="gnomon.optimizers.scale_by_adagrad_sqr", eps=1.0),
    ),
    sania_hutchinson=dict(
        name="gnomon.optimizers.sania",
        preconditioner=dict(
            name="gnomon.optimizers.scale_by_hutchinson", b2=0.999, eps=1.0
        ),
    ),
    lawn=dict(
        name="gnomon.optimizers.lawn",
        inner={"ref": "optax.adam"},
        inner_kwargs=dict(b1=0.9, b2=0.99, eps=1e-8),
        learning_rate=3e-3,
        free_steps=100.0,
    ),
    hyperball=dict(
        name="gnomon.optimizers.hyperball",
        inner=dict(name="optax.scale_by_adam", b1=0.9, b2=0.99, eps=1e-8),
        learning_rate=0.01,
        free_learning_rate=3e-3,
    ),
    norm_loss=dict(
        name="gnomon.optimizers.norm_loss",
        inner=dict(name="optax.trace", decay=0.9),
        learning_rate=0.1,
        rate=1e-4,
    ),
    target_variance_rescaling=dict(
        name="gnomon.optimizers.target_variance_rescaling",
        inner={"ref": "optax.adamw"},
        inner_kwargs=ADAM,
        learning_rate=3e-3,
        target_std=0.02,
        ratio=1.2,
        every=50.0,
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
